package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// openManagement is a world whose merchant has legacy stores, and whose polls
// of audits come within a second.
func openManagement(t *testing.T) *shop {
	t.Helper()
	w := world.New(t, world.Options{Tags: []string{"faults"}, Env: map[string]string{"GATEWAY_FAULT_SCHEDULE": "0.00003"}})
	w.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/legacy-stores", map[string]any{"count": 2}, nil)
	g := w.Start(nil)
	s := &shop{w, g, w.Demo(g), sandbox.DemoOfficialAccount, new(int)}
	// While a creation is open, nothing that WeChat shows counts as discovered.
	s.shows("/v1/legacy-stores", "the inventory of legacy stores", func(a *world.Answer) bool { return a.Get("synced_at") != "null" })
	return s
}

// legacyStore is the example of document 001 §3.2, with changes.
func legacyStore(changes ...any) map[string]any {
	return with(map[string]any{
		"business_name": "McDonald's", "branch_name": "Yiyuan Road Outlet", "province": "Guangdong", "city": "Guangzhou", "district": "Haizhu District",
		"address": "No. 11, Yiyuan Road", "phone": "020-12345678", "category_path": []string{"Food", "Snack and Fast Food"}, "coordinate_system": "mars",
		"location": map[string]string{"longitude": "115.32375", "latitude": "25.097486"}, "photos": []string{"https://mmbiz.qpic.cn/a.jpg", "https://mmbiz.qpic.cn/b.jpg"},
		"recommendation": "McCrispy Chicken Burger Combo Meal, Chicken McNuggets, Family Barrels", "special": "Free wifi, delivery service",
		"introduction": "Founded in 1940  in the US, McDonald's is a large global restaurant chain.\nIt features hamburgers.", "business_hours": map[string]string{"open": "8:00", "close": "20:00"},
		"average_price": 35,
	}, changes...)
}

const legacyPath = "/v1/legacy-stores/"

