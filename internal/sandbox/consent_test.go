package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// fakeGateway has what the gateway has of the way to consent: a page with a button, which fetches a
// pre_auth_code and sends the browser on, and a callback that exchanges the code.
type fakeGateway struct {
	b        *bundle
	wechat   string // base of the consent page
	url      string
	consent  string // path and own parameters of the consent page
	policy   string // Referrer-Policy of its pages
	exchange bool
	after    string // where the callback leads
}

func newFakeGateway(t *testing.T, b *bundle) *fakeGateway {
	t.Helper()
	g := &fakeGateway{b: b, wechat: b.base, consent: "/cgi-bin/componentloginpage?auth_type=1", exchange: true}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /connect/state", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Referrer-Policy", g.policy)
		http.SetCookie(w, &http.Cookie{Name: "seen", Value: "1", Path: "/"}) //nolint:gosec // of a test
		_, _ = fmt.Fprint(w, `<html><form method="get" action="/help"></form><FORM action='/connect/state' method=POST>
			<input type="hidden" name="csrf" value="a&amp;b"><button name="go" value="pc">Go</button><button name="go" value="h5">Phone</button></FORM></html>`)
	})
	mux.HandleFunc("POST /connect/state", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Referrer-Policy", g.policy)
		if c, err := r.Cookie("seen"); err != nil || c.Value != "1" || r.FormValue("csrf") != "a&b" || r.FormValue("go") != "pc" {
			t.Errorf("form %v, cookies %v", r.Form, r.Cookies())
		}
		var out struct {
			Code string `json:"pre_auth_code"`
		}
		b.post("/cgi-bin/component/api_create_preauthcode?access_token="+b.componentToken(), obj{"component_appid": DefaultComponentAppID}, &out)
		q := url.Values{"component_appid": {DefaultComponentAppID}, "pre_auth_code": {out.Code}, "redirect_uri": {g.url + "/callback?state=s"}}
		http.Redirect(w, r, g.wechat+g.consent+"&"+q.Encode()+"#wechat_redirect", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("state") != "s" || q.Get("expires_in") != "3600" || !strings.HasPrefix(q.Get("auth_code"), "queryauthcode@@@") {
			t.Errorf("callback %s", r.URL)
		}
		if g.exchange {
			b.post("/cgi-bin/component/api_query_auth?access_token="+b.componentToken(), obj{
				"component_appid": DefaultComponentAppID, "authorization_code": q.Get("auth_code"),
			}, nil)
		}
		http.Redirect(w, r, g.after, http.StatusSeeOther)
	})
	mux.HandleFunc("GET /done", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `<html><style>x{}</style><p>All  done &amp; well</p><form method="post" action="/no"></form></html>`)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	g.url, g.after = srv.URL, srv.URL+"/done"
	return g
}

func (g *fakeGateway) visit(appid string) (v visit) {
	g.b.t.Helper()
	g.b.control("POST", "authorizations", fmt.Sprintf(`{"appid":%q,"url":%q}`, appid, g.url+"/connect/state"), &v)
	return v
}

func TestConsent(t *testing.T) {
	t.Parallel()
	const unknown = "wx00000000000000aa"
	tests := []struct {
		name, consent, policy, appid, elsewhere string
		noExchange                              bool
		want                                    string // part of the page
		used                                    bool
	}{
		{name: "pc", want: "All done & well", used: true},
		{name: "h5", consent: "/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&auth_type=3", want: "All done", used: true},
		{name: "h5, older", consent: "/safe/bindcomponent?action=bindcomponent&no_scan=1&auth_type=6", want: "All done", used: true},
		{name: "one account", consent: "/cgi-bin/componentloginpage?auth_type=2&biz_appid=" + DemoOfficialAccount, want: "All done", used: true},
		{name: "an account made on the fly", appid: unknown, want: "All done", used: true},
		{name: "exchange fails", noExchange: true, want: "All done"},
		{name: "on to a foreign host", elsewhere: "https://shop.example/thanks?a=b", used: true},
		{name: "policy origin", policy: "origin", want: "All done", used: true},
		{name: "default policy of browsers", policy: "strict-origin-when-cross-origin", want: "All done", used: true},
		{name: "no referrer", policy: "no-referrer", want: "the Referer is"},
		{name: "same origin only", policy: "same-origin", want: "the Referer is"},
		{name: "kind does not fit", consent: "/cgi-bin/componentloginpage?auth_type=2", want: "does not fit"},
		{name: "other account asked for", consent: "/cgi-bin/componentloginpage?auth_type=1&biz_appid=" + LeavingAccount, want: "does not fit"},
		{name: "unknown biz_appid", consent: "/cgi-bin/componentloginpage?auth_type=1&biz_appid=" + unknown, want: "biz_appid"},
		{name: "no auth_type", consent: "/cgi-bin/componentloginpage?x=", want: "auth_type is missing"},
		{name: "h5 without action", consent: "/safe/bindcomponent?auth_type=1", want: "needs action=bindcomponent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := connected(t)
			g := newFakeGateway(t, b)
			g.policy, g.exchange = tt.policy, !tt.noExchange
			if tt.consent != "" {
				g.consent = tt.consent
			}
			if tt.elsewhere != "" {
				g.after = tt.elsewhere
			}
			appid := DemoOfficialAccount
			if tt.appid != "" {
				appid = tt.appid
			}
			v := g.visit(appid)
			if !strings.Contains(v.Page, tt.want) || v.AuthCodeUsed != tt.used {
				t.Errorf("visit = %+v, want used %v and %q", v, tt.used, tt.want)
			}
			if tt.elsewhere != "" && (v.FinalURL != tt.elsewhere || v.Status != http.StatusSeeOther) {
				t.Errorf("visit = %+v, want to end at %s", v, tt.elsewhere)
			}
			if tt.used {
				b.pushes.wait("authorized", func(p received) bool { return p.Get("AuthorizerAppid") == appid })
			} else if tt.want != "All done" && len(b.pushes.all("authorized")) > 0 {
				t.Error("authorised all the same")
			}
		})
	}
}

