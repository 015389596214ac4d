package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// A mover is a world whose merchant has a dozen legacy stores, in every state
// of the move to its Store Mini Program (document 000 §4.13).
type mover struct {
	*world.World
	t       *testing.T
	gateway *world.Gateway
	client  *world.Client
}

func openMover(t *testing.T) *mover {
	t.Helper()
	w := world.New(t, world.Options{Tags: []string{"faults"}, Env: map[string]string{"GATEWAY_FAULT_SCHEDULE": "0.02"}})
	g := w.Start(nil)
	return &mover{w, t, g, w.Client(g, w.Authorize(g, sandbox.MigratingAccount))}
}

// A migrated is an item of a migration.
type migrated struct {
	Number    string   `json:"legacy_poi_id"`
	LegacyID  string   `json:"legacy_store_id"`
	Status    string   `json:"status"`
	BlockedBy []string `json:"blocked_by"`
	Deletes   bool     `json:"deletes"`
	Attempt   int      `json:"attempt"`
	StoreID   *string  `json:"store_id"`
	Operation *string  `json:"operation_id"`
	Audit     *string  `json:"audit_id"`
	Upgrade   *struct {
		Status, Comment string
		MapPoiID        *string `json:"map_poi_id"`
	} `json:"upgrade"`
	Error *struct {
		Code     string
		Upstream *struct{ Errcode int }
	}
}

// items reads all items of a migration, page by page.
func (m *mover) items(id string) (out []migrated) {
	m.t.Helper()
	for path := "/v1/store-migrations/" + id + "/items?limit=5"; path != ""; {
		var page struct {
			Data []migrated
			Next *string `json:"next_cursor"`
		}
		m.client.Do("GET", path, nil).Want(200).Into(&page)
		out = append(out, page.Data...)
		if path = ""; page.Next != nil {
			path = "/v1/store-migrations/" + id + "/items?limit=5&cursor=" + *page.Next
		}
	}
	return out
}

