package handlers

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// A visitor is a browser that follows no redirect by itself.
type visitor struct {
	*http.Client
	agent string
	zh    bool
}

func newVisitor(t *testing.T) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{Client: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (v *visitor) open(t *testing.T, method, target string, form url.Values) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("User-Agent", v.agent)
	if v.zh {
		req.Header.Set("Accept-Language", "zh-CN")
	}
	res, err := v.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestAuthorizationLinks(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	made := c.call(t, "POST", "/v1/authorization-links", `{"account_type":"official_account","client_reference":"shop-1","return_url":"https://shop.example/done"}`).want(t, 201, "")
	link := decode[oapi.AuthorizationLinkCreated](t, made)
	at := "/v1/authorization-links/" + link.ID
	if made.Header.Get("Location") != at || !strings.HasPrefix(link.URL, c.url+"/connect/") {
		t.Errorf("POST = %s", made.body)
	}
	shown := c.call(t, "GET", at, "").want(t, 200, "")
	if l := decode[oapi.AuthorizationLink](t, shown); l.Status != "open" || l.MerchantID != nil || l.UsedAt != nil || l.LastError != nil || *l.ReturnURL != "https://shop.example/done" {
		t.Errorf("GET = %s", shown.body)
	}
	if strings.Contains(shown.body, "/connect/") {
		t.Error("the URL is shown again")
	}
	c.call(t, "GET", at, "", "If-None-Match: "+shown.Header.Get("ETag")).want(t, 304, "")

	// As the administrator would, in the simulator's browser.
	var visit struct {
		Status   int
		FinalURL string `json:"final_url"`
	}
	if err := json.Unmarshal([]byte(c.control(t, "authorizations", `{"appid":"`+sandbox.DemoOfficialAccount+`","url":"`+link.URL+`"}`)), &visit); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(visit.FinalURL, "https://shop.example/done?status=authorized&merchant_id=mch_") {
		t.Errorf("the browser ended at %s", visit.FinalURL)
	}
	l := decode[oapi.AuthorizationLink](t, c.call(t, "GET", at, "").want(t, 200, ""))
	if l.Status != "authorized" || l.MerchantID == nil || l.UsedAt == nil {
		t.Fatalf("link = %+v", l)
	}
	m := decode[oapi.Merchant](t, c.call(t, "GET", "/v1/merchants/"+*l.MerchantID, "").want(t, 200, ""))
	if m.Appid != sandbox.DemoOfficialAccount || m.ClientReference == nil || *m.ClientReference != "shop-1" {
		t.Errorf("merchant = %+v", m)
	}

	c.call(t, "POST", "/v1/authorization-links", `{"client_reference":"shop-1"}`).want(t, 409, "duplicate_client_reference")
	for _, bad := range []string{"https://shop.example.evil.com/", "https://shop.example@evil.com/", "https://evil.com/https://shop.example"} {
		if a := c.call(t, "POST", "/v1/authorization-links", `{"return_url":"`+bad+`"}`).want(t, 422, "validation_failed"); a.fields() != "/return_url not_allowed" {
			t.Errorf("%s: fields %q", bad, a.fields())
		}
	}
	c.call(t, "POST", "/v1/authorization-links", `{"account_type":"shop"}`).want(t, 422, "validation_failed")
	c.call(t, "POST", "/v1/authorization-links", `{"colour":"red"}`).want(t, 400, "unknown_field")
	c.call(t, "GET", "/v1/authorization-links/"+typeid.Format(typeid.AuthorizationLink, typeid.New()), "").want(t, 404, "not_found")

	other := c.surface.tenant(t, tenant.NewTenant{Name: "Other", ComponentAppID: "wx00000000000000b2"})
	stranger, _ := c.bearer(t, other.ID, []string{"*"})
	c.call(t, "GET", at, "", stranger).want(t, 404, "not_found")
}

func TestConnectPages(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	link := decode[oapi.AuthorizationLinkCreated](t, c.call(t, "POST", "/v1/authorization-links", `{}`).want(t, 201, ""))

	v := newVisitor(t)
	res, body := v.open(t, "GET", link.URL, nil)
	if res.StatusCode != 200 || !strings.Contains(body, `<form method="post">`) || !strings.Contains(body, "Demo") || strings.Contains(body, "<script") {
		t.Fatalf("page: %d %s", res.StatusCode, body)
	}
	for name, want := range map[string]string{"Referrer-Policy": "origin", "Cache-Control": "no-store", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff"} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	csp := res.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || !strings.Contains(csp, c.sim) {
		t.Errorf("CSP = %s", csp)
	}
	cookie := res.Cookies()
	if len(cookie) != 1 || cookie[0].Name != "gwauth" || !cookie[0].HttpOnly || cookie[0].SameSite != http.SameSiteLaxMode || cookie[0].Secure {
		t.Errorf("cookies = %v", cookie)
	}
	if _, again := v.open(t, "GET", link.URL, nil); !strings.Contains(again, "<form") {
		t.Error("opening the page spent it")
	}
	v.zh = true
	if res, body := v.open(t, "GET", link.URL, nil); !strings.Contains(body, "前往微信授权") || res.Header.Get("Content-Language") != "zh" {
		t.Errorf("in Chinese: %s", body)
	}
	v.zh = false

	const phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148 MicroMessenger/8.0"
	for _, tc := range []struct{ agent, chosen, path string }{
		{"Mozilla/5.0 (X11; Linux x86_64)", "", "/cgi-bin/componentloginpage"},
		{phone, "", "/wxaopen/safe/bindcomponent"},
		{phone, "computer", "/cgi-bin/componentloginpage"},
		{"Mozilla/5.0 (X11; Linux x86_64)", "phone", "/wxaopen/safe/bindcomponent"},
	} {
		v.agent = tc.agent
		res, _ := v.open(t, "POST", link.URL, url.Values{"page": {tc.chosen}})
		to, err := url.Parse(res.Header.Get("Location"))
		if res.StatusCode != 303 || err != nil || to.Path != tc.path {
			t.Errorf("button on %q, switch %q: %d to %s, want %s", tc.agent, tc.chosen, res.StatusCode, to, tc.path)
		}
		if res.Header.Get("Referrer-Policy") != "origin" {
			t.Error("WeChat would not see our origin")
		}
	}
}

// Attacks 70 and 71, and what else goes wrong, as pages.
func TestConnectProblems(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	v := newVisitor(t)
	page := func(target string, status int, text string) {
		t.Helper()
		res, body := v.open(t, "GET", target, nil)
		if res.StatusCode != status || !strings.Contains(body, text) || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d %s, want %d with %q", strings.TrimPrefix(target, c.url), res.StatusCode, body, status, text)
		}
		if got := res.Header.Get("Referrer-Policy"); got != "no-referrer" {
			t.Errorf("%s: Referrer-Policy %q", target, got)
		}
	}
	link := decode[oapi.AuthorizationLinkCreated](t, c.call(t, "POST", "/v1/authorization-links", `{"expected_appid":"`+sandbox.DemoOfficialAccount+`"}`).want(t, 201, ""))
	unknown := c.url + "/connect/" + strings.Repeat("A", 43)
	page(unknown, 404, "Unknown link")
	page(unknown+"/callback?auth_code=queryauthcode@@@x", 404, "Unknown link")
	page(c.url+"/connect/%27%3B--", 404, "Unknown link")
	page(link.URL+"/callback", 400, "Invalid parameter")
	page(link.URL+"/callback?auth_code="+strings.Repeat("x", 2<<10), 400, "Invalid parameter")
	if res, _ := v.open(t, "GET", link.URL+"/callback?auth_code="+strings.Repeat("x", 10<<10), nil); res.StatusCode != 400 {
		t.Errorf("a code of 10 KiB: %d", res.StatusCode)
	}

	// An account that belongs to another tenant.
	other := c.surface.tenant(t, tenant.NewTenant{Name: "Other", ComponentAppID: "wx00000000000000b2"})
	c.merchant(t, other.ID, sandbox.DemoOfficialAccount)
	var visit struct {
		Status int
		Page   string
	}
	if err := json.Unmarshal([]byte(c.control(t, "authorizations", `{"appid":"`+sandbox.DemoOfficialAccount+`","url":"`+link.URL+`"}`)), &visit); err != nil {
		t.Fatal(err)
	}
	if visit.Status != 409 || !strings.Contains(visit.Page, "Account belongs to another platform here") {
		t.Errorf("the browser ended at %d %s", visit.Status, visit.Page)
	}
	l := decode[oapi.AuthorizationLink](t, c.call(t, "GET", "/v1/authorization-links/"+link.ID, "").want(t, 200, ""))
	if l.Status != "open" || l.LastError == nil || l.LastError.Code != "merchant_bound_to_other_tenant" || l.LastError.Detail == "" {
		t.Errorf("link = %+v", l)
	}

	// A code that WeChat does not know, in the browser that pressed the button.
	v.open(t, "GET", link.URL, nil)
	if res, body := v.open(t, "POST", link.URL, nil); res.StatusCode != 303 {
		t.Fatalf("button: %d %s", res.StatusCode, body)
	}
	page(link.URL+"/callback?auth_code=queryauthcode@@@unknown", 410, "Authorisation took too long")

	if err := c.db.InTenant(t.Context(), c.tenant, func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `UPDATE authorization_links SET expires_at = now() - interval '1 second'`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	page(link.URL, 410, "Link used or expired")
	page(link.URL+"/callback?auth_code=queryauthcode@@@x", 410, "Link used or expired")
	if l := decode[oapi.AuthorizationLink](t, c.call(t, "GET", "/v1/authorization-links/"+link.ID, "").want(t, 200, "")); l.Status != "expired" {
		t.Errorf("status = %s", l.Status)
	}
}

// Without a return URL the browser ends on our own page.
func TestConnectDone(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	link := decode[oapi.AuthorizationLinkCreated](t, c.call(t, "POST", "/v1/authorization-links", `{"account_type":"mini_program"}`).want(t, 201, ""))
	out := c.control(t, "authorizations", `{"appid":"`+sandbox.DemoMiniProgram+`","url":"`+link.URL+`"}`)
	if !strings.Contains(out, `"status":200`) || !strings.Contains(out, "The account is authorised") {
		t.Errorf("the browser ended with %s", out)
	}
	v := newVisitor(t)
	if res, body := v.open(t, "GET", link.URL, nil); res.StatusCode != 410 {
		t.Errorf("the used link: %d %s", res.StatusCode, body)
	}
}