// shows waits until a resource shows what is wanted, and returns it.
func (s *shop) shows(path, what string, wanted func(a *world.Answer) bool) *world.Answer {
	var a *world.Answer
	s.Eventually(what, func() error {
		if a = s.client.Do("GET", path, nil); !wanted(a) {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	return a
}

// decideNext decides the simulator's only open audit of a kind.
func (s *shop) decideNext(kind, decision string) {
	for _, a := range s.Audits() {
		if a["kind"] == kind && a["status"] == "pending" {
			s.Decide(kind, fmt.Sprintf("%.0f", a["id"]), decision, "")
			return
		}
	}
	s.Eventually("an audit of "+kind, func() error { return fmt.Errorf("none: %v", s.Audits()) })
}

func TestLegacyStores(t *testing.T) {
	t.Parallel()
	s := openManagement(t)

	t.Run("life", func(t *testing.T) {
		s := s.on(t)
		made := s.client.Do("POST", "/v1/legacy-stores", legacyStore("client_reference", "shop-1"), "Idempotency-Key", "m1").Want(http.StatusAccepted)
		path := legacyPath + made.Get("id")
		if made.Get("status") != "in_review" || made.Get("poi_id") == "null" || made.Get("sid") != "shop-1" || made.Get("audit", "kind") != "legacy_store" ||
			made.Get("audit", "wechat_audit_id") != "null" || made.Header.Get("Location") != path || made.Header.Get("Deprecation") != "@1720137600" {
			t.Errorf("made: %v %s", made.Header, made.Body)
		}
		want := `{"business":{"base_info":{"sid":"shop-1","business_name":"McDonald's","branch_name":"Yiyuan Road Outlet","province":"Guangdong","city":"Guangzhou",` +
			`"district":"Haizhu District","address":"No. 11, Yiyuan Road","telephone":"020-12345678","categories":["Food,Snack and Fast Food"],"offset_type":1,` +
			`"longitude":115.32375,"latitude":25.097486,"photo_list":[{"photo_url":"https://mmbiz.qpic.cn/a.jpg"},{"photo_url":"https://mmbiz.qpic.cn/b.jpg"}],` +
			`"recommend":"McCrispy Chicken Burger Combo Meal, Chicken McNuggets, Family Barrels","special":"Free wifi, delivery service",` +
			`"introduction":"Founded in 1940  in the US, McDonald's is a large global restaurant chain.\nIt features hamburgers.","open_time":"08:00-20:00","avg_price":35}}}`
		if got := s.Journal("cgi-bin/poi/addpoi")[0].Body; got != want {
			t.Errorf("WeChat was sent\n%s, want\n%s", got, want)
		}
		if again := s.client.Do("POST", "/v1/legacy-stores", legacyStore("client_reference", "shop-1"), "Idempotency-Key", "m1").Want(202); again.Get("id") != made.Get("id") {
			t.Errorf("replayed: %s", again.Body)
		}
		s.client.Do("POST", "/v1/legacy-stores", legacyStore("client_reference", "shop-1")).WantProblem(409, "duplicate_client_reference")

		approved := s.shows(path, "the approval", func(a *world.Answer) bool { return a.Get("status") == "approved" && a.Get("synced_at") != "null" })
		audit := s.client.Do("GET", "/v1/audits/"+approved.Get("audit", "id"), nil).Want(200)
		if audit.Get("status") != "approved" || audit.Get("subject", "id") != made.Get("id") || approved.Get("poi_id") != made.Get("poi_id") || approved.Get("district") != "Haizhu District" {
			t.Errorf("approved: %s %s", approved.Body, audit.Body)
		}
		if s.Row("SELECT count(*) AS n FROM wechat_id_ledger WHERE id_type = 'legacy_poi_id' AND wechat_id = $1", made.Get("poi_id"))["n"] == int64(0) {
			t.Error("the number is in no ledger")
		}
		number := legacyPath + made.Get("poi_id")
		notModified(t, s.client, number)
		live := s.client.Do("GET", number+"?source=live", nil).Want(200)
		if live.Get("phone") != "020-12345678" || live.Get("average_price") != "35" || live.Get("business_hours", "open") != "08:00" || live.Get("coordinate_system") != "mars" ||
			live.Get("location", "longitude") != "115.32375" || live.Get("category_path", "1") != "Snack and Fast Food" {
			t.Errorf("live: %s", live.Body)
		}

		// An update is shown while WeChat reviews it, and no other is taken.
		change := map[string]any{"phone": "13867428497", "photos": []string{"https://mmbiz.qpic.cn/c.jpg"}, "average_price": 40, "business_hours": map[string]string{"open": "9:00", "close": "24:00"}}
		s.client.Do("PATCH", path, change, "If-Match", `"99-00000000"`).WantProblem(412, "version_conflict")
		updated := s.client.Do("PATCH", path, change, "If-Match", s.client.Do("GET", path, nil).Header.Get("ETag")).Want(202)
		if updated.Get("audit", "kind") != "legacy_store_update" || updated.Get("audit", "status") != "in_review" || updated.Get("update_in_review") != "true" ||
			updated.Get("status") != "approved" || updated.Get("phone") != "13867428497" || updated.Get("photos") != "[https://mmbiz.qpic.cn/c.jpg]" || updated.Get("special") == "null" {
			t.Errorf("updated: %s", updated.Body)
		}
		want = `{"business":{"base_info":{"poi_id":"` + made.Get("poi_id") + `","sid":"shop-1","telephone":"13867428497","photo_list":[{"photo_url":"https://mmbiz.qpic.cn/c.jpg"}],` +
			`"open_time":"09:00-24:00","avg_price":40}}}`
		if got := s.Journal("cgi-bin/poi/updatepoi")[0].Body; got != want {
			t.Errorf("WeChat was sent\n%s, want\n%s", got, want)
		}
		s.client.Do("PATCH", path, map[string]any{"special": "none"}).WantProblem(409, "update_in_review")
		s.decideNext("legacy_update", "approve")
		adopted := s.shows(path, "the adoption", func(a *world.Answer) bool { return a.Get("audit", "status") == "approved" })
		if adopted.Get("update_in_review") != "false" || adopted.Get("average_price") != "40" || adopted.Get("audit", "kind") != "legacy_store_update" {
			t.Errorf("adopted: %s", adopted.Body)
		}
		// One that isn't adopted leaves what was there.
		s.client.Do("PATCH", path, map[string]any{"special": "Parking"}).Want(202)
		s.decideNext("legacy_update", "reject")
		if a := s.shows(path, "the rejection", func(a *world.Answer) bool { return a.Get("audit", "status") == "rejected" }); a.Get("special") != "Free wifi, delivery service" || a.Get("status") != "approved" {
			t.Errorf("not adopted: %s", a.Body)
		}

		s.client.Do("DELETE", path+"?validate_only=true", nil).Want(200)
		s.client.Do("DELETE", path, nil, "Idempotency-Key", "d1").Want(204)
		s.client.Do("DELETE", path, nil, "Idempotency-Key", "d1").Want(204)
		if a := s.client.Do("GET", path, nil).Want(200); a.Get("status") != "deleted" {
			t.Errorf("deleted: %s", a.Body)
		}
		s.client.Do("DELETE", path, nil).WantProblem(404, "store_not_found")
		s.client.Do("PATCH", path, map[string]any{"special": "Parking"}).WantProblem(409, "store_not_approved")
		s.client.Do("GET", number+"?source=live", nil).WantProblem(404, "store_not_found")

		s.client.Do("POST", "/v1/legacy-stores", legacyStore("category_path", []string{"Nothing"})).WantProblem(422, "category_invalid")
		failed := s.client.Do("GET", "/v1/legacy-stores?status=failed", nil).Want(200).Get("data", "0", "id")
		s.client.Do("DELETE", legacyPath+failed, nil).WantProblem(409, "store_not_deletable")
	})

	t.Run("rejected and submitted again", func(t *testing.T) {
		s := s.on(t)
		first := s.client.Do("POST", "/v1/legacy-stores", legacyStore("client_reference", "shop-2", "phone", "020-12340003")).Want(202)
		// A list may show the rejection before its event tells why.
		s.shows(legacyPath+first.Get("id"), "the rejection and its reason", func(a *world.Answer) bool {
			return a.Get("status") == "rejected" && a.Get("audit", "status") == "rejected" && a.Get("audit", "reason") != "null"
		})
		second := s.client.Do("POST", "/v1/legacy-stores", legacyStore("client_reference", "shop-2")).Want(202)
		if second.Get("previous_id") != first.Get("id") || second.Get("sid") != "shop-2" || second.Get("poi_id") == first.Get("poi_id") {
			t.Errorf("again: %s", second.Body)
		}
		s.shows(legacyPath+second.Get("id"), "the approval", func(a *world.Answer) bool { return a.Get("status") == "approved" })
		if a := s.client.Do("GET", legacyPath+first.Get("id"), nil).Want(200); a.Get("status") != "rejected" {
			t.Errorf("the event of the second one moved the first one: %s", a.Body)
		}
	})

	t.Run("lost replies", func(t *testing.T) {
		s := s.on(t)
		lose := func(path string) { s.Fault("cgi-bin/poi/"+path, 1, map[string]any{"drop_reply": true}) }
		lose("addpoi")
		lost := s.client.Do("POST", "/v1/legacy-stores", legacyStore("phone", "020-12340009")).Want(202) // its audit waits
		path := legacyPath + lost.Get("id")
		if lost.Get("sid") != lost.Get("id") {
			t.Errorf("our id is no sid: %s", lost.Body)
		}
		found := s.shows(path, "the number", func(a *world.Answer) bool { return a.Get("poi_id") != "null" && a.Get("operation") == "" })
		if found.Get("status") != "in_review" || found.Get("audit", "status") != "in_review" {
			t.Errorf("found: %s", found.Body)
		}
		s.decideNext("legacy_create", "approve")
		s.shows(path, "the approval", func(a *world.Answer) bool { return a.Get("status") == "approved" })
		lose("updatepoi")
		s.client.Do("PATCH", path, map[string]any{"phone": "4008002835"}).Want(202)
		s.shows(path, "the update's audit", func(a *world.Answer) bool {
			return a.Get("audit", "kind") == "legacy_store_update" && a.Get("phone") == "4008002835" && a.Get("operation") == ""
		})
		lose("delpoi")
		s.client.Do("DELETE", path, nil)
		s.shows(path, "the deletion", func(a *world.Answer) bool { return a.Get("status") == "deleted" })
		if n := len(s.effects(lost.Get("id"))); n != 3 {
			t.Errorf("%d effects, want one of each write", n)
		}
		// Nothing was executed: told so, once WeChat has shown that nothing is there.
		s.Fault("cgi-bin/poi/addpoi", 1, map[string]any{"errcode": -1})
		busy := s.client.Do("POST", "/v1/legacy-stores", legacyStore("client_reference", "shop-3")).Want(202)
		s.shows(legacyPath+busy.Get("id"), "the failure", func(a *world.Answer) bool { return a.Get("status") == "failed" })
	})

	t.Run("lists", func(t *testing.T) {
		s := s.on(t)
		ids, _ := walk(s.client, "/v1/legacy-stores?status=approved&limit=1", "id")
		if len(ids) != 3 { // the two that were there before, and one made above
			t.Errorf("approved: %v", ids)
		}
		pois, _ := walk(s.client, "/v1/legacy-stores?source=live&limit=2", "poi_id")
		if a := s.client.Do("GET", "/v1/legacy-stores?source=live&limit=1", nil).Want(200); a.Get("total") != fmt.Sprint(len(pois)) || len(pois) != 4 {
			t.Errorf("live: %v, %s", pois, a.Body)
		}
		for query, want := range map[string]int{"client_reference=shop-2": 2, "client_reference=shop-9": 0, "poi_id=" + pois[0]: 1, "updated_after=2120-01-01T00:00:00Z": 0} {
			if got, _ := walk(s.client, "/v1/legacy-stores?"+query, "id"); len(got) != want {
				t.Errorf("%s: %v", query, got)
			}
		}
		for _, query := range []string{"source=live&status=approved", "source=live&poi_id=1", "status=active", "limit=0"} {
			s.client.Do("GET", "/v1/legacy-stores?"+query, nil).WantProblem(400, "invalid_parameter")
		}
		s.client.Do("GET", "/v1/legacy-stores?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")
		s.client.Do("GET", legacyPath+"lst_01jd7k4b2rf6z9t3n7r1s6v2zb", nil).WantProblem(404, "not_found")
		s.client.For("").Do("GET", legacyPath+pois[0], nil).WantProblem(400, "merchant_required")
	})

	t.Run("rules", func(t *testing.T) { s.on(t).legacyRules(t) })
}

// What WeChat refuses to show keeps nothing from being asked for with it, in
// whatever order: here the one in the middle, by one poll that no other follows.
func TestLegacyStoresRefusedToAPoll(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	w.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/legacy-stores", map[string]any{"count": 1}, nil)
	c := w.Demo(w.Start(nil))
	w.Hold(true) // no event tells of the approval
	var middle *world.Answer
	for i := range 3 {
		made := c.Do("POST", "/v1/legacy-stores", legacyStore("client_reference", fmt.Sprint("asked-for-", i))).Want(202)
		if i == 1 {
			middle = made
			continue
		}
		w.Fault("cgi-bin/poi/getpoi", 1, map[string]any{"contains": made.Get("poi_id"), "errcode": 40097})
	}
	for _, a := range w.Audits() {
		if a["subject"] == middle.Get("poi_id") {
			w.Decide("legacy_create", fmt.Sprintf("%.0f", a["id"]), "approve", "")
		}
	}
	w.Exec(`UPDATE audits SET next_poll_at = now()`)
	c.Until(legacyPath+middle.Get("id"), "approved")
	w.WaitCalls("cgi-bin/poi/getpoi", 3)
}

// Each bad example of document 001 that a rule can decide, and the good ones;
// and the bounds of each field.
func (s *shop) legacyRules(t *testing.T) {
	before := len(s.Journal("cgi-bin/poi/addpoi"))
	wide := func(n int) string { return strings.Repeat("店", n) }
	point := func(latitude, longitude string) map[string]string {
		return map[string]string{"latitude": latitude, "longitude": longitude}
	}
	photos := func(n int) []string {
		return strings.Split(strings.Repeat("https://mmbiz.qpic.cn/a.jpg ", n-1)+"https://mmbiz.qpic.cn/a.jpg", " ")
	}
	for _, tc := range []struct{ field, value, pointer string }{
		{"business_name", " Guangzhou Dongxingtang Pharmacy Chain Co., Ltd. (Yongxin Store) ", "/business_name"}, // bad example 1
		{"business_name", " Watsons (Beijing Road Store) ", "/business_name"},                                    // bad example 3
		{"business_name", "屈臣氏（北京路店）", "/business_name"},
		{"business_name", " ", "/business_name"}, {"business_name", "", "/business_name"},
		{"business_name", wide(16), "/business_name"}, {"business_name", wide(15) + "x", "/business_name"},
		{"branch_name", " McDonald's Chengdu Chunxi Road Store ", "/branch_name"}, // as bad example 4
		{"branch_name", "", "/branch_name"}, {"branch_name", "Outlet (2)", "/branch_name"}, {"branch_name", wide(21), "/branch_name"},
		{"province", wide(11), "/province"}, {"city", wide(11), "/city"}, {"district", wide(11), "/district"}, {"address", wide(81), "/address"},
		{"city", "", "/city"}, {"province", "", "/province"}, {"address", "", "/address"}, {"address", "a\tb", "/address"},
		{"address", " 5F, Century Mart Supermarket, No. 86, Qingchun Road, Xiacheng District, Guangzhou", "/address"}, // "the detailed address contains the city name"
		{"address", "No. 11, Yiyuan Road, Guangdong", "/address"}, {"address", "guangzhou No. 11", "/address"},
		{"phone", "(010)87632851", "/phone"}, {"phone", "34435764", "/phone"}, {"phone", "13880934557, 0351-34435764", "/phone"}, // bad examples 1 to 3
		{"phone", "138-8093-4557", "/phone"}, {"phone", "8003800,4010", "/phone"}, {"phone", "8003800#4010", "/phone"}, // 4 to 6
		{"phone", "", "/phone"}, {"coordinate_system", "wgs84", "/coordinate_system"},
		{"recommendation", wide(201), "/recommendation"}, {"special", wide(201), "/special"}, {"introduction", wide(301), "/introduction"},
	} {
		a := s.client.Do("POST", "/v1/legacy-stores", legacyStore(tc.field, tc.value))
		if a.Status != 422 || a.Code() != "validation_failed" || a.Get("errors", "0", "pointer") != tc.pointer {
			t.Errorf("%s %q: %d %s", tc.field, tc.value, a.Status, a.Body)
		}
	}
	for _, tc := range []struct {
		field   string
		value   any
		pointer string
	}{
		{"photos", []string{}, "/photos"}, {"photos", photos(21), "/photos"}, {"photos", []string{"https://example.com/a.jpg"}, "/photos/0"},
		{"average_price", 0, "/average_price"}, {"average_price", 1.5, "/average_price"}, {"category_path", []string{}, "/category_path"},
		{"category_path", []string{"Food,Snack"}, "/category_path/0"}, {"location", point("90.1", "1"), "/location/latitude"},
		{"location", point("1", "-180.5"), "/location/longitude"}, {"location", point("north", "1"), "/location/latitude"},
		{"business_hours", map[string]string{"open": "8:00", "close": "24:30"}, "/business_hours/close"}, {"business_hours", "8:00-20:00", "/business_hours"},
	} {
		a := s.client.Do("POST", "/v1/legacy-stores", legacyStore(tc.field, tc.value))
		if a.Status != 422 || a.Get("errors", "0", "pointer") != tc.pointer {
			t.Errorf("%s %v: %d %s", tc.field, tc.value, a.Status, a.Body)
		}
	}
	for field := range legacyStore() {
		body := legacyStore()
		delete(body, field)
		required := !strings.Contains("photos recommendation special introduction business_hours average_price", field)
		if !required {
			continue
		}
		if a := s.client.Do("POST", "/v1/legacy-stores", body); a.Status != 422 || a.Get("errors", "0", "pointer") != "/"+field || a.Get("errors", "0", "code") != "required" {
			t.Errorf("without %s: %d %s", field, a.Status, a.Body)
		}
	}
	s.client.Do("POST", "/v1/legacy-stores", legacyStore("sid", "1")).WantProblem(400, "unknown_field")
	if n := len(s.Journal("cgi-bin/poi/addpoi")); n != before {
		t.Errorf("%d bad stores reached WeChat", n-before)
	}
	// Asked whether they would be taken, without effect.
	late := map[string]any{"business_hours": map[string]string{"open": "22:00", "close": "2:00"}}
	for _, a := range []*world.Answer{s.client.Do("POST", "/v1/legacy-stores?validate_only=true", legacyStore("business_hours", late["business_hours"])),
		s.client.Do("PATCH", s.anyLegacy()+"?validate_only=true", late)} {
		if a.Want(200); a.Get("valid") != "true" || a.Get("warnings", "0", "pointer") != "/business_hours/close" {
			a.Fail("validated")
		}
	}
	if n := len(s.Journal("cgi-bin/poi/addpoi")); n != before {
		t.Error("a validation reached WeChat")
	}
	for _, good := range [][]any{
		{"phone", "021-81445873"}, {"phone", "021-81445873-1003"}, {"phone", "13867428497"}, {"phone", "4008002835"}, // the document's good examples
		{"business_name", " Dongxingtang Pharmacy ", "branch_name", " Yongxin Store "}, {"business_name", " Watsons ", "branch_name", " Beijing Road Store "},
		{"province", "Shanghai", "city", "Shanghai", "district", "Xuhui District", "address", "Building A, Zhonghuan International Plaza, No. 397, Tianlin Road"},
		{"business_name", wide(15), "branch_name", strings.Repeat("分", 20), "address", wide(80), "introduction", wide(300), "photos", photos(20)},
		{"address", "Guangzhou Avenue 5"}, {"coordinate_system", "sogou_mercator", "location", point("2862143.1", "12837482.5")},
	} {
		a := s.client.Do("POST", "/v1/legacy-stores", legacyStore(good...))
		if a.Status != 202 || a.Get("status") != "in_review" {
			t.Errorf("%v: %d %s", good, a.Status, a.Body)
		}
	}
	for _, body := range []map[string]any{{"phone": "34435764"}, {"special": wide(201)}, {"photos": photos(21)}, {}} {
		if a := s.client.Do("PATCH", s.anyLegacy(), body); a.Status != 422 {
			t.Errorf("%v: %d %s", body, a.Status, a.Body)
		}
	}
	s.client.Do("PATCH", s.anyLegacy(), map[string]any{"business_name": "x"}).WantProblem(400, "unknown_field")
}

// anyLegacy is the path of one that is approved.
func (s *shop) anyLegacy() string {
	return legacyPath + s.client.Do("GET", "/v1/legacy-stores?status=approved&limit=1", nil).Want(200).Get("data", "0", "id")
}
