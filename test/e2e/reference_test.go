package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// Districts, categories and the search on the map.
func TestReferenceData(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	poor := w.Client(g, w.Authorize(g, sandbox.DemoMiniProgram))

	// Before anything is known the map service's own words are told.
	w.Fault("wxa/get_district", 1, map[string]any{"body": `{"status":311,"message":"key format error"}`})
	if a := c.Do("GET", "/v1/districts", nil).WantProblem(502, "map_service_error"); a.Get("upstream", "errcode") != "311" || a.Get("upstream", "errmsg") != "key format error" {
		t.Errorf("%s", a.Body)
	}
	w.Fault("wxa/get_merchant_category", attempts, map[string]any{"errcode": -1})
	c.Do("GET", "/v1/categories?scheme=store_program", nil).WantProblem(502, "wechat_system_error")
	w.Control("DELETE", "faults", nil, nil)

	count := func(path string) int { return len(rows(c.Do("GET", path, nil).Want(200))) }
	all := count("/v1/districts")
	if p, ci, d := count("/v1/districts?level=province"), count("/v1/districts?level=city"), count("/v1/districts?level=district"); p < 2 || p+ci+d != all {
		t.Errorf("%d provinces, %d cities, %d districts of %d", p, ci, d, all)
	}
	if n, m := count("/v1/districts?parent_id=440000"), count("/v1/districts?parent_id=440000&level=city"); n == 0 || n != m {
		t.Errorf("%d in Guangdong, %d of them cities", n, m)
	}
	if n := count("/v1/districts?parent_id=440000&level=district"); n != 0 {
		t.Errorf("%d districts directly in Guangdong", n)
	}
	beijing := c.Do("GET", "/v1/districts?parent_id=110000", nil).Want(200)
	if beijing.Get("data", "0", "level") != "city" || !strings.HasPrefix(beijing.Get("data", "0", "id"), "1101") {
		t.Errorf("a municipality has its districts on the second level: %s", beijing.Body)
	}
	haizhu := c.Do("GET", "/v1/districts/440105", nil).Want(200)
	if haizhu.Get("parent_id") != "440100" || haizhu.Get("name") != "null" || haizhu.Get("pinyin") != "null" || haizhu.Get("location", "latitude") == "" {
		t.Errorf("Haizhu: %s", haizhu.Body)
	}
	if a := c.Do("GET", "/v1/districts/440100", nil).Want(200); a.Get("pinyin", "0") != "guang" || a.Get("name") != "Guangzhou" {
		t.Errorf("Guangzhou: %s", a.Body)
	}
	c.Do("GET", "/v1/districts/999999", nil).WantProblem(404, "not_found")
	c.Do("GET", "/v1/districts/x", nil).WantProblem(400, "invalid_parameter")
	c.Do("GET", "/v1/districts?level=street", nil).WantProblem(400, "invalid_parameter")

	for query, want := range map[string]int{"": 14, "&level=1": 4, "&level=2": 10, "&level=3": 0, "&parent_id=278": 3, "&sensitive=true": 6, "&level=2&sensitive=false": 4, "&parent_id=278&sensitive=true": 1} {
		if n := count("/v1/categories?scheme=store_program" + query); n != want {
			t.Errorf("categories with %s: %d, want %d", query, n, want)
		}
	}
	shop := find(t, c.Do("GET", "/v1/categories?scheme=store_program&parent_id=278&sensitive=true", nil), "id", "280")
	if shop["name"] != "Convenience Store" || shop["parent_id"] != "278" || shop["sensitive"] != true || len(shop["required_certificates"].([]any)) != 1 || shop["scene"] != float64(3) {
		t.Errorf("a category: %v", shop)
	}
	c.Do("GET", "/v1/categories", nil).WantProblem(400, "invalid_parameter")
	w.Fault("cgi-bin/poi/getwxcategory", 1, map[string]any{"errcode": 48001})
	c.Do("GET", "/v1/categories?scheme=legacy_store", nil).WantProblem(403, "wechat_api_not_enabled")
	huaiyang := find(t, c.Do("GET", "/v1/categories?scheme=legacy_store&level=3", nil), "name", "Huaiyang Cuisine")
	if fmt.Sprint(huaiyang["path"]) != "[Food Jiangzhe Cuisine Huaiyang Cuisine]" || huaiyang["id"] != nil || fmt.Sprint(shop["path"]) != "[Shopping Convenience Store]" {
		t.Errorf("paths: %v, %v", huaiyang, shop["path"])
	}
	for _, query := range []string{"&parent_id=1", "&sensitive=true"} {
		c.Do("GET", "/v1/categories?scheme=legacy_store"+query, nil).WantProblem(400, "invalid_parameter")
	}
	c.Do("GET", "/v1/categories?scheme=store_program&sensitive=maybe", nil).WantProblem(400, "invalid_parameter")

	for _, path := range []string{"/v1/districts?level=province", "/v1/districts/440105", "/v1/categories?scheme=store_program&level=1"} {
		a := c.Do("GET", path, nil).Want(200)
		if a.Header.Get("Cache-Control") != "private, max-age=86400" || !strings.Contains(strings.Join(a.Header.Values("Vary"), ", "), "Authorization, Merchant-Id") {
			t.Errorf("GET %s may be kept: %v", path, a.Header)
		}
		notModified(t, c, path)
		poor.Do("GET", path, nil).WantProblem(403, "permission_set_missing")
		c.For("").Do("GET", path, nil).WantProblem(400, "merchant_required")
	}
	if n := len(w.Journal("wxa/get_district")); n != 2 {
		t.Errorf("WeChat was asked %d times for districts, want the refused one and one more", n)
	}

	place := c.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil).Want(200)
	if place.Get("data", "0", "map_poi_id") != "2708071440732747189" || place.Get("data", "0", "phones", "0") != "020-89190388" || place.Get("data", "0", "category_path", "1") != "Gym" ||
		place.Get("data", "0", "location", "latitude") != "23.1088695526" || place.Get("has_more") != "false" {
		t.Errorf("places: %s", place.Body)
	}
	if a := c.Do("GET", "/v1/map-pois?keyword=nowhere&district_id=440105", nil).Want(200); a.Get("data") != "[]" {
		t.Errorf("nothing found: %s", a.Body)
	}
	c.Do("GET", "/v1/map-pois?district_id=440105&keyword="+strings.Repeat("店", 64), nil).Want(200)
	for _, query := range []string{"district_id=440105&keyword=" + strings.Repeat("x", 65), "district_id=440105&keyword=", "district_id=440105", "keyword=x", "keyword=x&district_id=y", "keyword=%07&district_id=440105",
		"keyword=%20%E3%80%80&district_id=440105"} {
		c.Do("GET", "/v1/map-pois?"+query, nil).WantProblem(400, "invalid_parameter")
	}
	if a := c.Do("GET", "/v1/map-pois?keyword=%E3%80%80&district_id=440105", nil, "Accept-Language", "zh"); a.Get("errors", "0", "pointer") != "keyword" || a.Get("errors", "0", "detail") != "不能只有空白字符" {
		t.Errorf("blanks: %s", a.Body)
	}
	if a := c.Do("GET", "/v1/map-pois?keyword=x&district_id=440105&status=approved&base_id=1", nil); a.Get("errors", "0", "pointer") != "base_id" || a.Get("errors", "1", "pointer") != "status" {
		t.Errorf("two filters that a search hasn't: %s", a.Body)
	}
	c.Do("GET", "/v1/map-pois?keyword=x&district_id=1", nil).WantProblem(422, "invalid_argument")
	poor.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil).WantProblem(403, "permission_set_missing")
}
