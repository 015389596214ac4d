package sandbox

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// platform answers the release check as platform.md §7.4 asks, but for what a test has it do wrong.
type platform struct {
	*bundle
	component string // token

	message func(r *passive)      // alters a passive reply
	empty   string                // what it answers to QUERY_AUTH_CODE
	call    func(obj) (obj, bool) // alters what goes to custom/send, or holds it back
	status  int
}

type passive struct{ to, from, kind, content, key, token, appid string }

func newPlatform(t *testing.T, timeout time.Duration) *platform {
	t.Helper()
	b := connected(t, func(c *Config) { c.PushTimeout = timeout })
	p := &platform{bundle: b, component: b.componentToken(), status: http.StatusOK}
	b.pushes.mu.Lock()
	defer b.pushes.mu.Unlock()
	b.pushes.answer = func(_ int, m received) (int, string) {
		content := m.Get("Content")
		switch {
		case m.name() == "component_verify_ticket":
			return p.status, "success"
		case strings.HasPrefix(content, "QUERY_AUTH_CODE:"):
			go p.fromAPI(m.Get("FromUserName"), strings.TrimPrefix(content, "QUERY_AUTH_CODE:"))
			return p.status, p.empty
		case m.Get("MsgType") == "event":
			content = m.Get("Event") + "from_callback"
		default:
			content += "_callback"
		}
		return p.status, p.passive(m, content)
	}
	return p
}

func (p *platform) passive(m received, content string) string {
	r := passive{m.Get("FromUserName"), m.Get("ToUserName"), "text", content, DefaultEncodingAESKey, DefaultMessageToken, DefaultComponentAppID}
	if p.message != nil {
		p.message(&r)
	}
	key, err := msgcrypt.ParseKey(r.key)
	if err != nil {
		p.t.Error(err)
	}
	xml := messageXML(r.to, r.from, r.kind, element{"Content", r.content, true})
	return string(msgcrypt.BuildReply(key, r.token, r.appid, [16]byte{}, time.Now().Unix(), "nonce", []byte(xml)))
}

// fromAPI runs beside the test, so that it must not end it.
func (p *platform) fromAPI(fan, code string) {
	post := func(path string, body obj, out any) {
		raw, err := json.Marshal(body)
		if err != nil {
			p.t.Error(err)
			return
		}
		resp, err := http.Post(p.base+path, "application/json", strings.NewReader(string(raw))) //nolint:noctx // of this test
		if err != nil {
			return // the test is over
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == http.StatusServiceUnavailable {
			return // it is: the simulator has stopped
		}
		if raw, err = io.ReadAll(resp.Body); err == nil && out != nil {
			err = json.Unmarshal(raw, out)
		}
		if err != nil {
			p.t.Errorf("%s: %v", path, err)
		}
	}
	body, send := obj{"touser": fan, "msgtype": "text", "text": obj{"content": code + "_from_api"}}, true
	if p.call != nil {
		if body, send = p.call(body); body == nil {
			return
		}
	}
	var out struct {
		Info struct {
			Token string `json:"authorizer_access_token"`
		} `json:"authorization_info"`
	}
	post("/cgi-bin/component/api_query_auth?access_token="+p.component, obj{"component_appid": DefaultComponentAppID, "authorization_code": code}, &out)
	if send {
		post("/cgi-bin/message/custom/send?access_token="+out.Info.Token, body, nil)
	}
}

func (p *platform) check() (r releaseReport) {
	p.t.Helper()
	p.control("POST", "release-check", "", &r)
	return r
}

// A platform that does what §7.4 asks passes, with both accounts, and no trace of them is left.
func TestReleaseCheckPasses(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, 5*time.Second)
	p.control("POST", "pushes", `{"hold":true}`, nil)
	r := p.check()
	if !r.Passed || len(r.Checks) != 7 {
		t.Fatalf("report = %+v", r)
	}
	for _, c := range r.Checks {
		if !c.Passed || c.Reason != "" || (c.Check != "ticket" && c.Got != c.Want) {
			t.Errorf("%+v", c)
		}
	}
	want := map[string]string{"text": "TESTCOMPONENT_MSG_TYPE_TEXT_callback", "event": "LOCATIONfrom_callback"}
	for _, c := range r.Checks[1:4] {
		if c.AppID != "wx570bc396a51b8ff8" || (want[c.Check] != "" && c.Want != want[c.Check]) ||
			(c.Check == "query_auth_code" && c.Want != strings.TrimPrefix(c.Sent, "QUERY_AUTH_CODE:")+"_from_api") {
			t.Errorf("%+v", c)
		}
	}
	for _, m := range p.pushes.all("") {
		appid := strings.TrimPrefix(m.path, "/wechat/ref/messages/")
		to := map[string]string{"wx570bc396a51b8ff8": "gh_3c884a361561", "wxd101a85aa106f53e": "gh_8dad206e9538"}[appid]
		if appid != m.path && (to == "" || m.Get("ToUserName") != to || m.envelope.ToUserName != to || m.query.Get("openid") != m.Get("FromUserName")) {
			t.Errorf("push to %s: %s", m.path, m.plain)
		}
	}
	for key, row := range p.sim.snapshot(t) {
		table, _, _ := strings.Cut(key, " ")
		if slices.Contains([]string{"account", "authorization", "token", "code"}, table) && strings.Contains(key+row, testers[0].appid) {
			t.Errorf("left behind: %s %s", key, row)
		}
	}
	if again := p.check(); !again.Passed {
		t.Errorf("again = %+v", again)
	}
	status, page := p.do("GET", "/", "")
	if status != http.StatusOK || !strings.Contains(page, "<p>passed</p>") {
		t.Errorf("the page does not show the check: %d", status)
	}
}