// Legacy stores are listed, planned, moved and reviewed; those that can't move
// are deleted with consent; and it is over when WeChat's list says so.
func TestStoreMigration(t *testing.T) {
	t.Parallel()
	m := openMover(t)
	c := m.client

	plan := c.Do("POST", "/v1/store-migrations", map[string]any{"mode": "plan"}, "Idempotency-Key", "move-1").Want(202)
	id := plan.Get("id")
	path := "/v1/store-migrations/" + id
	if plan.Get("status") != "planning" || plan.Get("phase") != "listing" || plan.Get("percent") != "null" || plan.Header.Get("Location") != path {
		t.Errorf("begun: %v %s", plan.Header, plan.Body)
	}
	planned := m.client.Until("/v1/store-migrations/"+id, "planned")
	if planned.Get("phase") != "planning" || planned.Get("counts", "total") != "12" || planned.Get("counts", "migrated") != "1" || planned.Get("counts", "in_review") != "1" {
		t.Errorf("planned: %s", planned.Body)
	}
	blocked := map[string]int{}
	var barred, homeless migrated
	var rest []string
	for _, it := range m.items(id) {
		blocked[strings.Join(it.BlockedBy, " ")]++
		switch {
		case it.Upgrade.Status == "not_allowed":
			barred = it
		case slices.Contains(it.BlockedBy, "map_poi_required"):
			homeless = it
			fallthrough
		case it.Status == "blocked":
			rest = append(rest, it.Number)
		}
	}
	want := map[string]int{"": 2, "credential_number_required": 8, "map_poi_required credential_number_required": 1, "consent_required": 1}
	if diff := cmp.Diff(want, blocked); diff != "" {
		t.Fatalf("what items wait for (-want +got):\n%s", diff)
	}
	if n := len(m.Journal("wxa/add_store")) + len(m.Journal("cgi-bin/poi/delpoi")); n != 0 {
		t.Errorf("a plan made %d writes", n)
	}

	// One at a time; what is asked again is answered again.
	if again := c.Do("POST", "/v1/store-migrations", map[string]any{"mode": "plan"}, "Idempotency-Key", "move-1").Want(202); again.Get("id") != id || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the same key: %v %s", again.Header, again.Body)
	}
	c.Do("POST", "/v1/store-migrations", map[string]any{"mode": "run"}, "Idempotency-Key", "move-1").WantProblem(422, "idempotency_key_reused")
	if a := c.Do("POST", "/v1/store-migrations", map[string]any{"mode": "run"}).WantProblem(409, "migration_in_progress"); a.Get("existing") != path {
		t.Errorf("the one that there is: %s", a.Body)
	}

	// Nothing goes on without a person: run, and it stops where it began.
	c.Do("PATCH", path, map[string]any{"desired_state": "running"}).Want(200)
	halted := m.client.Until("/v1/store-migrations/"+id, "running") // one is under review at WeChat
	if halted.Get("counts", "blocked") != "10" {
		t.Errorf("running: %s", halted.Body)
	}
	if n := len(m.Journal("wxa/add_store")) + len(m.Journal("cgi-bin/poi/delpoi")); n != 0 {
		t.Errorf("%d writes without what they need", n)
	}

	// A place is made for the one that has none, and approved: it is in WeChat's list then.
	proposed := map[string]any{"name": "Corner shop", "location": map[string]string{"latitude": "23.09749", "longitude": "113.32375"}, "province": "Guangdong", "city": "Guangzhou",
		"district": "Haizhu District", "district_id": "440105", "address": "TIT", "category_path": []string{"Shopping"}, "phones": []string{"020-89190000"},
		"photo_url": "http://mmbiz.qpic.cn/a.jpg", "license_url": "http://mmbiz.qpic.cn/b.jpg", "introduction": "A shop", "legacy_poi_id": homeless.Number}
	place := c.Do("POST", "/v1/map-pois", proposed).Want(202)
	m.Decide("map_poi", place.Get("base_id"), "approve", "")
	m.Eventually("the place is known", func() error {
		for _, it := range m.items(id) {
			if it.Number == homeless.Number && slices.Equal(it.BlockedBy, []string{"credential_number_required"}) && it.Upgrade.MapPoiID != nil {
				return nil
			}
		}
		return fmt.Errorf("not yet")
	})

	// One of them is rejected, and one waits for the simulator's reviewers.
	change := func(number string, what map[string]any) *world.Answer {
		t.Helper()
		return c.Do("PATCH", path+"/items/"+number, what).Want(200)
	}
	rejected := rest[0]
	change(rejected, map[string]any{"contact_phone": "02087650003"})
	for _, number := range rest {
		if number != homeless.Number {
			change(number, map[string]any{"credential_number": "c" + number})
		}
	}
	change(homeless.Number, map[string]any{"credential_number": "c" + homeless.Number, "photos": []string{"http://mmbiz.qpic.cn/own.jpg"}, "business_hours": map[string]string{"open": "9:30", "close": "20:00"}})
	m.Eventually("all but one are moved", func() error {
		if a := c.Do("GET", path, nil); a.Get("counts", "migrated") != "9" || a.Get("counts", "failed") != "1" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	// WeChat was sent what the legacy store has, and what a person said.
	sent := map[string]map[string]any{}
	for _, r := range m.Journal("wxa/add_store") {
		var body map[string]any
		if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
			t.Fatal(err)
		}
		sent[body["poi_id"].(string)] = body
	}
	if b := sent[homeless.Number]; b["hour"] != "09:30-20:00" || b["contract_phone"] != "020-12345678" || b["pic_list"] != `{"list":["http://mmbiz.qpic.cn/own.jpg"]}` || b["credential"] != "c"+homeless.Number {
		t.Errorf("sent: %v", b)
	}
	if b := sent[rest[1]]; b["hour"] != "08:00-20:00" || b["map_poi_id"] == "" || b["card_id"] != "" {
		t.Errorf("sent: %v", b)
	}

	// The one that WeChat was reviewing before we came.
	for _, a := range m.Audits() {
		if a["kind"] == "store_create" && a["status"] == "pending" {
			m.Decide("store_create", fmt.Sprintf("%.0f", a["id"]), "approve", "")
		}
	}
	a := m.client.Until("/v1/store-migrations/"+id, "blocked")
	if a.Get("counts", "migrated") != "10" || a.Get("counts", "failed") != "1" || a.Get("counts", "blocked") != "1" || a.Get("percent") != "83" || a.Get("eta") != "null" {
		t.Errorf("blocked: %s", a.Body)
	}
	failed := m.items(id)[slices.IndexFunc(m.items(id), func(i migrated) bool { return i.Number == rejected })]
	if failed.Status != "failed" || failed.Upgrade.Comment == "" || failed.Operation == nil || failed.Audit == nil || failed.StoreID == nil {
		t.Errorf("the rejected one: %+v", failed)
	}
	if op := c.Do("GET", "/v1/operations/"+*failed.Operation, nil).Want(200); op.Get("idempotency_key") != fmt.Sprintf("%s:poi_%s:1", id, rejected) || op.Get("status") != "succeeded" {
		t.Errorf("its operation: %s", op.Body)
	}
	if audit := c.Do("GET", "/v1/audits/"+*failed.Audit, nil).Want(200); audit.Get("status") != "rejected" || audit.Get("reason") != failed.Upgrade.Comment {
		t.Errorf("its audit: %s", audit.Body)
	}
	// Tried again with another phone, it moves, although WeChat's answer is lost, and a comparison has given the store's
	// number, which it keeps throughout, to the rejected one.
	m.Exec(`UPDATE resources SET wechat_id = $1 WHERE id = $2`, rejected, m.UUID(typeid.Store, *failed.StoreID))
	m.Fault("wxa/add_store", 1, map[string]any{"drop_reply": true})
	change(rejected, map[string]any{"contact_phone": "020-7654321"})
	m.Eventually("the rejected one is moved", func() error {
		if a := c.Do("GET", path, nil); a.Get("counts", "migrated") != "11" {
			return fmt.Errorf("%s %+v", a.Body, m.items(id))
		}
		return nil
	})
	moved := m.items(id)[slices.IndexFunc(m.items(id), func(i migrated) bool { return i.Number == rejected })]
	if moved.Attempt != 2 || *moved.StoreID == *failed.StoreID {
		t.Errorf("moved: %+v", moved)
	}
	// The push of the review waits for the audit, which the lost answer would have named.
	world.Eventually(t, time.Minute, "the store is active", func() error {
		st := c.Do("GET", "/v1/stores/"+*moved.StoreID, nil).Want(200)
		if st.Get("poi_id") != rejected || st.Get("status") != "active" || st.Get("legacy_poi_id") != rejected || st.Get("upgraded") != "1" {
			return fmt.Errorf("%s", st.Body)
		}
		return nil
	})

	// The last one may not move. Without consent it stays.
	if n := len(m.Journal("cgi-bin/poi/delpoi")); n != 0 {
		t.Errorf("%d deletions without consent", n)
	}
	m.client.Until("/v1/store-migrations/"+id, "blocked")
	change(barred.Number, map[string]any{"action": "delete"})
	end := m.client.Until("/v1/store-migrations/"+id, "completed")
	if end.Get("phase") != "completed" || end.Get("percent") != "100" || end.Get("counts", "deleted") != "1" || end.Get("counts", "migrated") != "11" || end.Get("finished_at") == "null" || end.Get("next_check_at") != "null" {
		t.Errorf("completed: %s", end.Body)
	}
	if n := len(m.Journal("cgi-bin/poi/delpoi")); n != 1 {
		t.Errorf("%d deletions", n)
	}
	if st := c.Do("GET", "/v1/legacy-stores/"+barred.LegacyID, nil).Want(200); st.Get("status") != "deleted" {
		t.Errorf("deleted: %s", st.Body)
	}
	if n := len(m.Journal("wxa/add_store")); n != 10 {
		t.Errorf("%d submissions, want nine and the repeated one", n)
	}

	// What has ended stays.
	c.Do("PATCH", path, map[string]any{"desired_state": "paused"}).WantProblem(409, "migration_ended")
	c.Do("PATCH", path+"/items/"+rejected, map[string]any{"action": "skip"}).WantProblem(409, "migration_ended")
	notModified(t, c, path)
	var told []string
	for _, row := range m.Query(`SELECT payload->'object'->>'status' AS status FROM outbox WHERE type LIKE 'migration.%' ORDER BY created_at`) {
		told = append(told, row["status"].(string))
	}
	if diff := cmp.Diff([]string{"blocked", "completed"}, slices.Compact(told)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	// Nothing is left to move: a second one is over at once.
	second := c.Do("POST", "/v1/store-migrations", map[string]any{"mode": "run"}).Want(202)
	m.client.Until("/v1/store-migrations/"+second.Get("id"), "completed")
	if list := c.Do("GET", "/v1/store-migrations?status=completed&limit=1", nil).Want(200); list.Get("data", "0", "id") != second.Get("id") || list.Get("has_more") != "true" {
		t.Errorf("list: %s", list.Body)
	}
}

// What can't be begun or changed, and why. A validation is refused alike, and
// does nothing.
func TestStoreMigrationRefusals(t *testing.T) {
	t.Parallel()
	m := openMover(t)
	c := m.client
	poor := m.Client(m.gateway, m.Authorize(m.gateway, sandbox.NoStoreSetsAccount))
	m.Control("POST", "accounts", map[string]any{"appid": "wx5ab0d1c0ffee0c01", "store_program": "none"}, nil)
	without := m.Client(m.gateway, m.Authorize(m.gateway, "wx5ab0d1c0ffee0c01"))
	m.Eventually("what a validation knows of the program", func() error {
		if a := without.Do("POST", "/v1/store-migrations?validate_only=true", map[string]any{"mode": "plan"}); a.Code() != "store_program_required" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})

	twice := []any{map[string]any{"legacy_poi_id": "1"}, map[string]any{"legacy_poi_id": "1", "company_name": "TIT"}}
	for name, ask := range map[string]struct {
		client *world.Client
		body   any
		status int
		code   string
		fields []string
	}{
		"no mode":            {c, map[string]any{}, 422, "validation_failed", []string{"/mode"}},
		"too many at a time": {c, map[string]any{"mode": "plan", "concurrency": 6}, 422, "validation_failed", []string{"/concurrency"}},
		"unknown":            {c, map[string]any{"mode": "plan", "force": true}, 400, "unknown_field", []string{"/force"}},
		"twice":              {c, map[string]any{"mode": "plan", "items": twice}, 422, "validation_failed", []string{"/items/1/legacy_poi_id", "/items/1/qualification_media_ids"}},
		"sets":               {poor, map[string]any{"mode": "plan"}, 403, "permission_set_missing", nil},
		"no program":         {without, map[string]any{"mode": "plan"}, 409, "store_program_required", nil},
		"no merchant":        {c.For(""), map[string]any{"mode": "plan"}, 400, "merchant_required", nil},
	} {
		for _, query := range []string{"?validate_only=true", ""} {
			a := ask.client.Do("POST", "/v1/store-migrations"+query, ask.body).WantProblem(ask.status, ask.code)
			for i, pointer := range ask.fields {
				if a.Get("errors", fmt.Sprint(i), "pointer") != pointer {
					t.Errorf("%s: want %s: %s", name, pointer, a.Body)
				}
			}
		}
	}
	if a := c.Do("POST", "/v1/store-migrations?validate_only=true", map[string]any{"mode": "run"}, "Idempotency-Key", "k").Want(200); a.Get("valid") != "true" {
		t.Errorf("%s", a.Body)
	}
	if list := c.Do("GET", "/v1/store-migrations", nil).Want(200); list.Get("data") != "[]" {
		t.Errorf("begun nevertheless: %s", list.Body)
	}

	// A plan with wishes: what WeChat doesn't list waits, what is skipped ends.
	id := c.Do("POST", "/v1/store-migrations", map[string]any{"mode": "plan", "items": []any{map[string]any{"legacy_poi_id": "1"}, map[string]any{"legacy_poi_id": "2", "action": "skip"}}},
		"Idempotency-Key", "k").Want(202).Get("id")
	path := "/v1/store-migrations/" + id
	m.client.Until("/v1/store-migrations/"+id, "planned")
	var moved string
	for _, it := range m.items(id) {
		if it.Status == "migrated" {
			moved = it.Number
		}
		if it.Number == "1" && !slices.Equal(it.BlockedBy, []string{"not_listed"}) || it.Number == "2" && it.Status != "skipped" {
			t.Errorf("%+v", it)
		}
	}
	for _, query := range []string{"?validate_only=true", ""} {
		c.Do("PATCH", path+"/items/"+moved+query, map[string]any{"action": "delete"}).WantProblem(409, "migration_item_fixed")
		c.Do("PATCH", path+"/items/999"+query, map[string]any{"action": "skip"}).WantProblem(404, "not_found")
		c.Do("PATCH", path+"/items/1"+query, map[string]any{}).WantProblem(422, "validation_failed")
		c.Do("PATCH", path+"/items/1"+query, map[string]any{"company_name": "TIT"}).WantProblem(422, "validation_failed")
		c.Do("PATCH", path+query, map[string]any{"desired_state": "planned"}).WantProblem(422, "validation_failed")
		c.Do("PATCH", "/v1/store-migrations/mig_01jd7k4b2sf9p0q1r2s3t4v5wx"+query, map[string]any{"desired_state": "running"}).WantProblem(404, "not_found")
	}
	c.Do("PATCH", path+"/items/1?validate_only=true", map[string]any{"action": "skip"}).Want(200)
	c.Do("PATCH", path+"?validate_only=true", map[string]any{"desired_state": "running"}).Want(200)
	if a := c.Do("GET", path, nil).Want(200); a.Get("status") != "planned" || a.Get("counts", "skipped") != "1" {
		t.Errorf("changed by a validation: %s", a.Body)
	}

	// Paused, nothing is begun; cancelled, nothing ever again, and there may be another one.
	c.Do("PATCH", path, map[string]any{"desired_state": "paused"}).Want(200)
	var first string
	for _, it := range m.items(id) {
		if slices.Equal(it.BlockedBy, []string{"credential_number_required"}) && first == "" {
			first = it.Number
			c.Do("PATCH", path+"/items/"+first, map[string]any{"credential_number": "c1"}).Want(200)
		}
	}
	if a := c.Do("GET", path, nil).Want(200); a.Get("status") != "paused" || a.Get("next_check_at") != "null" || a.Get("counts", "pending") != "1" {
		t.Errorf("paused: %s", a.Body)
	}
	if a := c.Do("PATCH", path, map[string]any{"desired_state": "cancelled"}).Want(200); a.Get("status") != "cancelled" || a.Get("finished_at") == "null" {
		t.Errorf("cancelled: %s", a.Body)
	}
	c.Do("PATCH", path, map[string]any{"desired_state": "running"}).WantProblem(409, "migration_ended")
	if n := len(m.Journal("wxa/add_store")); n != 0 {
		t.Errorf("%d submissions", n)
	}

	// The account withdraws its authorisation in the middle: it says so, and goes on when it is back.
	second := c.Do("POST", "/v1/store-migrations", map[string]any{"mode": "plan", "items": []any{map[string]any{"legacy_poi_id": first, "credential_number": "c1"}}}).Want(202).Get("id")
	m.client.Until("/v1/store-migrations/"+second, "planned")
	m.Control("POST", "accounts/"+sandbox.MigratingAccount+"/unauthorize", map[string]any{}, nil)
	m.Eventually("the account has left", func() error {
		if a := c.Do("GET", "/v1/merchants/"+sandbox.MigratingAccount, nil); a.Get("status") != "deauthorized" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	c.Do("PATCH", "/v1/store-migrations/"+second, map[string]any{"desired_state": "running"}).Want(200)
	if a := m.client.Until("/v1/store-migrations/"+second, "blocked"); a.Get("error", "code") != "merchant_deauthorized" {
		m.Eventually("why it is blocked", func() error {
			if a := c.Do("GET", "/v1/store-migrations/"+second, nil); a.Get("error", "code") != "merchant_deauthorized" {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
	}
	// Its own next look is far away: the authorisation itself wakes it.
	m.Exec(`UPDATE store_migrations SET next_check_at = now() + interval '1 hour' WHERE id = $1`, m.UUID(typeid.StoreMigration, second))
	m.Authorize(m.gateway, sandbox.MigratingAccount)
	m.Eventually("it goes on", func() error {
		if a := c.Do("GET", "/v1/store-migrations/"+second, nil); a.Get("counts", "migrated") != "2" || a.Get("error") != "null" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
}
