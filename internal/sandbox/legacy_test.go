package sandbox

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func business(base obj) obj { return obj{"business": obj{"base_info": base}} }

// addPOIExample is the store of wechat/001 §3.4 and of its "Good Example"s, since the example of §3.2
// only says what each field may hold; its pictures are where WeChat puts them.
func addPOIExample() obj {
	return obj{
		"sid": "33788392", "business_name": "McDonald's", "branch_name": "Yiyuan Road Outlet", "province": "Guangdong", "city": "Guangzhou",
		"district": "Haizhu District", "address": "Yiyuan Road 11 ", "telephone": "020-12345678", "categories": []string{"Food,Snack and Fast Food"},
		"offset_type": 1, "longitude": 115.32375, "latitude": 25.097486,
		"photo_list": []obj{{"photo_url": "http://mmbiz.qpic.cn/XXXXX"}, {"photo_url": samplePhoto}},
		"recommend":  "McCrispy Chicken Burger Combo Meal, Chicken McNuggets, Family Barrels",
		"special":    "Free wifi, delivery service",
		"introduction": "Founded in 1940  in the US, McDonald's is a large global restaurant chain, with about 3 0,000 outlets all over the world. " +
			"It features hamburgers, French fries, chicken products, soft drinks, milkshakes, wraps, salad, and desserts.",
		"open_time": "8:00-20:00", "avg_price": 35,
	}
}

// updatePOIExample is wechat/001 §3.6 without the blanks at the end of its keys, and with its commas.
func updatePOIExample() obj {
	e := addPOIExample().without("business_name", "branch_name", "province", "city", "district", "address", "categories", "offset_type", "longitude", "latitude")
	return e.with(obj{"poi_id": "271864249", "sid": "A00001"})
}

// legacyStores seeds stores of Store Management for the demo account.
func legacyStores(body string) func(*scene) {
	return func(s *scene) { s.control("POST", "accounts/"+DemoOfficialAccount+"/legacy-stores", body, nil) }
}

// serviceRefusals are the rules that addpoi and updatepoi share.
func serviceRefusals(cite string, body func(obj) any) []refusal {
	photos := func(n int, url string) []obj {
		list := make([]obj, n)
		for i := range list {
			list[i] = obj{"photo_url": url}
		}
		return list
	}
	rows := []refusal{
		{"sid a number", cite, 40097, body(obj{"sid": 1}), nil},
		{"telephone a number", cite, 65111, body(obj{"telephone": 2012345678}), nil},
		{"no picture", cite + ", §5", 65114, body(obj{"photo_list": []obj{}}), nil},
		{"pictures as strings", cite, 40097, body(obj{"photo_list": []string{samplePhoto}}), nil},
		{"21 pictures", cite + " (20 images at most)", 40097, body(obj{"photo_list": photos(21, samplePhoto)}), nil},
		{"picture elsewhere", cite + ", §3.1, §5", 65105, body(obj{"photo_list": photos(1, "https:// XXX.com")}), nil},
		{"recommend of 401 characters", cite, 40097, body(obj{"recommend": strings.Repeat("a", 401)}), nil},
		{"recommend of 201 Chinese characters", cite, 40097, body(obj{"recommend": strings.Repeat("茶", 201)}), nil},
		{"special of 401 characters", cite, 40097, body(obj{"special": strings.Repeat("a", 401)}), nil},
		{"introduction of 601 characters", cite, 40097, body(obj{"introduction": strings.Repeat("a", 601)}), nil},
		{"introduction null", cite, 40097, body(obj{"introduction": nil}), nil},
		{"open_time without minutes", cite + " (24-hour format)", 40097, body(obj{"open_time": "8-20"}), nil},
		{"open_time 25:00", cite + " (24-hour format)", 40097, body(obj{"open_time": "8:00-25:00"}), nil},
		{"avg_price 0", cite + " (greater than 0)", 40097, body(obj{"avg_price": 0}), nil},
		{"avg_price with decimals", cite + " (integer)", 40097, body(obj{"avg_price": 35.5}), nil},
		{"avg_price a string", cite + " (integer)", 40097, body(obj{"avg_price": "35"}), nil},
	}
	for i, phone := range badPhones {
		rows = append(rows, refusal{"bad phone " + strconv.Itoa(i+1), "wechat/001 §3.2, 4) Phone Number", 65111, body(obj{"telephone": phone}), nil})
	}
	return rows
}

