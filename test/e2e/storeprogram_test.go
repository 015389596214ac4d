package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

const documentsMedia = "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P"

// documentsProgram is the example of document 000 §4.2 in our words, with changes.
func documentsProgram(changes ...any) map[string]any {
	return with(map[string]any{"primary_category_id": "476", "secondary_category_id": "477", "nickname": "hardenzhang308", "introduction": "hardenzhangtest",
		"head_image_media_id": documentsMedia, "qualification_media_ids": []string{documentsMedia}}, changes...)
}

// A merchant without a Store Mini Program applies until it has one: the
// administrator refuses, lets it lie, confirms; the late approval of what had
// expired counts.
func TestStoreProgram(t *testing.T) {
	t.Parallel()
	const appid = "wx570bc396a51b8f01"
	w := world.New(t, world.Options{})
	w.Control("POST", "accounts", map[string]any{"appid": appid, "nickname": "No stores yet", "store_program": "none"}, nil)
	g := w.Start(nil)
	m := w.Authorize(g, appid)
	c := w.Client(g, m)
	path := "/v1/merchants/" + m + "/store-program"
	waiting := func() string { // WeChat's own number of the audit under way
		id := ""
		for _, a := range w.Audits() {
			if a["kind"] == "store_program" && a["status"] == "pending" {
				id = fmt.Sprintf("%.0f", a["id"])
			}
		}
		return id
	}

	c.Do("GET", path, nil).WantProblem(404, "not_found")
	c.Do("PATCH", path, map[string]string{"introduction": "x"}).WantProblem(404, "not_found")
	for _, tc := range []struct {
		pointer, rule string
		changes       []any
	}{
		{"/nickname", "too_short", []any{"nickname", "abc"}},
		{"/nickname", "too_short", []any{"nickname", "店"}},
		{"/nickname", "too_long", []any{"nickname", "门店门店门店门店门店门店门店门店"}},
		{"/nickname", "not_allowed", []any{"nickname", "My WeChat shop"}},
		{"/qualification_media_ids", "required", []any{"qualification_media_ids", absent{}, "primary_category_id", "278", "secondary_category_id", "280"}},
		{"/secondary_category_id", "not_allowed", []any{"secondary_category_id", "999999"}},
		{"/primary_category_id", "not_allowed", []any{"primary_category_id", "278"}},
		{"/introduction", "pattern", []any{"introduction", " "}},
		{"/head_image_media_id", "required", []any{"head_image_media_id", absent{}}},
	} {
		a := c.Do("POST", path, documentsProgram(tc.changes...)).WantProblem(422, "validation_failed")
		if a.Get("errors", "0", "pointer") != tc.pointer || a.Get("errors", "0", "code") != tc.rule {
			t.Errorf("%v: want %s %s: %s", tc.changes, tc.pointer, tc.rule, a.Body)
		}
		a = c.Do("POST", path, documentsProgram(tc.changes...), "Accept-Language", "zh").WantProblem(422, "validation_failed")
		if tc.rule != "pattern" && !strings.ContainsFunc(a.Get("errors", "0", "detail"), func(r rune) bool { return unicode.Is(unicode.Han, r) }) {
			t.Errorf("%v, in Chinese: %s", tc.changes, a.Body)
		}
	}
	if n := len(w.Journal("wxa/apply_merchant")); n != 0 {
		t.Errorf("%d calls were made", n)
	}
	hint := c.Do("POST", path, documentsProgram("nickname", "shop 85024")).WantProblem(422, "supplementary_documents_required")
	if hint.Get("errors", "0", "pointer") != "/organization_code_media_id" || hint.Get("errors", "1", "pointer") != "/other_file_media_ids" {
		t.Errorf("hint: %s", hint.Body)
	}

	first := c.Do("POST", path, documentsProgram(), "Idempotency-Key", "program-1").Want(202)
	if first.Get("status") != "awaiting_admin_confirmation" || first.Get("confirm_before") == "null" || first.Get("audit", "wechat_audit_id") != "null" || first.Header.Get("Location") != path {
		t.Errorf("applied: %v %s", first.Header, first.Body)
	}
	var sent map[string]any
	calls := w.Journal("wxa/apply_merchant")
	if err := json.Unmarshal([]byte(calls[len(calls)-1].Body), &sent); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"first_catid": 476., "second_catid": 477., "qualification_list": documentsMedia, "headimg_mediaid": documentsMedia,
		"nickname": "hardenzhang308", "intro": "hardenzhangtest", "org_code": "", "other_files": ""}, sent); diff != "" {
		t.Errorf("on the wire (-want +got):\n%s", diff)
	}
	c.Do("POST", path, documentsProgram("nickname", "another one")).WantProblem(409, "audit_in_progress")
	if a := c.Do("POST", path, documentsProgram(), "Idempotency-Key", "program-1").Want(202); a.Get("id") != first.Get("id") || a.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the same key: %s", a.Body)
	}
	w.Decide("store_program", waiting(), "admin_reject", "not me")
	if a := c.Until(path, "rejected_by_admin"); a.Get("audit", "reason") != "not me" || a.Get("audit", "wechat_audit_id") == "null" {
		t.Errorf("refused: %s", a.Body)
	}

	// Nobody confirms: it expires, and may be sent again.
	second := c.Do("POST", path, documentsProgram("nickname", "shop two")).Want(202)
	audit := w.UUID(typeid.Audit, second.Get("audit", "id"))
	w.Exec(`UPDATE audits SET deadline_at = now() - interval '1 minute', next_poll_at = now() + interval '1 hour' WHERE id = $1`, audit)
	asked := len(w.Journal("wxa/get_merchant_audit_info"))
	c.Do("GET", path+"?source=live", nil).Want(200)
	if n := len(w.Journal("wxa/get_merchant_audit_info")) - asked; n != 1 {
		t.Errorf("one reading was %d calls", n)
	}
	c.Until(path, "expired")
	// The administrator was only late: WeChat's later word counts.
	w.Decide("store_program", waiting(), "confirm", "")
	w.Decide("store_program", waiting(), "approve", "")
	approved := c.Until(path, "approved")
	if approved.Get("id") != second.Get("id") || approved.Get("upstream_status") != "1" || approved.Get("confirm_before") != "null" || approved.Get("nickname") != "shop two" {
		t.Errorf("approved: %s", approved.Body)
	}
	notModified(t, c, path)
	w.Eventually("the merchant shows it", func() error { // once its cached row was dropped
		if a := c.Do("GET", "/v1/merchants/"+m, nil).Want(200); a.Get("store_program", "status") != "approved" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	if n := len(w.Query(`SELECT 1 AS one FROM outbox WHERE type = 'store_program.audit.decided'`)); n != 2 {
		t.Errorf("%d events of decisions", n)
	}

	changed := c.Do("PATCH", path, map[string]string{"introduction": "x"}).Want(200)
	if changed.Get("introduction") != "x" || changed.Get("head_image_media_id") != documentsMedia {
		t.Errorf("changed: %s", changed.Body)
	}
	if body := w.Journal("wxa/modify_merchant")[0].Body; body != `{"headimg_mediaid":"","intro":"x"}` {
		t.Errorf("on the wire: %s", body)
	}
	c.Do("PATCH", path, map[string]string{"introduction": "shop 85036"}).WantProblem(422, "introduction_violates_policy")

	// How many changes WeChat allows in a month it says to nobody, until there
	// were too many.
	month := func(used, state string) {
		t.Helper()
		a := c.Do("GET", "/v1/quotas", nil).Want(200)
		now := time.Now().In(time.FixedZone("Asia/Shanghai", 8*60*60))
		ends := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, now.Location()).UTC().Format(time.RFC3339)
		if a.Get("data", "6", "bucket") != "store-program-modify" || a.Get("data", "6", "window") != "month" || a.Get("data", "6", "limit") != "null" || a.Get("data", "6", "remaining") != "null" ||
			a.Get("data", "6", "used") != used || a.Get("data", "6", "state") != state || a.Get("data", "6", "resets_at") != ends {
			t.Errorf("want %s changes, %s, until %s: %s", used, state, ends, a.Body)
		}
	}
	month("1", "ok")
	w.Fault("wxa/modify_merchant", 1, map[string]any{"errcode": 85049})
	if a := c.Do("PATCH", path, map[string]string{"introduction": "y"}).WantProblem(429, "monthly_modification_limit"); a.Header.Get("Retry-After") == "" {
		t.Errorf("too many: %v", a.Header)
	}
	month("1", "exhausted")
	c.Do("PATCH", path, map[string]string{"head_image_media_id": documentsMedia}).Want(200) // pictures are counted apart
	month("2", "ok")
}

