package e2e

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// A validation is answered just as the write would be, and does nothing.
func TestValidateOnly(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	c := s.client
	active := s.active()
	path := "/v1/stores/" + active.Get("id")
	poor := s.Client(s.gateway, s.Authorize(s.gateway, sandbox.NoStoreSetsAccount))
	taken := s.fresh("client_reference", "shop-1", "contact_phone", "020-88880009") // stays in review
	inReview := c.Do("POST", "/v1/stores", taken).Want(202).Get("id")

	// One that stays open: nothing can be found out about it.
	s.Fault("wxa/get_store_list", 1000, map[string]any{"errcode": -1})
	s.Fault("wxa/add_store", 1, map[string]any{"drop_reply": true})
	open := s.fresh("contact_phone", "020-88880009")
	c.Do("POST", "/v1/stores", open).Want(202)

	calls := func() (n int) {
		for _, path := range []string{"wxa/add_store", "wxa/update_store", "wxa/del_store", "wxa/get_store_info"} {
			n += len(s.Journal(path))
		}
		return n
	}
	stored := func() map[string]any {
		return s.Row(`SELECT (SELECT count(*) FROM operations WHERE kind LIKE 'store.%') operations,
			(SELECT count(*) FROM operation_attempts) attempts, (SELECT count(*) FROM resources) resources,
			(SELECT count(*) FROM audits) audits,
			(SELECT count(*) FROM idempotency_keys) keys, (SELECT count(*) FROM wechat_id_ledger) ids`)
	}
	nothingChanged := watch(t, stored, calls)

	good := s.fresh()
	late := map[string]any{"business_hours": map[string]string{"open": "22:00", "close": "6:00"}}
	for _, ask := range []struct {
		method, path string
		body         map[string]any
		warnings     string
	}{
		{"POST", "/v1/stores", good, `[]`},
		{"POST", "/v1/stores", with(good, "business_hours", late["business_hours"]), `[{"code":"not_after_open","detail":"is not after open; WeChat may refuse it","pointer":"/business_hours/close"}]`},
		{"PATCH", path, map[string]any{"contact_phone": "020-1234567"}, `[]`},
		{"PATCH", path, late, `[{"code":"not_after_open","detail":"is not after open; WeChat may refuse it","pointer":"/business_hours/close"}]`},
	} {
		a := c.Do(ask.method, ask.path+"?validate_only=true", ask.body, "Idempotency-Key", "k").Want(200)
		if want := `{"valid":true,"warnings":` + ask.warnings + "}\n"; string(a.Body) != want {
			t.Errorf("%s %s: %s, want %s", ask.method, ask.path, a.Body, want)
		}
	}

	refusedAlike(t, map[string]refusal{
		"field":         {c, "POST", "/v1/stores", with(good, "contact_phone", 5), nil, 422, "validation_failed"},
		"unknown field": {c, "POST", "/v1/stores", with(good, "phone", "5"), nil, 400, "unknown_field"},
		"two fields":    {c, "POST", "/v1/stores", with(good, "company_name", "x"), nil, 422, "validation_failed"},
		"reference":     {c, "POST", "/v1/stores", with(good, "client_reference", "shop-1"), nil, 409, "duplicate_client_reference"},
		"sets":          {poor, "POST", "/v1/stores", good, nil, 403, "permission_set_missing"},
		"open":          {c, "POST", "/v1/stores", with(good, "map_poi_id", open["map_poi_id"]), nil, 409, "operation_in_progress"},
		"merchant":      {c.For(""), "POST", "/v1/stores", good, nil, 400, "merchant_required"},
		"parameter":     {c, "POST", "/v1/stores", good, []string{"Idempotency-Key", "a b"}, 400, "invalid_parameter"},
		"state":         {c, "PATCH", "/v1/stores/" + inReview, late, nil, 409, "store_not_updatable"},
		"absent":        {c, "PATCH", "/v1/stores/sto_01jd7k4b2rf6z9t3n7r1s6v2zb", late, nil, 404, "not_found"},
		"version":       {c, "PATCH", path, late, []string{"If-Match", `"999-00000000"`}, 412, "version_conflict"},
		"nothing":       {c, "PATCH", path, map[string]any{}, nil, 422, "validation_failed"},
	})
	c.Do("POST", "/v1/stores?validate_only=2", good).WantProblem(400, "invalid_parameter")
	c.Do("DELETE", path+"?validate_only=true", nil, "Idempotency-Key", "k").Want(200)
	c.Do("DELETE", path+"?validate_only=true", nil, "If-Match", `"999-00000000"`).WantProblem(412, "version_conflict")
	c.Do("DELETE", "/v1/stores/"+inReview+"?validate_only=true", nil).WantProblem(409, "store_not_deletable")
	c.Do("GET", "/v1/stores?validate_only=true", nil).WantProblem(400, "invalid_parameter")

	nothingChanged()
	// The key was not claimed: it is new to the write.
	a := c.Do("POST", "/v1/stores?validate_only=false", good, "Idempotency-Key", "k").Want(202)
	if a.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("replayed: %s", a.Body)
	}
	// A key that is taken is not looked at.
	c.Do("POST", "/v1/stores?validate_only=true", s.fresh(), "Idempotency-Key", "k").Want(200)
}

