package isolation

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// What both tenants have alike, on purpose: WeChat's number of a store, the
// tenant's own reference, a legacy store's number, and an Idempotency-Key.
const (
	sharedPOI       = "472671857001"
	sharedGoods     = "4726718"
	sharedLegacy    = "460000001001"
	sharedReference = "shop-of-both-1"
	sharedKey       = "key-of-both-1"
)

// Accounts that the simulator doesn't have by itself. No account can have both
// stores and goods: of each tenant's four the first two have stores, the others
// goods.
const (
	goodsOfA  = "wx5ab0d1c0ffee0a12"
	accountB1 = "wx5ab0d1c0ffee0b01"
	accountB2 = "wx5ab0d1c0ffee0b02"
	goodsOfB1 = "wx5ab0d1c0ffee0b11"
	goodsOfB2 = "wx5ab0d1c0ffee0b12"
)

var componentB = world.Component{AppID: "wx5ab0d1c0ffee00b0", Secret: "0b7ec7e70f5a4db0c5ec7e70f5a4db0c",
	MessageToken: "messagetokenOfB", EncodingAESKey: "tenantBtenantBtenantBtenantBtenantBtenantB1"}

// A side is one tenant with the ids of everything that it owns, by kind.
type side struct {
	component world.Component
	tenant    world.Tenant
	id        uuid.UUID
	sim       *world.World // its WeChat
	key       string       // of all of the tenant
	merchants []string     // mch_…, in a fixed order
	accounts  []string     // their appids
	ids       map[kind][]string
}

// acting is the merchant of this tenant that can use an operation.
func (s *side) acting(op operation) string {
	if strings.HasPrefix(op.path, "/v1/goods") {
		return s.merchants[len(s.merchants)-1]
	}
	return s.merchants[0]
}

// within is the path of an operation, of something that this tenant has.
func (s *side) within(op operation) string {
	path := op.path
	for _, p := range op.parameters {
		if p.in == "path" && meanings[p.key()].how == hidden {
			path = strings.Replace(path, "{"+p.name+"}", s.ids[meanings[p.key()].names[0]][0], 1)
		}
	}
	return path
}

// A kind is what an id names.
type kind string

const (
	merchants     kind = "merchant"           // mch_… and appids
	stores        kind = "store"              // sto_…
	numbers       kind = "store's number"     // WeChat's poi_id
	audits        kind = "audit"              // aud_…
	auditIDs      kind = "audit's number"     // WeChat's audit_id
	operations    kind = "operation"          // op_…
	events        kind = "event"              // evt_…
	keys          kind = "API key"            // key_…
	links         kind = "authorization link" // lnk_…
	tenants       kind = "tenant"             // ten_…
	references    kind = "client reference"
	mapNumbers    kind = "place's number" // WeChat's map_poi_id
	places        kind = "proposed place" // poi_…
	baseIDs       kind = "proposed place's number"
	legacies      kind = "legacy store"          // lst_…
	legacyNumbers kind = "legacy store's number" // WeChat's poi_id
	goods         kind = "goods"                 // gds_…
	goodsNumbers  kind = "goods' number"         // WeChat's goods_id
	programs      kind = "store program"         // spr_…
	cursorsKind   kind = "cursor"

	migrations kind = "migration" // mig_…
)

// two are tenants A and B on one database, each with its own WeChat, both with
// merchants, stores, audits, operations, links and keys. The gateway's binary
// made them, through REST and pushes, and has ended.
type two struct {
	*world.World // A's
	a, b         side
	wechat       *platforms
}

