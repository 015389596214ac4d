package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// A shop is a world with one merchant of its own that has stores.
type shop struct {
	*world.World
	gateway *world.Gateway
	client  *world.Client
	appid   string
	n       *int // of stores made
}

// openShop seeds an account with stores before it authorises, so that the
// inventory finds them.
func openShop(t *testing.T, stores int) *shop {
	t.Helper()
	w := world.New(t, world.Options{Env: map[string]string{"GATEWAY_KEY_RATE": "900", "GATEWAY_KEY_BURST": "900"}})
	if stores > 0 {
		w.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/stores", map[string]int{"count": stores}, nil)
	}
	g := w.Start(nil)
	c := w.Demo(g)
	return &shop{w, g, c, sandbox.DemoOfficialAccount, new(int)}
}

// on is the shop for a part of the test.
func (s *shop) on(t *testing.T) *shop {
	part := *s
	part.World = s.World.On(t)
	part.client = part.Client(s.gateway, s.client.Merchant)
	return &part
}

// fresh is a store that nobody has yet, with changes: name, value, name, value.
func (s *shop) fresh(changes ...any) map[string]any {
	*s.n++
	store := s.NewStore(*s.n)
	for i := 0; i+1 < len(changes); i += 2 {
		store[changes[i].(string)] = changes[i+1]
	}
	return store
}