// withPrograms are accounts that authorise in WeChat's console, n with an
// approved Store Mini Program or without any.
func withPrograms(w *world.World, g *world.Gateway, n int, state string) (all []*world.Client) {
	for i := range n {
		appid := fmt.Sprintf("wx570bc396%02x%02x%04x", len(state), i, n)
		w.Control("POST", "accounts", map[string]any{"appid": appid, "store_program": state}, nil)
		w.Control("POST", "accounts/"+appid+"/authorize", nil, nil)
		all = append(all, w.Client(g, appid))
	}
	for _, c := range all {
		w.Eventually("the merchant comes, and its program is known", func() error {
			if a := c.Do("GET", "/v1/stores", nil); a.Status != 200 || a.Get("synced_at") == "null" {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
	}
	return all
}

// What WeChat refuses of applications and changes.
func TestStoreProgramErrcodes(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{Env: map[string]string{"GATEWAY_KEY_RATE": "900", "GATEWAY_KEY_BURST": "900"}})
	g := w.Start(nil)
	w.WaitTicket(g)
	none, approved := withPrograms(w, g, 4, "none"), withPrograms(w, g, 4, "approved")
	w.Hold(true)
	// do makes a call for the first of the accounts that nothing unproven holds.
	do := func(accounts *[]*world.Client, method string, body any) func(*world.Client) *world.Answer {
		return func(*world.Client) *world.Answer {
			if len(*accounts) == 0 {
				t.Fatal("make more accounts")
			}
			c := (*accounts)[0]
			a := c.Do(method, "/v1/merchants/"+c.Merchant+"/store-program", body)
			if a.Status == 202 {
				*accounts = (*accounts)[1:]
			}
			return a
		}
	}
	first := approved[0]
	for _, call := range []errcodeCall{
		{"getStoreProgram", "store_program.audit", "wxa/get_merchant_audit_info", false, nil, func(*world.Client) *world.Answer {
			return first.Do("GET", "/v1/merchants/"+first.Merchant+"/store-program?source=live", nil)
		}},
		{"applyStoreProgram", "store_program.apply", "wxa/apply_merchant", true, nil, do(&none, "POST", documentsProgram())},
		{"modifyStoreProgram", "store_program.modify", "wxa/modify_merchant", true, nil, do(&approved, "PATCH", map[string]string{"introduction": "x"})},
	} {
		t.Run(call.operation, func(t *testing.T) {
			part := w.On(t)
			answersEveryErrcode(t, part, part.Client(g, ""), call)
		})
	}
}

// A validation is answered just as the application or the change would be, and
// does nothing.
func TestStoreProgramValidateOnly(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	w.WaitTicket(g)
	none, approved := withPrograms(w, g, 1, "none")[0], withPrograms(w, g, 1, "approved")[0]
	poor := w.Client(g, w.Authorize(g, sandbox.NoStoreSetsAccount))
	w.Hold(true)
	path := func(c *world.Client) string { return "/v1/merchants/" + c.Merchant + "/store-program" }
	stored := func() map[string]any {
		return w.Row(`SELECT (SELECT count(*) FROM operations WHERE kind LIKE 'store_program.%') operations, (SELECT count(*) FROM operation_attempts) attempts,
			(SELECT count(*) FROM resources) resources, (SELECT count(*) FROM audits) audits, (SELECT count(*) FROM idempotency_keys) keys`)
	}
	calls := func() int {
		return len(w.Journal("wxa/apply_merchant")) + len(w.Journal("wxa/modify_merchant")) + len(w.Journal("wxa/get_merchant_audit_info"))
	}
	nothingChanged := watch(t, stored, calls)
	for _, ask := range []struct {
		client *world.Client
		method string
		body   any
	}{
		{none, "POST", documentsProgram()},
		{approved, "PATCH", map[string]string{"introduction": "y"}},
	} {
		a := ask.client.Do(ask.method, path(ask.client)+"?validate_only=true", ask.body, "Idempotency-Key", "k").Want(200)
		if string(a.Body) != `{"valid":true,"warnings":[]}`+"\n" {
			t.Errorf("%s: %s", ask.method, a.Body)
		}
	}
	refusedAlike(t, map[string]refusal{
		"field":          {none, "POST", path(none), documentsProgram("nickname", "店"), nil, 422, "validation_failed"},
		"category":       {none, "POST", path(none), documentsProgram("secondary_category_id", "999999"), nil, 422, "validation_failed"},
		"unknown field":  {none, "POST", path(none), documentsProgram("colour", "red"), nil, 400, "unknown_field"},
		"sets":           {poor, "POST", path(poor), documentsProgram(), nil, 403, "permission_set_missing"},
		"no program":     {none, "PATCH", path(none), map[string]string{"introduction": "y"}, nil, 404, "not_found"},
		"nothing":        {approved, "PATCH", path(approved), map[string]string{}, nil, 422, "validation_failed"},
		"version":        {approved, "PATCH", path(approved), map[string]string{"introduction": "y"}, []string{"If-Match", `"999-00000000"`}, 412, "version_conflict"},
		"sets, a change": {poor, "PATCH", path(poor), map[string]string{"introduction": "y"}, nil, 403, "permission_set_missing"},
	})
	nothingChanged()
	// While an application is open, both say so.
	if a := none.Do("POST", path(none), documentsProgram(), "Idempotency-Key", "k").Want(202); a.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("the key was claimed: %s", a.Body)
	}
	none.Do("POST", path(none)+"?validate_only=true", documentsProgram()).WantProblem(409, "audit_in_progress")
	none.Do("PATCH", path(none)+"?validate_only=true", map[string]string{"introduction": "y"}).WantProblem(409, "store_program_required")
}