// The parts of one machine may call it by different names.
func TestConsentOnLocalhost(t *testing.T) {
	t.Parallel()
	b := connected(t)
	g := newFakeGateway(t, b)
	g.wechat = strings.Replace(b.base, "127.0.0.1", "localhost", 1)
	if v := g.visit(DemoOfficialAccount); !v.AuthCodeUsed || v.Status != http.StatusOK {
		t.Errorf("visit = %+v", v)
	}
}

func TestConsentAsksForSets(t *testing.T) {
	t.Parallel()
	b := connected(t)
	g := newFakeGateway(t, b)
	g.consent = "/cgi-bin/componentloginpage?auth_type=1&category_id_list=" + url.QueryEscape("1|13")
	g.visit(DemoOfficialAccount)
	if got := mustAuth(b, DemoOfficialAccount).Granted; len(got) != 1 || got[0] != 13 {
		t.Errorf("granted = %v, want [13]", got)
	}
}

// A pre_auth_code serves one authorization, for half an hour, and only this component.
func TestPreauthCode(t *testing.T) {
	t.Parallel()
	b := connected(t)
	var out struct {
		Code string `json:"pre_auth_code"`
	}
	b.post("/cgi-bin/component/api_create_preauthcode?access_token="+b.componentToken(), obj{"component_appid": DefaultComponentAppID}, &out)
	page := func(method, form string, q url.Values, referer string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, b.base+"/cgi-bin/componentloginpage?"+q.Encode(), strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Referer", referer)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, loc := make([]byte, 4096), resp.Header.Get("Location")
		n, _ := resp.Body.Read(text)
		return resp.StatusCode, string(text[:n]) + loc
	}
	good := url.Values{"component_appid": {DefaultComponentAppID}, "pre_auth_code": {out.Code}, "redirect_uri": {"https://gateway.example/cb"}, "auth_type": {"3"}}
	with := func(k, v string) url.Values {
		c := url.Values{k: {v}}
		for n := range good {
			if n != k {
				c.Set(n, good.Get(n))
			}
		}
		return c
	}
	const ref = "https://gateway.example/connect"
	for _, tt := range []struct {
		name, method, form, referer string
		q                           url.Values
		want                        string
	}{
		{"other component", "GET", "", ref, with("component_appid", "wxffffffffffffffff"), "component_appid"},
		{"unknown code", "GET", "", ref, with("pre_auth_code", "x"), "unknown or used"},
		{"relative redirect_uri", "GET", "", ref, with("redirect_uri", "/cb"), "redirect_uri"},
		{"no Referer", "GET", "", "", good, "registered domain"},
		{"foreign Referer", "GET", "", "https://evil.example/", good, "registered domain"},
		{"other method", "PUT", "", ref, good, ""},
		{"shown", "GET", "", ref, good, "Mendian Demo Live (mini_program"},
		{"account not offered", "POST", "appid=wx0", ref, good, "does not fit"},
		{"consent", "POST", "appid=" + DemoMiniProgram, ref, good, "https://gateway.example/cb?auth_code=queryauthcode"},
		{"code used", "GET", "", ref, good, "unknown or used"},
	} {
		if status, got := page(tt.method, tt.form, tt.q, tt.referer); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %d %s, want %q", tt.name, status, got, tt.want)
		}
	}
	b.post("/cgi-bin/component/api_create_preauthcode?access_token="+b.componentToken(), obj{"component_appid": DefaultComponentAppID}, &out)
	b.control("POST", "clock", `{"advance":"31m"}`, nil)
	if _, got := page("GET", "", with("pre_auth_code", out.Code), ref); !strings.Contains(got, "expired") {
		t.Errorf("after 31 minutes: %s", got)
	}
}

func TestAuthorizationsControlRefusals(t *testing.T) {
	t.Parallel()
	b := start(t)
	for body, want := range map[string]int{
		`{"appid":"x","url":"http://127.0.0.1/"}`:                               http.StatusBadRequest,
		`{"appid":"` + DemoOfficialAccount + `","url":"/connect"}`:              http.StatusBadGateway,
		`{"appid":"` + DemoOfficialAccount + `","url":"http://127.0.0.1:1/x"}`:  http.StatusBadGateway,
		`{"appid":"` + DemoOfficialAccount + `","link":"http://127.0.0.1:1/x"}`: http.StatusBadRequest,
	} {
		status, raw := b.do("POST", "/_sandbox/authorizations", body)
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(raw), &e); status != want || err != nil || e.Error == "" {
			t.Errorf("%s = %d %s, want %d", body, status, raw, want)
		}
	}
}
