package sandbox

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// applyMerchantExample is wechat/000 §4.2, verbatim but for the comments.
func applyMerchantExample() obj {
	return obj{
		"first_catid": 476, "second_catid": 477, "qualification_list": sampleMediaID, "headimg_mediaid": sampleMediaID,
		"nickname": "hardenzhang308", "intro": "hardenzhangtest", "org_code": "", "other_files": "",
	}
}

// modifyMerchantExample is wechat/000 §4.4, with a media id for its "xxxxx".
func modifyMerchantExample() obj { return obj{"headimg_mediaid": sampleMediaID, "intro": "x"} }

func programRefusals() map[string][]refusal {
	const s42, s44 = "wechat/000 §4.2", "wechat/000 §4.4"
	apply, modify := applyMerchantExample(), modifyMerchantExample()
	named := func(name string) obj { return apply.with(obj{"nickname": name}) }
	state := func(state string) func(*scene) {
		return func(s *scene) {
			s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"`+state+`"}`, nil)
		}
	}
	individual := func(s *scene) {
		s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","individual":true}`, nil)
	}
	applied := func(s *scene) { s.send("/wxa/apply_merchant", apply) }
	ids := func(n int) string { return strings.TrimSuffix(strings.Repeat(sampleMediaID+",", n), ",") }
	rows := append(missing(s42, apply, 40097, "first_catid", "second_catid", "headimg_mediaid", "nickname", "intro"), []refusal{
		{"first_catid a string", s42, 40097, apply.with(obj{"first_catid": "476"}), nil},
		{"unknown category", "platform.md §9.3", 65120, apply.with(obj{"second_catid": 999}), nil},
		{"category below another one", s42 + ", §4.1 (father)", 65120, apply.with(obj{"first_catid": 278}), nil},
		{"primary category twice", s42 + ", §4.1 (level)", 65120, apply.with(obj{"second_catid": 476}), nil},
		{"sensitive category without certificates", s42 + " (qualification_list), §4.1", 40097, apply.with(obj{"first_catid": 278, "second_catid": 280}).without("qualification_list"), nil},
		{"sensitive category, empty certificates", s42 + " (qualification_list), §4.1", 40097, apply.with(obj{"first_catid": 278, "second_catid": 280, "qualification_list": ""}), nil},
		{"six certificates", s42 + " (0-5 mediaIDs)", 40097, apply.with(obj{"qualification_list": ids(6)}), nil},
		{"certificates an array", "platform.md §11.1 no. 10", 40097, apply.with(obj{"qualification_list": []string{sampleMediaID}}), nil},
		{"unknown certificate", s42, 85056, apply.with(obj{"qualification_list": "x"}), nil},
		{"six other files", s42 + " (0-5 mediaIDs)", 40097, apply.with(obj{"other_files": ids(6)}), nil},
		{"unknown other file", s42, 85056, apply.with(obj{"other_files": sampleMediaID + ",x"}), nil},
		{"org_code a number", s42, 40097, apply.with(obj{"org_code": 1}), nil},
		{"unknown org_code", s42, 85056, apply.with(obj{"org_code": "x"}), nil},
		{"empty photo", s42 + ", required", 40097, apply.with(obj{"headimg_mediaid": ""}), nil},
		{"unknown photo", s42, 85056, apply.with(obj{"headimg_mediaid": "x"}), nil},
		{"empty intro", s42 + ", required", 40097, apply.with(obj{"intro": " "}), nil},
		{"misleading intro", s42, 85036, apply.with(obj{"intro": "magic 85036"}), nil},
		{"name of 3 bytes", s42, 85030, named("abc"), nil},
		{"name of 31 bytes", s42, 85030, named(strings.Repeat("a", 31)), nil},
		{"name of one Chinese character", s42, 85030, named("茶"), nil},
		{"name of 16 Chinese characters", s42, 85030, named(strings.Repeat("茶", 16)), nil},
		{"name with special characters", s42, 85030, named("tea <shop>"), nil},
		{"reserved word", s42, 85033, named("WeChat tea"), nil},
		{"reserved word in Chinese", s42, 85033, named("微信茶馆"), nil},
		{"needs material", s42, 85024, named("tea 85024"), nil},
		{"needs material, org_code only", s42, 85024, named("tea 85024").with(obj{"org_code": sampleMediaID}), nil},
		{"needs material, other_files only", s42, 85024, named("tea 85024").with(obj{"other_files": sampleMediaID}), nil},
		{"name of another store program", s42, 85029, named("Mendian Leaving"), state("none")},
		{"an individual's account", s42 + ", §2", 43104, nil, individual},
		{"waits for the administrator", s42, 85050, apply.with(obj{"nickname": "another"}), func(s *scene) { state("none")(s); applied(s) }},
		{"in audit", s42, 85050, nil, state("in_review")},
		{"approved already", s42, 85050, nil, state("approved")},
	}...)
	for _, code := range magicRefusals {
		rows = append(rows, refusal{"magic " + strconv.Itoa(code), s42, code, named(fmt.Sprint("tea ", code)), nil})
	}
	return map[string][]refusal{
		"/wxa/apply_merchant": rows,
		"/wxa/modify_merchant": append(missing(s44, modify, 40097, "headimg_mediaid", "intro"), []refusal{
			{"intro a number", s44, 40097, modify.with(obj{"intro": 1}), nil},
			{"unknown photo", s44 + ", §4.2", 85056, modify.with(obj{"headimg_mediaid": "xxxxx"}), nil},
			{"misleading intro", s44 + ", §4.2", 85036, modify.with(obj{"intro": "magic 85036"}), nil},
			{"an individual's account", s44 + ", §4.2", 43104, nil, individual},
			{"waits for the administrator", s44 + ", §4.2", 85053, nil, func(s *scene) {
				state("none")(s)
				s.post("/wxa/apply_merchant?access_token="+s.access, apply, nil)
			}},
			{"in audit", s44 + ", §4.2", 85053, nil, state("in_review")},
			{"sixth introduction of the month", s44 + ", §4.2", 85049, modify.with(obj{"headimg_mediaid": ""}), func(s *scene) {
				for range monthlyChanges {
					s.send("/wxa/modify_merchant", modify.with(obj{"headimg_mediaid": ""}))
				}
			}},
			{"sixth photo of the month", s44 + ", §4.2", 85049, modify, func(s *scene) {
				for range monthlyChanges {
					s.send("/wxa/modify_merchant", modify.with(obj{"intro": ""}))
				}
			}},
		}...),
	}
}

