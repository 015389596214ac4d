package sandbox

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Three retries, then no more: same plaintext, new ciphertext (platform.md §7.3).
func TestPushIsRetried(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.pushes.answer = func(int, received) (int, string) { return http.StatusInternalServerError, "success" }
	b.control("POST", "component", `{"push_url":"`+b.pushes.url+`/wechat/ref"}`, nil)
	eventually(t, "the push is given up", func() bool { return b.pushWith(pushFailed) })
	got := b.pushes.all("component_verify_ticket")
	if len(got) != 4 {
		t.Fatalf("attempts = %d, want 4", len(got))
	}
	seen := map[string]bool{}
	for _, p := range got {
		if p.plain != got[0].plain {
			t.Error("a retry has another plaintext")
		}
		seen[p.encrypt] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d ciphertexts for 4 attempts", len(seen))
	}
}

func (b *bundle) pushWith(status string) bool {
	var out struct{ Pushes []push }
	b.control("GET", "pushes", "", &out)
	for _, p := range out.Pushes {
		if p.Status == status {
			return true
		}
	}
	return false
}

func TestWhatStopsRetries(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status int
		body   string
		want   int // attempts
	}{
		"success":        {200, "success", 1},
		"empty":          {200, "", 1},
		"quoted":         {200, `"success"`, 4},
		"line end":       {200, "success\n", 4},
		"created":        {201, "success", 4},
		"redirect":       {302, "", 4},
		"not found":      {404, "success", 4},
		"other language": {200, "ok", 4},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t)
			b.pushes.answer = func(int, received) (int, string) { return tt.status, tt.body }
			b.control("POST", "component", `{"push_url":"`+b.pushes.url+`"}`, nil)
			eventually(t, "the push ends", func() bool { return b.pushWith(pushFailed) || b.pushWith(pushDelivered) })
			if got := len(b.pushes.all("")); got != tt.want {
				t.Errorf("attempts = %d, want %d", got, tt.want)
			}
		})
	}
}

func TestSlowReceiverIsRetried(t *testing.T) {
	t.Parallel()
	b := start(t, func(c *Config) { c.PushTimeout = 50 * time.Millisecond })
	release := make(chan struct{})
	b.pushes.answer = func(n int, _ received) (int, string) {
		if n == 1 {
			<-release
		}
		return 200, "success"
	}
	b.control("POST", "component", `{"push_url":"`+b.pushes.url+`"}`, nil)
	eventually(t, "the second attempt", func() bool { return b.pushWith(pushDelivered) })
	close(release)
	if got := len(b.pushes.all("")); got != 2 {
		t.Errorf("attempts = %d, want 2", got)
	}
}

func TestPushURLTemplate(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.control("POST", "component", `{"push_url":"`+b.pushes.url+`/x/messages/$APPID$"}`, nil)
	b.accessToken(DemoOfficialAccount)
	b.control("POST", "messages", `{"appid":"`+DemoOfficialAccount+`","xml":"<xml><MsgType>text</MsgType><Event>hello</Event></xml>"}`, nil)
	p := b.pushes.wait("hello", nil)
	if p.path != "/x/messages/"+DemoOfficialAccount || p.envelope.ToUserName == "" || p.envelope.AppID != "" {
		t.Errorf("to %s, envelope %+v", p.path, p.envelope)
	}
	if got := b.pushes.all("component_verify_ticket")[0].path; got != "/x/component" {
		t.Errorf("ticket to %s", got)
	}
	b.control("POST", "component", `{"event_url":"`+b.pushes.url+`/events"}`, nil)
	b.pushes.wait("component_verify_ticket", func(p received) bool { return p.path == "/events" })
}

func TestUnauthorizedPush(t *testing.T) {
	t.Parallel()
	b, _ := authorized(t)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/unauthorize", "", nil)
	p := b.pushes.wait("unauthorized", nil)
	// The shape of vector senparc-component-unauthorized: no line end before AuthorizerAppid.
	want := "<xml><AppId><![CDATA[" + DefaultComponentAppID + "]]></AppId>\n<CreateTime>" + p.Get("CreateTime") +
		"</CreateTime>\n<InfoType><![CDATA[unauthorized]]></InfoType><AuthorizerAppid><![CDATA[" + DemoOfficialAccount + "]]></AuthorizerAppid></xml>"
	if d := cmp.Diff(want, p.plain); d != "" {
		t.Error(d)
	}
}

