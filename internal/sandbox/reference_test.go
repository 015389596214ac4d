package sandbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wechat/000 §4.5: cidx holds the first and last index of a district's children in the next level.
func TestDistricts(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	var out struct {
		Status  int
		Message string
		Version string `json:"data_version"`
		Result  [3][]map[string]json.RawMessage
	}
	raw := b.get("/wxa/get_district?access_token="+token, &out).raw
	if out.Message != "query ok" || out.Version != "20170510" || strings.Contains(raw, "errcode") {
		t.Errorf("envelope = %+v", raw[:80])
	}
	find := func(level int, id string) map[string]json.RawMessage {
		for _, d := range out.Result[level] {
			if string(d["id"]) == `"`+id+`"` {
				return d
			}
		}
		t.Fatalf("no district %s on level %d", id, level)
		return nil
	}
	// The documents' own entries, all members but cidx, which depends on the rest of the table.
	for _, tt := range []struct {
		level    int
		id, want string
	}{
		{0, "440000", `{"id":"440000","name":"Guangdong","fullname":"Guangdong Province","pinyin":["guang","dong"],"location":{"lat":23.13171,"lng":113.26627}}`},
		{1, "440100", `{"id":"440100","name":"Guangzhou","fullname":"Guangzhou City","pinyin":["guang","zhou"],"location":{"lat":23.12908,"lng":113.26436}}`},
		{2, "440105", `{"id":"440105","fullname":"Haizhu District","location":{"lat":23.08331,"lng":113.3172}}`},
		{2, "440106", `{"id":"440106","fullname":"Tianhe District","location":{"lat":23.12463,"lng":113.36199}}`},
	} {
		got := obj{}
		for k, v := range find(tt.level, tt.id) {
			if k != "cidx" {
				got[k] = v
			}
		}
		var want obj
		if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(encode(t, want), encode(t, got)); d != "" {
			t.Error(d)
		}
	}
	covered := [3]map[int]bool{nil, {}, {}}
	for level := range 2 {
		for _, d := range out.Result[level] {
			var id string
			var cidx []int
			mustJSON(t, d["id"], &id)
			if d["cidx"] == nil {
				continue
			}
			mustJSON(t, d["cidx"], &cidx)
			for i := cidx[0]; i <= cidx[1]; i++ {
				var child string
				mustJSON(t, out.Result[level+1][i]["id"], &child)
				if !strings.HasPrefix(child, strings.TrimRight(id, "0")) || covered[level+1][i] {
					t.Errorf("cidx of %s covers %s", id, child)
				}
				covered[level+1][i] = true
			}
		}
	}
	for level := 1; level < 3; level++ {
		if len(covered[level]) != len(out.Result[level]) {
			t.Errorf("level %d: %d of %d have a parent", level, len(covered[level]), len(out.Result[level]))
		}
	}
	if len(out.Result[0]) < 5 {
		t.Errorf("%d provinces", len(out.Result[0]))
	}
	for id, want := range map[string]string{"440105": "Guangdong Guangzhou", "110105": "Beijing Beijing", "441900": "Guangdong Dongguan"} {
		if l, found := leafDistrict(id); !found || l.province+" "+l.city != want {
			t.Errorf("leafDistrict(%s) = %+v, %v, want %s", id, l, found, want)
		}
	}
}

func mustJSON(t *testing.T, raw json.RawMessage, v any) {
	t.Helper()
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
}

// wechat/000 §4.1.
func TestCategories(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	raw := b.get("/wxa/get_merchant_category?access_token="+token, nil).raw
	for _, part := range []string{
		`{"errcode":0,"errmsg":"ok","data":{"all_category_info":{"categories":[{"id":0,"name":"root","level":0,"children":[269,278,300,476]},`,
		`{"id":278,"name":"Shopping","level":1,"father":0,"children":[279,280,281]},`,
		`{"id":280,"name":"Convenience Store","level":2,"father":278,"children":[],"qualify":{"exter_list":[{"inner_list":[{"name":"If food is involved, provide the Food Trade License or Sanitation Permit."}]}]},"scene":3,"sensitive_type":1}`,
		`{"id":477,"name":"Gym","level":2,"father":476,"children":[],"qualify":{"exter_list":[]},"scene":3,"sensitive_type":0}`,
	} {
		contains(t, raw, part)
	}
}

// Set 37 alone opens categories, districts, the map and uploadimg, but no store (platform.md §8.2).
func TestSet37(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","sets":[37]}`, nil)
	for _, ep := range (&Server{}).endpoints() {
		if ep.token != tokenAuthorizer {
			continue
		}
		want := 61007
		switch ep.path {
		case "/wxa/get_merchant_category", "/wxa/get_district":
			want = 0
		case "/wxa/search_map_poi", "/wxa/create_map_poi":
			want = 44002 // past the permission sets, on to the body
		case "/cgi-bin/media/uploadimg":
			want = 41005 // likewise, to the file
		}
		if got := b.call(ep.method, ep.path+"?access_token="+token, "", nil); got.ErrCode != want {
			t.Errorf("%s = %s, want %d", ep.path, got.raw, want)
		}
	}
}

// wechat/000 §4.6.
func TestSearchMapPOI(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	search := func(body any) reply { return b.post("/wxa/search_map_poi?access_token="+token, body, nil) }
	raw := search(`{"districtid":440105,"keyword":"x"}`).raw
	contains(t, raw, `{"errcode":0,"errmsg":"ok","data":{"item":[{"branch_name":"X-MAX Factory","address":"2F and 3F of Yi'an Garden (Zhonghai Mingdu), No. 172-174, Yi'an Road , Haizhu District, Guangzhou, Guangdong, China","longitude":113.274810791,"latitude":23.1088695526,"telephone":" 020-89190388","category":"Sports and Fitness:Gym","sosomap_poi_uid":"2708071440732747189","data_supply":2,"pic_urls":[],"card_id_list":[]},`)
	if again := search(`{"districtid":"440105","keyword":"x"}`); again.raw != raw {
		t.Errorf("districtid as a string = %s", again.raw)
	}
	if got := search(obj{"districtid": 110105, "keyword": "nowhere"}); got.raw != `{"errcode":0,"errmsg":"ok","data":{"item":[]}}` {
		t.Errorf("nothing found = %s", got.raw)
	}
	var out struct {
		Data struct {
			Item []struct {
				UID string `json:"sosomap_poi_uid"`
			}
		}
	}
	b.post("/wxa/search_map_poi?access_token="+token, obj{"districtid": 440106, "keyword": "咖啡"}, &out)
	for i, item := range out.Data.Item {
		if len(item.UID) != 19 {
			t.Errorf("sosomap_poi_uid %s has not 19 digits", item.UID)
		}
		add := addStoreExample().with(obj{"map_poi_id": item.UID, "credential": fmt.Sprint("c", i)})
		if got := b.post("/wxa/add_store?access_token="+token, add, nil); got.ErrCode != 0 {
			t.Errorf("add_store at a found place = %s", got.raw)
		}
	}
}

func TestMerchantAuditStates(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	for state, want := range map[string]string{"none": `"status":0`, "approved": `"status":1`, "in_review": `"status":2`, "failed": `"status":3`, "admin_rejected": `"status":4`} {
		b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"`+state+`"}`, nil)
		contains(t, b.get("/wxa/get_merchant_audit_info?access_token="+token, nil).raw, want)
	}
}
