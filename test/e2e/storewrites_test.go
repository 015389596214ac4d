package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/mendian/mendian/test/world"
)

func TestStoreReferences(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	send := func(changes ...any) *world.Answer {
		return s.client.Do("POST", "/v1/stores", s.fresh(append([]any{"client_reference", "shop-7"}, changes...)...))
	}
	rejected := send("contact_phone", "020-88880003").Want(202)
	again := send().WantProblem(409, "duplicate_client_reference")
	if again.Get("existing") != "/v1/stores/"+rejected.Get("id") {
		t.Errorf("existing: %s", again.Body)
	}
	a := s.client.Until("/v1/stores/"+rejected.Get("id"), "rejected")
	if a.Get("audit", "status") != "rejected" || a.Get("audit", "reason") == "null" || a.Get("poi_id") != "null" || a.Get("upstream_status") != "3" {
		t.Errorf("rejected: %s", a.Body)
	}

	s.Fault("wxa/add_store", 1, map[string]any{"errcode": 85042})
	send().WantProblem(409, "nearby_location_limit")
	failed := s.client.Do("GET", "/v1/stores?status=failed", nil).Want(200)
	if failed.Get("data", "0", "previous_id") != rejected.Get("id") || failed.Get("data", "0", "client_reference") != "shop-7" {
		t.Errorf("failed: %s", failed.Body)
	}
	if a := s.client.Do("GET", "/v1/stores?client_reference=shop-7", nil).Want(200); len(rows(a)) != 1 {
		t.Errorf("a failed store is listed though nobody asked: %s", a.Body)
	}

	third := send().Want(202)
	if third.Get("previous_id") != failed.Get("data", "0", "id") {
		t.Errorf("after the failure: %s", third.Body)
	}
	s.client.Until("/v1/stores/"+third.Get("id"), "active")
	send().WantProblem(409, "duplicate_client_reference")
	s.client.Do("DELETE", "/v1/stores/"+third.Get("id"), nil).Want(204)
	fourth := send().Want(202)
	if fourth.Get("id") == third.Get("id") || fourth.Get("status") != "in_review" {
		t.Errorf("after the deletion: %s", fourth.Body)
	}
}

