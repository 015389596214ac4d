package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

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

// fresh is a store that nobody has yet, with changes.
func (s *shop) fresh(changes ...any) map[string]any {
	*s.n++
	return with(s.NewStore(*s.n), changes...)
}

// active makes a store and waits until WeChat has approved it and told its name.
func (s *shop) active() *world.Answer {
	id := s.client.Do("POST", "/v1/stores", s.fresh()).Want(http.StatusAccepted).Get("id")
	var a *world.Answer
	s.Eventually("the store has a name", func() error {
		if a = s.client.Until("/v1/stores/"+id, "active"); a.Get("name") == "null" {
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

// The same key of a caller: what it answers in each case of design api.md §3.3.
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
	sent := len(s.Journal("wxa/update_store"))
	first := s.client.Begin("PATCH", path, phone)
	s.WaitCalls("wxa/update_store", sent+1)
	if a := s.client.Do("GET", "/v1/operations?status=executing", nil); len(rows(a)) != 1 {
		a.Fail("one write is executing")
	}
	s.client.Do("PATCH", path, phone).WantProblem(409, "operation_in_progress")
	first().Want(200)

	// A store that is migrated keeps the number of the old one.
	s.Control("POST", "accounts", map[string]any{"appid": s.appid, "needs_upgrade": true}, nil)
	needs := s.client.Do("POST", "/v1/stores", s.fresh()).WantProblem(422, "legacy_poi_id_required")
	if needs.Get("errors", "0", "pointer") != "/legacy_poi_id" {
		t.Errorf("%s", needs.Body)
	}
	migrated := s.client.Do("POST", "/v1/stores", s.fresh("legacy_poi_id", "271864249")).Want(202)
	if a := s.client.Until("/v1/stores/"+migrated.Get("id"), "active"); a.Get("poi_id") != "271864249" || a.Get("legacy_poi_id") != "271864249" || a.Get("upgraded") != "1" {
		t.Errorf("migrated: %s", a.Body)
	}

	// A read that began before a change, and is answered after it, is shown as it
	// is and changes nothing here.
	s.client.Do("PATCH", path, map[string]string{"contact_phone": "020-8888888"}).Want(200)
	s.Fault("wxa/get_store_info", 1, map[string]any{"delay_ms": 1000, "before": false})
	read := s.client.Begin("GET", path+"?source=live", nil)
	s.Eventually("WeChat has been asked", func() error {
		var left struct{ Faults []any }
		if s.Control("GET", "faults", nil, &left); len(left.Faults) > 0 {
			return errors.New("not yet")
		}
		return nil
	})
	s.client.Do("PATCH", path, map[string]string{"contact_phone": "020-9999999"}).Want(200)
	if a := read().Want(200); a.Get("contact_phone") != "020-8888888" {
		t.Errorf("%s", a.Body)
	}
	s.gateway.Stop() // what goes on behind an answer has ended then
	if got := s.Row(`SELECT fields ->> 'contact_phone' AS phone FROM resources WHERE id = $1`, s.UUID(typeid.Store, active.Get("id")))["phone"]; got != "020-9999999" {
		t.Errorf("the record has the phone of before: %v", got)
	}
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