// becomes waits for a store's status and returns it.
func (s *shop) becomes(id, status string) *world.Answer {
	var a *world.Answer
	s.Eventually("the store is "+status, func() error {
		if a = s.client.Do("GET", "/v1/stores/"+id, nil); a.Get("status") != status {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	return a
}

// active makes a store and waits until WeChat has approved it and told its name.
func (s *shop) active() *world.Answer {
	id := s.client.Do("POST", "/v1/stores", s.fresh()).Want(http.StatusAccepted).Get("id")
	var a *world.Answer
	s.Eventually("the store has a name", func() error {
		if a = s.becomes(id, "active"); a.Get("name") == "null" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	return a
}

// rows are the items of a list.
func rows(a *world.Answer) []map[string]any {
	var list struct{ Data []map[string]any }
	a.Into(&list)
	return list.Data
}

// walk follows a list from page to page, by the cursor and by the Link header
// in turns, and returns every item's member.
func walk(c *world.Client, path, member string) (out []string, pages int) {
	for byLink := false; path != ""; byLink = !byLink {
		a := c.Do("GET", path, nil).Want(http.StatusOK)
		pages++
		for _, row := range rows(a) {
			out = append(out, fmt.Sprint(row[member]))
		}
		link, more := a.Header.Get("Link"), a.Get("has_more") == "true"
		if more != (a.Get("next_cursor") != "null") || more != strings.HasSuffix(link, `>; rel="next"`) {
			a.Fail("has_more, next_cursor and Link disagree: " + link)
			return out, pages
		}
		u, err := url.Parse(path)
		if err != nil || !more {
			return out, pages
		}
		q := u.Query()
		q.Set("cursor", a.Get("next_cursor"))
		u.RawQuery = q.Encode()
		path = u.String()
		if byLink {
			path = strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
		}
	}
	return out, pages
}

func TestStoreLists(t *testing.T) {
	t.Parallel()
	s := openShop(t, 115) // with the three of a fresh start 118
	made := s.active()
	reference := s.client.Do("POST", "/v1/stores", s.fresh("client_reference", "shop-1", "contact_phone", "020-88880009")).Want(202)

	t.Run("local pages", func(t *testing.T) {
		s := s.on(t)
		ids, pages := walk(s.client, "/v1/stores?limit=50", "id")
		if len(ids) != 120 || pages != 3 {
			t.Errorf("%d stores on %d pages, want 120 on 3", len(ids), pages)
		}
		if !slices.IsSortedFunc(ids, func(a, b string) int { return strings.Compare(b, a) }) || len(slices.Compact(ids)) != 120 {
			t.Errorf("not each once, newest first: %v", ids)
		}
		if n := len(rows(s.client.Do("GET", "/v1/stores", nil).Want(200))); n != 20 {
			t.Errorf("%d stores without a limit, want 20", n)
		}
	})

	t.Run("live pages", func(t *testing.T) {
		s := s.on(t)
		before := len(s.Journal("wxa/get_store_list"))
		first := s.client.Do("GET", "/v1/stores?source=live&limit=100", nil).Want(200)
		if n := len(rows(first)); n != 50 || first.Get("total") != "120" || first.Get("has_more") != "true" {
			t.Errorf("a page of %d, total %s, want WeChat's 50 of 120", n, first.Get("total"))
		}
		pois, pages := walk(s.client, "/v1/stores?source=live&limit=100", "poi_id")
		if slices.Sort(pois); len(slices.Compact(pois)) != 120 || pages != 3 {
			t.Errorf("%d live stores on %d pages, want 120 on 3", len(pois), pages)
		}
		for _, call := range s.Journal("wxa/get_store_list")[before:] {
			if !strings.Contains(call.Body, `"limit":50`) {
				t.Errorf("WeChat was asked for %s", call.Body)
			}
		}
		// Our own store in review gets its number in the background.
		s.Eventually("every store has our id", func() error {
			if ids, _ := walk(s.client, "/v1/stores?source=live&limit=30", "id"); slices.Contains(ids, "<nil>") {
				return fmt.Errorf("%v", ids)
			}
			return nil
		})
	})

	t.Run("filters", func(t *testing.T) {
		s := s.on(t)
		for filter, want := range map[string]int{
			"status=active":                        118,
			"status=rejected":                      1,
			"status=in_review":                     1,
			"status=deleted":                       0,
			"status=failed":                        0,
			"client_reference=shop-1":              1,
			"client_reference=shop-2":              0,
			"poi_id=" + made.Get("poi_id"):         1,
			"poi_id=1":                             0,
			"map_poi_id=" + made.Get("map_poi_id"): 1,
			"updated_after=2020-01-01T00:00:00Z":   120,
			"updated_after=2120-01-01T00:00:00Z":   0,
			"status=active&client_reference=shop-1&updated_after=2020-01-01T00:00:00%2B08:00": 0,
		} {
			if ids, _ := walk(s.client, "/v1/stores?limit=100&"+filter, "id"); len(ids) != want {
				t.Errorf("%s: %d stores, want %d", filter, len(ids), want)
			}
		}
		if a := s.client.Do("GET", "/v1/stores?client_reference=shop-1", nil).Want(200); a.Get("data", "0", "id") != reference.Get("id") {
			t.Errorf("by reference: %s", a.Body)
		}
		after := url.QueryEscape(made.Get("updated_at"))
		newer, _ := walk(s.client, "/v1/stores?updated_after="+after, "id")
		if slices.Contains(newer, made.Get("id")) || !slices.Contains(newer, reference.Get("id")) {
			t.Errorf("updated after %s: %v", after, newer)
		}
	})

	t.Run("limits and parameters", func(t *testing.T) {
		s := s.on(t)
		for query, ok := range map[string]bool{
			"limit=1": true, "limit=100": true, "limit=0": false, "limit=101": false, "limit=-1": false, "limit=x": false, "limit=": false,
			"limit=1&limit=2": false, "status=unknown": false, "source=live": true, "source=cache": false, "page=2": false,
			"updated_after=yesterday": false, "poi_id=x": false, "client_reference=a%20b": false, "cursor=%20": false,
			"source=live&status=active": false, "source=live&client_reference=shop-1": false, "source=live&poi_id=1": false,
			"source=live&map_poi_id=1": false, "source=live&updated_after=2020-01-01T00:00:00Z": false,
		} {
			a := s.client.Do("GET", "/v1/stores?"+query, nil)
			if ok {
				a.Want(200)
			} else if a.WantProblem(400, "invalid_parameter"); a.Get("errors", "0", "pointer") == "" {
				t.Errorf("%s: no parameter is named: %s", query, a.Body)
			}
		}
	})

	t.Run("cursors", func(t *testing.T) {
		s := s.on(t)
		local := s.client.Do("GET", "/v1/stores?limit=2", nil).Want(200).Get("next_cursor")
		live := s.client.Do("GET", "/v1/stores?source=live&limit=2", nil).Want(200).Get("next_cursor")
		damaged := "A" + local[1:]
		if local[0] == 'A' {
			damaged = "B" + local[1:]
		}
		for name, path := range map[string]string{
			"of another filter":   "/v1/stores?status=active&cursor=" + local,
			"of another source":   "/v1/stores?source=live&cursor=" + local,
			"of a live list":      "/v1/stores?cursor=" + live,
			"of another list":     "/v1/audits?cursor=" + local,
			"of nobody":           "/v1/stores?cursor=AAAA",
			"with one bit turned": "/v1/stores?cursor=" + damaged,
		} {
			if a := s.client.Do("GET", path, nil); a.Code() != "invalid_cursor" || a.Status != 400 {
				t.Errorf("a cursor %s: %d %s", name, a.Status, a.Body)
			}
		}
		s.client.Do("GET", "/v1/stores?limit=9&cursor="+local, nil).Want(200) // another limit is the same list
	})

	t.Run("whose", func(t *testing.T) {
		s := s.on(t)
		everybody := s.client.For("")
		if a := everybody.Do("GET", "/v1/stores?limit=1", nil).Want(200); a.Get("synced_at") != "null" {
			t.Errorf("a list over merchants has one time of comparison: %s", a.Body)
		}
		everybody.Do("GET", "/v1/stores?source=live", nil).WantProblem(400, "merchant_required")
		everybody.Do("GET", "/v1/stores/"+made.Get("poi_id"), nil).WantProblem(400, "merchant_required")
		everybody.For("mch_01jd7k3v9wf4x8s2m6q0r5t1ya").Do("GET", "/v1/stores", nil).WantProblem(404, "merchant_not_found")
		bound := everybody.As(s.NewKey("--scopes", "stores:read", "--merchants", s.appid))
		if a := bound.Do("GET", "/v1/stores?source=live&limit=1", nil).Want(200); a.Get("data", "0", "poi_id") == "" {
			t.Errorf("a key of one merchant needs no header: %s", a.Body)
		}
		bound.Do("GET", "/v1/stores/"+made.Get("poi_id"), nil).Want(200)
		bound.Do("DELETE", "/v1/stores/"+made.Get("poi_id"), nil).WantProblem(403, "scope_missing")
	})
}

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
	a := s.becomes(rejected.Get("id"), "rejected")
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
	s.becomes(third.Get("id"), "active")
	send().WantProblem(409, "duplicate_client_reference")
	s.client.Do("DELETE", "/v1/stores/"+third.Get("id"), nil).Want(204)
	fourth := send().Want(202)
	if fourth.Get("id") == third.Get("id") || fourth.Get("status") != "in_review" {
		t.Errorf("after the deletion: %s", fourth.Body)
	}
}

// The same key of a caller: what it answers in each case of design api.md §3.3.
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
	var wg sync.WaitGroup
	var executed *world.Answer
	wg.Go(func() {
		var err error
		if executed, err = s.client.Try("POST", "/v1/stores", slow, "Idempotency-Key", "k4"); err != nil {
			t.Error(err)
		}
	})
	s.Eventually("it is under way", func() error {
		if a := s.client.Do("GET", "/v1/operations?status=executing", nil); len(rows(a)) != 1 {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	other := s.fresh("map_poi_id", slow["map_poi_id"])
	if a := s.client.Do("POST", "/v1/stores", other).WantProblem(409, "operation_in_progress"); a.Get("retryable") != "true" {
		t.Errorf("%s", a.Body)
	}
	if a := s.client.Do("POST", "/v1/stores", slow, "Idempotency-Key", "k4").WantProblem(409, "idempotency_in_flight"); a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q: %s", a.Header.Get("Retry-After"), a.Body)
	}
	wg.Wait()
	executed.Want(202)
	if a := s.client.Do("POST", "/v1/stores", slow, "Idempotency-Key", "k4").Want(202); a.Get("id") != executed.Get("id") {
		t.Errorf("%s, then %s", executed.Body, a.Body)
	}
}

// What a store's state allows.
func TestStoreStates(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	phone := map[string]string{"contact_phone": "020-1234567"}

	waiting := s.client.Do("POST", "/v1/stores", s.fresh("contact_phone", "020-88880009")).Want(202)
	path := "/v1/stores/" + waiting.Get("id")
	s.client.Do("GET", path+"?source=live", nil).WantProblem(409, "store_state_unknown")
	s.client.Do("PATCH", path, phone).WantProblem(409, "store_not_updatable")
	s.client.Do("DELETE", path, nil).WantProblem(409, "store_not_deletable")

	active := s.active()
	path = "/v1/stores/" + active.Get("id")
	etag := s.client.Do("GET", path, nil).Want(200).Header.Get("ETag")
	if a := s.client.Do("GET", path, nil, "If-None-Match", etag).Want(304); len(a.Body) != 0 || a.Header.Get("ETag") != etag {
		t.Errorf("304: %v %s", a.Header, a.Body)
	}
	s.client.Do("GET", path, nil, "If-None-Match", `"0-00000000", W/`+etag).Want(304)
	s.client.Do("GET", path, nil, "If-None-Match", `"0-00000000"`).Want(200)
	s.client.Do("PATCH", path, phone, "If-Match", `"0-00000000"`).WantProblem(412, "version_conflict")
	s.client.Do("PATCH", path, phone, "If-Match", "mine").WantProblem(412, "version_conflict")
	changed := s.client.Do("PATCH", path, phone, "If-Match", etag).Want(200)
	s.client.Do("PATCH", path, phone, "If-Match", etag).WantProblem(412, "version_conflict")
	if changed.Get("contact_phone") != "020-1234567" || changed.Get("business_hours_text") != "10:00-21:00" || changed.Header.Get("ETag") == etag {
		t.Errorf("changed: %s", changed.Body)
	}

	// What is older than ten minutes is read anew before it is sent back.
	stale := func() {
		s.Exec(`UPDATE resources SET synced_at = now() - interval '11 minutes' WHERE id = $1`, s.UUID(typeid.Store, active.Get("id")))
	}
	info := len(s.Journal("wxa/get_store_info"))
	s.client.Do("PATCH", path, map[string]string{"card_id": "pFS7Fjg8kV1IdDz01r4SQwMkuCKc"}).Want(200)
	if n := len(s.Journal("wxa/get_store_info")); n != info {
		t.Errorf("%d reads of a store that was known", n-info)
	}
	stale()
	s.client.Do("PATCH", path, map[string]any{"business_hours": map[string]string{"open": "08:30", "close": "24:00"}}).Want(200)
	calls := s.Journal("wxa/update_store")
	if n := len(s.Journal("wxa/get_store_info")); n != info+1 || !strings.Contains(calls[len(calls)-1].Body, `"hour":"08:30-24:00"`) ||
		!strings.Contains(calls[len(calls)-1].Body, `"contract_phone":"020-1234567"`) {
		t.Errorf("%d reads; sent %s", n-info, calls[len(calls)-1].Body)
	}
	stale()
	s.Fault("wxa/get_store_info", 1, map[string]any{"body": `{"errcode":0,"business":{"base_info":{"poi_id":"` + active.Get("poi_id") + `","status":1}}}`})
	s.client.Do("PATCH", path, phone).WantProblem(409, "store_state_unknown")

	// The list and the single store are shown by WeChat with different fields:
	// reading is no change.
	before := s.client.Do("GET", path, nil).Want(200)
	for range 2 {
		s.client.Do("GET", "/v1/stores?source=live&limit=50", nil).Want(200)
		s.client.Do("GET", path+"?source=live", nil).Want(200)
	}
	if a := s.client.Do("GET", path, nil).Want(200); a.Header.Get("ETag") != before.Header.Get("ETag") {
		t.Errorf("reading changed the store: %s, was %s", a.Body, before.Body)
	}

	// By WeChat's number, live, and of another merchant.
	s.client.Do("PATCH", "/v1/stores/"+active.Get("poi_id"), phone).Want(200)
	live := s.client.Do("GET", path+"?source=live", nil).Want(200)
	if live.Get("id") != active.Get("id") || live.Get("map_poi_id") != active.Get("map_poi_id") || live.Get("audit", "id") != active.Get("audit", "id") {
		t.Errorf("live: %s", live.Body)
	}
	other := s.client.For(s.Authorize(s.gateway, sandbox.LeavingAccount))
	other.Do("GET", path, nil).WantProblem(404, "not_found")
	other.Do("DELETE", path, nil).WantProblem(404, "not_found")
	other.Do("GET", "/v1/stores/"+active.Get("poi_id"), nil).WantProblem(404, "not_found")
	other.Do("GET", "/v1/stores/"+active.Get("poi_id")+"?source=live", nil).WantProblem(404, "store_not_found")
	s.client.Do("GET", "/v1/stores/sto_01jd7k4b2rf6z9t3n7r1s6v2zb", nil).WantProblem(404, "not_found")
	s.client.Do("GET", "/v1/stores/aud_01jd7k4b2rf6z9t3n7r1s6v2zb", nil).WantProblem(400, "invalid_parameter")

	// Two changes at once: one at a time.
	s.Fault("wxa/update_store", 1, map[string]any{"delay_ms": 1500})
	var wg sync.WaitGroup
	wg.Go(func() {
		if a, err := s.client.Try("PATCH", path, phone); err != nil || a.Status != 200 {
			t.Errorf("%v %v", a, err)
		}
	})
	s.Eventually("it is under way", func() error {
		if a := s.client.Do("GET", "/v1/operations?status=executing", nil); len(rows(a)) != 1 {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	s.client.Do("PATCH", path, phone).WantProblem(409, "operation_in_progress")
	wg.Wait()

	// A store that is migrated keeps the number of the old one.
	s.Control("POST", "accounts", map[string]any{"appid": s.appid, "needs_upgrade": true}, nil)
	needs := s.client.Do("POST", "/v1/stores", s.fresh()).WantProblem(422, "legacy_poi_id_required")
	if needs.Get("errors", "0", "pointer") != "/legacy_poi_id" {
		t.Errorf("%s", needs.Body)
	}
	migrated := s.client.Do("POST", "/v1/stores", s.fresh("legacy_poi_id", "271864249")).Want(202)
	if a := s.becomes(migrated.Get("id"), "active"); a.Get("poi_id") != "271864249" || a.Get("legacy_poi_id") != "271864249" || a.Get("upgraded") != "1" {
		t.Errorf("migrated: %s", a.Body)
	}

	// A read that began before a change, and is answered after it, is shown as it
	// is and changes nothing here.
	s.client.Do("PATCH", path, map[string]string{"contact_phone": "020-8888888"}).Want(200)
	s.Fault("wxa/get_store_info", 1, map[string]any{"delay_ms": 1000, "before": false})
	wg.Go(func() {
		if a, err := s.client.Try("GET", path+"?source=live", nil); err != nil || a.Get("contact_phone") != "020-8888888" {
			t.Errorf("%v %v", a, err)
		}
	})
	s.Eventually("WeChat has been asked", func() error {
		var left struct{ Faults []any }
		if s.Control("GET", "faults", nil, &left); len(left.Faults) > 0 {
			return errors.New("not yet")
		}
		return nil
	})
	s.client.Do("PATCH", path, map[string]string{"contact_phone": "020-9999999"}).Want(200)
	wg.Wait()
	s.gateway.Stop() // what goes on behind an answer has ended then
	if got := s.Row(`SELECT fields ->> 'contact_phone' AS phone FROM resources WHERE id = $1`, s.UUID(typeid.Store, active.Get("id")))["phone"]; got != "020-9999999" {
		t.Errorf("the record has the phone of before: %v", got)
	}
}

// The rules of design api.md §5.5 and §10, below and at each bound and above.
func TestStoreRules(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	const photo = "http://mmbiz.qpic.cn/mmbiz_jpg/abc/0?wx_fmt=jpeg"
	const media = "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P"
	photos := func(n int) []string { return slices.Repeat([]string{photo}, n) }
	hours := func(open, closes string) map[string]string { return map[string]string{"open": open, "close": closes} }
	long := func(n int) string { return photo + strings.Repeat("a", n-len(photo)) }
	x := func(n int) string { return strings.Repeat("1", n) }
	for _, rule := range []struct {
		field   string
		good    []any
		bad     []any
		pointer string // of the error, when not the field
	}{
		{"client_reference", []any{"a", x(64), "A-z_0.9:"}, []any{"", x(65), "a b", "ü", 7, nil}, ""},
		{"map_poi_id", nil, []any{"", x(21), "12a", "-1", 2880741500279549033, nil}, ""},
		{"photos", []any{photos(1), photos(50), []string{"https://mmbiz.qpic.cn/x"}, []string{long(1024)}}, []any{photos(0), photos(51), nil, photo}, ""},
		{"photos", nil, []any{[]string{"http://mmbiz.qlogo.cn/x"}, []string{"http://mmbiz.qpic.cn.evil.example/x"}, []string{"ftp://mmbiz.qpic.cn/x"},
			[]string{"http://u@mmbiz.qpic.cn/x"}, []string{long(1025)}, []string{""}, []any{7}}, "/photos/0"},
		{"contact_phone", []any{x(5), x(32), "020-12345678"}, []any{x(4), x(33), "", "-12345", "+86 20 1234", nil}, ""},
		{"business_hours", []any{hours("00:00", "24:00"), hours("23:59", "00:00"), hours("22:00", "02:00"), hours("9:05", "9:06")}, []any{nil, "10:00-21:00"}, ""},
		{"business_hours", nil, []any{hours("24:00", "21:00"), hours("10:60", "21:00"), hours("1000", "21:00"), hours("", "21:00")}, "/business_hours/open"},
		{"business_hours", nil, []any{hours("10:00", "24:01"), hours("10:00", "25:00"), hours("10:00", "21:0")}, "/business_hours/close"},
		{"credential_number", nil, []any{"", x(101), "a\u0007", nil}, ""},
		{"qualification_media_ids", []any{[]string{}, []string{media}, slices.Repeat([]string{media}, 5)}, []any{slices.Repeat([]string{media}, 6), media}, ""},
		{"qualification_media_ids", nil, []any{[]string{""}, []string{x(129)}, []string{"a,b"}}, "/qualification_media_ids/0"},
		{"card_id", []any{"a", x(64)}, []any{"", x(65), "a b", nil}, ""},
		{"legacy_poi_id", nil, []any{"", x(21), "a"}, ""},
		{"company_name", nil, []any{"", x(101), "a\nb"}, ""},
	} {
		for _, v := range rule.good {
			a := s.client.Do("POST", "/v1/stores", s.fresh(rule.field, v))
			if a.Status != 202 {
				t.Errorf("%s = %.80v: %d %s", rule.field, v, a.Status, a.Body)
			}
		}
		sent := len(s.Journal("wxa/add_store"))
		for _, v := range rule.bad {
			a := s.client.Do("POST", "/v1/stores", s.fresh(rule.field, v))
			pointer := rule.pointer
			if pointer == "" {
				pointer = "/" + rule.field
			}
			if a.Status != 422 || a.Code() != "validation_failed" || a.Get("errors", "0", "pointer") != pointer {
				t.Errorf("%s = %.80v: %d %s", rule.field, v, a.Status, a.Body)
			}
		}
		if n := len(s.Journal("wxa/add_store")); n != sent {
			t.Errorf("%s: WeChat was asked %d times for what was refused", rule.field, n-sent)
		}
	}
	for _, good := range []string{"7", x(100)} {
		store := s.fresh()
		store["credential_number"] = good
		s.client.Do("POST", "/v1/stores", store).Want(202)
	}
	for _, good := range []string{"公", strings.Repeat("司", 100)} {
		s.client.Do("POST", "/v1/stores", s.fresh("company_name", good, "qualification_media_ids", []string{media})).Want(202)
	}
	needs := s.client.Do("POST", "/v1/stores", s.fresh("company_name", "公司")).WantProblem(422, "validation_failed")
	if needs.Get("errors", "0", "pointer") != "/qualification_media_ids" {
		t.Errorf("a company needs its qualification: %s", needs.Body)
	}
	for _, n := range []int{1, 255} {
		s.client.Do("POST", "/v1/stores", s.fresh(), "Idempotency-Key", x(n)).Want(202)
	}
	for _, bad := range []string{x(256), "a b", "ü"} {
		s.client.Do("POST", "/v1/stores", s.fresh(), "Idempotency-Key", bad).WantProblem(400, "invalid_parameter")
	}

	// Everything that is missing is named at once.
	var p struct {
		Errors []struct{ Pointer, Code string }
	}
	s.client.Do("POST", "/v1/stores", "{}").WantProblem(422, "validation_failed").Into(&p)
	var missing []string
	for _, e := range p.Errors {
		missing = append(missing, e.Code+" "+e.Pointer)
	}
	slices.Sort(missing)
	if diff := cmp.Diff([]string{"required /business_hours", "required /contact_phone", "required /credential_number", "required /map_poi_id", "required /photos"}, missing); diff != "" {
		t.Errorf("an empty store: %s", diff)
	}
	path := "/v1/stores/" + s.active().Get("id")
	for name, body := range map[string]any{
		"nothing": map[string]any{}, "no photos": map[string]any{"photos": []string{}}, "a phone": map[string]any{"contact_phone": x(4)},
		"hours": map[string]any{"business_hours": hours("24:00", "21:00")}, "a card": map[string]any{"card_id": ""},
	} {
		if a := s.client.Do("PATCH", path, body); a.Status != 422 || a.Code() != "validation_failed" {
			t.Errorf("PATCH with %s: %d %s", name, a.Status, a.Body)
		}
	}
	s.client.Do("PATCH", path, map[string]any{"credential_number": "1"}).WantProblem(400, "unknown_field")

	// WeChat wants HH:MM.
	single := s.client.Do("PATCH", path, map[string]any{"business_hours": hours("9:05", "9:30")}).Want(200)
	if single.Get("business_hours_text") != "09:05-09:30" {
		t.Errorf("hours with one digit: %s", single.Body)
	}
}

// Every errcode of WeChat whose code an operation lists is answered with that
// code, and with the field at fault.
func TestStoreErrcodes(t *testing.T) {
	t.Parallel()
	s := openShop(t, 95)
	pois, _ := walk(s.client, "/v1/stores?status=active&limit=100", "poi_id")
	next := func() string { // a store that no open operation holds
		poi := pois[0]
		pois = pois[1:]
		return poi
	}
	one := next()
	var legacy struct {
		IDs []string `json:"poi_ids"`
	}
	s.Control("POST", "accounts/"+s.appid+"/legacy-stores", map[string]int{"count": 95}, &legacy)
	s.Eventually("the legacy stores are known", func() error {
		if ids, _ := walk(s.client, "/v1/legacy-stores?source=live&limit=100", "id"); len(ids) < 95 || slices.Contains(ids, "<nil>") {
			return fmt.Errorf("%v", ids)
		}
		return nil
	})
	nextLegacy := func() string {
		poi := legacy.IDs[0]
		legacy.IDs = legacy.IDs[1:]
		return poi
	}
	for _, call := range []struct {
		operation, endpoint, path string
		write                     bool
		do                        func(s *shop) *world.Answer
	}{
		{"listStores", "store.list", "wxa/get_store_list", false, func(s *shop) *world.Answer { return s.client.Do("GET", "/v1/stores?source=live", nil) }},
		{"getStore", "store.get", "wxa/get_store_info", false, func(s *shop) *world.Answer { return s.client.Do("GET", "/v1/stores/"+one+"?source=live", nil) }},
		{"listMapPOIs", "map_poi.search", "wxa/search_map_poi", false, func(s *shop) *world.Answer {
			return s.client.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil)
		}},
		{"createMapPOI", "map_poi.create", "wxa/create_map_poi", true, func(s *shop) *world.Answer {
			*s.n++
			return s.client.Do("POST", "/v1/map-pois", documentsPlace("name", fmt.Sprint("place ", *s.n)))
		}},
		{"createStore", "store.add", "wxa/add_store", true, func(s *shop) *world.Answer { return s.client.Do("POST", "/v1/stores", s.fresh()) }},
		{"updateStore", "store.update", "wxa/update_store", true, func(s *shop) *world.Answer {
			return s.client.Do("PATCH", "/v1/stores/"+next(), map[string]string{"contact_phone": "020-7654321"})
		}},
		{"deleteStore", "store.delete", "wxa/del_store", true, func(s *shop) *world.Answer { return s.client.Do("DELETE", "/v1/stores/"+next(), nil) }},
		{"listLegacyStores", "legacy_store.list", "cgi-bin/poi/getpoilist", false, func(s *shop) *world.Answer {
			return s.client.Do("GET", "/v1/legacy-stores?source=live", nil)
		}},
		{"getLegacyStore", "legacy_store.get", "cgi-bin/poi/getpoi", false, func(s *shop) *world.Answer {
			return s.client.Do("GET", "/v1/legacy-stores/"+legacy.IDs[0]+"?source=live", nil)
		}},
		{"createLegacyStore", "legacy_store.add", "cgi-bin/poi/addpoi", true, func(s *shop) *world.Answer {
			return s.client.Do("POST", "/v1/legacy-stores", legacyStore())
		}},
		{"updateLegacyStore", "legacy_store.update", "cgi-bin/poi/updatepoi", true, func(s *shop) *world.Answer {
			return s.client.Do("PATCH", "/v1/legacy-stores/"+nextLegacy(), map[string]string{"phone": "020-7654321"})
		}},
		{"deleteLegacyStore", "legacy_store.delete", "cgi-bin/poi/delpoi", true, func(s *shop) *world.Answer {
			return s.client.Do("DELETE", "/v1/legacy-stores/"+nextLegacy(), nil)
		}},
	} {
		t.Run(call.operation, func(t *testing.T) {
			s := s.on(t)
			answersEveryErrcode(t, s.World, s.client, errcodeCall{call.operation, call.endpoint, call.path, call.write, nil, func(*world.Client) *world.Answer {
				if len(pois) < 2 {
					t.Fatal("seed more stores")
				}
				return call.do(s)
			}})
		})
	}

	t.Run("a store that is gone was deleted", func(t *testing.T) {
		s := s.on(t)
		for _, errcode := range []int{65115, 65116} {
			poi := next()
			s.Fault("wxa/del_store", 1, map[string]any{"errcode": errcode})
			s.client.Do("DELETE", "/v1/stores/"+poi, nil).Want(204)
			if a := s.client.Do("GET", "/v1/stores/"+poi, nil).Want(200); a.Get("status") != "deleted" {
				t.Errorf("errcode %d: %s", errcode, a.Body)
			}
		}
	})

	t.Run("reads that nobody can read", func(t *testing.T) {
		s := s.on(t)
		for _, tc := range []struct {
			fault  map[string]any
			status int
			code   string
		}{
			{map[string]any{"errcode": 99999}, 502, "wechat_unknown_error"},
			{map[string]any{"drop_reply": true}, 502, "wechat_unreachable"},
			{map[string]any{"http_status": 502}, 502, "wechat_unreachable"},
			{map[string]any{"body": "<html>busy</html>"}, 502, "wechat_unreachable"},
			{map[string]any{"truncate_to": 20}, 502, "wechat_unreachable"},
		} {
			s.Fault("wxa/get_store_list", 1, tc.fault)
			if a := s.client.Do("GET", "/v1/stores?source=live", nil); a.Status != tc.status || a.Code() != tc.code {
				t.Errorf("%v: %d %s", tc.fault, a.Status, a.Body)
			}
		}
		s.client.Do("GET", "/v1/stores?source=live", nil).Want(200)
	})
}

// A write whose answer is lost is 202, and the gateway finds out by itself.
func TestStoreOutcomeUnknown(t *testing.T) {
	t.Parallel()
	s := openShop(t, 8)
	pois, _ := walk(s.client, "/v1/stores?status=active", "poi_id")

	// Executed, and the answer cut off: the audit's push tells.
	s.Hold(true)
	s.Fault("wxa/add_store", 1, map[string]any{"drop_reply": true})
	lost := s.client.Do("POST", "/v1/stores", s.fresh(), "Idempotency-Key", "lost").Want(202)
	if lost.Get("status") != "outcome_unknown" || lost.Get("operation", "status") != "reconciling" || lost.Get("poi_id") != "null" {
		t.Errorf("lost: %s", lost.Body)
	}
	repeated := s.client.Do("POST", "/v1/stores", "{", "Idempotency-Key", "lost")
	repeated.WantProblem(400, "malformed_json")
	s.Hold(false)
	found := s.becomes(lost.Get("id"), "active")
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

func TestAuditsAndOperations(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	start := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
	approved := s.active()
	rejected := s.client.Do("POST", "/v1/stores", s.fresh("contact_phone", "020-88880003")).Want(202)
	s.becomes(rejected.Get("id"), "rejected")
	update := s.client.Do("PATCH", "/v1/stores/"+approved.Get("id"), map[string]any{"photos": []string{"http://mmbiz.qpic.cn/new"}, "contact_phone": "020-88880009"}).Want(202)
	other := s.Authorize(s.gateway, sandbox.LeavingAccount)
	elsewhere := s.client.For(other).Do("POST", "/v1/stores", s.fresh("contact_phone", "020-88880009")).Want(202)
	s.Fault("wxa/add_store", 1, map[string]any{"errcode": 85041})
	failed := s.client.Do("POST", "/v1/stores", s.fresh()).WantProblem(409, "credential_already_used")

	all, audit := s.client.For(""), "/v1/audits/"+approved.Get("audit", "id")
	mine := s.client.Merchant
	for query, want := range map[string]int{
		"":                                       4,
		"kind=store_create":                      3,
		"kind=store_update":                      1,
		"kind=goods":                             0,
		"status=in_review":                       2,
		"status=approved":                        1,
		"status=rejected":                        1,
		"merchant_id=" + mine:                    3,
		"merchant_id=" + sandbox.LeavingAccount:  1,
		"subject=" + approved.Get("id"):          2,
		"subject=mch_01jd7k3v9wf4x8s2m6q0r5t1ya": 0,
		"kind=store_create&wechat_audit_id=" + rejected.Get("audit", "wechat_audit_id"): 1,
		"submitted_after=" + start:                               4,
		"submitted_after=2120-01-01T00:00:00Z":                   0,
		"status=in_review&kind=store_update&merchant_id=" + mine: 1,
		"limit=100": 4,
	} {
		if ids, _ := walk(all, "/v1/audits?"+query, "id"); len(ids) != want {
			t.Errorf("audits with %s: %d, want %d", query, len(ids), want)
		}
	}
	if ids, pages := walk(all, "/v1/audits?limit=3", "id"); len(ids) != 4 || pages != 2 || !slices.IsSortedFunc(ids, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("%d pages of audits: %v", pages, ids)
	}
	all.Do("GET", "/v1/audits?kind=photo", nil).WantProblem(400, "invalid_parameter")
	all.Do("GET", "/v1/audits?subject=7", nil).WantProblem(400, "invalid_parameter")
	s.client.Do("GET", "/v1/audits?merchant_id="+other, nil).WantProblem(400, "merchant_mismatch")
	if n := len(rows(s.client.Do("GET", "/v1/audits?merchant_id="+s.appid, nil).Want(200))); n != 3 {
		t.Errorf("header and filter that mean the same: %d audits", n)
	}
	all.Do("GET", "/v1/audits?merchant_id=wx00000000000000ff", nil).WantProblem(404, "merchant_not_found")

	a := all.Do("GET", audit, nil).Want(200)
	if a.Get("kind") != "store_create" || a.Get("source") != "event" || a.Get("attempt") != "1" || a.Get("merchant_id") != mine || a.Get("decided_at") == "null" ||
		a.Get("history", "0", "source") != "response" || !strings.HasPrefix(a.Get("history", "1", "raw_event_id"), "evt_") {
		t.Errorf("audit: %s", a.Body)
	}
	notModified(t, all, audit)
	all.Do("GET", "/v1/audits/aud_01jd7k4b2sf1a8w4p9x2y7c3de", nil).WantProblem(404, "not_found")
	all.Do("GET", "/v1/audits/7", nil).WantProblem(400, "invalid_parameter")
	if r := all.Do("GET", "/v1/audits/"+rejected.Get("audit", "id"), nil).Want(200); r.Get("reason") == "null" || r.Get("status") != "rejected" {
		t.Errorf("rejected: %s", r.Body)
	}

	for query, want := range map[string]int{
		"":                                5,
		"kind=store.create":               4,
		"kind=store.update":               1,
		"kind=merchants.sync":             0,
		"status=succeeded":                4,
		"status=failed":                   1,
		"status=needs_attention":          0,
		"merchant_id=" + other:            1,
		"merchant_id=" + s.appid:          4,
		"updated_after=" + start:          5,
		"status=failed&kind=store.create": 1,
	} {
		if ids, _ := walk(all, "/v1/operations?"+query, "id"); len(ids) != want {
			t.Errorf("operations with %s: %d, want %d", query, len(ids), want)
		}
	}
	if ids, pages := walk(all, "/v1/operations?limit=2", "id"); len(ids) != 5 || pages != 3 {
		t.Errorf("%d pages of operations: %v", pages, ids)
	}
	s.client.Do("GET", "/v1/operations?merchant_id="+other, nil).WantProblem(400, "merchant_mismatch")
	all.Do("GET", "/v1/operations?kind=STORE", nil).WantProblem(400, "invalid_parameter")
	op := all.Do("GET", "/v1/operations/"+failed.Get("operation_id"), nil).Want(200)
	if op.Get("error", "code") != "credential_already_used" || op.Get("error", "errors", "0", "pointer") != "/credential_number" || op.Get("error", "upstream", "errcode") != "85041" ||
		op.Get("merchant_id") != mine || !strings.HasPrefix(op.Get("requested_by"), "key_") || op.Get("expires") != "null" {
		t.Errorf("operation: %s", op.Body)
	}
	if zh := all.Do("GET", "/v1/operations/"+failed.Get("operation_id"), nil, "Accept-Language", "zh-CN").Want(200); !strings.Contains(zh.Get("error", "title"), "资质编号") {
		t.Errorf("in Chinese: %s", zh.Body)
	}
	notModified(t, all, "/v1/operations/"+failed.Get("operation_id"))
	all.Do("GET", "/v1/operations/op_01jd7k4b2tf8b5x6q0y3z8d4ef", nil).WantProblem(404, "not_found")

	// A key of one merchant sees nothing of the other.
	bound := all.As(s.NewKey("--scopes", "audits:read,operations:read", "--merchants", other))
	if ids, _ := walk(bound, "/v1/audits", "id"); !slices.Equal(ids, []string{elsewhere.Get("audit", "id")}) {
		t.Errorf("audits of a bound key: %v", ids)
	}
	if ids, _ := walk(bound, "/v1/operations", "id"); !slices.Equal(ids, []string{elsewhere.Header.Get("Operation-Id")}) {
		t.Errorf("operations of a bound key: %v", ids)
	}
	bound.Do("GET", audit, nil).WantProblem(403, "merchant_not_allowed")
	bound.Do("GET", "/v1/operations/"+update.Header.Get("Operation-Id"), nil).WantProblem(403, "merchant_not_allowed")
	bound.Do("GET", "/v1/audits?merchant_id="+mine, nil).WantProblem(403, "merchant_not_allowed")

	admin := all.As(s.AdminKey())
	if n, _ := walk(admin, "/v1/admin/operations?limit=2", "tenant_id"); len(n) != 5 || n[0] != s.Tenant.ID {
		t.Errorf("operations of all tenants: %v", n)
	}
	for query, want := range map[string]int{"status=failed": 1, "kind=store.update": 1, "status=needs_attention": 0, "tenant_id=" + s.Tenant.ID: 5,
		"tenant_id=ten_01jd7jx5p0f3e4d5c6b7a8n9mp": 0} {
		if n, _ := walk(admin, "/v1/admin/operations?"+query, "tenant_id"); len(n) != want {
			t.Errorf("operations of all tenants with %s: %d, want %d", query, len(n), want)
		}
	}
	admin.Do("GET", "/v1/admin/operations?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")
}

// notModified reads what has an ETag again with it.
func notModified(t *testing.T, c *world.Client, path string) {
	t.Helper()
	etag := c.Do("GET", path, nil).Want(200).Header.Get("ETag")
	if etag == "" {
		t.Errorf("GET %s has no ETag", path)
		return
	}
	a := c.Do("GET", path, nil, "If-None-Match", etag)
	if a.Status != 304 || len(a.Body) > 0 || a.Header.Get("ETag") != etag {
		t.Errorf("GET %s again: %d %v %s", path, a.Status, a.Header, a.Body)
	}
	c.Do("GET", path, nil, "If-None-Match", `"1-0123abcd"`).Want(200)
}
