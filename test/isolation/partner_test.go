package isolation

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/typeid"
)

// ofMerchant are the ids of a tenant's rows that belong to one merchant, with
// stores or with goods.
func (w *two) ofMerchant(t *testing.T, s *side, n int) *side {
	t.Helper()
	id := w.UUID(typeid.Merchant, s.merchants[n])
	one := *s
	one.merchants, one.accounts = s.merchants[n:n+1], s.accounts[n:n+1]
	one.ids = map[kind][]string{merchants: {s.merchants[n], s.accounts[n]}}
	add := func(k kind, prefix typeid.Prefix, query string) {
		for _, row := range w.sql(t, query, s.id, id) {
			switch v := row["id"].(type) {
			case [16]byte:
				one.ids[k] = append(one.ids[k], typeid.Format(prefix, v))
			case string:
				one.ids[k] = append(one.ids[k], v)
			}
		}
		ofStores, ofGoods := slices.Contains(kindsOfStores, k), k == goods || k == goodsNumbers
		elsewhere := ofGoods
		if withGoods := n >= 2; withGoods {
			elsewhere = ofStores
		}
		if len(one.ids[k]) == 0 && !elsewhere {
			t.Fatalf("merchant %s has no %s: there is nothing to try", s.merchants[n], k)
		}
	}
	add(stores, typeid.Store, `SELECT id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'store'`)
	add(numbers, "", `SELECT wechat_id AS id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'store' AND wechat_id IS NOT NULL`)
	add(places, typeid.MapPOI, `SELECT id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'map_poi'`)
	add(baseIDs, "", `SELECT wechat_id AS id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'map_poi'`)
	add(legacies, typeid.LegacyStore, `SELECT id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'legacy_store'`)
	add(legacyNumbers, "", `SELECT wechat_id AS id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'legacy_store' AND wechat_id IS NOT NULL`)
	add(goods, typeid.Goods, `SELECT id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'goods'`)
	add(goodsNumbers, "", `SELECT wechat_id AS id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'goods' AND wechat_id IS NOT NULL`)
	add(programs, typeid.StoreProgram, `SELECT id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND type = 'store_program'`)
	add(mapNumbers, "", `SELECT map_poi_id AS id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND map_poi_id IS NOT NULL`)
	add(references, "", `SELECT client_reference AS id FROM resources WHERE tenant_id = $1 AND merchant_id = $2 AND client_reference IS NOT NULL
		UNION SELECT client_reference FROM merchants WHERE tenant_id = $1 AND id = $2`)
	add(audits, typeid.Audit, `SELECT id FROM audits WHERE tenant_id = $1 AND merchant_id = $2`)
	add(auditIDs, "", `SELECT wechat_audit_id AS id FROM audits WHERE tenant_id = $1 AND merchant_id = $2 AND wechat_audit_id IS NOT NULL`)
	add(operations, typeid.Operation, `SELECT id FROM operations WHERE tenant_id = $1 AND merchant_id = $2`)
	add(events, typeid.Event, `SELECT id FROM outbox WHERE tenant_id = $1 AND merchant_id = $2 AND sequence IS NOT NULL`)
	add(keys, typeid.Key, `SELECT id FROM api_keys WHERE tenant_id = $1 AND merchant_ids = ARRAY[$2::uuid]`)
	add(links, typeid.AuthorizationLink, `SELECT id FROM authorization_links WHERE tenant_id = $1 AND merchant_id = $2`)
	add(migrations, typeid.StoreMigration, `SELECT id FROM store_migrations WHERE tenant_id = $1 AND merchant_id = $2`)
	return &one
}

// kindsOfStores are what merchants with goods don't have.
var kindsOfStores = []kind{stores, numbers, places, baseIDs, legacies, legacyNumbers, programs, mapNumbers, links, keys, events, migrations}

