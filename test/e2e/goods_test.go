package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

const goodsCover = "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR"

// A market is a world with a mini program that has goods. WeChat decides there
// only what a test decides.
type market struct {
	*world.World
	gateway *world.Gateway
	client  *world.Client
	n       *int // of goods made
}

func openMarket(t *testing.T, goods int) *market {
	t.Helper()
	w := world.New(t, world.Options{Env: map[string]string{"GATEWAY_KEY_RATE": "900", "GATEWAY_KEY_BURST": "900"}})
	if goods > 0 {
		w.Control("POST", "accounts/"+sandbox.DemoMiniProgram+"/goods", map[string]int{"count": goods}, nil)
	}
	g := w.Start(nil)
	c := w.Client(g, w.Authorize(g, sandbox.DemoMiniProgram))
	w.Hold(true)
	w.Eventually("the inventory of goods", func() error {
		if a := c.Do("GET", "/v1/goods", nil).Want(200); a.Get("synced_at") == "null" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	return &market{w, g, c, new(int)}
}

func (m *market) on(t *testing.T) *market {
	part := *m
	part.World = m.World.On(t)
	part.client = part.Client(m.gateway, m.client.Merchant)
	return &part
}

// fresh is an item that nobody has yet, with changes.
func (m *market) fresh(changes ...any) map[string]any {
	*m.n++
	return with(map[string]any{"name": "Tea " + strconv.Itoa(*m.n), "cover_media_id": goodsCover, "pricing": fixed("99.50"), "path": "pages/index/index"}, changes...)
}

func fixed(amount string) map[string]any { return map[string]any{"type": "fixed", "amount": amount} }

// decided lets WeChat's people decide an item's open audit, and its next poll
// come: there is no event.
func (m *market) decided(item *world.Answer, decision, status string) *world.Answer {
	audit := item.Get("audit", "wechat_audit_id")
	m.Decide("goods", audit, decision, "")
	m.Exec(`UPDATE audits SET next_poll_at = now() WHERE wechat_audit_id = $1`, audit)
	return m.client.Until("/v1/goods/"+item.Get("id"), status)
}

// sent is the body of the newest call of goods.
func (m *market) sent(call string) string {
	calls := m.Journal("wxaapi/broadcast/goods/" + call)
	if len(calls) == 0 {
		return ""
	}
	return calls[len(calls)-1].Body
}

func (m *market) calls(of ...string) (n int) {
	for _, call := range of {
		n += len(m.Journal("wxaapi/broadcast/goods/" + call))
	}
	return n
}

// Added, withdrawn, changed, submitted again, approved, its price changed,
// deleted: document 004 from end to end, with the bodies of its examples.
func TestGoodsLife(t *testing.T) {
	t.Parallel()
	m := openMarket(t, 0)
	writes := []string{"add", "update", "delete", "audit", "resetaudit"}

	added := m.client.Do("POST", "/v1/goods", map[string]any{"client_reference": "sku-88", "name": "TIT茶杯", "cover_media_id": goodsCover,
		"pricing": fixed("99.5"), "path": "pages/index/index"}).Want(http.StatusAccepted)
	number, audit := added.Get("goods_id"), added.Get("audit", "wechat_audit_id")
	if added.Get("status") != "in_review" || added.Get("audit", "status") != "in_review" || added.Get("audit", "kind") != "goods" || added.Get("origin") != "api" ||
		added.Get("pricing", "amount") != "99.5" || added.Get("client_reference") != "sku-88" || number == "null" || audit == "null" {
		t.Errorf("added: %s", added.Body)
	}
	path := "/v1/goods/" + added.Get("id")
	if added.Header.Get("Location") != path || added.Header.Get("Link") != "</v1/audits/"+added.Get("audit", "id")+`>; rel="status"` {
		t.Errorf("added: %v", added.Header)
	}
	want := `{"goodsInfo":{"coverImgUrl":"` + goodsCover + `","name":"TIT茶杯","priceType":1,"price":99.5,"url":"pages/index/index"}}`
	if d := cmp.Diff(want, m.sent("add")); d != "" {
		t.Error(d)
	}
	if kind := m.Journal("wxaapi/broadcast/goods/add")[0].Headers["Content-Type"]; !strings.Contains(fmt.Sprint(kind), "application/json") {
		t.Errorf("Content-Type %v", kind)
	}
	m.client.Do("POST", "/v1/goods", m.fresh("client_reference", "sku-88")).WantProblem(409, "duplicate_client_reference")

	// In review nothing may happen to it, and WeChat isn't asked.
	before := m.calls(writes...)
	m.client.Do("PATCH", path, map[string]any{"pricing": fixed("1")}).WantProblem(409, "goods_in_review")
	m.client.Do("DELETE", path, nil).WantProblem(409, "goods_in_review")
	m.client.Do("POST", path+"/audits", nil).WantProblem(409, "goods_in_review")
	if n := m.calls(writes...); n != before {
		t.Errorf("%d calls for what could be refused here", n-before)
	}

	withdrawal := "/v1/audits/" + added.Get("audit", "id") + "/withdrawal"
	withdrawn := m.client.Do("POST", withdrawal, nil, "Idempotency-Key", "back").Want(200)
	if withdrawn.Get("status") != "withdrawn" || withdrawn.Get("decided_at") == "null" || withdrawn.Get("history", "1", "status") != "withdrawn" {
		t.Errorf("withdrawn: %s", withdrawn.Body)
	}
	if d := cmp.Diff(`{"auditId":`+audit+`,"goodsId":`+number+`}`, m.sent("resetaudit")); d != "" {
		t.Error(d)
	}
	m.client.Do("POST", withdrawal, nil).WantProblem(409, "goods_audit_state_conflict")
	if again := m.client.Do("POST", withdrawal, nil, "Idempotency-Key", "back").Want(200); again.Get("status") != "withdrawn" || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the same key again: %s", again.Body)
	}
	if a := m.client.Do("GET", path, nil).Want(200); a.Get("status") != "unreviewed" || a.Get("audit", "status") != "withdrawn" {
		t.Errorf("after the withdrawal: %s", a.Body)
	}

	changed := m.client.Do("PATCH", path, map[string]any{"name": "TIT茶杯2", "pricing": map[string]any{"type": "range", "min": "99.00", "max": "150.5"}}).Want(200)
	if changed.Get("name") != "TIT茶杯2" || changed.Get("pricing", "max") != "150.5" || changed.Get("path") != "pages/index/index" || changed.Get("status") != "unreviewed" {
		t.Errorf("changed: %s", changed.Body)
	}
	if d := cmp.Diff(`{"goodsInfo":{"name":"TIT茶杯2","priceType":2,"price":99.00,"price2":150.5,"goodsId":`+number+`}}`, m.sent("update")); d != "" {
		t.Error(d)
	}

	again := m.client.Do("POST", path+"/audits", nil).Want(http.StatusAccepted)
	if again.Get("status") != "in_review" || again.Get("audit", "id") == added.Get("audit", "id") || again.Get("audit", "wechat_audit_id") == audit {
		t.Errorf("submitted again: %s", again.Body)
	}
	if d := cmp.Diff(`{"goodsId":`+number+`}`, m.sent("audit")); d != "" {
		t.Error(d)
	}
	m.client.Do("POST", withdrawal, nil).WantProblem(409, "goods_audit_state_conflict") // the former audit's

	approved := m.decided(again, "approve", "approved")
	if approved.Get("audit", "status") != "approved" || approved.Get("cover_image_url") == "null" || approved.Get("upstream_price", "price") != "99" || approved.Get("synced_at") == "null" {
		t.Errorf("approved: %s", approved.Body)
	}
	if a := m.client.Do("GET", "/v1/audits/"+again.Get("audit", "id"), nil).Want(200); a.Get("attempt") != "2" || a.Get("source") != "poll" || a.Get("subject", "id") != added.Get("id") {
		t.Errorf("its audit: %s", a.Body)
	}

	notModified(t, m.client, path)
	locked := m.client.Do("PATCH", path, map[string]any{"name": "Other", "pricing": fixed("1"), "path": "pages/a"}).WantProblem(409, "goods_field_locked")
	if locked.Get("errors", "0", "pointer") != "/name" || locked.Get("errors", "1", "pointer") != "/path" || locked.Get("errors", "2") != "" {
		t.Errorf("locked: %s", locked.Body)
	}
	m.client.Do("POST", path+"/audits", nil).WantProblem(409, "goods_audit_state_conflict")
	etag := approved.Header.Get("ETag")
	priced := m.client.Do("PATCH", path, map[string]any{"pricing": map[string]any{"type": "discount", "original": "150.50", "current": "99.50"}}, "If-Match", etag).Want(200)
	m.client.Do("PATCH", path, map[string]any{"pricing": fixed("1")}, "If-Match", etag).WantProblem(412, "version_conflict")
	if priced.Get("status") != "approved" || priced.Get("pricing", "current") != "99.50" || priced.Get("upstream_price") != "null" {
		t.Errorf("priced: %s", priced.Body)
	}
	live := m.client.Do("GET", path+"?source=live", nil).Want(200)
	if live.Get("pricing", "original") != "150.50" || live.Get("upstream_price", "price2") != "99.5" || live.Get("id") != added.Get("id") || live.Get("audit", "status") != "approved" {
		t.Errorf("live: %s", live.Body)
	}

	m.client.Do("DELETE", path, nil).Want(204)
	if a := m.client.Do("GET", path, nil).Want(200); a.Get("status") != "deleted" || a.Get("goods_id") != number {
		t.Errorf("deleted: %s", a.Body)
	}
	m.client.Do("GET", path+"?source=live", nil).WantProblem(404, "goods_not_found")
	m.client.Do("DELETE", path, nil).WantProblem(404, "goods_not_found")

	// The events, and every id that WeChat gave.
	var told []string
	for _, row := range m.Query(`SELECT payload->'object'->>'status' AS s FROM outbox WHERE type = 'goods.audit.decided' ORDER BY created_at`) {
		told = append(told, fmt.Sprint(row["s"]))
	}
	if d := cmp.Diff([]string{"withdrawn", "approved"}, told); d != "" {
		t.Error(d)
	}
	ids, _ := m.Truth()
	for _, id := range ids {
		if n := m.Row(`SELECT count(*) AS n FROM wechat_id_ledger WHERE id_type = $1 AND wechat_id = $2`, id.Type, id.ID)["n"]; n == int64(0) {
			t.Errorf("%s %s is not in the ledger", id.Type, id.ID)
		}
	}
}

// What WeChat refuses, and what is refused before it.
func TestGoodsErrcodes(t *testing.T) {
	t.Parallel()
	m := openMarket(t, 150)
	numbers, _ := walk(m.client, "/v1/goods?status=approved&limit=100", "goods_id")
	console := m.consoleGoods()
	numbers = slices.DeleteFunc(numbers, func(n string) bool { return n == console })
	next := func() string {
		n := numbers[0]
		numbers = numbers[1:]
		return "/v1/goods/" + n
	}
	const broadcast = "wxaapi/broadcast/goods/"
	one := next()
	spent := []int{45009, 300012} // they close a bucket for the day: tried at the end
	calls := []errcodeCall{
		{"listGoods", "goods.list", broadcast + "getapproved", false, nil, func(c *world.Client) *world.Answer {
			return c.Do("GET", "/v1/goods?source=live&status=approved", nil)
		}},
		{"getGoods", "goods.status", "wxa/business/getgoodswarehouse", false, nil, func(c *world.Client) *world.Answer {
			return c.Do("GET", one+"?source=live", nil)
		}},
		{"createGoods", "goods.add", broadcast + "add", true, nil, func(c *world.Client) *world.Answer { return c.Do("POST", "/v1/goods", m.fresh()) }},
		{"updateGoods", "goods.update", broadcast + "update", true, nil, func(c *world.Client) *world.Answer {
			return c.Do("PATCH", next(), map[string]any{"pricing": fixed("2.00")})
		}},
		{"deleteGoods", "goods.delete", broadcast + "delete", true, []int{1003}, func(c *world.Client) *world.Answer { return c.Do("DELETE", next(), nil) }},
		{"createGoodsAudit", "goods.audit", broadcast + "audit", true, nil, func(c *world.Client) *world.Answer {
			path := next()
			m.Exec(`UPDATE resources SET status = 'unreviewed' WHERE wechat_id = $1`, strings.TrimPrefix(path, "/v1/goods/"))
			return c.Do("POST", path+"/audits", nil)
		}},
		{"withdrawAudit", "goods.reset_audit", broadcast + "resetaudit", true, nil, func(c *world.Client) *world.Answer {
			return c.Do("POST", "/v1/audits/"+c.Do("POST", "/v1/goods", m.fresh()).Want(202).Get("audit", "id")+"/withdrawal", nil)
		}},
	}
	for _, call := range calls {
		call.except = append(call.except, spent...)
		t.Run(call.operation, func(t *testing.T) {
			m := m.on(t)
			answersEveryErrcode(t, m.World, m.client, call)
		})
	}

	t.Run("added, and not submitted", func(t *testing.T) {
		m := m.on(t)
		a := m.client.Do("POST", "/v1/goods", m.fresh("name", "audit-fails")).Want(202)
		if a.Get("goods_id") == "null" || a.Get("status") != "unreviewed" || a.Get("audit", "status") != "submit_failed" || a.Get("operation") != "" {
			t.Errorf("300021: %s", a.Body)
		}
		again := m.client.Do("POST", "/v1/goods/"+a.Get("id")+"/audits", nil).Want(202)
		if again.Get("status") != "in_review" || again.Get("audit", "status") != "in_review" || again.Get("audit", "wechat_audit_id") == "null" {
			t.Errorf("submitted again: %s", again.Body)
		}
		if rejected := m.decided(again, "reject", "rejected"); rejected.Get("audit", "status") != "rejected" {
			t.Errorf("rejected: %s", rejected.Body)
		}
		m.client.Do("PATCH", "/v1/goods/"+a.Get("id"), map[string]any{"name": "Better tea"}).Want(200)
	})

	t.Run("1003 on deletion is not believed", func(t *testing.T) {
		m := m.on(t)
		path := next()
		m.Fault(broadcast+"delete", 1, map[string]any{"errcode": 1003})
		if a := m.client.Do("DELETE", path, nil).WantProblem(422, "invalid_argument"); a.Get("upstream", "errcode") != "1003" {
			t.Errorf("%s", a.Body)
		}
		m.Fault(broadcast+"delete", 1, map[string]any{"errcode": 1003, "before": false}) // it was there
		m.client.Do("DELETE", path, nil).Want(204)
		if a := m.client.Do("GET", path, nil).Want(200); a.Get("status") != "deleted" {
			t.Errorf("%s", a.Body)
		}
	})

	t.Run("goods of the console", func(t *testing.T) {
		m := m.on(t)
		path := "/v1/goods/" + console
		if a := m.client.Do("GET", path, nil).Want(200); a.Get("origin") != "console" {
			t.Errorf("%s", a.Body)
		}
		before := m.calls("update", "delete")
		m.client.Do("PATCH", path, map[string]any{"pricing": fixed("1")}).WantProblem(409, "goods_not_api_managed")
		m.client.Do("DELETE", path, nil).WantProblem(409, "goods_not_api_managed")
		if n := m.calls("update", "delete"); n != before {
			t.Errorf("%d calls", n-before)
		}
	})

	t.Run("by other merchants, and by their stores", func(t *testing.T) {
		m := m.on(t)
		shop := m.client.For(m.Authorize(m.gateway, sandbox.DemoOfficialAccount))
		shop.Do("POST", "/v1/goods", m.fresh()).WantProblem(403, "permission_set_missing")
		shop.Do("GET", "/v1/goods?source=live&status=approved", nil).WantProblem(403, "permission_set_missing")
		shop.Do("GET", one, nil).WantProblem(404, "not_found")
		made := m.client.Do("POST", "/v1/goods", m.fresh()).Want(202)
		shop.Do("DELETE", "/v1/goods/"+made.Get("id"), nil).WantProblem(404, "not_found")
		m.client.For("").Do("DELETE", one, nil).WantProblem(400, "merchant_required")
		m.client.Do("POST", "/v1/audits/aud_01jd7k4b2sf1a8w4p9x2y7c3de/withdrawal", nil).WantProblem(404, "not_found")
		store := shop.Do("POST", "/v1/stores", world.DocumentsStore()).Want(202)
		shop.Do("POST", "/v1/audits/"+store.Get("audit", "id")+"/withdrawal", nil).WantProblem(409, "audit_not_withdrawable")
	})

	t.Run("quotas that are spent", func(t *testing.T) {
		m := m.on(t)
		m.closesBuckets(t, calls, m.client.Do("POST", "/v1/goods", m.fresh()).Want(202).Get("audit", "id"))
	})
}

// WeChat's own word that a quota is spent closes the bucket until midnight in
// Shanghai: it isn't asked again. Adding and submitting again share one.
func (m *market) closesBuckets(t *testing.T, calls []errcodeCall, held string) {
	for _, call := range calls {
		do := call.do
		if call.operation == "withdrawAudit" {
			do = func(c *world.Client) *world.Answer { return c.Do("POST", "/v1/audits/"+held+"/withdrawal", nil) }
		}
		errcode, asked := 45009, len(m.Journal(call.path))
		if call.operation == "createGoods" {
			errcode = 300012
		}
		m.Fault(call.path, 1, map[string]any{"errcode": errcode})
		for range 2 {
			a := do(m.client).WantProblem(429, "wechat_quota_exhausted")
			now := time.Now().In(time.FixedZone("Asia/Shanghai", 8*60*60))
			midnight := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, now.Location())
			wait, err := strconv.Atoi(a.Header.Get("Retry-After"))
			if left := a.Header.Get("RateLimit"); !strings.Contains(left, ";r=0;") {
				t.Errorf("%s: RateLimit %s", call.operation, left)
			}
			if late := time.Duration(wait)*time.Second - midnight.Sub(now); err != nil || late.Abs() > 5*time.Second && late.Abs() < 23*time.Hour {
				t.Errorf("%s: Retry-After %s, and midnight in Shanghai is in %s", call.operation, a.Header.Get("Retry-After"), midnight.Sub(now))
			}
		}
		want := asked + 1
		if call.operation == "createGoodsAudit" {
			want = asked // createGoods closed its bucket
		}
		if n := len(m.Journal(call.path)); n != want {
			t.Errorf("%s: %d calls, want %d", call.operation, n-asked, want-asked)
		}
	}
	for _, q := range rows(m.client.Do("GET", "/v1/quotas", nil).Want(200)) {
		if q["window"] == "day" && (q["state"] != "exhausted" || q["remaining"] != 0.) {
			t.Errorf("%v", q)
		}
	}
}

