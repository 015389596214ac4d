package sandbox

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTicketPush(t *testing.T) {
	t.Parallel()
	b := connected(t)
	p := b.pushes.wait("component_verify_ticket", nil)
	ticket := p.Get("ComponentVerifyTicket")
	if !strings.HasPrefix(ticket, "ticket@@@") || p.path != "/wechat/ref/component" {
		t.Errorf("ticket %q to %s", ticket, p.path)
	}
	want := "<xml><AppId><![CDATA[" + DefaultComponentAppID + "]]></AppId>\n<CreateTime>" + p.Get("CreateTime") +
		"</CreateTime>\n<InfoType><![CDATA[component_verify_ticket]]></InfoType>\n<ComponentVerifyTicket><![CDATA[" + ticket +
		"]]></ComponentVerifyTicket>\n</xml>"
	if d := cmp.Diff(want, p.plain); d != "" {
		t.Error(d)
	}
	if p.envelope.AppID != DefaultComponentAppID || p.envelope.ToUserName != "" {
		t.Errorf("envelope = %+v", p.envelope)
	}
	if d := wallDistance(t, p.Get("CreateTime")); d > time.Minute {
		t.Errorf("CreateTime is %v off wall time", d)
	}
}

func wallDistance(t *testing.T, unixSeconds string) time.Duration {
	t.Helper()
	n, err := strconv.ParseInt(unixSeconds, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Since(time.Unix(n, 0)).Abs()
}

func TestTicketsComeByInterval(t *testing.T) {
	t.Parallel()
	b := connected(t, func(c *Config) { c.TicketInterval = 5 * time.Millisecond })
	seen := map[string]bool{}
	eventually(t, "three tickets", func() bool {
		for _, p := range b.pushes.all("component_verify_ticket") {
			seen[p.Get("ComponentVerifyTicket")] = true
		}
		return len(seen) >= 3
	})
}

func TestTicketsStopUntilStarted(t *testing.T) {
	t.Parallel()
	b := connected(t)
	b.componentToken()
	b.control("POST", "settings", `{"tickets_stopped":true}`, nil)
	b.control("POST", "clock", `{"advance":"3h"}`, nil)
	before := len(b.pushes.all("component_verify_ticket"))
	body := obj{"component_appid": DefaultComponentAppID, "component_secret": DefaultComponentSecret}
	if got := b.post("/cgi-bin/component/api_start_push_ticket", body, nil); got.ErrCode != 0 || got.ErrMsg != "ok" {
		t.Errorf("start = %s", got.raw)
	}
	eventually(t, "a ticket after the start", func() bool { return len(b.pushes.all("component_verify_ticket")) == before+1 })
	contains(t, b.post("/cgi-bin/component/api_start_push_ticket", body, nil).raw, `"errcode":0,"errmsg":"component_verify_ticket push is in a normal state"`)
}

func TestClockBringsATicket(t *testing.T) {
	t.Parallel()
	b := connected(t)
	b.componentToken()
	b.control("POST", "clock", `{"advance":"13h"}`, nil)
	eventually(t, "a ticket for the time gone by", func() bool { return len(b.pushes.all("component_verify_ticket")) == 2 })
	b.componentToken() // with the new one; the old one is 61005 by now
}

func TestOlderTicketStillServes(t *testing.T) {
	t.Parallel()
	b := connected(t)
	first := b.pushes.wait("component_verify_ticket", nil).Get("ComponentVerifyTicket")
	b.control("POST", "clock", `{"advance":"1h"}`, nil)
	b.pushes.wait("component_verify_ticket", func(p received) bool { return p.Get("ComponentVerifyTicket") != first })
	b.control("POST", "credentials", `{"reject_ticket":"newest"}`, nil)
	got := b.post("/cgi-bin/component/api_component_token", obj{
		"component_appid": DefaultComponentAppID, "component_appsecret": DefaultComponentSecret, "component_verify_ticket": first,
	}, nil)
	contains(t, got.raw, `"expires_in":7200`)
	if strings.Contains(got.raw, "errcode") {
		t.Errorf("a success carries errcode: %s", got.raw)
	}
}

// The token before the newest one stays good for five minutes, unless the grace is off (platform.md §3).
func TestComponentTokenGrace(t *testing.T) {
	t.Parallel()
	preauth := func(b *bundle, name, token string) reply {
		return b.post("/cgi-bin/component/api_create_preauthcode?"+name+"="+token, obj{"component_appid": DefaultComponentAppID}, nil)
	}
	b := connected(t)
	old := b.componentToken()
	fresh := b.componentToken()
	if got := preauth(b, "component_access_token", old); got.ErrCode != 0 {
		t.Errorf("in the grace: %s", got.raw)
	}
	b.control("POST", "clock", `{"advance":"299s"}`, nil)
	if got := preauth(b, "access_token", old); got.ErrCode != 0 {
		t.Errorf("after 299 s: %s", got.raw)
	}
	b.control("POST", "clock", `{"advance":"2s"}`, nil)
	if got := preauth(b, "access_token", old); got.ErrCode != 40001 {
		t.Errorf("after 301 s: %s, want 40001", got.raw)
	}
	contains(t, preauth(b, "access_token", fresh).raw, `{"pre_auth_code":"preauthcode@@@`)
	contains(t, preauth(b, "access_token", fresh).raw, `"expires_in":1800}`)

	b.control("POST", "settings", `{"token_grace_off":true}`, nil)
	b.componentToken()
	if got := preauth(b, "access_token", fresh); got.ErrCode != 40001 {
		t.Errorf("grace off: %s, want 40001", got.raw)
	}
}

func TestAuthorizerTokens(t *testing.T) {
	t.Parallel()
	b, first := authorized(t)
	s := &scene{bundle: b, component: b.componentToken()}
	list := func(token string) int {
		return b.post("/wxa/get_store_list?access_token="+token, obj{"offset": 0, "limit": 0}, nil).ErrCode
	}
	refresh := func(token string) (reply, map[string]any) {
		t.Helper()
		out := map[string]any{}
		r := b.post("/cgi-bin/component/api_authorizer_token?access_token="+s.component, obj{
			"component_appid": DefaultComponentAppID, "authorizer_appid": DemoOfficialAccount, "authorizer_refresh_token": token,
		}, &out)
		return r, out
	}
	held := s.refreshToken()
	r, out := refresh(held)
	if out["authorizer_refresh_token"] != held || out["expires_in"] != float64(7200) {
		t.Fatalf("refresh = %s", r.raw)
	}
	second := out["authorizer_access_token"].(string)
	if list(first) != 0 || list(second) != 0 {
		t.Error("both tokens must pass in the grace")
	}
	b.control("POST", "clock", `{"advance":"301s"}`, nil)
	if list(first) != 40001 || list(second) != 0 {
		t.Error("after the grace only the newest passes")
	}

	b.control("POST", "settings", `{"omit_refresh_token_in_reply":true}`, nil)
	if _, out := refresh(held); out["authorizer_refresh_token"] != nil || out["authorizer_access_token"] == nil {
		t.Errorf("refresh without refresh_token = %v", out)
	}
	b.control("POST", "settings", `{"omit_refresh_token_in_reply":false,"rotate_refresh_tokens":true}`, nil)
	_, out = refresh(held)
	rotated := out["authorizer_refresh_token"].(string)
	if rotated == held || s.refreshToken() != rotated {
		t.Errorf("rotation gave %q for %q, the list %q", rotated, held, s.refreshToken())
	}
	if r, _ := refresh(held); r.ErrCode != 0 {
		t.Errorf("the old one within 300 s: %s", r.raw)
	}
	b.control("POST", "clock", `{"advance":"301s"}`, nil)
	if r, _ := refresh(held); r.ErrCode != 61023 {
		t.Errorf("the old one after 300 s: %s", r.raw)
	}

	b.control("POST", "credentials", `{"invalidate_refresh_token":"`+DemoOfficialAccount+`"}`, nil)
	if r, _ := refresh(rotated); r.ErrCode != 61023 {
		t.Errorf("invalidated: %s", r.raw)
	}
	if r, _ := refresh(s.refreshToken()); r.ErrCode != 0 {
		t.Errorf("the one from the list: %s", r.raw)
	}
	b.control("POST", "settings", `{"omit_refresh_token_in_list":true}`, nil)
	if got := s.refreshToken(); got != "" {
		t.Errorf("listed although omitted: %q", got)
	}

	_, out = refresh(mustAuth(b, DemoOfficialAccount).RefreshToken)
	token := out["authorizer_access_token"].(string)
	b.control("POST", "credentials", `{"expire_access_tokens":"component"}`, nil)
	b.control("POST", "credentials", `{"expire_access_tokens":"`+LeavingAccount+`"}`, nil)
	if got := list(token); got != 0 {
		t.Errorf("others expired = %d, want 0", got)
	}
	b.control("POST", "credentials", `{"expire_access_tokens":"`+DemoOfficialAccount+`"}`, nil)
	if got := list(token); got != 42001 {
		t.Errorf("expired = %d, want 42001", got)
	}
}

func mustAuth(b *bundle, appid string) authorization {
	b.sim.mu.Lock()
	defer b.sim.mu.Unlock()
	return *b.sim.st.auths.get(appid)
}

// Codes are single-use and expire; without an exchange the list has no refresh token (platform.md §5.1).
func TestQueryAuth(t *testing.T) {
	t.Parallel()
	b := connected(t)
	comp := b.componentToken()
	b.control("POST", "accounts/"+DemoOfficialAccount+"/authorize", "", nil)
	p := b.pushes.wait("authorized", nil)
	code := p.Get("AuthorizationCode")
	if d := wallDistance(t, p.Get("AuthorizationCodeExpiredTime")); d < 59*time.Minute || d > 61*time.Minute {
		t.Errorf("AuthorizationCodeExpiredTime is %v away, want an absolute time in an hour", d)
	}
	if !strings.HasPrefix(p.Get("PreAuthCode"), "preauthcode@@@") || p.Get("AuthorizerAppid") != DemoOfficialAccount {
		t.Errorf("push = %s", p.plain)
	}
	contains(t, b.post("/cgi-bin/component/api_get_authorizer_list?access_token="+comp, obj{"component_appid": DefaultComponentAppID, "offset": 0, "count": 1}, nil).raw,
		`{"total_count":1,"list":[{"authorizer_appid":"`+DemoOfficialAccount+`","auth_time":`)
	query := obj{"component_appid": DefaultComponentAppID, "authorization_code": code}
	got := b.post("/cgi-bin/component/api_query_auth?access_token="+comp, query, nil)
	contains(t, got.raw, `"func_info":[{"funcscope_category":{"id":8}},{"funcscope_category":{"id":11}},{"funcscope_category":{"id":13}}]`)
	if again := b.post("/cgi-bin/component/api_query_auth?access_token="+comp, query, nil); again.ErrCode != 61009 {
		t.Errorf("second exchange = %s", again.raw)
	}
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","sets":[8,13]}`, nil)
	code = b.pushes.wait("updateauthorized", nil).Get("AuthorizationCode")
	b.control("POST", "clock", `{"advance":"61m"}`, nil)
	if late := b.post("/cgi-bin/component/api_query_auth?access_token="+b.componentToken(), query.with(obj{"authorization_code": code}), nil); late.ErrCode != 61010 {
		t.Errorf("late exchange = %s", late.raw)
	}
}

func TestAuthorizerInfo(t *testing.T) {
	t.Parallel()
	b, _ := authorized(t)
	b.accessToken(DemoMiniProgram)
	comp := b.componentToken()
	info := func(appid string) (out struct {
		Info map[string]json.RawMessage `json:"authorizer_info"`
		Auth map[string]json.RawMessage `json:"authorization_info"`
	}) {
		b.post("/cgi-bin/component/api_get_authorizer_info?access_token="+comp, obj{"component_appid": DefaultComponentAppID, "authorizer_appid": appid}, &out)
		return out
	}
	oa, mini := info(DemoOfficialAccount), info(DemoMiniProgram)
	if oa.Info["MiniProgramInfo"] != nil || mini.Info["MiniProgramInfo"] == nil {
		t.Error("MiniProgramInfo tells a mini program from an Official Account")
	}
	if !strings.HasPrefix(string(oa.Info["user_name"]), `"gh_`) || string(oa.Info["principal_name"]) != `"Mendian Demo Shops Co., Ltd."` {
		t.Errorf("info = %s, %s", oa.Info["user_name"], oa.Info["principal_name"])
	}
	if oa.Auth["authorizer_refresh_token"] == nil || oa.Auth["authorizer_access_token"] != nil {
		t.Errorf("authorization_info = %s", encode(t, oa.Auth))
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	body := obj{"component_appid": DefaultComponentAppID, "authorizer_appid": DemoOfficialAccount, "option_name": "location_report"}
	for _, cred := range []string{token, b.componentToken()} {
		for _, prefix := range []string{"", "api_"} {
			if got := b.post("/cgi-bin/component/"+prefix+"set_authorizer_option?access_token="+cred, body.with(obj{"option_value": "2"}), nil); got.ErrCode != 0 {
				t.Errorf("set = %s", got.raw)
			}
			got := b.post("/cgi-bin/component/"+prefix+"get_authorizer_option?access_token="+cred, body, nil)
			if got.raw != `{"option_name":"location_report","option_value":"2"}` {
				t.Errorf("get = %s", got.raw)
			}
		}
	}
}