// A refusal is a write that the gateway refuses, and how.
type refusal struct {
	client       *world.Client
	method, path string
	body         any
	headers      []string
	status       int
	code         string
}

// refusedAlike: every refusal of a validation is the one that the write itself
// meets. The write is asked second: the other way round its traces would be
// seen.
func refusedAlike(t *testing.T, refusals map[string]refusal) {
	t.Helper()
	for name, ask := range refusals {
		asked := ask.client.Do(ask.method, ask.path+"?validate_only=true", ask.body, ask.headers...)
		done := ask.client.Do(ask.method, ask.path, ask.body, ask.headers...)
		if done.Status != ask.status || done.Code() != ask.code {
			t.Errorf("%s: the write is answered %d %s", name, done.Status, done.Body)
		}
		if diff := cmp.Diff(shownProblem(t, done), shownProblem(t, asked)); asked.Status != done.Status || diff != "" {
			t.Errorf("%s: status %d and %d (-write +validation):\n%s", name, done.Status, asked.Status, diff)
		}
	}
}

// watch returns a check that no rows were stored since and WeChat was not
// called.
func watch(t *testing.T, stored func() map[string]any, calls func() int) (nothingChanged func()) {
	t.Helper()
	rowsBefore, callsBefore := stored(), calls()
	return func() {
		t.Helper()
		if diff := cmp.Diff(rowsBefore, stored()); diff != "" {
			t.Errorf("stored (-before +after):\n%s", diff)
		}
		if n := calls() - callsBefore; n != 0 {
			t.Errorf("WeChat was called %d times", n)
		}
	}
}

// shownProblem is a problem without what differs from one request to the next.
func shownProblem(t *testing.T, a *world.Answer) map[string]any {
	t.Helper()
	var p map[string]any
	if err := json.Unmarshal(a.Body, &p); err != nil {
		t.Errorf("%s: %v", a.Body, err)
	}
	delete(p, "request_id")
	return p
}

