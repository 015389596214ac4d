package e2e

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// consents lets an account authorise in WeChat's console, without a link.
func consents(w *world.World, g *world.Gateway, appid string) *world.Client {
	w.Control("POST", "accounts", map[string]string{"appid": appid}, nil)
	w.Control("POST", "accounts/"+appid+"/authorize", map[string]string{}, nil)
	c := w.Client(g, "")
	var id string
	w.Eventually("the merchant "+appid, func() error {
		a := c.Do("GET", "/v1/merchants/"+appid, nil)
		if id = a.Get("id"); a.Get("status") != "authorized" || a.Get("nickname") == "null" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	return c.For(id)
}

func TestMerchantsOverREST(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Client(g, "")
	shop := w.Authorize(g, sandbox.DemoOfficialAccount)
	live := w.Authorize(g, sandbox.DemoMiniProgram)
	poor := consents(w, g, sandbox.NoStoreSetsAccount).Merchant
	leaving := consents(w, g, sandbox.LeavingAccount)

	m := c.Do("GET", "/v1/merchants/"+shop, nil).Want(200)
	for path, want := range map[string]string{
		"appid": sandbox.DemoOfficialAccount, "account_type": "official_account", "account_status": "normal", "verified": "true", "status": "authorized",
		"permission_sets/0/name": "card", "permission_sets/2/id": "13", "capabilities/stores": "true", "capabilities/goods": "false", "token/state": "fresh",
		"client_reference": "null", "metadata": "map[]",
	} {
		if got := m.Get(strings.Split(path, "/")...); got != want {
			t.Errorf("%s = %s, want %s", path, got, want)
		}
	}
	if strings.Contains(string(m.Body), "@@@") {
		t.Errorf("a token shows: %s", m.Body)
	}
	if a := c.Do("GET", "/v1/merchants/"+live, nil).Want(200); a.Get("account_type") != "mini_program" || a.Get("capabilities", "stores") != "false" || a.Get("capabilities", "goods") != "true" {
		t.Errorf("mini program: %s", a.Body)
	}
	if a := c.Do("GET", "/v1/merchants/"+sandbox.DemoOfficialAccount, nil, "Merchant-Id", shop).Want(200); a.Get("id") != shop {
		t.Errorf("by appid: %s", a.Body)
	}
	notModified(t, c, "/v1/merchants/"+shop)

	// Who may see whom.
	c.For(live).Do("GET", "/v1/merchants/"+shop, nil).WantProblem(400, "merchant_mismatch")
	c.For("mch_01jd7k3v9wf4x8s2m6q0r5t1ya").Do("GET", "/v1/merchants/"+shop, nil).WantProblem(400, "merchant_mismatch")
	c.Do("GET", "/v1/merchants/mch_01jd7k3v9wf4x8s2m6q0r5t1ya", nil).WantProblem(404, "merchant_not_found")
	c.Do("GET", "/v1/merchants/wx00000000000000ff", nil).WantProblem(404, "merchant_not_found")
	c.Do("GET", "/v1/merchants/shop", nil).WantProblem(400, "invalid_parameter")
	bound := c.As(w.NewKey("--scopes", "*", "--merchants", shop))
	bound.Do("GET", "/v1/merchants/"+live, nil).WantProblem(403, "merchant_not_allowed")
	bound.For(live).Do("GET", "/v1/stores", nil).WantProblem(403, "merchant_not_allowed")
	bound.Do("POST", "/v1/merchants/sync", nil).WantProblem(403, "merchant_not_allowed")
	if ids, _ := walk(bound, "/v1/merchants", "id"); !cmp.Equal(ids, []string{shop}) {
		t.Errorf("merchants of a bound key: %v", ids)
	}

	// Our own notes.
	path := "/v1/merchants/" + shop
	etag := c.Do("GET", path, nil).Want(200).Header.Get("ETag")
	noted := c.Do("PATCH", path, map[string]any{"client_reference": "shop-1", "metadata": map[string]string{"region": "南"}}, "If-Match", etag).Want(200)
	if noted.Get("client_reference") != "shop-1" || noted.Get("metadata", "region") != "南" || noted.Header.Get("ETag") == etag {
		t.Errorf("noted: %v %s", noted.Header, noted.Body)
	}
	c.Do("PATCH", path, map[string]any{"client_reference": "shop-1"}, "If-Match", etag).WantProblem(412, "version_conflict")
	c.Do("DELETE", path, nil, "If-Match", etag).WantProblem(412, "version_conflict")
	c.Do("PATCH", "/v1/merchants/"+live, map[string]any{"client_reference": "shop-1"}).WantProblem(409, "duplicate_client_reference")
	many := map[string]string{}
	for i := range 50 {
		many[fmt.Sprint("k", i)] = strings.Repeat("x", 500)
	}
	if a := c.Do("PATCH", path, map[string]any{"metadata": many}).Want(200); a.Get("metadata", "region") != "" || a.Get("client_reference") != "shop-1" {
		t.Errorf("metadata is replaced as a whole: %.300s", a.Body)
	}
	many["k50"] = ""
	for name, body := range map[string]any{
		"51 texts": map[string]any{"metadata": many}, "a long text": map[string]any{"metadata": map[string]string{"a": strings.Repeat("x", 501)}},
		"a number": map[string]any{"metadata": map[string]any{"a": 1}}, "nothing": map[string]any{}, "a reference with a blank": map[string]any{"client_reference": "a b"},
	} {
		if a := c.Do("PATCH", path, body); a.Status != 422 || a.Code() != "validation_failed" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	if a := c.Do("PATCH", path, map[string]any{"client_reference": nil, "metadata": map[string]string{}}).Want(200); a.Get("client_reference") != "null" || a.Get("metadata") != "map[]" {
		t.Errorf("removed: %s", a.Body)
	}
	c.Do("PATCH", "/v1/merchants/"+live, map[string]any{"client_reference": "shop-1"}).Want(200)

	// Withdrawn at WeChat, disabled here.
	w.Control("POST", "accounts/"+sandbox.LeavingAccount+"/unauthorize", map[string]string{}, nil)
	w.Eventually("the merchant has left", func() error {
		if a := c.Do("GET", "/v1/merchants/"+leaving.Merchant, nil); a.Get("status") != "deauthorized" || a.Get("token", "state") != "invalid" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	for _, a := range []*world.Answer{leaving.Do("GET", "/v1/stores?source=live", nil), leaving.Do("POST", "/v1/stores", w.NewStore(1)),
		leaving.Do("POST", "/v1/merchants/"+leaving.Merchant+"/token-refreshes", nil)} {
		if a.WantProblem(403, "merchant_deauthorized"); a.Get("authorization_link_hint", "body", "expected_appid") != sandbox.LeavingAccount {
			t.Errorf("no hint how to mend it: %s", a.Body)
		}
	}
	leaving.Do("GET", "/v1/stores", nil).Want(200)
	c.Do("DELETE", "/v1/merchants/"+poor, nil).Want(204)
	c.Do("DELETE", "/v1/merchants/"+poor, nil).Want(204)
	off := c.For(poor)
	w.Eventually("the merchant is disabled", func() error {
		if a := off.Do("GET", "/v1/stores?source=live", nil); a.Code() != "merchant_disabled" || a.Status != 409 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	off.Do("POST", "/v1/stores", w.NewStore(1)).WantProblem(409, "merchant_disabled")
	off.Do("POST", "/v1/merchants/"+poor+"/token-refreshes", nil).WantProblem(409, "merchant_disabled")
	off.Do("GET", "/v1/stores", nil).Want(200)

	for query, want := range map[string]int{
		"": 4, "limit=1": 4, "status=authorized": 2, "status=deauthorized": 1, "status=disabled": 1, "status=needs_reauthorization": 0,
		"appid=" + sandbox.DemoMiniProgram: 1, "appid=wx00000000000000ff": 0, "permission_set=13": 2, "permission_set=52": 1, "permission_set=99": 0,
		"client_reference=shop-1": 1, "client_reference=shop-2": 0, "updated_after=2120-01-01T00:00:00Z": 0,
		"status=authorized&permission_set=13": 1,
	} {
		if ids, _ := walk(c, "/v1/merchants?"+query, "id"); len(ids) != want {
			t.Errorf("merchants with %s: %v, want %d", query, ids, want)
		}
	}
	// Inventories in the background touch them too.
	w.Eventually("all but the one that has rested longest", func() error {
		all := rows(c.Do("GET", "/v1/merchants", nil).Want(200))
		oldest := slices.MinFunc(all, func(a, b map[string]any) int { return moment(t, a["updated_at"]).Compare(moment(t, b["updated_at"])) })
		ids, _ := walk(c, "/v1/merchants?updated_after="+url.QueryEscape(oldest["updated_at"].(string)), "id")
		if len(ids) != 3 || slices.Contains(ids, oldest["id"].(string)) {
			return fmt.Errorf("%v of %v", ids, all)
		}
		return nil
	})
	c.Do("GET", "/v1/merchants?status=gone", nil).WantProblem(400, "invalid_parameter")
	c.Do("GET", "/v1/merchants?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")

	// A link makes both work again.
	for _, appid := range []string{sandbox.NoStoreSetsAccount, sandbox.LeavingAccount} {
		w.Authorize(g, appid)
	}
	off.Do("POST", "/v1/merchants/"+poor+"/token-refreshes", nil).Want(200)
	leaving.Do("GET", "/v1/stores?source=live", nil).Want(200)
}

func TestLinksOverREST(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Client(g, "")
	w.Run("tenant", "update", w.Tenant.ID, "--return-url-allow", "https://shop.example/back")
	w.WaitTicket(g)

	made := c.Do("POST", "/v1/authorization-links", map[string]string{"account_type": "official_account", "expected_appid": sandbox.DemoOfficialAccount,
		"client_reference": "shop-9", "return_url": "https://shop.example/back?x=1"}).Want(201)
	path := "/v1/authorization-links/" + made.Get("id")
	if made.Header.Get("Location") != path || !strings.HasPrefix(made.Get("url"), w.PublicURL+"/connect/") {
		t.Errorf("made: %v %s", made.Header, made.Body)
	}
	open := c.Do("GET", path, nil).Want(200)
	if open.Get("status") != "open" || open.Get("merchant_id") != "null" || open.Get("used_at") != "null" || strings.Contains(string(open.Body), "/connect/") {
		t.Errorf("open: %s", open.Body)
	}
	notModified(t, c, path)

	// WeChat lets no other account consent; and this one's code is too old.
	w.Control("POST", "authorizations", map[string]string{"appid": sandbox.LeavingAccount, "url": made.Get("url")}, nil)
	c.Do("GET", "/v1/merchants/"+sandbox.LeavingAccount, nil).WantProblem(404, "merchant_not_found")
	w.Fault("cgi-bin/component/api_query_auth", 1, map[string]any{"errcode": 61010})
	w.Control("POST", "authorizations", map[string]string{"appid": sandbox.DemoOfficialAccount, "url": made.Get("url")}, nil)
	w.Eventually("the link says why", func() error {
		if a := c.Do("GET", path, nil); a.Get("status") != "open" || a.Get("last_error", "code") != "authorization_code_expired" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	if zh := c.Do("GET", path, nil, "Accept-Language", "zh").Want(200); !strings.ContainsAny(zh.Get("last_error", "detail"), "账号授权") {
		t.Errorf("in Chinese: %s", zh.Body)
	}
	w.Control("POST", "authorizations", map[string]string{"appid": sandbox.DemoOfficialAccount, "url": made.Get("url")}, nil)
	used := c.Until(path, "authorized")
	if a := c.Do("GET", "/v1/merchants/"+used.Get("merchant_id"), nil).Want(200); a.Get("client_reference") != "shop-9" || a.Get("appid") != sandbox.DemoOfficialAccount {
		t.Errorf("merchant: %s", a.Body)
	}

	c.Do("POST", "/v1/authorization-links", map[string]string{"client_reference": "shop-9"}).WantProblem(409, "duplicate_client_reference")
	c.Do("POST", "/v1/authorization-links", map[string]string{"client_reference": "shop-9", "expected_appid": sandbox.DemoOfficialAccount}).Want(201)
	for name, body := range map[string]map[string]string{
		"a return URL elsewhere":   {"return_url": "https://evil.example/back"},
		"a return URL beside it":   {"return_url": "https://shop.example/backdoor"},
		"a return URL of a script": {"return_url": "javascript:alert(1)"},
		"no kind of account":       {"account_type": "shop"},
		"no appid":                 {"expected_appid": "shop"},
		"a long reference":         {"client_reference": strings.Repeat("a", 65)},
	} {
		if a := c.Do("POST", "/v1/authorization-links", body); a.Status != 422 || a.Code() != "validation_failed" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	// After seven days, which pass in the database.
	late := c.Do("POST", "/v1/authorization-links", "{}").Want(201)
	w.Exec(`UPDATE authorization_links SET expires_at = now() - interval '1 second' WHERE id = $1`, w.UUID(typeid.AuthorizationLink, late.Get("id")))
	if a := c.Do("GET", "/v1/authorization-links/"+late.Get("id"), nil).Want(200); a.Get("status") != "expired" {
		t.Errorf("late: %s", a.Body)
	}
}

// POST /merchants/sync compares with WeChat's list: what was authorised while
// nobody listened is found, what has left is marked.
func TestMerchantsSync(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Client(g, "")
	shop := w.Authorize(g, sandbox.DemoOfficialAccount)
	gone := w.Authorize(g, sandbox.LeavingAccount)
	for _, m := range []string{shop, gone} { // or it would find out by itself
		w.Eventually("the inventory, of which the program is the last", func() error {
			if a := c.Do("GET", "/v1/merchants/"+m+"/store-program", nil); a.Status != 200 {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
	}
	w.Hold(true) // the pushes of both changes are lost
	const unheard = "wx00000000000000aa"
	w.Control("POST", "accounts", map[string]string{"appid": unheard}, nil)
	w.Control("POST", "accounts/"+unheard+"/authorize", map[string]string{}, nil)
	w.Control("POST", "accounts/"+sandbox.LeavingAccount+"/unauthorize", map[string]string{}, nil)
	c.Do("GET", "/v1/merchants/"+unheard, nil).WantProblem(404, "merchant_not_found")

	w.Fault(listCall, 1, map[string]any{"delay_ms": 1500})
	begun := c.Do("POST", "/v1/merchants/sync", nil, "Idempotency-Key", "sync-1").Want(202)
	op := "/v1/operations/" + begun.Get("id")
	if begun.Header.Get("Location") != op || begun.Header.Get("Operation-Id") != begun.Get("id") || begun.Get("kind") != "merchants.sync" || begun.Get("status") != "executing" ||
		begun.Get("merchant_id") != "null" || begun.Get("progress", "done") != "0" {
		t.Errorf("begun: %v %s", begun.Header, begun.Body)
	}
	c.Do("POST", "/v1/merchants/sync", nil).WantProblem(409, "operation_in_progress")
	if a := c.Do("POST", "/v1/merchants/sync", nil, "Idempotency-Key", "sync-1").Want(202); a.Get("id") != begun.Get("id") || a.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("repeated: %v %s", a.Header, a.Body)
	}
	done := c.Until(op, "succeeded")
	if done.Get("progress", "done") != "3" || done.Get("progress", "total") != "3" {
		t.Errorf("progress at the end: %s", done.Body)
	}
	// It never exchanged a code, so WeChat shows no token for it.
	if a := c.Do("GET", "/v1/merchants/"+unheard, nil).Want(200); a.Get("status") != "needs_reauthorization" || a.Get("nickname") == "null" {
		t.Errorf("found: %s", a.Body)
	}
	if a := c.Do("GET", "/v1/merchants/"+gone, nil).Want(200); a.Get("status") != "deauthorized" {
		t.Errorf("gone: %s", a.Body)
	}
	if a := c.Do("GET", "/v1/merchants/"+shop, nil).Want(200); a.Get("status") != "authorized" {
		t.Errorf("the one that stayed: %s", a.Body)
	}
	c.Do("POST", "/v1/merchants/sync", nil, "Idempotency-Key", strings.Repeat("k", 256)).WantProblem(400, "invalid_parameter")

	w.Fault(listCall, 1, map[string]any{"errcode": 61004})
	failed := c.Do("POST", "/v1/merchants/sync", nil).Want(202)
	w.Eventually("the comparison fails", func() error {
		if a := c.Do("GET", "/v1/operations/"+failed.Get("id"), nil); a.Get("status") != "failed" || a.Get("error", "code") != "platform_ip_not_allowed" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	c.Do("POST", "/v1/merchants/sync", nil).Want(202)
}

// What can be wrong with a merchant's token.
func TestMerchantTokens(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	w.WaitTicket(g)
	n := 0
	merchant := func() (*world.Client, string) { // each fault has one of its own: a failed refresh rests for a second
		n++
		c := consents(w, g, fmt.Sprintf("wx00000000000001%02x", n))
		return c, "/v1/merchants/" + c.Merchant + "/token-refreshes"
	}
	c, path := merchant()
	a := c.Do("POST", path, nil).Want(200)
	if a.Get("expires_at") == "" || strings.Contains(string(a.Body), "token") {
		t.Errorf("refreshed: %s", a.Body)
	}
	if n := len(w.Journal(tokenCall)); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}

	for _, tc := range []struct {
		fault  map[string]any
		status int
		code   string
	}{
		{map[string]any{"errcode": 40013}, 500, "platform_misconfigured"},
		{map[string]any{"errcode": 47001}, 500, "upstream_format_error"},
		{map[string]any{"errcode": 41021}, 500, "internal"},
		{map[string]any{"errcode": 61004}, 503, "platform_ip_not_allowed"},
		{map[string]any{"errcode": 45009}, 429, "wechat_quota_exhausted"},
		{map[string]any{"errcode": 45011}, 429, "wechat_rate_limited"},
		{map[string]any{"errcode": -1}, 502, "wechat_system_error"},
		{map[string]any{"errcode": 99999}, 502, "wechat_unknown_error"},
		{map[string]any{"body": `{"expires_in":7200}`}, 502, "wechat_unreachable"}, // an answer that tells nothing is none
		{map[string]any{"drop_reply": true}, 502, "wechat_unreachable"},
		{map[string]any{"errcode": 42007}, 409, "merchant_needs_reauthorization"},
		// WeChat says that it left, and then that it is authorised after all.
		{map[string]any{"errcode": 61003}, 503, "merchant_token_unavailable"},
	} {
		c, path := merchant()
		w.Fault(tokenCall, 1, tc.fault)
		if a := c.Do("POST", path, nil); a.Status != tc.status || a.Code() != tc.code {
			t.Errorf("%v: %d %s, want %d %s", tc.fault, a.Status, a.Body, tc.status, tc.code)
		}
	}

	// A password was changed: WeChat says so on any call.
	c, _ = merchant()
	w.Fault("wxa/get_store_list", 1, map[string]any{"errcode": 42007})
	c.Do("GET", "/v1/stores?source=live", nil).WantProblem(409, "merchant_needs_reauthorization")
	c.Until("/v1/merchants/"+c.Merchant, "needs_reauthorization")

	// A rejected token costs one refresh and one more call; if the fresh one is
	// rejected too the merchant rests, and nothing loops.
	for _, path := range []string{"wxa/get_store_list", "wxa/add_store"} {
		c, _ = merchant()
		call := func() *world.Answer {
			if path == "wxa/add_store" {
				return c.Do("POST", "/v1/stores", w.NewStore(n))
			}
			return c.Do("GET", "/v1/stores?source=live", nil)
		}
		calls, refreshes := len(w.Journal(path)), len(w.Journal(tokenCall))
		w.Fault(path, 1, map[string]any{"errcode": 40001})
		if a := call(); a.Status >= 300 {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
		if n, r := len(w.Journal(path))-calls, len(w.Journal(tokenCall))-refreshes; n != 2 || r != 1 {
			t.Errorf("%s: a rejected token cost %d calls and %d refreshes", path, n, r)
		}
		w.Fault(path, 2, map[string]any{"errcode": 42001})
		if a := call().WantProblem(503, "merchant_token_unavailable"); a.Header.Get("Retry-After") == "" {
			t.Errorf("%v", a.Header)
		}
		call().WantProblem(503, "merchant_token_unavailable")
		if n, r := len(w.Journal(path))-calls, len(w.Journal(tokenCall))-refreshes; n != 4 || r != 2 {
			t.Errorf("%s: a rejected fresh token cost %d calls and %d refreshes in all", path, n, r)
		}
	}

	// The platform itself.
	for errcode, code := range map[int]string{40125: "platform_misconfigured", 61004: "platform_ip_not_allowed", -1: "wechat_system_error", 40001: "platform_misconfigured"} {
		c, path := merchant()
		w.Control("POST", "credentials", map[string]string{"expire_access_tokens": "component"}, nil)
		w.Fault(componentCall, 1, map[string]any{"errcode": errcode})
		if a := c.Do("POST", path, nil); a.Code() != code {
			t.Errorf("component token refused with %d: %d %s, want %s", errcode, a.Status, a.Body, code)
		}
		w.Eventually("the platform has a token again", func() error {
			if a := c.Do("POST", path, nil); a.Status != 200 {
				return fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return nil
		})
	}

	// What lies in the database can't be opened: the keyset is another one, or
	// somebody wrote there.
	c, _ = merchant()
	w.Exec(`UPDATE authorizer_tokens SET access_ct = '\x0123', access_gen = access_gen + 1 WHERE merchant_id = $1`, w.UUID(typeid.Merchant, c.Merchant))
	w.Eventually("the damage is seen", func() error {
		if a := c.Do("GET", "/v1/stores?source=live", nil); a.Code() != "secret_unavailable" || a.Status != 503 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
}

func moment(t *testing.T, text any) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(text))
	if err != nil {
		t.Fatal(err)
	}
	return at
}