// partner: attacks 19 and 20. A key of A that is bound to one merchant is told
// 403 merchant_not_allowed for what is another merchant's of A; its lists show
// nothing of that one, and it changes nothing there. It sees fewer keys than
// that: what reaches further than it is not found at all.
func (m *matrix) partner(t *testing.T, n *node, ofKey, ofOther int) {
	t.Helper()
	own, other := m.ofMerchant(t, &m.two.a, ofKey), m.ofMerchant(t, &m.two.a, ofOther)
	c := n.client(m.keyOf(m.two.a.tenant, "--scopes", "*", "--merchants", own.merchants[0]), "")
	if a := c.Do("GET", "/v1/audits", nil).Want(http.StatusOK); a.Get("data", "0", "merchant_id") != own.merchants[0] {
		t.Fatalf("the partner's own audits: %s", a.Body)
	}
	var marks []string
	for k, ids := range other.ids {
		for _, id := range ids {
			if short := k == goodsNumbers; k != references && k != mapNumbers && !short && !slices.Contains(own.ids[k], id) {
				marks = append(marks, id)
			}
		}
	}
	m.sums = m.checksums(t, m.tables, m.two.a.id)
	cells := 0
	for _, op := range m.tenantRoutes() {
		calls, before := m.calls(&m.two.a), cells
		for _, p := range op.parameters {
			if how := meanings[p.key()].how; how == plain || how == bound {
				continue
			}
			for value, k := range m.valuesFor(op, p, other, own) {
				if !p.pattern.MatchString(value) {
					continue
				}
				for _, x := range m.cells(op, p, k, value, own, other) {
					acting := ""
					if at := slices.Index(x.headers, "Merchant-Id"); at >= 0 {
						acting = x.headers[at+1]
					}
					x.status, x.codes = partnerIsTold(op, p, k, value, acting, own, other, strings.Contains(x.path, "source=live"))
					a := m.try(c, x)
					cells++
					tried(t, "19, 20")
					if err := x.want(a); err != nil {
						t.Errorf("%s: %v", op.id, err)
					}
					if err := shows(a, marks, x.String()); err != nil {
						t.Errorf("%s: %v", op.id, err)
					}
				}
			}
		}
		if cells > before {
			m.restricted[op.id] = true
		}
		if now := m.calls(&m.two.a); op.writes() && now != calls {
			t.Errorf("%s: %d calls of WeChat were made", op.id, now-calls)
		}
		if !op.writes() && !strings.Contains(op.path, "{") && !slices.ContainsFunc(op.parameters, func(p parameter) bool { return p.required }) {
			a := c.Do("GET", op.path, nil)
			if a.Status != http.StatusOK && !m.refusedByWeChat(a) {
				t.Errorf("%s: %d %s", op.id, a.Status, a.Body)
			}
			if err := shows(a, marks, ""); err != nil {
				t.Errorf("%s: %v", op.id, err)
			}
		}
	}
	// What touches every merchant, or names another one in its body.
	for _, x := range []cell{
		{method: "POST", path: "/v1/merchants/sync"},
		{method: "POST", path: "/v1/authorization-links", body: map[string]string{"expected_appid": other.accounts[0]}},
	} {
		c.Do(x.method, x.path, x.body).WantProblem(http.StatusForbidden, "merchant_not_allowed")
	}
	c.Do("POST", "/v1/api-keys", map[string]any{"name": "wider", "scopes": []string{"stores:read"}, "merchant_ids": other.merchants}).
		WantProblem(http.StatusForbidden, "key_exceeds_own_rights")
	m.nothingHappened(t, "the partner")
	if cells < 80 {
		t.Errorf("%d cells, which can't be all", cells)
	}
}

func partnerIsTold(op operation, p parameter, k kind, value, acting string, own, other *side, live bool) (status int, codes []string) {
	actsForOther := slices.Contains(other.merchants, acting) || slices.Contains(other.accounts, acting)
	actsForOwn := slices.Contains(own.merchants, acting)
	switch inPath := op.has("path", "merchant_id"); {
	case inPath && p.in == "path" && actsForOwn, inPath && p.in == "header":
		return http.StatusBadRequest, []string{"merchant_mismatch"}
	case actsForOther:
		return http.StatusForbidden, []string{"merchant_not_allowed"}
	case k == keys:
		return http.StatusNotFound, noSuchThing
	case meanings[p.key()].how == filter && live && p.name != "goods_id":
		return http.StatusBadRequest, []string{"invalid_parameter"}
	case meanings[p.key()].how == filter:
		return http.StatusOK, nil
	case slices.Contains(byNumber, k), slices.Contains([]kind{stores, places, legacies, goods}, k) && actsForOwn: // its own merchant has no such thing
		return http.StatusNotFound, noSuchThing
	}
	return http.StatusForbidden, []string{"merchant_not_allowed"}
}