// A validation of goods is answered as the write would be: it adds nothing,
// submits nothing, and counts against no quota.
func TestGoodsValidateOnly(t *testing.T) {
	t.Parallel()
	m := openMarket(t, 0)
	c := m.client
	poor := c.For(m.Authorize(m.gateway, sandbox.NoStoreSetsAccount))
	of := func(status string) string {
		for _, row := range rows(c.Do("GET", "/v1/goods?status="+status, nil).Want(200)) {
			if row["origin"] != "console" {
				return "/v1/goods/" + row["id"].(string)
			}
		}
		t.Fatalf("no goods are %s", status)
		return ""
	}
	m.Hold(true)
	made := c.Do("POST", "/v1/goods", m.fresh("client_reference", "sku-1"), "Idempotency-Key", "made").Want(202)
	rejected, approved, inReview := of("rejected"), of("approved"), "/v1/goods/"+made.Get("id")
	withdrawal := "/v1/audits/" + made.Get("audit", "id") + "/withdrawal"
	stored := func() map[string]any {
		return m.Row(`SELECT (SELECT count(*) FROM operations WHERE kind LIKE 'goods.%') operations, (SELECT count(*) FROM operation_attempts) attempts,
			(SELECT count(*) FROM resources) resources, (SELECT count(*) FROM audits) audits, (SELECT count(*) FROM idempotency_keys) keys,
			(SELECT sum(used) FROM quota_buckets WHERE bucket <> 'goods-list') used`)
	}
	calls := func() int { return m.calls("add", "update", "delete", "audit", "resetaudit") }
	nothingChanged := watch(t, stored, calls)
	item, price := m.fresh(), map[string]any{"pricing": fixed("2.00")}
	for _, ask := range []struct {
		method, path string
		body         any
	}{
		{"POST", "/v1/goods", item}, {"PATCH", approved, price}, {"PATCH", rejected, map[string]any{"name": "Better"}}, {"POST", rejected + "/audits", nil}, {"POST", withdrawal, nil}, {"DELETE", rejected, nil},
	} {
		a := c.Do(ask.method, ask.path+"?validate_only=true", ask.body, "Idempotency-Key", "k").Want(200)
		if string(a.Body) != `{"valid":true,"warnings":[]}`+"\n" {
			t.Errorf("%s %s: %s", ask.method, ask.path, a.Body)
		}
	}
	refusedAlike(t, map[string]refusal{
		"field":             {c, "POST", "/v1/goods", m.fresh("name", ""), nil, 422, "validation_failed"},
		"reference":         {c, "POST", "/v1/goods", m.fresh("client_reference", "sku-1"), nil, 409, "duplicate_client_reference"},
		"sets":              {poor, "POST", "/v1/goods", item, nil, 403, "permission_set_missing"},
		"merchant":          {c.For(""), "POST", "/v1/goods", item, nil, 400, "merchant_required"},
		"key":               {c, "POST", "/v1/goods", item, []string{"Idempotency-Key", "a b"}, 400, "invalid_parameter"},
		"in review":         {c, "PATCH", inReview, price, nil, 409, "goods_in_review"},
		"locked":            {c, "PATCH", approved, map[string]any{"name": "Other"}, nil, 409, "goods_field_locked"},
		"unknown field":     {c, "PATCH", approved, map[string]any{"colour": "red"}, nil, 400, "unknown_field"},
		"version":           {c, "PATCH", approved, price, []string{"If-Match", `"999-00000000"`}, 412, "version_conflict"},
		"absent":            {c, "PATCH", "/v1/goods/gds_01jd7k4b2rf6z9t3n7r1s6v2zb", price, nil, 404, "not_found"},
		"nothing to submit": {c, "POST", approved + "/audits", nil, nil, 409, "goods_audit_state_conflict"},
		"no audit":          {c, "POST", "/v1/audits/aud_01jd7k4b2sf1a8w4p9x2y7c3de/withdrawal", nil, nil, 404, "not_found"},
	})
	c.Do("DELETE", rejected, nil, "If-Match", `"999-00000000"`).WantProblem(412, "version_conflict")
	c.Do("POST", "/v1/goods", m.fresh(), "Idempotency-Key", "made").WantProblem(422, "idempotency_key_reused")
	nothingChanged()
	// The key was not claimed.
	if a := c.Do("POST", withdrawal, nil, "Idempotency-Key", "k").Want(200); a.Get("status") != "withdrawn" || a.Header.Get("Idempotency-Replayed") != "" {
		t.Errorf("withdrawn: %v %s", a.Header, a.Body)
	}
}
