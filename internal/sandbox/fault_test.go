package sandbox

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, fault string
		status      int // 0: the connection is cut
		body        string
		executed    bool
		slow        bool
	}{
		{"errcode", `{"path":"wxa/add_store","errcode":-1,"errmsg":"system busy"}`, 200, `{"errcode":-1,"errmsg":"system busy"}`, false, false},
		{"errcode 0 keeps its number", `{"path":"wxa/add_store","errcode":0}`, 200, `{"errcode":0,"errmsg":""}`, false, false},
		{"errcode with its own text", `{"path":"/wxa/add_store","errcode":45009}`, 200, `{"errcode":45009,"errmsg":"reach max api daily quota limit"}`, false, false},
		{"errcode after executing", `{"path":"/wxa/add_store","errcode":-1,"before":false}`, 200, `"errcode":-1`, true, false},
		{"http status", `{"path":"*","http_status":502}`, 502, "Bad Gateway", false, false},
		{"http status after executing", `{"path":"*","http_status":500,"before":false}`, 500, "Internal Server Error", true, false},
		{"status with a body", `{"path":"*","http_status":503,"body":"later"}`, 503, "later", false, false},
		{"body verbatim", `{"path":"wxa/add_store","body":"{\"errcode\":\"40001\""}`, 200, `{"errcode":"40001"`, false, false},
		{"real reply cut short", `{"path":"wxa/add_store","truncate_to":12}`, 200, `{"errcode":0`, true, false},
		{"reply dropped after executing", `{"path":"wxa/add_store","drop_reply":true}`, 0, "", true, false},
		{"dropped before executing", `{"path":"wxa/add_store","drop_reply":true,"before":true}`, 0, "", false, false},
		{"delay", `{"path":"wxa/add_store","delay_ms":60}`, 200, `"audit_id"`, true, true},
		{"delay with an errcode", `{"path":"wxa/add_store","delay_ms":60,"errcode":45011}`, 200, `45011`, false, true},
		{"delay after executing, then dropped", `{"path":"wxa/add_store","delay_ms":60,"drop_reply":true,"before":false}`, 0, "", true, true},
		{"of such a body", `{"path":"*","contains":"map_poi_id","errcode":-1}`, 200, `-1`, false, false},
		{"another body", `{"path":"*","contains":"no such words","errcode":-1}`, 200, `"audit_id"`, true, false},
		{"another path", `{"path":"/wxa/del_store","errcode":-1}`, 200, `"audit_id"`, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, token := authorized(t)
			s := &scene{bundle: b}
			b.control("POST", "faults", tt.fault, nil)
			begin := time.Now()
			status, body, err := b.try("/wxa/add_store?access_token="+token, encode(t, addStoreExample()))
			if status != tt.status || !strings.Contains(body, tt.body) || (tt.status == 0) != (err != nil) {
				t.Errorf("= %d %q %v, want %d %q", status, body, err, tt.status, tt.body)
			}
			if slow := time.Since(begin) >= 60*time.Millisecond; tt.slow && !slow {
				t.Error("no delay")
			}
			if got := s.effects() == 1; got != tt.executed {
				t.Errorf("executed = %v, want %v", got, tt.executed)
			}
			var journal struct{ Requests []journalEntry }
			b.control("GET", "journal?path=wxa/add_store", "", &journal)
			if e := journal.Requests[0]; e.Dropped != (tt.status == 0) || e.Faulted == strings.HasPrefix(tt.name, "another") {
				t.Errorf("journal = %+v", e)
			}
		})
	}
}

func (b *bundle) try(path, body string) (int, string, error) {
	b.t.Helper()
	resp, err := http.Post(b.base+path, "application/json", strings.NewReader(body)) //nolint:noctx // a test's own server
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, "", err
	}
	return resp.StatusCode, string(raw), err
}

func TestFaultsAreCounted(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	list := func() int {
		return b.post("/wxa/get_store_list?access_token="+token, obj{"offset": 0, "limit": 1}, nil).ErrCode
	}
	b.control("POST", "faults", `{"path":"wxa/get_store_list","n":2,"errcode":-1}`, nil)
	b.control("POST", "faults", `{"path":"wxa/get_store_list","errcode":45011}`, nil)
	for i, want := range []int{-1, -1, 45011, 0} {
		if got := list(); got != want {
			t.Errorf("call %d = %d, want %d", i+1, got, want)
		}
	}
	b.control("POST", "faults", `{"path":"wxa/get_store_list","n":5,"errcode":-1}`, nil)
	b.control("DELETE", "faults", "", nil)
	if got := list(); got != 0 {
		t.Errorf("after the faults were cleared = %d", got)
	}
	for _, body := range []string{`{"errcode":1}`, `{"path":"*"}`, `{"path":"*","errcode":1,"n":0}`, `{"path":"*","http_status":99}`, `{"path":"*","error":1}`, `[`} {
		if status, raw := b.do("POST", "/_sandbox/faults", body); status != http.StatusBadRequest {
			t.Errorf("fault %s = %d %s, want 400", body, status, raw)
		}
	}
}

// A call that the client gave up on is executed all the same, as at WeChat.
func TestLateCallIsExecuted(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	s := &scene{bundle: b}
	b.control("POST", "faults", `{"path":"wxa/add_store","delay_ms":80}`, nil)
	client := http.Client{Timeout: 20 * time.Millisecond}
	if resp, err := client.Post(b.base+"/wxa/add_store?access_token="+token, "application/json", strings.NewReader(encode(t, addStoreExample()))); err == nil { //nolint:noctx // the timeout is the test
		_ = resp.Body.Close()
		t.Fatal("the reply was in time")
	}
	eventually(t, "the effect", func() bool { return s.effects() == 1 })
}