// The bad examples of wechat/001 §3.2, 4) Phone Number, and the good ones.
var (
	badPhones  = []string{"(010)87632851", "34435764", "13880934557, 0351-34435764", "138-8093-4557", "8003800,4010", "8003800#4010", strings.Repeat("1", 54)}
	goodPhones = []string{"021-81445873", "021-81445873-1003", "13867428497", "4008002835"}
)

func legacyRefusals() map[string][]refusal {
	const s32, s34, s35, s36, s37, s5 = "wechat/001 §3.2", "wechat/001 §3.4", "wechat/001 §3.5", "wechat/001 §3.6", "wechat/001 §3.7", "wechat/001 §5"
	add := func(more obj) any { return business(addPOIExample().with(more)) }
	update := func(more obj) any { return business(updatePOIExample().with(more)) }
	without := func(name string) any { return business(addPOIExample().without(name)) }
	byID := func(cite string) []refusal {
		return []refusal{
			{"without poi_id", cite, 40097, obj{}, nil},
			{"poi_id a number", cite + ", a string in the example", 40097, obj{"poi_id": 271262077}, nil},
			{"unknown store", s5, 65115, obj{"poi_id": "1"}, nil},
			{"another account's store", s5, 65115, obj{"poi_id": "400000001"}, func(s *scene) {
				s.control("POST", "accounts/"+LeavingAccount+"/legacy-stores", `{"stores":[{"poi_id":"400000001"}]}`, nil)
			}},
			{"store of the store mini program", s5, 65115, obj{"poi_id": "472671857"}, nil},
			{"deleted store", "platform.md §9.3", 65116, nil, func(s *scene) {
				s.post("/cgi-bin/poi/delpoi?access_token="+s.access, obj{"poi_id": "271262077"}, nil)
			}},
		}
	}
	rows := []refusal{
		{"without business", s32, 40097, obj{"base_info": addPOIExample()}, nil},
		{"without base_info", s32, 40097, obj{"business": addPOIExample()}, nil},
		{"key with a blank", "platform.md §11.1 no. 14", 40097, obj{"business ": obj{"base_info": addPOIExample()}}, nil},
		{"business a list", s32, 40097, obj{"business": []any{}}, nil},
		{"business_name of 31 characters", s32, 65109, add(obj{"business_name": strings.Repeat("a", 31)}), nil},
		{"business_name of 16 Chinese characters", s32, 65109, add(obj{"business_name": strings.Repeat("茶", 16)}), nil},
		{"business_name in parentheses", s32 + ", 1) Bad Example 3", 65109, add(obj{"business_name": " Watsons (Beijing Road Store) "}), nil},
		{"business_name, Bad Example 1", s32 + ", 1)", 65109, add(obj{"business_name": " Guangzhou Dongxingtang Pharmacy Chain Co., Ltd. (Yongxin Store) "}), nil},
		{"business_name in Chinese parentheses", s32 + ", 1)", 65109, add(obj{"business_name": "屈臣氏（北京路店）"}), nil},
		{"business_name empty", s5, 65109, add(obj{"business_name": " "}), nil},
		{"branch_name empty", s32, 40097, add(obj{"branch_name": ""}), nil},
		{"branch_name of 41 characters", s32 + ", table", 40097, add(obj{"branch_name": strings.Repeat("a", 41)}), nil},
		{"branch_name in parentheses", s32 + ", 1)", 40097, add(obj{"branch_name": "(Yongxin Store)"}), nil},
		{"branch_name repeats the store name", s32 + ", 1) Bad Example 4", 40097, add(obj{"business_name": " Simmer Huang ", "branch_name": " Simmer Huang Chengdu Chunxi Road Store "}), nil},
		{"province empty", s5, 65113, add(obj{"province": ""}), nil},
		{"province of 11 Chinese characters", s32, 65113, add(obj{"province": strings.Repeat("省", 11)}), nil},
		{"city empty", s5, 65112, add(obj{"city": ""}), nil},
		{"city of 21 characters", s32 + ", table", 65112, add(obj{"city": strings.Repeat("a", 21)}), nil},
		{"district empty in a city that has some", s32, 40097, add(obj{"district": ""}), nil},
		{"district of 21 characters", s32, 40097, add(obj{"district": strings.Repeat("a", 21)}), nil},
		{"address empty in a city that has districts", s32 + ", §5", 65110, add(obj{"address": ""}), nil},
		{"address of 161 characters", s32, 65110, add(obj{"address": strings.Repeat("a", 161)}), nil},
		{"address with the city", s32 + ", 2) Bad Example", 65110, add(obj{
			"province": "Zhejiang", "city": "Hangzhou", "district": "Xiacheng District",
			"address": " 5F, Century Mart Supermarket, No. 86, Qingchun Road, Xiacheng District, Hangzhou",
		}), nil},
		{"address with the province", s32 + ", 2)", 65110, add(obj{"address": "Yiyuan Road 11, Guangdong Province"}), nil},
		{"address with the city in Chinese", s32 + ", 2)", 65110, add(obj{"city": "杭州", "address": "杭州市庆春路86号"}), nil},
		{"telephone empty", s5, 65111, add(obj{"telephone": ""}), nil},
		{"categories a string", s32, 65104, add(obj{"categories": "Food,Snack and Fast Food"}), nil},
		{"categories empty", s32, 65104, add(obj{"categories": []string{}}), nil},
		{"unknown category", s5 + ", §4", 65104, add(obj{"categories": []string{"Food,Nothing"}}), nil},
		{"part of a category", s5 + ", §4", 65104, add(obj{"categories": []string{"Food,Jiangzhe Cuisine"}}), nil},
		{"offset_type 0", s32, 40097, add(obj{"offset_type": 0}), nil},
		{"offset_type 7", s32, 40097, add(obj{"offset_type": 7}), nil},
		{"longitude a string", s32, 40097, add(obj{"longitude": "115.32375"}), nil},
		{"longitude 181", s32, 40097, add(obj{"longitude": 181}), nil},
		{"latitude 91", s32, 40097, add(obj{"latitude": 91}), nil},
	}
	for name, code := range map[string]int{
		"business_name": 65109, "branch_name": 40097, "province": 65113, "city": 65112, "district": 40097, "address": 65110,
		"telephone": 65111, "categories": 65104, "offset_type": 40097, "longitude": 40097, "latitude": 40097,
	} {
		rows = append(rows, refusal{"without " + name, s32, code, without(name), nil})
	}
	updates := []refusal{
		{"without business", s36, 40097, obj{"base_info": updatePOIExample()}, nil},
		{"keys with blanks", "platform.md §11.1 no. 14", 40097, obj{"business": obj{"base_info": obj{"poi_id ": "271864249", "telephone ": "020-12345678"}}}, nil},
		{"without poi_id", s36, 40097, business(updatePOIExample().without("poi_id")), nil},
		{"poi_id a number", s36 + ", a string in the example", 40097, update(obj{"poi_id": 271864249}), nil},
		{"unknown store", s5, 65115, update(obj{"poi_id": "1"}), nil},
		{"store in audit", s5 + ", §1", 65106, update(obj{"poi_id": "400000001"}), legacyStores(`{"stores":[{"poi_id":"400000001","available_state":2}]}`)},
		{"store rejected", s5 + ", §1", 65106, update(obj{"poi_id": "400000001"}), legacyStores(`{"stores":[{"poi_id":"400000001","available_state":4}]}`)},
		{"last update in audit", s5 + ", §1, §3.4", 65107, nil, func(s *scene) { s.send("/cgi-bin/poi/updatepoi", business(updatePOIExample())) }},
	}
	for _, name := range []string{"business_name", "longitude", "latitude", "address", "categories"} {
		updates = append(updates, refusal{"with " + name, s36 + " (cannot be modified)", 40097, update(obj{name: addPOIExample()[name]}), nil})
	}
	return map[string][]refusal{
		"/cgi-bin/poi/addpoi":    append(rows, serviceRefusals(s32, add)...),
		"/cgi-bin/poi/updatepoi": append(updates, serviceRefusals(s36+", §3.2", update)...),
		"/cgi-bin/poi/getpoi":    byID(s34),
		"/cgi-bin/poi/delpoi": append(byID(s37), refusal{"migration under way", "platform.md §9.3, wechat/000 §4.13", 65117, obj{"poi_id": "400000001"},
			legacyStores(`{"stores":[{"poi_id":"400000001","upgrade_status":2}]}`)}),
		"/cgi-bin/poi/getpoilist": {
			{"without begin", s35, 40097, obj{"limit": 10}, nil},
			{"without limit", s35, 40097, obj{"begin": 0}, nil},
			{"limit over 50", s35, 40097, obj{"begin": 0, "limit": 51}, nil},
			{"begin a string", s35, 40097, obj{"begin": "0", "limit": 10}, nil},
			{"begin negative", s35, 40097, obj{"begin": -1, "limit": 10}, nil},
		},
	}
}