// updateauthorized is not sent when the sets stay as they are (platform.md §6).
func TestUpdateAuthorized(t *testing.T) {
	t.Parallel()
	b, _ := authorized(t)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/authorize", "", nil)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","sets":[8,11,13]}`, nil)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","sets":[1,11]}`, nil)
	p := b.pushes.wait("updateauthorized", nil)
	if p.Get("AuthorizationCode") == "" || p.Get("PreAuthCode") == "" || p.Get("AuthorizerAppid") != DemoOfficialAccount {
		t.Errorf("push = %s", p.plain)
	}
	if got := len(b.pushes.all("updateauthorized")); got != 1 {
		t.Errorf("%d updateauthorized, want 1", got)
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "pushes", `{"hold":true}`, nil)
	got := b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil)
	b.control("POST", "clock", `{"advance":"1h"}`, nil)
	b.control("POST", "messages", `{"appid":"`+DemoOfficialAccount+`","xml":"<xml><Event>second</Event></xml>","name":"second"}`, nil)
	// The first is of the migrating account, from the start.
	if waiting := b.audits(auditStoreCreate); len(waiting) != 2 || waiting[1].ID != got.Data.AuditID {
		t.Fatalf("pending while held = %+v", waiting)
	}
	// An explicit decision counts, its push waits.
	b.control("POST", "audits/"+auditKey(auditStoreCreate, got.Data.AuditID), `{"decision":"reject","reason":"图片不清楚"}`, nil)
	var list struct {
		Hold   bool
		Pushes []push
	}
	b.control("GET", "pushes", "", &list)
	queued := map[string]int64{}
	for _, p := range list.Pushes {
		if p.Status == pushQueued && p.Attempts == 0 {
			queued[p.Name] = p.ID
		}
	}
	if !list.Hold || queued["second"] == 0 || queued["add_store_audit_info"] == 0 || len(b.pushes.all("add_store_audit_info")) != 0 {
		t.Fatalf("held pushes = %v", queued)
	}
	// One can be let out alone, and so out of order.
	b.control("POST", "pushes/"+itoa(queued["add_store_audit_info"])+"/release", "", nil)
	p := b.pushes.wait("add_store_audit_info", nil)
	if p.Get("status") != "3" || p.Get("reason") != "图片不清楚" || p.Get("poiid") != "0" || p.Get("is_upgrade") != "0" {
		t.Errorf("push = %s", p.plain)
	}
	if len(b.pushes.all("second")) != 0 {
		t.Error("the other push came too")
	}
	b.control("POST", "pushes", `{"hold":false}`, nil)
	b.pushes.wait("second", nil)
}

func itoa(n int64) string { return strings.TrimPrefix(auditKey("", n), "/") }

func TestCopiesAndPreviousKey(t *testing.T) {
	t.Parallel()
	b, _ := authorized(t)
	b.control("POST", "settings", `{"push_copies":3}`, nil)
	b.control("POST", "messages", `{"appid":"`+DemoOfficialAccount+`","xml":"<xml><Event>thrice</Event></xml>"}`, nil)
	eventually(t, "three copies", func() bool { return len(b.pushes.all("thrice")) == 3 })
	var list struct{ Pushes []push }
	b.control("GET", "pushes", "", &list)
	b.control("POST", "pushes/"+itoa(list.Pushes[len(list.Pushes)-1].ID)+"/copies", `{"n":2}`, nil)
	eventually(t, "two more", func() bool { return len(b.pushes.all("thrice")) == 5 })

	previous := strings.Repeat("A", 43)
	b.control("POST", "component", `{"previous_encoding_aes_key":"`+previous+`"}`, nil)
	eventually(t, "the ticket under the current key", func() bool { return len(b.pushes.all("component_verify_ticket")) == 4 })
	b.control("POST", "settings", `{"use_previous_key":true,"push_copies":0}`, nil)
	b.pushes.mu.Lock()
	b.pushes.key = previous
	b.pushes.mu.Unlock()
	b.control("POST", "messages", `{"appid":"`+DemoOfficialAccount+`","xml":"<xml><Event>older</Event></xml>"}`, nil)
	b.pushes.wait("older", nil)
}

func TestNothingIsSentBeforeAComponentURL(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/authorize", "", nil)
	if !b.pushWith(pushQueued) {
		t.Fatal("the event is not queued")
	}
	b.control("POST", "component", `{"push_url":"`+b.pushes.url+`"}`, nil)
	b.pushes.wait("authorized", nil)
}
