package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestControlRefusals(t *testing.T) {
	t.Parallel()
	b := start(t)
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "nothing", "", 404},
		{"DELETE", "truth", "", 404},
		{"POST", "clock", `{"advance":"soon"}`, 400},
		{"POST", "clock", `{"advance":"-1h"}`, 400},
		{"POST", "pushes", `{}`, 400},
		{"POST", "pushes/1/copies", `{}`, 404},
		{"POST", "pushes/1/release", ``, 404},
		{"GET", "journal?since=x", ``, 400},
		{"POST", "component", `{"appid":"x"}`, 400},
		{"POST", "component", `{"encoding_aes_key":"short"}`, 400},
		{"POST", "component", `{"push_url":"/relative"}`, 400},
		{"POST", "component", `{"app_id":"wx"}`, 400},
		{"POST", "accounts", `{"appid":"x"}`, 400},
		{"POST", "accounts", `{"appid":"` + DemoMiniProgram + `","kind":"shop"}`, 400},
		{"POST", "accounts", `{"appid":"` + DemoMiniProgram + `","store_program":"yes"}`, 400},
		{"POST", "accounts/wx0/authorize", ``, 404},
		{"POST", "accounts/wx0/stores", `{"count":1}`, 404},
		{"POST", "accounts/" + DemoMiniProgram + "/unauthorize", ``, 409},
		{"POST", "settings", `{"audit_delay":"later"}`, 400},
		{"POST", "settings", `{"speed":1}`, 400},
		{"POST", "credentials", `{"invalidate_refresh_token":"wx0"}`, 404},
		{"POST", "credentials", `{"reject_ticket":"x"}`, 404},
		{"POST", "messages", `{}`, 400},
		{"POST", "map-pois", `{"count":0}`, 400},
	} {
		if status, raw := b.do(tt.method, "/_sandbox/"+tt.path, tt.body); status != tt.want || !strings.Contains(raw, `"error"`) {
			t.Errorf("%s %s %s = %d %s, want %d", tt.method, tt.path, tt.body, status, raw, tt.want)
		}
	}
	var j struct{ Requests []journalEntry }
	if b.control("GET", "journal", "", &j); len(j.Requests) != 0 {
		t.Errorf("control calls are journalled: %+v", j.Requests)
	}
}

func TestAccountsControl(t *testing.T) {
	t.Parallel()
	b := connected(t)
	var a accountReply
	b.control("POST", "accounts", `{"appid":"wx00000000000000bb","kind":"mini_program","nickname":"门店","principal":"P","user_name":"gh_x","sets":[30]}`, &a)
	if a.Kind != miniProgram || a.Nickname != "门店" || a.Principal != "P" || a.UserName != "gh_x" || a.Authorized || a.Program.State != programNone {
		t.Errorf("account = %+v", a)
	}
	b.control("POST", "accounts/wx00000000000000bb/authorize", "", &a)
	if !a.Authorized || len(a.Granted) != 1 {
		t.Errorf("account = %+v", a)
	}
	b.pushes.wait("authorized", nil)
	var list struct{ Accounts []accountReply }
	b.control("GET", "accounts", "", &list)
	var got []string
	for _, a := range list.Accounts {
		got = append(got, a.AppID)
	}
	want := strings.Join([]string{DemoOfficialAccount, DemoMiniProgram, NoStoreSetsAccount, LeavingAccount, MigratingAccount, "wx00000000000000bb"}, " ")
	if strings.Join(got, " ") != want || list.Accounts[0].Stores != 3 {
		t.Errorf("accounts = %v, stores %d", got, list.Accounts[0].Stores)
	}
}

// Another component is another platform: nothing of the old one holds.
func TestAnotherComponent(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "component", `{"appid":"wx00000000000000cc","secret":"s","message_token":"t","push_url":""}`, nil)
	if got := b.post("/wxa/get_store_list?access_token="+token, obj{"offset": 0, "limit": 0}, nil); got.ErrCode != 40001 {
		t.Errorf("old token = %s, want 40001", got.raw)
	}
	var c component
	b.control("GET", "component", "", &c)
	if c.AppID != "wx00000000000000cc" || c.EncodingAESKey != DefaultEncodingAESKey {
		t.Errorf("component = %+v", c)
	}
}

func TestSeededPlaces(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	var out struct{ IDs []string }
	b.control("POST", "map-pois", `{"count":3,"district_id":"110105"}`, &out)
	for i, id := range out.IDs {
		if got := b.post("/wxa/add_store?access_token="+token, addStoreExample().with(obj{"map_poi_id": id, "credential": "c" + itoa(int64(i))}), nil); got.ErrCode != 0 {
			t.Errorf("add_store at %s = %s", id, got.raw)
		}
	}
	if len(out.IDs) != 3 {
		t.Errorf("ids = %v", out.IDs)
	}
}