// keeper is a simulator and a token for Store Management.
type keeper struct {
	*bundle
	token string
}

func startKeeper(t *testing.T) *keeper {
	t.Helper()
	b, token := authorized(t)
	return &keeper{b, token}
}

func (k *keeper) poi(call string, body any) reply {
	k.t.Helper()
	return k.post("/cgi-bin/poi/"+call+"?access_token="+k.token, body, nil)
}

func (k *keeper) add(more obj) (id string) {
	k.t.Helper()
	var out struct {
		ID int64 `json:"poi_id"`
	}
	got := k.poi("addpoi", business(addPOIExample().with(more)))
	mustJSON(k.t, []byte(got.raw), &out)
	if got.ErrCode != 0 || out.ID == 0 {
		k.t.Fatalf("addpoi = %s", got.raw)
	}
	return strconv.FormatInt(out.ID, 10)
}

// What the documents call good, and whatever they leave optional, passes.
func TestAddPOIAccepts(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	pass := func(name string, base obj) {
		if got := k.poi("addpoi", business(base)); got.ErrCode != 0 {
			t.Errorf("%s = %s", name, got.raw)
		}
	}
	for _, name := range []string{"sid", "photo_list", "recommend", "special", "introduction", "open_time", "avg_price"} {
		pass("without "+name, addPOIExample().without(name))
	}
	for _, phone := range goodPhones {
		pass(phone, addPOIExample().with(obj{"telephone": phone}))
	}
	// The "Good Example"s of wechat/001 §3.2, 1) and 2).
	for _, names := range [][2]string{
		{" Dongxingtang Pharmacy ", " Yongxin Store "},
		{" GOME ", " Changzhi Road Store "},
		{" Watsons ", " Beijing Road Store "},
		{" Simmer Huang ", " Chunxi Road Store "},
		{" McDonald's ", " Living Mall "},
		{"MOI Dept. Store", "Mixc Store"},
		{strings.Repeat("茶", 15), strings.Repeat("店", 20)},
	} {
		pass(names[0], addPOIExample().with(obj{"business_name": names[0], "branch_name": names[1]}))
	}
	for _, place := range []obj{
		{"province": "Zhejiang", "city": "Hangzhou", "district": "Xiacheng District", "address": "5F, Century Mart Supermarket, No. 86, Qingchun Road"},
		{"province": "Shanghai", "city": "Shanghai", "district": "Xuhui District", "address": "Building A, Zhonghuan International Plaza, No. 397, Tianlin Road"},
		{"province": "Guangdong", "city": "Dongguan", "district": "", "address": ""},
		{"address": "No. 5, Guangzhou Avenue"},
		{"categories": []string{"Food, Sichuan Cuisine, Hotpot"}},
		{"categories": []string{"Food,Jiangzhe Cuisine,Nanjing Cuisine"}},
		{"offset_type": 6, "longitude": 12837000.5, "latitude": 2885000},
	} {
		pass(encode(t, place), addPOIExample().with(place))
	}
	pass("a sid for the second time, which WeChat does not verify", addPOIExample())
}