func TestStoreIdempotency(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	store := s.fresh()
	first := s.client.Do("POST", "/v1/stores", store, "Idempotency-Key", "k1").Want(202)
	again := s.client.Do("POST", "/v1/stores", store, "Idempotency-Key", "k1").Want(202)
	if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" || again.Get("id") != first.Get("id") ||
		again.Header.Get("Operation-Id") != first.Header.Get("Operation-Id") {
		t.Errorf("replay: %v %s", again.Header, again.Body)
	}
	// Other blanks and another order of members are the same request.
	js, err := json.MarshalIndent(store, "", "   ")
	if err != nil {
		t.Fatal(err)
	}
	s.client.Do("POST", "/v1/stores", js, "Idempotency-Key", "k1").Want(202)
	store["contact_phone"] = "020-7777777"
	s.client.Do("POST", "/v1/stores", store, "Idempotency-Key", "k1").WantProblem(422, "idempotency_key_reused")
	s.client.Do("DELETE", "/v1/stores/"+first.Get("id"), nil, "Idempotency-Key", "k1").WantProblem(422, "idempotency_key_reused")
	s.client.For("").Do("POST", "/v1/merchants/sync", nil, "Idempotency-Key", "k1").Want(202) // another scope

	// A refusal is not forgotten, and not sent again.
	s.Fault("wxa/add_store", 1, map[string]any{"errcode": 85055})
	bad := s.fresh()
	refused := s.client.Do("POST", "/v1/stores", bad, "Idempotency-Key", "k2").WantProblem(422, "map_poi_id_invalid")
	replayed := s.client.Do("POST", "/v1/stores", bad, "Idempotency-Key", "k2").WantProblem(422, "map_poi_id_invalid")
	if refused.Get("operation_id") != replayed.Get("operation_id") || len(s.Journal("wxa/add_store")) != 2 {
		t.Errorf("a refused request was sent again: %s, then %s", refused.Body, replayed.Body)
	}
	// What certainly did nothing, and may work later, is tried again under the
	// same operation.
	s.Fault("wxa/add_store", 1, map[string]any{"errcode": 45011})
	later := s.fresh()
	limited := s.client.Do("POST", "/v1/stores", later, "Idempotency-Key", "k3").WantProblem(429, "wechat_rate_limited")
	done := s.client.Do("POST", "/v1/stores", later, "Idempotency-Key", "k3").Want(202)
	if done.Header.Get("Operation-Id") != limited.Get("operation_id") {
		t.Errorf("another operation: %s, then %s", limited.Get("operation_id"), done.Header.Get("Operation-Id"))
	}
	op := s.client.Do("GET", "/v1/operations/"+limited.Get("operation_id"), nil).Want(200)
	if op.Get("status") != "succeeded" || op.Get("attempts", "0", "outcome") != "refused" || op.Get("attempts", "1", "outcome") != "executed" {
		t.Errorf("operation: %s", op.Body)
	}

	// While the first one runs.
	slow := s.fresh()
	s.Fault("wxa/add_store", 1, map[string]any{"delay_ms": 3500})
	calls := len(s.Journal("wxa/add_store"))
	running := s.client.Begin("POST", "/v1/stores", slow, "Idempotency-Key", "k4")
	s.WaitCalls("wxa/add_store", calls+1)
	if a := s.client.Do("GET", "/v1/operations?status=executing", nil); len(rows(a)) != 1 {
		a.Fail("one write is executing")
	}
	other := s.fresh("map_poi_id", slow["map_poi_id"])
	if a := s.client.Do("POST", "/v1/stores", other).WantProblem(409, "operation_in_progress"); a.Get("retryable") != "true" {
		t.Errorf("%s", a.Body)
	}
	if a := s.client.Do("POST", "/v1/stores", slow, "Idempotency-Key", "k4").WantProblem(409, "idempotency_in_flight"); a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q: %s", a.Header.Get("Retry-After"), a.Body)
	}
	executed := running().Want(202)
	if a := s.client.Do("POST", "/v1/stores", slow, "Idempotency-Key", "k4").Want(202); a.Get("id") != executed.Get("id") {
		t.Errorf("%s, then %s", executed.Body, a.Body)
	}
}