func newTwo(t *testing.T) *two {
	t.Helper()
	p := newPlatforms(t)
	w := &two{wechat: p, World: world.New(t, world.Options{Sandbox: sandbox.Config{Seed: 11},
		Env: map[string]string{"GATEWAY_WECHAT_API_URL": p.URL, "GATEWAY_KEY_RATE": "1000000", "GATEWAY_KEY_BURST": "1000000", "GATEWAY_TENANT_RATE": "1000000"}})}
	other := world.Simulate(t, sandbox.Config{Seed: 22})
	w.a = side{component: w.Component, tenant: w.Tenant, sim: w.World, key: w.Key, accounts: []string{sandbox.DemoOfficialAccount, sandbox.LeavingAccount, goodsOfA, sandbox.DemoMiniProgram}}
	w.b = side{component: componentB, tenant: w.NewTenant("Other", componentB), sim: other, accounts: []string{accountB1, accountB2, goodsOfB1, goodsOfB2}}
	w.b.key = w.keyOf(w.b.tenant, "--scopes", "*")
	p.add(w.a.component.AppID, w.SandboxURL)
	p.add(w.b.component.AppID, other.SandboxURL)
	for _, s := range []*side{&w.a, &w.b} {
		s.id = w.UUID(typeid.Tenant, s.tenant.ID)
	}
	store := func(n int) map[string]any {
		return map[string]any{"stores": []any{map[string]any{"poi_id": sharedPOI}, map[string]any{"poi_id": fmt.Sprint(472671857000 + n)}}}
	}
	w.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/stores", store(10), nil)
	other.Control("POST", "accounts", map[string]any{"appid": accountB1, "nickname": "Shops of B"}, nil)
	other.Control("POST", "accounts", map[string]any{"appid": accountB2, "nickname": "More shops of B"}, nil)
	other.Control("POST", "accounts/"+accountB1+"/stores", store(20), nil)
	migrated := map[string]any{"stores": []any{map[string]any{"upgrade_status": 3}}} // before that no new stores are taken
	for _, s := range []*side{&w.a, &w.b} {
		s.sim.Control("POST", "accounts/"+s.accounts[0]+"/legacy-stores", map[string]any{"stores": []any{map[string]any{"poi_id": sharedLegacy, "upgrade_status": 3}}}, nil)
		for _, account := range s.accounts[:2] {
			s.sim.Control("POST", "accounts/"+account+"/legacy-stores", migrated, nil)
		}
		for _, account := range s.accounts[2:] {
			s.sim.Control("POST", "accounts", map[string]any{"appid": account, "kind": "mini_program"}, nil)
		}
		s.sim.Control("POST", "accounts/"+s.accounts[3]+"/goods", map[string]any{"count": 2, "goods": []any{map[string]any{"goods_id": 4726718}}}, nil)
	}
	other.Serve(componentB, w.PublicURL+"/wechat/"+w.b.tenant.Ref)

	g := w.Start(nil)
	a := w.Client(g, "")
	b := a.As(w.b.key)
	w.Control("POST", "accounts/"+sandbox.LeavingAccount+"/stores", map[string]any{"count": 2}, nil)
	for _, account := range []string{sandbox.DemoOfficialAccount, sandbox.LeavingAccount} {
		w.Authorize(g, account) // by a link of ours
	}
	for _, account := range w.a.accounts[2:] { // in WeChat's console
		w.Control("POST", "accounts/"+account+"/authorize", nil, nil)
	}
	for _, account := range w.b.accounts {
		other.Control("POST", "accounts/"+account+"/authorize", nil, nil)
	}
	w.a.find(t, a)
	w.b.find(t, b)
	w.fill(t, &w.a, a)
	w.fill(t, &w.b, b)
	// One that is never decided: pushes are tried on it.
	waiting := w.NewStore(99)
	waiting["contact_phone"], waiting["client_reference"] = "020-88880009", "waiting-of-a-1"
	a.For(w.a.merchants[0]).Do("POST", "/v1/stores", waiting).Want(http.StatusAccepted)
	w.rest(t, g)
	return w
}

// keyOf makes a key of a tenant on the command line.
func (w *two) keyOf(of world.Tenant, flags ...string) string {
	var key struct{ Token string }
	w.JSON(&key, append([]string{"key", "create", "--tenant", of.ID, "-o", "json"}, flags...)...)
	return key.Token
}

// find waits until the gateway knows the accounts and their stores.
func (s *side) find(t *testing.T, c *world.Client) {
	t.Helper()
	for _, account := range s.accounts {
		world.Eventually(t, 30*time.Second, "the merchant "+account, func() error {
			m := c.Do("GET", "/v1/merchants/"+account, nil)
			for _, path := range []string{"/v1/stores", "/v1/legacy-stores", "/v1/goods"} {
				list := c.For(account).Do("GET", path, nil)
				if m.Get("status") != "authorized" || list.Get("synced_at") == "null" || list.Status != http.StatusOK {
					return fmt.Errorf("%s, %s %s", m.Body, path, list.Body)
				}
			}
			return nil
		})
		s.merchants = append(s.merchants, c.Do("GET", "/v1/merchants/"+account, nil).Get("id"))
	}
}