// consoleGoods is the number of the demo's item that was made in the console.
func (m *market) consoleGoods() string {
	for _, row := range rows(m.client.Do("GET", "/v1/goods?limit=100", nil).Want(200)) {
		if row["origin"] == "console" {
			return fmt.Sprint(row["goods_id"])
		}
	}
	for _, row := range m.Query(`SELECT wechat_id FROM resources WHERE type = 'goods' AND fields->>'third_party_tag' = '0'`) {
		return fmt.Sprint(row["wechat_id"])
	}
	return ""
}

// Lists, from here and from WeChat.
func TestGoodsLists(t *testing.T) {
	t.Parallel()
	m := openMarket(t, 115) // with the six of a fresh start 121, 118 of them approved
	for query, want := range map[string]int{
		"": 121, "status=approved": 118, "status=in_review": 1, "status=rejected": 1, "status=unreviewed": 1, "status=deleted": 0, "goods_id=1": 0,
		"source=live&status=approved": 118, "source=live&status=in_review": 1, "source=live&status=rejected": 1, "source=live&status=unreviewed": 1,
	} {
		if ids, _ := walk(m.client, "/v1/goods?limit=100&"+query, "id"); len(ids) != want || slices.Contains(ids, "<nil>") {
			t.Errorf("%s: %d goods, want %d", query, len(ids), want)
		}
	}
	page := m.client.Do("GET", "/v1/goods?source=live&status=approved&limit=30", nil).Want(200)
	if len(rows(page)) != 30 || page.Get("total") != "118" || page.Get("has_more") != "true" {
		t.Errorf("a live page: %s", page.Body)
	}
	calls := m.Journal("wxaapi/broadcast/goods/getapproved")
	if last := calls[len(calls)-1]; last.Method != http.MethodGet || last.Body != "" || !strings.Contains(last.Query, "limit=30&offset=0&status=2") {
		t.Errorf("WeChat was asked %s %s %q", last.Method, last.Query, last.Body)
	}
	m.client.Do("GET", "/v1/goods?source=live&status=rejected&cursor="+page.Get("next_cursor"), nil).WantProblem(400, "invalid_cursor")

	// By numbers: what WeChat doesn't know is left out.
	numbers, _ := walk(m.client, "/v1/goods?limit=20&status=approved", "goods_id")
	query := "goods_id=" + strings.Join(numbers[:19], "&goods_id=") + "&goods_id=999999"
	for source, sort := range map[string]string{"local": "", "live": ""} {
		a := m.client.Do("GET", "/v1/goods?source="+source+"&"+query+sort, nil).Want(200)
		if len(rows(a)) != 19 || a.Get("has_more") != "false" {
			t.Errorf("%s: %d goods by numbers", source, len(rows(a)))
		}
	}
	warehouse := m.Journal("wxa/business/getgoodswarehouse")
	if d := cmp.Diff(`{"goods_ids":[`+strings.Join(numbers[:19], ",")+`,999999]}`, warehouse[len(warehouse)-1].Body); d != "" {
		t.Error(d)
	}
	for query, pointer := range map[string]string{
		"source=live": "status", "source=live&status=deleted": "status", "source=live&status=failed": "status", "source=live&goods_id=1&status=approved": "status",
		"source=live&goods_id=1&cursor=AAAA": "cursor", "source=live&status=approved&client_reference=a": "client_reference",
		"source=live&status=approved&updated_after=2020-01-01T00:00:00Z": "updated_after", "goods_id=x": "goods_id", "goods_id=0": "goods_id",
		"status=approved&status=rejected": "status", "status=sold": "status", "limit=101": "limit", query + "&goods_id=1&goods_id=2": "goods_id",
	} {
		if a := m.client.Do("GET", "/v1/goods?"+query, nil).WantProblem(400, "invalid_parameter"); a.Get("errors", "0", "pointer") != pointer {
			t.Errorf("%s: %s", query, a.Body)
		}
	}
	m.client.Do("GET", "/v1/goods?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")
	m.client.For("").Do("GET", "/v1/goods?source=live&status=approved", nil).WantProblem(400, "merchant_required")

	// WeChat's prices in fen are still what was sent.
	m.Control("POST", "settings", map[string]any{"goods_prices_in_fen": true}, nil)
	made := m.client.Do("POST", "/v1/goods", m.fresh()).Want(202)
	if a := m.client.Do("GET", "/v1/goods/"+made.Get("id")+"?source=live", nil).Want(200); a.Get("pricing", "amount") != "99.50" || a.Get("upstream_price", "price") != "9950" {
		t.Errorf("in fen: %s", a.Body)
	}
	// Somebody else changed the price.
	m.Exec(`UPDATE resources SET fields = fields || '{"pricing":{"type":1,"price":"7.00"}}' WHERE id = $1`, m.UUID(typeid.Goods, made.Get("id")))
	if a := m.client.Do("GET", "/v1/goods/"+made.Get("id")+"?source=live", nil).Want(200); a.Get("pricing", "amount") != "9950" {
		t.Errorf("another price: %s", a.Body)
	}
}