// wechat/001 §3.2 to §3.4: the poi_id comes at once and stays, the event tells what the audit said.
func TestAddPOI(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ phone, result, state string }{
		"approved": {"020-12345678", "succ", `"available_state":3`},
		"rejected": {"020-12340003", "fail", `"available_state":4`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := startKeeper(t)
			user := k.pushesTo()
			id := k.add(obj{"telephone": tt.phone})
			contains(t, k.poi("getpoi", obj{"poi_id": id}).raw, `"available_state":2,"update_status":0`)
			k.control("POST", "clock", `{"advance":"5s"}`, nil)
			p := k.pushes.wait("poi_check_notify", nil)
			want := "<xml> \n  <ToUserName><![CDATA[" + user + "]]></ToUserName> \n  <FromUserName><![CDATA[od1P50M-fNQI5Gcq-trm4a7apsU8]]></FromUserName> \n  <CreateTime>" +
				p.Get("CreateTime") + "</CreateTime> \n  <MsgType><![CDATA[event]]></MsgType> \n  <Event><![CDATA[poi_check_notify]]></Event> \n  <UniqId><![CDATA[33788392]]></UniqId> \n  <PoiId><![CDATA[" +
				id + "]]></PoiId> \n  <Result><![CDATA[" + tt.result + "]]></Result> \n  <msg><![CDATA[" + p.Get("msg") + "]]></msg> \n</xml>"
			if d := cmp.Diff(want, p.plain); d != "" || p.Get("msg") == "" {
				t.Error(d)
			}
			contains(t, k.poi("getpoi", obj{"poi_id": id}).raw, tt.state)
			got := k.truth()
			if len(got.IDs) != 1 || got.IDs[0].Type != "legacy_poi_id" || got.IDs[0].ID != id || got.IDs[0].Key != "33788392" ||
				len(got.Effects) != 1 || got.Effects[0].Kind != "addpoi" || got.Effects[0].ID != id || got.Effects[0].Key != "33788392" {
				t.Errorf("truth = %+v", got)
			}
		})
	}
}