// fill gives a tenant one of everything that its merchants can have.
func (w *two) fill(t *testing.T, s *side, c *world.Client) {
	t.Helper()
	for i, m := range s.merchants[:2] {
		own := c.For(m)
		body := s.sim.NewStore(10*len(s.ids) + i + 1)
		body["client_reference"] = sharedReference
		created := own.Do("POST", "/v1/stores", body, "Idempotency-Key", sharedKey).Want(http.StatusAccepted)
		world.Eventually(t, 30*time.Second, "the store turns active", func() error {
			if now := own.Do("GET", "/v1/stores/"+created.Get("id"), nil); now.Get("status") != "active" || now.Get("name") == "null" {
				return fmt.Errorf("%s", now.Body)
			}
			return nil
		})
		own.Do("POST", "/v1/map-pois", newPlace(fmt.Sprint("place-", s.accounts[i][2:]))).Want(http.StatusAccepted)
		own.Do("PATCH", "/v1/stores/"+created.Get("id"), map[string]any{"contact_phone": "020-7654321"}).Want(http.StatusOK)
		own.Do("PATCH", "/v1/merchants/"+m+"/store-program", map[string]string{"introduction": "introduction-of-" + s.accounts[i]}).Want(http.StatusOK)
		own.Do("PATCH", "/v1/merchants/"+m, map[string]any{"client_reference": "account-" + s.accounts[i][2:], "metadata": map[string]string{"note": "note-of-" + s.accounts[i]}}).Want(http.StatusOK)
	}
	for _, m := range s.merchants[:2] {
		plan := c.For(m).Do("POST", "/v1/store-migrations", map[string]string{"mode": "plan"}).Want(http.StatusAccepted)
		world.Eventually(t, 30*time.Second, "the migration is planned", func() error {
			if now := c.Do("GET", "/v1/store-migrations/"+plan.Get("id"), nil); now.Get("status") != "planned" {
				return fmt.Errorf("%s", now.Body)
			}
			return nil
		})
	}
	for i, m := range s.merchants[2:] {
		item := map[string]any{"client_reference": sharedReference, "name": fmt.Sprint("Tea ", i), "cover_media_id": "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR",
			"pricing": map[string]string{"type": "fixed", "amount": "9.50"}, "path": "pages/of-" + s.accounts[2+i]}
		c.For(m).Do("POST", "/v1/goods", item, "Idempotency-Key", sharedKey).Want(http.StatusAccepted)
	}
	sync := c.Do("POST", "/v1/merchants/sync", nil, "Idempotency-Key", sharedKey).Want(http.StatusAccepted)
	world.Eventually(t, 30*time.Second, "the merchants are compared", func() error {
		if now := c.Do("GET", "/v1/operations/"+sync.Get("id"), nil); now.Get("status") != "succeeded" {
			return fmt.Errorf("%s", now.Body)
		}
		return nil
	})
	c.Do("POST", "/v1/authorization-links", map[string]string{"client_reference": "link-" + s.accounts[0][2:]}).Want(http.StatusCreated)
	c.Do("POST", "/v1/authorization-links", map[string]string{"expected_appid": s.accounts[1]}).Want(http.StatusCreated)
	for _, m := range s.merchants[:2] {
		c.Do("POST", "/v1/api-keys", map[string]any{"name": "of one merchant", "scopes": []string{"stores:read"}, "merchant_ids": []string{m}}).Want(http.StatusCreated)
	}
}

// newPlace is a place to propose to Tencent's map.
func newPlace(reference string) map[string]any {
	const picture = "http://mmbiz.qpic.cn/mmbiz_png/tW66AWE2K6ECFPcyAcIZTG8RlcR0sAqBibOm8gao5xOoLfIic9ZJ6MADAktGPxZI7MZLcadZUT36b14NJ2cHRHA/0"
	return map[string]any{"client_reference": reference, "name": "Corner shop", "location": map[string]string{"latitude": "23.09749", "longitude": "113.32375"},
		"province": "Guangdong", "city": "Guangzhou", "district": "Haizhu District", "district_id": "440105", "address": "TIT", "category_path": []string{"Shopping"},
		"phones": []string{"020-89190000"}, "photo_url": picture, "license_url": picture, "introduction": "A shop"}
}