// The rules of document 004 §1, each at its bound and beyond.
func TestGoodsRules(t *testing.T) {
	t.Parallel()
	m := openMarket(t, 0)
	priced := func(typ string, members ...string) map[string]any {
		p := map[string]any{"type": typ}
		for i := 0; i+1 < len(members); i += 2 {
			p[members[i]] = members[i+1]
		}
		return p
	}
	x, cn := func(n int) string { return strings.Repeat("x", n) }, func(n int) string { return strings.Repeat("茶", n) }
	for _, rule := range []struct {
		field     string
		good, bad []any
		pointer   string // of the error, when not the field
	}{
		{"name", []any{"a", x(28), cn(14), cn(13) + "ab"}, []any{"", "  ", x(29), cn(15), cn(14) + "a", "a\tb", 7, nil}, ""},
		{"cover_media_id", nil, []any{"", "http://mmbiz.qpic.cn/x", x(129), nil}, ""},
		{"path", []any{"/pages/index/index", "pages/a.html", "pages/goods?url=https%3A%2F%2Fexample.com%2F&id=7", "pages/a?名=茶"},
			[]any{"", "https://example.com/a", "HTTPS%3A%2F%2Fa", "//example.com", "pages/a?url=https://example.com", "pages/a?b=%zz", "pages/a b", "pages/a#b", "pages/" + x(507), nil}, ""},
		{"pricing", []any{fixed("0.01"), fixed("99999999.99"), priced("range", "min", "5", "max", "5.00"), priced("range", "min", "9.9", "max", "10"), priced("discount", "original", "5", "current", "5")},
			[]any{nil, 7, "1"}, ""},
		{"pricing", nil, []any{map[string]any{}, priced("free"), priced(""), map[string]any{"type": 1}}, "/pricing/type"},
		{"pricing", nil, []any{fixed("0"), fixed("0.00"), fixed("1.001"), fixed("-1"), fixed("01"), fixed("1e3"), fixed("100000000"), fixed(""), priced("fixed"),
			map[string]any{"type": "fixed", "amount": 99.5}}, "/pricing/amount"},
		{"pricing", nil, []any{priced("range", "min", "5.01", "max", "5"), priced("range", "min", "10", "max", "9.99"), priced("range", "min", "1"), priced("range", "min", "1", "max", "x")}, "/pricing/max"},
		{"pricing", nil, []any{priced("discount", "original", "5", "current", "5.01"), priced("discount", "original", "5", "current", "0")}, "/pricing/current"},
		{"third_party_appid", []any{"wx5ab0d1c0ffee0001"}, []any{"", "x"}, ""},
		{"client_reference", []any{"a"}, []any{"", "a b"}, ""},
	} {
		pointer := rule.pointer
		if pointer == "" {
			pointer = "/" + rule.field
		}
		for _, v := range rule.good {
			m.client.Do("POST", "/v1/goods", m.fresh(rule.field, v)).Want(202)
		}
		before := m.calls("add")
		for _, v := range rule.bad {
			if a := m.client.Do("POST", "/v1/goods", m.fresh(rule.field, v)); a.Status != 422 || a.Code() != "validation_failed" || a.Get("errors", "0", "pointer") != pointer {
				t.Errorf("%s %v: %d %s", rule.field, v, a.Status, a.Body)
			}
		}
		if n := m.calls("add"); n != before {
			t.Errorf("%s: %d calls", rule.field, n-before)
		}
	}
	for _, v := range []any{nil, 7, "1", []int{1}} {
		if a := m.client.Do("POST", "/v1/goods", m.fresh("pricing", v)).WantProblem(422, "validation_failed"); a.Get("errors", "0", "code") != "wrong_type" {
			t.Errorf("pricing %v: %s", v, a.Body)
		}
	}
	for _, missing := range []string{"name", "cover_media_id", "path", "pricing"} {
		item := m.fresh()
		delete(item, missing)
		if a := m.client.Do("POST", "/v1/goods", item).WantProblem(422, "validation_failed"); a.Get("errors", "0", "pointer") != "/"+missing {
			t.Errorf("without %s: %s", missing, a.Body)
		}
	}
	if a := m.client.Do("POST", "/v1/goods", m.fresh("pricing", priced("fixed", "amount", "1", "max", "2"))).WantProblem(400, "unknown_field"); a.Get("errors", "0", "pointer") != "/pricing/max" {
		t.Errorf("a price too many: %s", a.Body)
	}
	m.client.Do("POST", "/v1/goods", m.fresh("price", 1)).WantProblem(400, "unknown_field")
	m.client.Do("POST", "/v1/goods", "{").WantProblem(400, "malformed_json")
	m.client.Do("POST", "/v1/goods", `{"name":"a","name":"b"}`).WantProblem(400, "duplicate_field")
	m.client.Do("POST", "/v1/goods", m.fresh(), "Content-Type", "text/plain").WantProblem(415, "unsupported_media_type")
	m.client.Do("POST", "/v1/goods", m.fresh("name", x(300<<10))).WantProblem(413, "body_too_large")
	if a := m.client.Do("POST", "/v1/goods", m.fresh("name", cn(15)), "Accept-Language", "zh").WantProblem(422, "validation_failed"); !strings.Contains(a.Get("errors", "0", "detail"), "28") ||
		!strings.Contains(a.Get("errors", "0", "detail"), "汉字") {
		t.Errorf("in Chinese: %s", a.Body)
	}
	// A change is checked by the same rules.
	waiting := m.client.Do("POST", "/v1/goods", m.fresh()).Want(202)
	for name, body := range map[string]any{"nothing": map[string]any{}, "a name": map[string]any{"name": cn(15)}, "a path": map[string]any{"path": "http://x"},
		"a price": map[string]any{"pricing": priced("range", "min", "2", "max", "1")}} {
		if a := m.client.Do("PATCH", "/v1/goods/"+waiting.Get("id"), body); a.Status != 422 || a.Code() != "validation_failed" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	m.client.Do("GET", "/v1/goods/"+url.PathEscape("sto_01jd7k4b2rf6z9t3n7r1s6v2zb"), nil).WantProblem(400, "invalid_parameter")
	m.client.Do("GET", "/v1/goods/gds_01jd7k4b2rf6z9t3n7r1s6v2zb", nil).WantProblem(404, "not_found")
}
