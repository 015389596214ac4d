package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const documentsPicture = "http://mmbiz.qpic.cn/mmbiz_png/tW66AWE2K6ECFPcyAcIZTG8RlcR0sAqBibOm8gao5xOoLfIic9ZJ6MADAktGPxZI7MZLcadZUT36b14NJ2cHRHA/0?wx_fmt=png"

// documentsPlace is the example of document 000 §4.7 in our words, with
// changes.
func documentsPlace(changes ...any) map[string]any {
	return with(map[string]any{
		"name": "hardenzhang", "location": map[string]string{"latitude": "23.0974903107", "longitude": "113.323753357"},
		"province": "Guangdong", "city": "Guangzhou", "district": "Haizhu District", "district_id": "440105", "address": "TIT",
		"category_path": []string{"Category 1", "Category 2"}, "phones": []string{"12345678901"},
		"photo_url": documentsPicture, "license_url": documentsPicture, "introduction": "test",
	}, changes...)
}

// A place is proposed, Tencent decides after three days, and a store is made
// of it; another one is rejected, a third refused at once.
func TestMapPOIs(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	c := s.client
	made := c.Do("POST", "/v1/map-pois", documentsPlace("client_reference", "place-1"), "Idempotency-Key", "place-1").Want(202)
	id, base := made.Get("id"), made.Get("base_id")
	if made.Get("status") != "in_review" || base == "null" || made.Get("rich_id") == "null" || made.Get("map_poi_id") != "null" || made.Get("estimated_days") != "3" ||
		made.Get("audit", "kind") != "map_poi" || made.Get("audit", "wechat_audit_id") != base || made.Get("coordinate_system") != "mars" || made.Get("approved") != "null" ||
		made.Header.Get("Location") != "/v1/map-pois/"+id || made.Header.Get("Link") != "</v1/audits/"+made.Get("audit", "id")+`>; rel="status"` || made.Header.Get("ETag") == "" {
		t.Errorf("made: %v %s", made.Header, made.Body)
	}
	// On the wire it is the documents' example, byte for byte where digits count.
	var sent, want map[string]any
	if err := json.Unmarshal([]byte(s.Journal("wxa/create_map_poi")[0].Body), &sent); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`{"name":"hardenzhang","longitude":"113.323753357","latitude":"23.0974903107","province":"Guangdong","city":"Guangzhou",
		"district":"Haizhu District","address":"TIT","category":"Category 1:Category 2","telephone":"12345678901","photo":"`+documentsPicture+`",
		"license":"`+documentsPicture+`","introduct":"test","districtid":"440105"}`), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Errorf("on the wire (-want +got):\n%s", diff)
	}

	c.Do("POST", "/v1/audits/"+made.Get("audit", "id")+"/refresh", nil).WantProblem(409, "audit_not_readable")
	again := c.Do("POST", "/v1/map-pois", documentsPlace("client_reference", "place-1"), "Idempotency-Key", "place-1").Want(202)
	if again.Get("id") != id || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the same key: %v %s", again.Header, again.Body)
	}
	c.Do("POST", "/v1/map-pois", documentsPlace("name", "another"), "Idempotency-Key", "place-1").WantProblem(422, "idempotency_key_reused")
	if a := c.Do("POST", "/v1/map-pois", documentsPlace("client_reference", "place-1", "name", "x")).WantProblem(409, "duplicate_client_reference"); a.Get("existing") != "/v1/map-pois/"+id {
		t.Errorf("existing: %s", a.Body)
	}

	rejected := c.Do("POST", "/v1/map-pois", documentsPlace("client_reference", "place-2", "phones", []string{"010-66660003"})).Want(202)
	gps := c.Do("POST", "/v1/map-pois", documentsPlace("name", "gps", "coordinate_system", "gps", "location", map[string]string{"latitude": "31.1774276", "longitude": "121.5272106"},
		"phones", []string{"010-6666666-111", "4001234567"}, "category_path", []string{"Food"}, "legacy_poi_id", absent{})).Want(202)
	if gps.Get("location", "latitude") != "31.1774276" || gps.Get("mars_location", "latitude") != "31.175304" || gps.Get("mars_location", "longitude") != "121.531542" {
		t.Errorf("gps: %s", gps.Body)
	}
	baidu := c.Do("POST", "/v1/map-pois", documentsPlace("name", "baidu", "coordinate_system", "baidu", "location", map[string]string{"latitude": "39.915", "longitude": "116.404"})).Want(202)
	if baidu.Get("mars_location", "latitude") != "39.908657" || baidu.Get("mars_location", "longitude") != "116.397627" {
		t.Errorf("baidu: %s", baidu.Body)
	}
	journal := s.Journal("wxa/create_map_poi")
	if last := journal[len(journal)-1].Body; len(journal) != 4 || !strings.Contains(last, `"latitude":"39.908657"`) || !strings.Contains(journal[2].Body, `"telephone":"010-6666666-111;4001234567"`) {
		t.Errorf("on the wire: %d calls, %s", len(journal), last)
	}

	refused := c.Do("POST", "/v1/map-pois", documentsPlace("name", "refused-by-map", "client_reference", "place-3")).WantProblem(422, "map_poi_rejected")
	if refused.Get("upstream", "errmsg") != "the name is not allowed" {
		t.Errorf("refused: %s", refused.Body)
	}
	if op := c.Do("GET", "/v1/operations/"+refused.Get("operation_id"), nil).Want(200); op.Get("kind") != "map_poi.create" || op.Get("status") != "failed" || op.Get("subject", "type") != "map_poi" {
		t.Errorf("its operation: %s", op.Body)
	}

	for query, want := range map[string]int{
		"": 4, "?status=in_review": 4, "?status=failed": 1, "?status=approved": 0, "?client_reference=place-2": 1, "?base_id=" + base: 1, "?base_id=1": 0, "?map_poi_id=1": 0,
		"?updated_after=2030-01-01T00:00:00Z": 0, "?limit=3": 4,
	} {
		if strings.HasPrefix(query, "?limit") {
			if ids, pages := walk(c, "/v1/map-pois"+query, "id"); len(ids) != want || pages != 2 {
				t.Errorf("places with %s: %v", query, ids)
			}
			continue
		}
		if n := len(rows(c.Do("GET", "/v1/map-pois"+query, nil).Want(200))); n != want {
			t.Errorf("places with %s: %d, want %d", query, n, want)
		}
	}
	c.Do("GET", "/v1/map-pois?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")
	c.Do("GET", "/v1/map-pois/poi_01jd7k4b2sf7m8n9p0q1r2s3tv", nil).WantProblem(404, "not_found")
	c.Do("GET", "/v1/map-pois/42160", nil).WantProblem(400, "invalid_parameter")
	c.For("").Do("POST", "/v1/map-pois", documentsPlace()).WantProblem(400, "merchant_required")

	s.Control("POST", "clock", map[string]string{"advance": "73h"}, nil)
	s.Eventually("a ticket of the new time", func() error {
		if a := c.Do("GET", "/v1/stores?source=live", nil); a.Status != 200 {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	approved := c.Until("/v1/map-pois/"+id, "approved")
	if approved.Get("map_poi_id") == "null" || approved.Get("approved", "name") != "hardenzhang" || approved.Get("approved", "location", "latitude") != "23.0974903107" ||
		approved.Get("estimated_days") != "null" || approved.Get("audit", "status") != "approved" || approved.Get("audit", "decided_at") == "null" || approved.Get("location", "longitude") != "113.323753357" {
		t.Errorf("approved: %s", approved.Body)
	}
	notModified(t, c, "/v1/map-pois/"+id)
	no := c.Until("/v1/map-pois/"+rejected.Get("id"), "rejected")
	if no.Get("map_poi_id") != "null" || no.Get("approved") != "null" || no.Get("remark") != "the input ends in 0003" || no.Get("audit", "reason") != "the input ends in 0003" {
		t.Errorf("rejected: %s", no.Body)
	}
	retried := c.Do("POST", "/v1/map-pois", documentsPlace("client_reference", "place-2", "name", "better")).Want(202)
	if retried.Get("previous_id") != rejected.Get("id") {
		t.Errorf("submitted again: %s", retried.Body)
	}
	told := s.Row(`SELECT payload->'object'->>'status' AS status, payload->'object'->'subject'->>'id' AS id FROM outbox WHERE type = 'map_poi.audit.decided' AND payload->'object'->'subject'->>'id' = $1`, id)
	if told["status"] != "approved" {
		t.Errorf("event: %v", told)
	}
	for _, typ := range []string{"base_id", "rich_id", "map_poi_id"} {
		s.Eventually("the ids of type "+typ, func() error {
			issued, known := map[string]bool{}, map[string]bool{}
			all, _ := s.Truth()
			for _, i := range all {
				if i.Type == typ {
					issued[i.ID] = true
				}
			}
			for _, row := range s.Query(`SELECT DISTINCT wechat_id FROM wechat_id_ledger WHERE id_type = $1`, typ) {
				known[fmt.Sprint(row["wechat_id"])] = true
			}
			if diff := cmp.Diff(issued, known); diff != "" || len(issued) < 3 {
				return fmt.Errorf("(-WeChat +ledger):\n%s", diff)
			}
			return nil
		})
	}

	store := s.fresh("map_poi_id", approved.Get("map_poi_id"))
	s.client.Until("/v1/stores/"+c.Do("POST", "/v1/stores", store).Want(202).Get("id"), "active")
}

// What breaks a rule of a proposed place is named, and never sent.
func TestMapPOIRules(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	long := func(n int) string { return strings.Repeat("店", n) }
	at := func(lat, lng string) map[string]string { return map[string]string{"latitude": lat, "longitude": lng} }
	for _, tc := range []struct {
		pointer, rule string
		changes       []any
	}{
		{"/name", "required", []any{"name", absent{}}},
		{"/name", "too_long", []any{"name", long(101)}},
		{"/name", "pattern", []any{"name", " "}},
		{"/location", "required", []any{"location", absent{}}},
		{"/location/latitude", "pattern", []any{"location", at("90.000000000001", "113.3")}},
		{"/location/latitude", "pattern", []any{"location", at("91", "113.3")}},
		{"/location/latitude", "pattern", []any{"location", at("23.1234567890123", "113.3")}},
		{"/location/latitude", "pattern", []any{"location", at("2e1", "113.3")}},
		{"/location/longitude", "pattern", []any{"location", at("23", "180.5")}},
		{"/location/longitude", "pattern", []any{"location", at("23", "-181")}},
		{"/location/longitude", "required", []any{"location", map[string]string{"latitude": "1"}}},
		{"/coordinate_system", "not_allowed", []any{"coordinate_system", "wgs84"}},
		{"/province", "required", []any{"province", absent{}}},
		{"/city", "pattern", []any{"city", "\t"}},
		{"/district", "too_long", []any{"district", long(51)}},
		{"/district_id", "pattern", []any{"district_id", "Haizhu"}},
		{"/address", "too_long", []any{"address", long(201)}},
		{"/category_path", "too_few", []any{"category_path", []string{}}},
		{"/category_path", "too_many", []any{"category_path", []string{"a", "b", "c", "d"}}},
		{"/category_path/0", "pattern", []any{"category_path", []string{"a:b"}}},
		{"/phones", "too_few", []any{"phones", []string{}}},
		{"/phones/0", "pattern", []any{"phones", []string{"12-345"}}},
		{"/phones/1", "pattern", []any{"phones", []string{"12345678901", "010-6666666;010-6666667"}}},
		{"/phones/0", "pattern", []any{"phones", []string{"010-6666666-1234567"}}},
		{"/photo_url", "pattern", []any{"photo_url", "https://example.com/a.jpg"}},
		{"/license_url", "required", []any{"license_url", absent{}}},
		{"/introduction", "too_long", []any{"introduction", long(1001)}},
		{"/legacy_poi_id", "pattern", []any{"legacy_poi_id", "x"}},
		{"/client_reference", "pattern", []any{"client_reference", "a b"}},
	} {
		a := s.client.Do("POST", "/v1/map-pois", documentsPlace(tc.changes...)).WantProblem(422, "validation_failed")
		if a.Get("errors", "0", "pointer") != tc.pointer || a.Get("errors", "0", "code") != tc.rule {
			t.Errorf("%v: want %s %s: %s", tc.changes, tc.pointer, tc.rule, a.Body)
		}
	}
	s.client.Do("POST", "/v1/map-pois", documentsPlace("colour", "red")).WantProblem(400, "unknown_field")
	for _, query := range []string{"keyword=x", "district_id=440105", "keyword=x&district_id=440105&status=approved", "status=lost", "base_id=x"} {
		s.client.Do("GET", "/v1/map-pois?"+query, nil).WantProblem(400, "invalid_parameter")
	}
	if n := len(s.Journal("wxa/create_map_poi")); n != 0 {
		t.Errorf("%d calls were made", n)
	}
	for _, changes := range [][]any{
		{"name", long(100), "address", long(200), "introduction", long(1000), "location", at("-90", "-180.000000000000")},
		{"name", "edge", "location", at("90.0", "180"), "phones", []string{"0755-12345678-123456"}, "category_path", []string{"a", "b", "c"}},
	} {
		s.client.Do("POST", "/v1/map-pois", documentsPlace(changes...)).Want(http.StatusAccepted)
	}
}