// rest holds WeChat's pushes back, waits until all that came is applied, and
// ends the gateway: from here on nothing happens by itself.
func (w *two) rest(t *testing.T, g *world.Gateway) {
	t.Helper()
	w.Hold(true)
	w.b.sim.Hold(true)
	w.applied(t)
	g.Stop()
	for _, s := range []*side{&w.a, &w.b} {
		s.ids = w.owned(t, s)
		for _, k := range []kind{merchants, stores, numbers, audits, auditIDs, operations, events, keys, links, references, mapNumbers, places, baseIDs, legacies, legacyNumbers, goods,
			goodsNumbers, programs, migrations} {
			if len(s.ids[k]) < 2 {
				t.Fatalf("tenant %s has %d of %s: there is nothing to try", s.tenant.ID, len(s.ids[k]), k)
			}
		}
	}
}

// applied waits until no push is left to apply.
func (w *two) applied(t *testing.T) {
	t.Helper()
	world.Eventually(t, 30*time.Second, "all pushes are applied", func() error {
		rows := w.sql(t, `SELECT event FROM event_inbox WHERE state = 'new'`)
		if len(rows) > 0 {
			return fmt.Errorf("%v", rows)
		}
		return nil
	})
}

// sql reads as the owner, past row-level security.
func (w *two) sql(t testing.TB, query string, args ...any) []map[string]any {
	t.Helper()
	var out []map[string]any
	w.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowToMap)
		return err
	})
	return out
}

func (w *two) owner(t testing.TB, fn func(context.Context, *pgx.Conn) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := fn(ctx, conn); err != nil {
		t.Fatal(err)
	}
}

// owned are the ids of all rows of a tenant, as REST writes them.
func (w *two) owned(t *testing.T, s *side) map[kind][]string {
	t.Helper()
	out := map[kind][]string{tenants: {s.tenant.ID}}
	add := func(k kind, prefix typeid.Prefix, query string) {
		for _, row := range w.sql(t, query, s.id) {
			for _, v := range row {
				switch v := v.(type) {
				case [16]byte:
					out[k] = append(out[k], typeid.Format(prefix, v))
				case string:
					out[k] = append(out[k], v)
				}
			}
		}
		slices.Sort(out[k])
		out[k] = slices.Compact(out[k])
	}
	add(merchants, typeid.Merchant, `SELECT id, appid FROM merchants WHERE tenant_id = $1`)
	add(stores, typeid.Store, `SELECT id FROM resources WHERE tenant_id = $1 AND type = 'store'`)
	add(numbers, "", `SELECT wechat_id FROM resources WHERE tenant_id = $1 AND type = 'store' AND wechat_id IS NOT NULL`)
	add(places, typeid.MapPOI, `SELECT id FROM resources WHERE tenant_id = $1 AND type = 'map_poi'`)
	add(baseIDs, "", `SELECT wechat_id FROM resources WHERE tenant_id = $1 AND type = 'map_poi' AND wechat_id IS NOT NULL`)
	add(legacies, typeid.LegacyStore, `SELECT id FROM resources WHERE tenant_id = $1 AND type = 'legacy_store'`)
	add(legacyNumbers, "", `SELECT wechat_id FROM resources WHERE tenant_id = $1 AND type = 'legacy_store' AND wechat_id IS NOT NULL`)
	add(goods, typeid.Goods, `SELECT id FROM resources WHERE tenant_id = $1 AND type = 'goods'`)
	add(goodsNumbers, "", `SELECT wechat_id FROM resources WHERE tenant_id = $1 AND type = 'goods' AND wechat_id IS NOT NULL`)
	add(programs, typeid.StoreProgram, `SELECT id FROM resources WHERE tenant_id = $1 AND type = 'store_program'`)
	add(migrations, typeid.StoreMigration, `SELECT id FROM store_migrations WHERE tenant_id = $1`)
	add(audits, typeid.Audit, `SELECT id FROM audits WHERE tenant_id = $1`)
	add(auditIDs, "", `SELECT wechat_audit_id FROM audits WHERE tenant_id = $1 AND wechat_audit_id IS NOT NULL`)
	add(operations, typeid.Operation, `SELECT id FROM operations WHERE tenant_id = $1`)
	add(events, typeid.Event, `SELECT id FROM outbox WHERE tenant_id = $1 AND sequence IS NOT NULL`)
	add(keys, typeid.Key, `SELECT id FROM api_keys WHERE tenant_id = $1`)
	add(links, typeid.AuthorizationLink, `SELECT id FROM authorization_links WHERE tenant_id = $1`)
	add(references, "", `SELECT client_reference FROM resources WHERE tenant_id = $1 AND client_reference IS NOT NULL
		UNION SELECT client_reference FROM merchants WHERE tenant_id = $1 AND client_reference IS NOT NULL`)
	add(mapNumbers, "", `SELECT map_poi_id FROM resources WHERE tenant_id = $1 AND map_poi_id IS NOT NULL`)
	return out
}

