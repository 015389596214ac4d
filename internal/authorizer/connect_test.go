package authorizer

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

const queryCall = componentPath + "api_query_auth"

func (b *bundle) link(n NewLink) (Link, string) {
	b.t.Helper()
	l, u, err := b.a().CreateLink(b.t.Context(), tenant.Caller{TenantID: b.tenant, Actor: "key_test"}, n)
	if err != nil {
		b.t.Fatal(err)
	}
	return l, u
}

func (b *bundle) linkNow(id uuid.UUID) Link {
	b.t.Helper()
	l, err := b.a().GetLink(b.t.Context(), b.tenant, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

// A browser is one person's, with cookies; it follows no redirect by itself.
type browser struct {
	t *testing.T
	c *http.Client
}

func newBrowserOf(t *testing.T) browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return browser{t, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (w browser) do(method, to, body, referer string) (status int, location, page string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, to, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if referer != "" {
		req.Header.Set("Referer", referer)
	}
	resp, err := w.c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("Location"), strings.TrimSpace(string(b))
}

// consents opens the link, presses its button and consents as the account. It
// returns the callback's URL without opening it.
func (w browser) consents(link, appid string) (callback string) {
	w.t.Helper()
	if status, _, page := w.do("GET", link, "", ""); status != 200 {
		w.t.Fatalf("the link's page: %d %s", status, page)
	}
	status, consent, page := w.do("POST", link, "", link)
	if status != 303 {
		w.t.Fatalf("the button: %d %s", status, page)
	}
	if status, _, page := w.do("GET", consent, "", link); status != 200 || !strings.Contains(page, "<form") {
		w.t.Fatalf("the consent page: %d %s", status, page)
	}
	status, back, page := w.do("POST", consent, "appid="+appid, consent)
	if status != 302 {
		w.t.Fatalf("the consent: %d %s", status, page)
	}
	return back
}

func (b *bundle) hold(hold bool) {
	b.t.Helper()
	b.control("POST", "pushes", obj{"hold": hold}, nil)
}

func TestLinkToMerchant(t *testing.T) {
	t.Parallel()
	b := start(t)
	l, u := b.link(NewLink{AccountType: OfficialAccount, ClientReference: "shop-1", ReturnURL: "https://good.com/done?x=1"})
	status, page := b.consent(sandbox.DemoOfficialAccount, u)
	if status != 200 || !strings.HasPrefix(page, "authorized https://good.com/done?x=1&status=authorized&merchant_id=mch_") {
		t.Fatalf("the browser ended at %d %q", status, page)
	}
	m := b.merchant(sandbox.DemoOfficialAccount)
	now := b.linkNow(l.ID)
	if now.Status != LinkAuthorized || now.MerchantID == nil || *now.MerchantID != m.ID || now.UsedAt == nil {
		t.Errorf("link = %+v", now)
	}
	if m.ClientReference == nil || *m.ClientReference != "shop-1" {
		t.Errorf("client_reference = %v", m.ClientReference)
	}
	b.until("the push was heard", func() bool { return b.heard("authorized", m.AppID) > 0 })
	if n := len(b.calls(queryCall)); n != 1 {
		t.Errorf("%d exchanges, want 1", n)
	}
	if n := scalar[int](b, `SELECT count(*) FROM outbox`); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
	if got := scalar[bool](b, `SELECT transition_at > now() - interval '1 minute' FROM merchants`); !got {
		t.Error("the push's CreateTime was not noted")
	}
	// Used once: no second time.
	_, err := b.a().Show(t.Context(), strings.TrimPrefix(u, b.front.URL+"/connect/"))
	wantCode(t, err, problem.CodeLinkExpired)
}

func TestConsentURL(t *testing.T) {
	t.Parallel()
	b := start(t)
	appid := "wx5ab0d1c0ffee0a02"
	l, _ := b.link(NewLink{AccountType: MiniProgram, ExpectedAppID: appid})
	back := url.QueryEscape(b.front.URL + "/connect/STATE/callback")
	for mobile, want := range map[bool]string{
		false: b.sim + "/cgi-bin/componentloginpage?component_appid=wxc&pre_auth_code=p%40%401&redirect_uri=" + back + "&auth_type=2&biz_appid=" + appid,
		true: b.sim + "/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&component_appid=wxc&pre_auth_code=p%40%401&redirect_uri=" + back +
			"&auth_type=2&biz_appid=" + appid + "#wechat_redirect",
	} {
		if got := b.a().consentURL(l, "STATE", "wxc", "p@@1", mobile); got != want {
			t.Errorf("consentURL(mobile %v) =\n%s, want\n%s", mobile, got, want)
		}
	}
}

// Callback and push of one code in either order, and at once over two processes.
func TestCodeArrivesTwice(t *testing.T) {
	t.Parallel()
	t.Run("PushFirst", func(t *testing.T) {
		t.Parallel()
		b := start(t)
		l, u := b.link(NewLink{ClientReference: "first"})
		w := newBrowserOf(t)
		back := w.consents(u, sandbox.DemoOfficialAccount)
		b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
		if now := b.linkNow(l.ID); now.Status != LinkAuthorized {
			t.Errorf("after the push the link is %s: its PreAuthCode names it", now.Status)
		}
		if status, _, page := w.do("GET", back, "", ""); status != 200 || !strings.HasPrefix(page, "authorized") {
			t.Errorf("callback: %d %s", status, page)
		}
		if n := len(b.calls(queryCall)); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
	})
	t.Run("CallbackFirst", func(t *testing.T) {
		t.Parallel()
		b := start(t)
		b.hold(true)
		l, u := b.link(NewLink{})
		w := newBrowserOf(t)
		back := w.consents(u, sandbox.DemoOfficialAccount)
		for range 2 { // and the page is loaded again
			if status, _, page := w.do("GET", back, "", ""); status != 200 || !strings.HasPrefix(page, "authorized") {
				t.Errorf("callback: %d %s", status, page)
			}
		}
		b.hold(false)
		b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
		if now := b.linkNow(l.ID); now.Status != LinkAuthorized {
			t.Errorf("link is %s", now.Status)
		}
		if n := len(b.calls(queryCall)); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
	})
	t.Run("InTheMiddleOfThePush", func(t *testing.T) {
		t.Parallel()
		b := start(t)
		b.control("POST", "faults", obj{"path": componentPath + "api_get_authorizer_info", "n": 1, "delay_ms": 700}, nil)
		l, u := b.link(NewLink{})
		w := newBrowserOf(t)
		back := w.consents(u, sandbox.DemoOfficialAccount)
		b.until("the push used the link up", func() bool { return b.linkNow(l.ID).Status == LinkAuthorized })
		if status, _, page := w.do("GET", back, "", ""); status != 200 || !strings.HasPrefix(page, "authorized") {
			t.Errorf("callback: %d %s", status, page)
		}
		b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
		if n := len(b.calls(queryCall)); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
	})
	t.Run("AtOnce", func(t *testing.T) {
		t.Parallel()
		b := start(t)
		b.addNode(b.sim)
		b.hold(true)
		_, u := b.link(NewLink{})
		w := newBrowserOf(t)
		back := w.consents(u, sandbox.DemoOfficialAccount)
		b.control("POST", "faults", obj{"path": queryCall, "n": 1, "delay_ms": 300}, nil)
		b.reach(1)
		b.hold(false) // the push goes to the second process, its copies too
		state, code := partsOf(t, back)
		name, _ := b.node[0].BrowserCookie()
		cookie := ""
		front, _ := url.Parse(b.front.URL)
		for _, c := range w.c.Jar.Cookies(front) {
			if c.Name == name {
				cookie = c.Value
			}
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := b.node[0].Callback(t.Context(), state, code, cookie); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
		if n := len(b.calls(queryCall)); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
		if n := scalar[int](b, `SELECT count(*) FROM outbox`); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}

func partsOf(t *testing.T, callback string) (state, code string) {
	t.Helper()
	u, err := url.Parse(callback)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(u.Path, "/")[2], u.Query().Get("auth_code")
}

// An exchange whose process died after WeChat answered: the code is used up,
// and the push still brings the merchant with its refresh token.
func TestExchangerDies(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.hold(true)
	l, u := b.link(NewLink{})
	w := newBrowserOf(t)
	back := w.consents(u, sandbox.DemoOfficialAccount)
	b.control("POST", "faults", obj{"path": queryCall, "n": 1, "drop_reply": true}, nil)
	if status, _, page := w.do("GET", back, "", ""); status != 502 {
		t.Errorf("callback whose answer was lost: %d %s", status, page)
	}
	if status, _, page := w.do("GET", back, "", ""); status != 410 {
		t.Errorf("second callback: %d %s, want 410: WeChat says that the code is used", status, page)
	}
	b.hold(false)
	b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
	m := b.merchant(sandbox.DemoOfficialAccount)
	if m.Status != StatusAuthorized {
		t.Errorf("status = %s", m.Status)
	}
	if now := b.linkNow(l.ID); now.Status != LinkAuthorized {
		t.Errorf("link is %s", now.Status)
	}
	if err := b.read(b.a(), m); err != nil {
		t.Error(err)
	}
}

// Attack 70: nothing that can't be right reaches WeChat.
func TestCallbackRefusals(t *testing.T) {
	t.Parallel()
	b := start(t)
	a := b.a()
	used, u := b.link(NewLink{})
	if status, page := b.consent(sandbox.DemoOfficialAccount, u); status != 200 {
		t.Fatal(page)
	}
	expired, e := b.link(NewLink{})
	b.sql(`UPDATE authorization_links SET expires_at = now() - interval '1 second' WHERE id = $1`, expired.ID)
	_, open := b.link(NewLink{})
	state := func(u string) string { return strings.TrimPrefix(u, b.front.URL+"/connect/") }
	before := len(b.calls(""))
	for _, tc := range []struct{ name, state, code, want string }{
		{"unknown state", randomText(), "queryauthcode@@@x", problem.CodeLinkUnknown},
		{"no state", "", "queryauthcode@@@x", problem.CodeLinkUnknown},
		{"state of another shape", "'; DROP TABLE merchants; --", "queryauthcode@@@x", problem.CodeLinkUnknown},
		{"expired", state(e), "queryauthcode@@@x", problem.CodeLinkExpired},
		{"used", state(u), "queryauthcode@@@x", problem.CodeLinkExpired},
		{"no code", state(open), "", problem.CodeInvalidParameter},
		{"a long code", state(open), strings.Repeat("x", 10<<10), problem.CodeInvalidParameter},
		{"a code of other characters", state(open), "abc\r\nSet-Cookie: x", problem.CodeInvalidParameter},
	} {
		_, err := a.Callback(t.Context(), tc.state, tc.code, "browser")
		if got := codeOf(err); got != tc.want {
			t.Errorf("%s: code = %q, want %q", tc.name, got, tc.want)
		}
	}
	for name, s := range map[string]string{"expired": state(e), "used": state(u)} {
		_, err := a.Click(t.Context(), s, "browser", false)
		if got := codeOf(err); got != problem.CodeLinkExpired {
			t.Errorf("click on an %s link: %q", name, got)
		}
	}
	if after := len(b.calls("")); after != before {
		t.Errorf("%d calls reached WeChat", after-before)
	}
	if now := b.linkNow(used.ID); now.Status != LinkAuthorized {
		t.Errorf("the used link is %s", now.Status)
	}
}

// A callback in a browser that never pressed the button exchanges nothing.
func TestCallbackInAnotherBrowser(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.hold(true)
	l, u := b.link(NewLink{ReturnURL: "https://good.com"})
	back := newBrowserOf(t).consents(u, sandbox.DemoOfficialAccount)
	if status, _, page := newBrowserOf(t).do("GET", back, "", ""); status != 200 || !strings.HasPrefix(page, "pending https://good.com?status=pending") {
		t.Errorf("callback: %d %s", status, page)
	}
	if n := len(b.calls(queryCall)); n != 0 {
		t.Errorf("%d exchanges, want none", n)
	}
	b.hold(false)
	b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
	if now := b.linkNow(l.ID); now.Status != LinkAuthorized {
		t.Errorf("after the push the link is %s", now.Status)
	}
	if status, _, page := newBrowserOf(t).do("GET", back, "", ""); status != 200 || !strings.HasPrefix(page, "authorized") {
		t.Errorf("callback after the push: %d %s", status, page)
	}
}

// A code of one link given to another one's callback, in the browser that the
// other link's owner uses: the signed push puts it right.
func TestMixedUpLinks(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.hold(true)
	victim, victimURL := b.link(NewLink{ClientReference: "victim"})
	attacker, attackerURL := b.link(NewLink{ClientReference: "attacker"})
	code := newBrowserOf(t).consents(attackerURL, sandbox.LeavingAccount)
	w := newBrowserOf(t)
	w.do("GET", victimURL, "", "")
	w.do("POST", victimURL, "", victimURL)
	_, stolen := partsOf(t, code)
	if status, _, page := w.do("GET", victimURL+"/callback?auth_code="+url.QueryEscape(stolen), "", ""); status != 200 {
		t.Fatalf("callback: %d %s", status, page)
	}
	b.hold(false)
	b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
	v, a := b.linkNow(victim.ID), b.linkNow(attacker.ID)
	if v.Status != LinkOpen || v.MerchantID != nil || v.LastError == nil || a.Status != LinkAuthorized {
		t.Errorf("victim's link is %s with error %v, the attacker's own %s", v.Status, v.LastError, a.Status)
	}
	if m := b.merchant(sandbox.LeavingAccount); m.ClientReference == nil || *m.ClientReference != "attacker" {
		t.Errorf("client_reference = %v", m.ClientReference)
	}
}

func TestUnexpectedAccount(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.hold(true)
	l, u := b.link(NewLink{ExpectedAppID: sandbox.DemoOfficialAccount})
	_, other := b.link(NewLink{})
	code := newBrowserOf(t).consents(other, sandbox.LeavingAccount)
	w := newBrowserOf(t)
	w.do("GET", u, "", "")
	w.do("POST", u, "", u)
	_, stolen := partsOf(t, code)
	if status, _, page := w.do("GET", u+"/callback?auth_code="+url.QueryEscape(stolen), "", ""); status != 409 || page != problem.CodeUnexpectedAccount {
		t.Errorf("callback: %d %s", status, page)
	}
	if now := b.linkNow(l.ID); now.Status != LinkOpen || now.LastError == nil || now.LastError.Code != problem.CodeUnexpectedAccount {
		t.Errorf("link = %+v", now)
	}
}

// otherTenant makes a tenant that already holds the account.
func (b *bundle) otherTenant(appid string) uuid.UUID {
	b.t.Helper()
	d, err := b.a().tenantsCreate(b.t, "other")
	if err != nil {
		b.t.Fatal(err)
	}
	err = b.a().db.InTenant(b.t.Context(), d, func(tx postgres.DBTX) error {
		_, err := tx.Exec(b.t.Context(), `INSERT INTO merchants (tenant_id, id, appid, status) VALUES ($1, $2, $3, 'authorized')`, d, typeid.New(), appid)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func (n *node) tenantsCreate(t *testing.T, name string) (uuid.UUID, error) {
	d, err := n.tenants.Create(t.Context(), operator, tenant.NewTenant{Name: name, ComponentAppID: "wx00000000000000b2"})
	return d.ID, err
}

// Attack 71: an account that another tenant holds is never moved.
func TestBoundToOtherTenant(t *testing.T) {
	t.Parallel()
	b := start(t)
	other := b.otherTenant(sandbox.DemoOfficialAccount)
	l, u := b.link(NewLink{})
	if status, page := b.consent(sandbox.DemoOfficialAccount, u); status != 409 || page != problem.CodeMerchantBoundToOtherTenant {
		t.Errorf("callback: %d %s", status, page)
	}
	b.until("the push was applied", func() bool { return b.heard("authorized", "") > 0 })
	if _, err := b.a().Merchant(t.Context(), b.tenant, sandbox.DemoOfficialAccount); codeOf(err) != problem.CodeMerchantNotFound {
		t.Errorf("the tenant got it: %v", err)
	}
	if m, err := b.a().Merchant(t.Context(), other, sandbox.DemoOfficialAccount); err != nil || m.Status != StatusAuthorized {
		t.Errorf("the other tenant lost it: %+v, %v", m, err)
	}
	if now := b.linkNow(l.ID); now.Status != LinkOpen || now.LastError == nil || now.LastError.Code != problem.CodeMerchantBoundToOtherTenant {
		t.Errorf("link = %+v", now)
	}
	if !strings.Contains(b.log.String(), "an account of another tenant") {
		t.Error("nobody was told")
	}
}

// Attack 72.
func TestReturnURL(t *testing.T) {
	t.Parallel()
	b := start(t)
	who := tenant.Caller{TenantID: b.tenant, Actor: "key_test"}
	for _, bad := range []string{
		"https://good.com.evil.com", "https://good.com@evil", "//evil", `/\evil`, "https://good.com/%0d%0aSet-Cookie:",
		"http://good.com", "https://good.com:444/", `https://good.com\.evil.com`, "javascript:alert(1)", "https://GOOD.com.evil.com/x",
	} {
		_, _, err := b.a().CreateLink(t.Context(), who, NewLink{ReturnURL: bad})
		if p, ok := problem.As(err); !ok || p.Code != problem.CodeValidationFailed || len(p.Fields) != 1 || p.Fields[0].Pointer != "/return_url" {
			t.Errorf("CreateLink(%q) = %v", bad, err)
		}
	}
	if n := scalar[int](b, `SELECT count(*) FROM authorization_links`); n != 0 {
		t.Errorf("%d links were made", n)
	}
	l, _ := b.link(NewLink{ReturnURL: "https://good.com/a?b=c#d"})
	if got := returnTo(l, "authorized", "mch_x"); got != "https://good.com/a?b=c&status=authorized&merchant_id=mch_x#d" {
		t.Errorf("returnTo = %s", got)
	}
}

func TestLinkReferenceTaken(t *testing.T) {
	t.Parallel()
	b := start(t)
	_, u := b.link(NewLink{ClientReference: "shop"})
	if status, page := b.consent(sandbox.DemoOfficialAccount, u); status != 200 {
		t.Fatal(page)
	}
	who := tenant.Caller{TenantID: b.tenant, Actor: "key_test"}
	_, _, err := b.a().CreateLink(t.Context(), who, NewLink{ClientReference: "shop"})
	wantCode(t, err, problem.CodeDuplicateClientReference)
	b.link(NewLink{ClientReference: "shop", ExpectedAppID: sandbox.DemoOfficialAccount}) // the same one again
}

func TestClicksAreBounded(t *testing.T) {
	t.Parallel()
	b := start(t)
	l, u := b.link(NewLink{})
	state := strings.TrimPrefix(u, b.front.URL+"/connect/")
	b.sql(fmt.Sprintf(`INSERT INTO authorization_link_clicks (tenant_id, pre_auth_code_sha256, link_id, browser_sha256)
		SELECT $1, int4send(i), $2, '\x00' FROM generate_series(1, %d) i`, clicksAnHour), b.tenant, l.ID)
	_, err := b.a().Click(t.Context(), state, "x", false)
	wantCode(t, err, problem.CodeRateLimited)
}