// A write whose answer is lost is 202, and the gateway finds out by itself.
func TestStoreOutcomeUnknown(t *testing.T) {
	t.Parallel()
	s := openShop(t, 8)
	pois, _ := walk(s.client, "/v1/stores?status=active", "poi_id")

	// Executed, and the answer cut off: the audit's push tells.
	s.Hold(true)
	s.Fault("wxa/add_store", 1, map[string]any{"drop_reply": true})
	store := s.fresh()
	lost := s.client.Do("POST", "/v1/stores", store, "Idempotency-Key", "lost").Want(202)
	if lost.Get("status") != "outcome_unknown" || lost.Get("operation", "status") != "reconciling" || lost.Get("poi_id") != "null" {
		t.Errorf("lost: %s", lost.Body)
	}
	calls := len(s.Journal("wxa/add_store"))
	repeated := s.client.Do("POST", "/v1/stores", store, "Idempotency-Key", "lost").Want(202)
	if repeated.Header.Get("Operation-Id") != lost.Header.Get("Operation-Id") || repeated.Get("id") != lost.Get("id") || repeated.Get("operation", "status") != "reconciling" ||
		repeated.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("repeated: %v %s", repeated.Header, repeated.Body)
	}
	s.client.Do("POST", "/v1/stores", "{", "Idempotency-Key", "lost").WantProblem(400, "malformed_json")
	if n := len(s.Journal("wxa/add_store")); n != calls {
		t.Errorf("repeating made %d calls", n-calls)
	}
	s.Hold(false)
	found := s.client.Until("/v1/stores/"+lost.Get("id"), "active")
	if found.Get("poi_id") == "null" || found.Get("audit", "status") != "approved" || found.Get("operation") != "" {
		t.Errorf("found: %s", found.Body)
	}
	op := s.client.Do("GET", "/v1/operations/"+lost.Header.Get("Operation-Id"), nil).Want(200)
	if op.Get("status") != "succeeded" || op.Get("error") != "null" || op.Get("attempts", "0", "outcome") != "ambiguous" {
		t.Errorf("operation: %s", op.Body)
	}

	// Executed: the next look at WeChat tells.
	var lookedAt []func()
	for _, tc := range []struct {
		path, method string
		body         any
		fault        map[string]any
		after        func(a *world.Answer) bool
	}{
		{"wxa/update_store", "PATCH", map[string]string{"contact_phone": "020-1010101"}, map[string]any{"drop_reply": true},
			func(a *world.Answer) bool {
				return a.Get("contact_phone") == "020-1010101" && a.Get("status") == "active"
			}},
		{"wxa/update_store", "PATCH", map[string]string{"contact_phone": "020-2020202"}, map[string]any{"truncate_to": 5},
			func(a *world.Answer) bool { return a.Get("contact_phone") == "020-2020202" }},
		{"wxa/del_store", "DELETE", nil, map[string]any{"drop_reply": true}, func(a *world.Answer) bool { return a.Get("status") == "deleted" }},
		{"wxa/del_store", "DELETE", nil, map[string]any{"http_status": 500, "before": false}, func(a *world.Answer) bool { return a.Get("status") == "deleted" }},
	} {
		poi := pois[0]
		pois = pois[1:]
		s.Fault(tc.path, 1, tc.fault)
		a := s.client.Do(tc.method, "/v1/stores/"+poi, tc.body).Want(202)
		if a.Get("operation", "status") != "reconciling" {
			a.Fail("an unproven outcome is not told")
		}
		lookedAt = append(lookedAt, func() {
			s.Eventually("the look at WeChat", func() error {
				if got := s.client.Do("GET", "/v1/stores/"+poi, nil); !tc.after(got) || got.Get("operation") != "" {
					return fmt.Errorf("%s", got.Body)
				}
				return nil
			})
			if n := len(s.effects(poi)); n != 1 {
				t.Errorf("%s of %s had %d effects", tc.path, poi, n)
			}
		})
	}
	for _, look := range lookedAt {
		look()
	}

	// Not executed, and nobody can know yet.
	for _, fault := range []map[string]any{{"errcode": -1}, {"errcode": 99999}, {"http_status": 502}, {"body": "<html>"}} {
		s.Fault("wxa/add_store", 1, fault)
		a := s.client.Do("POST", "/v1/stores", s.fresh()).Want(202)
		if a.Get("status") != "outcome_unknown" || a.Get("operation", "next_check_at") == "null" {
			a.Fail(fmt.Sprint(fault))
		}
	}
	open := s.client.Do("GET", "/v1/operations?status=reconciling&kind=store.create", nil).Want(200)
	if n := len(rows(open)); n != 4 || open.Get("data", "0", "error") != "null" {
		t.Errorf("%d operations are open: %s", n, open.Body)
	}
	// Its place is held meanwhile.
	unknown := rows(s.client.Do("GET", "/v1/stores?status=outcome_unknown", nil).Want(200))
	s.client.Do("POST", "/v1/stores", s.fresh("map_poi_id", unknown[0]["map_poi_id"])).WantProblem(409, "operation_in_progress")
}

// effects are what WeChat did to a store after it was seeded.
func (s *shop) effects(key string) []world.Effect {
	_, all := s.Truth()
	return slices.DeleteFunc(all, func(e world.Effect) bool { return e.Key != key })
}