// applicant is a simulator whose demo account has no store program yet.
type applicant struct {
	*bundle
	token string
}

func startApplicant(t *testing.T) *applicant {
	t.Helper()
	b, token := authorized(t)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"none"}`, nil)
	return &applicant{b, token}
}

func (a *applicant) apply(more obj) int64 {
	a.t.Helper()
	if got := a.post("/wxa/apply_merchant?access_token="+a.token, applyMerchantExample().with(more), nil); got.raw != `{"errcode":0,"errmsg":"ok"}` {
		a.t.Fatalf("apply_merchant = %s", got.raw)
	}
	return a.audits(auditStoreProgram)[0].ID
}

func (a *applicant) decide(id int64, body string) {
	a.t.Helper()
	a.control("POST", "audits/"+auditKey(auditStoreProgram, id), body, nil)
}

// info says what get_merchant_audit_info answers.
func (a *applicant) info(status int, id int64, reason string) {
	a.t.Helper()
	want := fmt.Sprintf(`{"errcode":0,"errmsg":"ok","data":{"audit_id":%d,"status":%d,"reason":%q}}`, id, status, reason)
	if got := a.get("/wxa/get_merchant_audit_info?access_token="+a.token, nil); got.raw != want {
		a.t.Errorf("get_merchant_audit_info = %s, want %s", got.raw, want)
	}
}

// wechat/000 §4.2, Note: first the administrator, then the audit.
func TestStoreProgramIsConfirmedThenAudited(t *testing.T) {
	t.Parallel()
	a := startApplicant(t)
	a.get("/wxa/get_merchant_audit_info?access_token="+a.accessToken(LeavingAccount), nil) // approved before anybody applied
	a.info(0, 0, "")
	id := a.apply(nil)
	a.info(0, 0, "")
	if got := a.truth(); len(got.IDs) != 0 || len(got.Effects) != 1 || got.Effects[0].Kind != "apply_merchant" || got.Effects[0].Key != "hardenzhang308" {
		t.Errorf("truth = %+v", got)
	}
	for _, body := range []string{`{"decision":"approve"}`, `{"decision":"reject"}`} {
		if status, raw := a.do("POST", "/_sandbox/audits/"+auditKey(auditStoreProgram, id), body); status != 409 {
			t.Errorf("%s before the administrator = %d %s", body, status, raw)
		}
	}
	a.decide(id, `{"decision":"confirm"}`)
	a.info(2, id, "")
	for _, body := range []string{`{"decision":"confirm"}`, `{"decision":"expire"}`} {
		if status, raw := a.do("POST", "/_sandbox/audits/"+auditKey(auditStoreProgram, id), body); status != 409 {
			t.Errorf("%s after the administrator = %d %s", body, status, raw)
		}
	}
	a.control("POST", "clock", `{"advance":"5s"}`, nil)
	if p := a.pushes.wait("apply_merchant_audit_info", nil); p.Get("status") != "1" || p.Get("audit_id") != strconv.FormatInt(id, 10) {
		t.Errorf("push = %s", p.plain)
	}
	a.info(1, id, "")
	if got := a.truth().IDs; len(got) != 1 || got[0].Type != "audit_id" || got[0].ID != strconv.FormatInt(id, 10) || got[0].Key != "hardenzhang308" {
		t.Errorf("ids = %+v", got)
	}
	if got := a.post("/wxa/add_store?access_token="+a.token, addStoreExample(), nil); got.ErrCode != 0 {
		t.Errorf("add_store afterwards = %s", got.raw)
	}
}

func TestStoreProgramIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		more   obj
		do     func(*applicant, int64)
		status int
	}{
		"by the administrator": {nil, func(a *applicant, id int64) { a.decide(id, `{"decision":"admin_reject","reason":"not ours"}`) }, 4},
		"by WeChat": {nil, func(a *applicant, id int64) {
			a.decide(id, `{"decision":"confirm"}`)
			a.decide(id, `{"decision":"reject","reason":"not ours"}`)
		}, 3},
		"by its name": {obj{"nickname": "tea 0003"}, func(a *applicant, id int64) {
			a.decide(id, `{"decision":"confirm"}`)
			a.control("POST", "clock", `{"advance":"5s"}`, nil)
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := startApplicant(t)
			id := a.apply(tt.more)
			tt.do(a, id)
			p := a.pushes.wait("apply_merchant_audit_info", nil)
			if p.Get("status") != strconv.Itoa(tt.status) || p.Get("reason") == "" {
				t.Errorf("push = %s", p.plain)
			}
			a.info(tt.status, id, p.Get("reason"))
			again := a.apply(tt.more)
			if again == id {
				t.Errorf("the second application has the first one's audit_id %d", id)
			}
			a.info(0, 0, "")
		})
	}
}

// "If the administrator fails to confirm it within 24 hours, you can submit it again."
func TestStoreProgramExpires(t *testing.T) {
	t.Parallel()
	a := startApplicant(t)
	first := a.apply(nil)
	a.control("POST", "clock", `{"advance":"23h59m"}`, nil)
	if got := a.audit(auditStoreProgram, first); got.Status != auditPending || !got.AwaitsAdmin {
		t.Errorf("after 23:59 = %+v", got)
	}
	a.control("POST", "clock", `{"advance":"1m"}`, nil)
	if got := a.audit(auditStoreProgram, first); got.Status != auditExpired {
		t.Errorf("after a day = %+v", got)
	}
	a.token = a.accessTokenAgain()
	a.info(0, 0, "")
	second := a.apply(nil)
	a.decide(second, `{"decision":"expire"}`)
	third := a.apply(obj{"nickname": "tea 85024", "org_code": sampleMediaID, "other_files": sampleMediaID})
	a.decide(third, `{"decision":"confirm"}`)
	a.control("POST", "clock", `{"advance":"5s"}`, nil)
	a.pushes.wait("apply_merchant_audit_info", nil)
	if got := a.pushes.all("apply_merchant_audit_info"); len(got) != 1 || got[0].Get("audit_id") != strconv.FormatInt(third, 10) {
		t.Errorf("%d events, the first %s", len(got), got[0].plain)
	}
}

// A media id of the account's own, once it has expired, is none.
func TestStoreProgramTakesUploadedMedia(t *testing.T) {
	t.Parallel()
	a := startApplicant(t)
	var file struct {
		ID string `json:"media_id"`
	}
	mustJSON(t, []byte(a.upload("POST", "/cgi-bin/media/upload?access_token="+a.token, temporary("png", 300)).raw), &file)
	a.control("POST", "clock", `{"advance":"72h"}`, nil)
	a.token = a.accessTokenAgain()
	if got := a.post("/wxa/apply_merchant?access_token="+a.token, applyMerchantExample().with(obj{"headimg_mediaid": file.ID}), nil); got.ErrCode != 85056 {
		t.Errorf("three days later = %s", got.raw)
	}
	mustJSON(t, []byte(a.upload("POST", "/cgi-bin/media/upload?access_token="+a.token, temporary("png", 299)).raw), &file)
	a.apply(obj{"headimg_mediaid": file.ID})
}

// wechat/000 §4.4: an empty member changes nothing, a month has its limit.
func TestModifyMerchant(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	modify := func(head, intro string) reply {
		return b.post("/wxa/modify_merchant?access_token="+token, obj{"headimg_mediaid": head, "intro": intro}, nil)
	}
	program := func() storeProgram {
		b.sim.mu.Lock()
		defer b.sim.mu.Unlock()
		return b.sim.st.accounts.get(DemoOfficialAccount).Program
	}
	for _, tt := range []struct{ head, intro, wantHead, wantIntro string }{
		{"", "", "", ""},
		{"", "tea since 1895", "", "tea since 1895"},
		{sampleMediaID, "", sampleMediaID, "tea since 1895"},
	} {
		if got := modify(tt.head, tt.intro); got.raw != `{"errcode":0,"errmsg":"ok"}` {
			t.Errorf("modify_merchant(%q, %q) = %s", tt.head, tt.intro, got.raw)
		}
		if p := program(); p.HeadImg != tt.wantHead || p.Intro != tt.wantIntro || p.State != programApproved {
			t.Errorf("program = %+v, want %+v", p, tt)
		}
	}
	for i := range monthlyChanges - 1 {
		if got := modify("", fmt.Sprint("tea ", i)); got.ErrCode != 0 {
			t.Errorf("introduction %d = %s", i+2, got.raw)
		}
	}
	if got := modify("", "once more"); got.ErrCode != 85049 {
		t.Errorf("one too many = %s", got.raw)
	}
	if got := modify(sampleMediaID, ""); got.ErrCode != 0 {
		t.Errorf("a photo meanwhile = %s", got.raw)
	}
	if got := b.truth().Effects; len(got) != monthlyChanges+2 || got[0].Kind != "modify_merchant" || got[0].Key != "intro" || got[1].Key != "headimg_mediaid" {
		t.Errorf("effects = %+v", got)
	}
	b.control("POST", "clock", `{"advance":"744h"}`, nil)
	token = b.accessTokenAgain()
	if got := modify("", "next month"); got.ErrCode != 0 {
		t.Errorf("next month = %s", got.raw)
	}
}