// Each wrong answer fails its own check, for both accounts, and the others pass.
func TestReleaseCheckFails(t *testing.T) {
	t.Parallel()
	const callback, api = "text event", "query_auth_code"
	for name, tt := range map[string]struct {
		wrong  func(*platform)
		failed string // names of checks
		reason string
		silent bool // the check ends by waiting
	}{
		"nobody home":             {func(p *platform) { p.status = http.StatusNotFound }, "ticket " + callback + " " + api, "HTTP 404", false},
		"wrong content":           {func(p *platform) { p.message = func(r *passive) { r.content += "?" } }, callback, "Content is", false},
		"to the account":          {func(p *platform) { p.message = func(r *passive) { r.to = r.from } }, callback, "ToUserName is", false},
		"from somebody else":      {func(p *platform) { p.message = func(r *passive) { r.from = "gh_0" } }, callback, "FromUserName is", false},
		"an image":                {func(p *platform) { p.message = func(r *passive) { r.kind = "image" } }, callback, "MsgType is", false},
		"signed with other token": {func(p *platform) { p.message = func(r *passive) { r.token = "x" } }, callback, "MsgSignature", false},
		"another key": {func(p *platform) {
			p.message = func(r *passive) { r.key = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ" }
		}, callback, "decrypted", false},
		"for the account, not the component": {func(p *platform) { p.message = func(r *passive) { r.appid = "wx570bc396a51b8ff8" } }, callback, "decrypted", false},
		"success to everything": {func(p *platform) {
			p.pushes.answer = func(int, received) (int, string) { return http.StatusOK, "success" }
		}, callback + " " + api, "the reply", false},
		"a word to the query":     {func(p *platform) { p.empty = "success" }, api, "must be empty", false},
		"never exchanged":         {func(p *platform) { p.call = func(obj) (obj, bool) { return nil, false } }, api, "not exchanged", true},
		"exchanged, nothing said": {func(p *platform) { p.call = func(o obj) (obj, bool) { return o, false } }, api, "no message came", true},
		"said something else": {func(p *platform) {
			p.call = func(o obj) (obj, bool) { return o.with(obj{"text": obj{"content": "_from_api"}}), true }
		}, api, "custom/send said", false},
		"said to somebody else": {func(p *platform) {
			p.call = func(o obj) (obj, bool) { return o.with(obj{"touser": "o0"}), true }
		}, api, "custom/send went to", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := 5 * time.Second
			if tt.silent {
				timeout = 2 * time.Second
			}
			p := newPlatform(t, timeout)
			p.pushes.mu.Lock()
			tt.wrong(p)
			p.pushes.mu.Unlock()
			r := p.check()
			failed := 0
			for _, c := range r.Checks {
				if wrong := strings.Contains(tt.failed, c.Check); wrong == c.Passed || (wrong && !strings.Contains(c.Reason, tt.reason)) {
					t.Errorf("%+v", c)
				}
				if !c.Passed {
					failed++
				}
			}
			if r.Passed || failed == 0 {
				t.Errorf("report = %+v", r)
			}
		})
	}
}

func TestReleaseCheckNeedsARest(t *testing.T) {
	t.Parallel()
	b := start(t)
	if status, raw := b.do("POST", "/_sandbox/release-check", ""); status != http.StatusConflict {
		t.Errorf("without a push_url = %d %s", status, raw)
	}
	p := newPlatform(t, 5*time.Second)
	hold, begun := make(chan struct{}), make(chan struct{}, 16)
	answer := p.pushes.answer
	p.pushes.mu.Lock()
	p.pushes.answer = func(n int, m received) (int, string) {
		begun <- struct{}{}
		<-hold
		return answer(n, m)
	}
	p.pushes.mu.Unlock()
	done := make(chan releaseReport, 1)
	go func() { done <- p.check() }()
	<-begun
	if status, raw := p.do("POST", "/_sandbox/release-check", ""); status != http.StatusConflict {
		t.Errorf("two at a time = %d %s", status, raw)
	}
	p.control("POST", "reset", "", nil) // must not crash what is under way
	close(hold)
	if r := <-done; r.Passed {
		t.Errorf("report = %+v", r)
	}
}

func messageRefusals() map[string][]refusal {
	const cite = "platform.md §7.4, §9.2"
	send := customSendExample()
	return map[string][]refusal{"/cgi-bin/message/custom/send": append(missing(cite, send, 40097, "touser", "msgtype", "text"),
		refusal{"an image", cite, 40097, send.with(obj{"msgtype": "image"}), nil},
		refusal{"no content", cite, 40097, send.with(obj{"text": obj{}}), nil},
		refusal{"content a number", cite, 40097, send.with(obj{"text": obj{"content": 1}}), nil},
	)}
}

func customSendExample() obj {
	return obj{"touser": systemUser, "msgtype": "text", "text": obj{"content": "queryauthcode@@@x_from_api"}}
}