// The replies of wechat/001 §3.2 and §3.4 to §3.7 and of wechat/000 §4.13, member by member.
func TestLegacyShapes(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	id := k.add(nil)
	if got := k.poi("addpoi", business(addPOIExample())).raw; !regexp.MustCompile(`^{"errcode":0,"errmsg":"ok","poi_id":[45]\d{8}}$`).MatchString(got) {
		t.Errorf("addpoi = %s", got)
	}
	const photos = `"photo_list":[{"photo_url":"http://mmbiz.qpic.cn/XXXXX"},{"photo_url":"` + samplePhoto + `"}],`
	const recommend = `"recommend":"McCrispy Chicken Burger Combo Meal, Chicken McNuggets, Family Barrels","special":"Free wifi, delivery service",`
	const intro = `"introduction":"Founded in 1940  in the US, McDonald's is a large global restaurant chain, with about 3 0,000 outlets all over the world. ` +
		`It features hamburgers, French fries, chicken products, soft drinks, milkshakes, wraps, salad, and desserts.",`
	want := `{"base_info":{"sid":"33788392","business_name":"McDonald's","branch_name":"Yiyuan Road Outlet","province":"Guangdong","city":"Guangzhou",` +
		`"address":"Yiyuan Road 11 ","telephone":"020-12345678","categories":["Food,Snack and Fast Food"],"offset_type":1,"longitude":115.32375,"latitude":25.097486,` +
		photos + recommend + intro + `"open_time":"8:00-20:00","avg_price":35,"available_state":2,"update_status":0}}`
	if d := cmp.Diff(`{"errcode":0,"errmsg":"ok","business":`+want+`}`, k.poi("getpoi", obj{"poi_id": id}).raw); d != "" {
		t.Error(d)
	}
	k.control("POST", "settings", `{"legacy_blank_keys":true}`, nil)
	if d := cmp.Diff(`{"errcode":0,"errmsg":"ok","business ":`+want+`}`, k.poi("getpoi", obj{"poi_id": id}).raw); d != "" {
		t.Error(d)
	}

	list := `{"errcode":0,"errmsg":"ok","business_list":[{"base_info":{"sid":"33788392","business_name":"McDonald's","branch_name":"Yiyuan Road Outlet",` +
		`"address":"Yiyuan Road 11 ","telephone":"020-12345678","categories":["Food,Snack and Fast Food"],"city":"Guangzhou","province":"Guangdong",` +
		`"offset_type":1,"longitude":115.32375,"latitude":25.097486,` + photos + intro + recommend + `"open_time":"8:00-20:00","avg_price":35,` +
		`"poi_id":"` + id + `","available_state":2,"district":"Haizhu District","update_status":0%UPGRADE%}}],"total_count":"2"}`
	if d := cmp.Diff(strings.Replace(list, "%UPGRADE%", `,"upgrade_status":0,"upgrade_comment":"","mapid":""`, 1), k.poi("getpoilist", obj{"begin": 0, "limit": 1}).raw); d != "" {
		t.Error(d)
	}
	// The three fields of the migration are there "after the Store Mini Program creation is approved".
	k.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"none"}`, nil)
	if d := cmp.Diff(strings.Replace(list, "%UPGRADE%", "", 1), k.poi("getpoilist", obj{"begin": 0, "limit": 1}).raw); d != "" {
		t.Error(d)
	}
	categories := k.get("/cgi-bin/poi/getwxcategory?access_token="+k.token, nil).raw
	if !strings.HasPrefix(categories, `{"category_list":["Food,Jiangzhe Cuisine,Shanghai Cuisine","Food,Jiangzhe Cuisine,Huaiyang Cuisine",`+
		`"Food,Jiangzhe Cuisine,Zhejiang Cuisine","Food,Jiangzhe Cuisine,Nanjing Cuisine ","Food,Jiangzhe Cuisine,Suzhou Cuisine"`) {
		t.Errorf("getwxcategory = %s", categories)
	}
}

func TestLegacyListPages(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	list := func(begin int64, limit int) (n int, total string) {
		var out struct {
			List  []any  `json:"business_list"`
			Total string `json:"total_count"`
		}
		mustJSON(t, []byte(k.poi("getpoilist", obj{"begin": begin, "limit": limit}).raw), &out)
		if out.List == nil {
			t.Errorf("begin %d: no business_list", begin)
		}
		return len(out.List), out.Total
	}
	if n, total := list(0, 20); n != 0 || total != "0" {
		t.Errorf("none = %d of %s", n, total)
	}
	k.control("POST", "accounts/"+DemoOfficialAccount+"/legacy-stores", `{"count":60}`, nil)
	for _, tt := range []struct {
		begin       int64
		limit, want int
	}{{0, 50, 50}, {50, 50, 10}, {0, 0, 20}, {59, 0, 1}, {60, 1, 0}, {1 << 62, 50, 0}} {
		if n, total := list(tt.begin, tt.limit); n != tt.want || total != "60" {
			t.Errorf("getpoilist(%d, %d) = %d of %s, want %d of 60", tt.begin, tt.limit, n, total, tt.want)
		}
	}
}

// wechat/001 §1 and §3.6: an update shows at once, counts after the audit, and nothing else is touched.
func TestUpdatePOI(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	k.control("POST", "accounts/"+DemoOfficialAccount+"/legacy-stores", `{"stores":[{"poi_id":"271864249","sid":"A1"}]}`, nil)
	show := func() string { return k.poi("getpoi", obj{"poi_id": "271864249"}).raw }
	update := func(fields obj) string {
		return k.poi("updatepoi", business(fields.with(obj{"poi_id": "271864249"}))).raw
	}
	before := show()
	if got := update(nil); got != `{"errcode":0,"errmsg":"ok"}` || show() != before {
		t.Errorf("an update of nothing = %s", got)
	}
	decided := func(fields obj) {
		t.Helper()
		if got := update(fields); got != `{"errcode":0,"errmsg":"ok"}` {
			t.Fatalf("updatepoi = %s", got)
		}
		contains(t, show(), `"available_state":3,"update_status":1`)
		k.control("POST", "clock", `{"advance":"119h"}`, nil)
		k.token = k.accessTokenAgain()
		contains(t, show(), `"available_state":3,"update_status":1`)
		k.control("POST", "clock", `{"advance":"1h"}`, nil)
		contains(t, show(), `"available_state":3,"update_status":0`)
	}
	decided(obj{"open_time": "9:00-24:00", "photo_list": []obj{{"photo_url": "http://mmbiz.qpic.cn/d"}}})
	after := strings.NewReplacer("8:00-20:00", "9:00-24:00", samplePhoto, "http://mmbiz.qpic.cn/d").Replace(before)
	if d := cmp.Diff(after, show()); d != "" {
		t.Error(d)
	}
	k.control("POST", "settings", `{"audit_delay":"1s"}`, nil)
	decided(obj{"telephone": "020-12340003", "sid": "A2", "avg_price": 1})
	if d := cmp.Diff(after, show()); d != "" {
		t.Errorf("after a rejected update: %s", d)
	}
	if got := k.truth().Effects; len(got) != 2 || got[0].Kind != "updatepoi" || got[0].ID != "271864249" {
		t.Errorf("effects = %+v", got)
	}
	if got := k.pushes.all("poi_check_notify"); len(got) != 0 {
		t.Errorf("an update sent %s", got[0].plain)
	}
}

func TestDelPOI(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	id := k.add(nil) // in audit: no event once it is gone
	if got := k.poi("delpoi", obj{"poi_id": id}).raw; got != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("delpoi = %s", got)
	}
	contains(t, k.poi("getpoilist", obj{"begin": 0, "limit": 10}).raw, `"business_list":[],"total_count":"0"`)
	k.control("POST", "clock", `{"advance":"5s"}`, nil)
	if got := k.truth().Effects; len(got) != 2 || got[1].Kind != "delpoi" || got[1].ID != id || got[1].Key != "33788392" {
		t.Errorf("effects = %+v", got)
	}
	k.control("POST", "messages", `{"appid":"`+DemoOfficialAccount+`","xml":"<xml><Event>last</Event></xml>"}`, nil)
	k.pushes.wait("last", nil)
	if got := k.pushes.all("poi_check_notify"); len(got) != 0 {
		t.Errorf("a deleted store sent %s", got[0].plain)
	}
}