func TestJournalSince(t *testing.T) {
	t.Parallel()
	b := start(t)
	for range 3 {
		b.get("/wxa/get_district?access_token=a&x=%20y", nil)
	}
	var j struct{ Requests []journalEntry }
	b.control("GET", "journal", "", &j)
	b.control("GET", "journal?path=/wxa/get_district&since="+itoa(j.Requests[1].Seq), "", &j)
	if len(j.Requests) != 1 || j.Requests[0].Query != "access_token=a&x=%20y" || j.Requests[0].Headers.Get("Host") == "" || j.Requests[0].Method != http.MethodGet {
		t.Errorf("journal = %+v", j.Requests)
	}
}

func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	var j journal
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/y", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * journalSize {
		j.open(r, nil).close(answer{}, nil)
	}
	if got := j.since(0, ""); len(got) != journalSize || got[len(got)-1].Seq != 3*journalSize {
		t.Errorf("kept %d, last %d", len(got), got[len(got)-1].Seq)
	}
}

// Uploads are kept whole, but only as many as fit; a text has no such bound.
func TestJournalBoundsUploads(t *testing.T) {
	t.Parallel()
	var j journal
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/y", nil)
	if err != nil {
		t.Fatal(err)
	}
	upload, text := make([]byte, journalBytes/8), make([]byte, journalBytes/8) // the same bytes each time: nothing is copied
	upload[0] = 0xff
	j.open(r, text)
	for range 20 {
		j.open(r, upload)
	}
	j.open(r, []byte("a"))
	got := j.since(0, "")
	if len(got) != 9 || got[0].Seq != 14 || len(got[0].BodyBase64) != len(upload) || got[8].Body != "a" || got[8].BodyBase64 != nil {
		t.Errorf("kept %d from %d on", len(got), got[0].Seq)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	b := start(t)
	var c clockReply
	b.control("POST", "clock", `{"advance":"72h"}`, nil)
	b.control("GET", "clock", "", &c)
	if d := c.Virtual.Sub(c.Wall); d < 72*time.Hour-time.Second || d > 72*time.Hour+time.Second || c.Offset != "72h0m0s" {
		t.Errorf("clock = %+v", c)
	}
}

// The page shows what there is; its forms post to the control API and come back.
func TestDashboard(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	got := b.post("/wxa/add_store?access_token="+token, addStoreExample().with(obj{"contract_phone": "10000009", "company_name": "<script>"}), nil)
	status, page := b.do("GET", "/", "")
	key := auditKey(auditStoreCreate, got.Data.AuditID)
	for _, part := range []string{"Mendian Demo Shops", "/wxa/add_store", "component_verify_ticket", `action="/_sandbox/audits/` + key + `"`} {
		if !strings.Contains(page, part) {
			t.Errorf("%d: %q is not on the page", status, part)
		}
	}
	if strings.Contains(page, "<script>") {
		t.Error("the page does not escape")
	}
	form := func(path string, values url.Values, origin string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.base+"/_sandbox/"+path, strings.NewReader(values.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", origin)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	decision := url.Values{"decision": {"approve"}}
	if got := form("audits/"+key, decision, "http://evil.example"); got != http.StatusForbidden {
		t.Errorf("from another origin = %d, want 403", got)
	}
	if got := form("audits/"+key, decision, b.base); got != http.StatusSeeOther {
		t.Errorf("approve = %d, want 303", got)
	}
	b.pushes.wait("add_store_audit_info", nil)
	applicant := &applicant{b, token}
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"none"}`, nil)
	program := auditKey(auditStoreProgram, applicant.apply(nil))
	if _, page := b.do("GET", "/", ""); !strings.Contains(page, "waits for the administrator") || !strings.Contains(page, `action="/_sandbox/audits/`+program+`"><input type="hidden" name="decision" value="confirm"`) {
		t.Error("no form for the administrator's confirmation")
	}
	if got := form("audits/"+program, url.Values{"decision": {"confirm"}}, b.base); got != http.StatusSeeOther {
		t.Errorf("confirm = %d, want 303", got)
	}
	if _, page := b.do("GET", "/", ""); strings.Contains(page, "waits for the administrator") {
		t.Error("it waits although it was confirmed")
	}
	if got := form("pushes", url.Values{"hold": {"true"}}, b.base); got != http.StatusSeeOther {
		t.Errorf("hold = %d, want 303", got)
	}
}

func TestClosedServerAnswers503(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.sim.Close()
	if status, _ := b.do("GET", "/wxa/get_district", ""); status != http.StatusServiceUnavailable {
		t.Errorf("status = %d, want 503", status)
	}
	if status, _ := b.do("POST", "/_sandbox/clock", `{"advance":"1h"}`); status != http.StatusServiceUnavailable {
		t.Errorf("control status = %d, want 503", status)
	}
}