// tenantTables are the tables whose rows belong to a tenant.
func (w *two) tenantTables(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, row := range w.sql(t, `SELECT c.relname::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
		WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1`) {
		out = append(out, row["name"].(string))
	}
	if len(out) < 20 {
		t.Fatalf("%d tables of tenants, which can't be all: %v", len(out), out)
	}
	return out
}

// checksums is one checksum a table of all rows of a tenant. When a key was
// last used is no row's content: it is written behind.
func (w *two) checksums(t testing.TB, tables []string, id uuid.UUID) map[string]string {
	t.Helper()
	var parts []string
	for _, table := range tables {
		parts = append(parts, fmt.Sprintf(`SELECT '%[1]s' AS name, count(*) || ' ' || coalesce(md5(string_agg(row, '|' ORDER BY row)), '') AS sum
			FROM (SELECT (to_jsonb(x) - 'last_used_at')::text AS row FROM %[1]s x WHERE tenant_id = $1) y`, table))
	}
	parts = append(parts, `SELECT 'tenants', md5(to_jsonb(x)::text) FROM tenants x WHERE id = $1`)
	out := map[string]string{}
	for _, row := range w.sql(t, strings.Join(parts, " UNION ALL "), id) {
		out[row["name"].(string)] = row["sum"].(string)
	}
	return out
}

// made is what the simulator makes up: coordinates within a district, and pages
// by numbers that are a part of other numbers.
var made = regexp.MustCompile(`^([0-9]{1,3}\.[0-9]+|pages/goods/goods\?id=[0-9]+)$`)

// marks are texts that stand in rows of one tenant and in none of the other:
// what must never be in an answer to the other one. Ids are without their
// prefixes, so that they are found behind any.
func (w *two) marks(t *testing.T, of, not *side) []string {
	t.Helper()
	has := map[uuid.UUID]map[string]bool{of.id: {}, not.id: {}}
	for _, s := range []*side{of, not} {
		for _, table := range append(w.tenantTables(t), "tenants") {
			column := "tenant_id"
			if table == "tenants" {
				column = "id"
			}
			for _, row := range w.sql(t, fmt.Sprintf(`SELECT to_jsonb(x)::text AS row FROM %s x WHERE %s = $1`, table, column), s.id) {
				var v any
				if err := json.Unmarshal([]byte(row["row"].(string)), &v); err != nil {
					t.Fatal(err)
				}
				texts(v, has[s.id])
			}
		}
	}
	var out []string
	for text := range has[of.id] {
		// Places and what they are called are everybody's.
		if !has[not.id][text] && !strings.Contains(text, " ") && !slices.Contains(of.ids[mapNumbers], text) && !made.MatchString(text) {
			out = append(out, text)
		}
	}
	if len(out) < 100 {
		t.Fatalf("only %d texts tell tenant %s from the other: %v", len(out), of.tenant.ID, out)
	}
	slices.Sort(out)
	return out
}

var (
	aTime  = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T`)
	aDigit = regexp.MustCompile(`[0-9]`)
	sealed = regexp.MustCompile(`^\\x`)
)

// texts collects what names something: with a digit in it, and long enough not
// to be met by chance.
func texts(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, x := range v {
			texts(x, into)
		}
	case []any:
		for _, x := range v {
			texts(x, into)
		}
	case string:
		if id, err := uuid.Parse(v); err == nil {
			into[strings.TrimPrefix(typeid.Format("", id), "_")] = true
			return
		}
		if len(v) >= 8 && aDigit.MatchString(v) && !aTime.MatchString(v) && !sealed.MatchString(v) {
			into[v] = true
		}
	}
}
