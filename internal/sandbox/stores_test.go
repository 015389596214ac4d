package sandbox

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// addStoreExample is the request of wechat/000 §4.8 and 002 §5, verbatim, with the two fields that the
// example leaves out although the tables under it call them required: `hour`, and `card_id`, which must
// be there but may be empty. (platform.md §11.3: "add_store hour: required / absent from sample: send".)
func addStoreExample() obj {
	return obj{
		"poi_id":             "",
		"map_poi_id":         "2880741500279549033",
		"pic_list":           `{"list":["http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"]}`,
		"contract_phone":     "1111222222",
		"credential":         "22883878-0",
		"qualification_list": "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P",
		"hour":               "10:00-21:00",
		"card_id":            "",
	}
}

func TestAddStore(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	got := b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil)
	if got.ErrCode != 0 || got.Data.AuditID == 0 {
		t.Fatalf("add_store = %s", got.raw)
	}
	id := strconv.FormatInt(got.Data.AuditID, 10)
	if d := cmp.Diff(`{"errcode":0,"errmsg":"ok","data":{"audit_id":`+id+`}}`, got.raw); d != "" {
		t.Error(d)
	}
	b.control("POST", "clock", `{"advance":"5s"}`, nil)
	p := b.pushes.wait("add_store_audit_info", nil)
	if p.Get("audit_id") != id || p.Get("status") != "1" || p.Get("poiid") == "" || p.path != "/wechat/ref/messages/"+DemoOfficialAccount {
		t.Errorf("push to %s: %s", p.path, p.plain)
	}
	var journal struct{ Requests []journalEntry }
	b.control("GET", "journal?path=wxa/add_store", "", &journal)
	if len(journal.Requests) != 1 || journal.Requests[0].Body != encode(t, addStoreExample()) || journal.Requests[0].Reply != got.raw {
		t.Errorf("journal = %+v", journal.Requests)
	}
	var truth struct {
		IDs     []truthID
		Effects []effect
	}
	b.control("GET", "truth", "", &truth)
	if len(truth.Effects) != 1 || truth.Effects[0].Kind != "add_store" || truth.Effects[0].ID != id || truth.Effects[0].Key != "2880741500279549033" {
		t.Errorf("effects = %+v", truth.Effects)
	}
	if len(truth.IDs) != 2 || truth.IDs[0].ID != id || truth.IDs[1].ID != p.Get("poiid") {
		t.Errorf("ids = %+v", truth.IDs)
	}
}

// The reply shapes of wechat/000 §4.10 and §4.11, member by member.
func TestStoreShapes(t *testing.T) {
	t.Parallel()
	b, _ := authorized(t)
	b.control("POST", "accounts/"+LeavingAccount+"/stores", `{"stores":[{"poi_id":"472671857","map_poi_id":"5938314494307741153",
		"status":2,"hour":"11:00-12:00","contract_phone":"12345678","credential":"91750100ME2XCR6A70","pictures":["http://mmbiz.qpic.cn/a?wx_fmt=png&b=1"]}]}`, nil)
	token := b.accessToken(LeavingAccount)
	const info = `"business_name":"Longdi Neighborhood Deli","address":"Near Asheng Computer, Longdi Neighborhood, Zhongdu Avenue, Sheli Street","telephone":"12345678",` +
		`%CATEGORIES%"city":"Harbin","province":"Heilongjiang","longitude":126.94355011,"latitude":45.556098938,"photo_list":[{"photo_url":"http://mmbiz.qpic.cn/a?wx_fmt=png&b=1"}],` +
		`"open_time":"11:00-12:00","poi_id":"472671857","status":2,"district":"Acheng District",%QUALIFICATIONS%"qualification_num":"91750100ME2XCR6A70","qualification_name":"Mendian Leaving Co., Ltd."`
	one := strings.NewReplacer("%CATEGORIES%", "", "%QUALIFICATIONS%", "").Replace(info)
	want := `{"errcode":0,"errmsg":"ok","business":{"base_info":{` + one + `}}}`
	if d := cmp.Diff(want, b.post("/wxa/get_store_info?access_token="+token, obj{"poi_id": "472671857"}, nil).raw); d != "" {
		t.Error(d)
	}
	listed := strings.NewReplacer("%CATEGORIES%", `"categories":[],`, "%QUALIFICATIONS%", `"qualification_list":[],`).Replace(info)
	want = `{"errcode":0,"errmsg":"ok","business_list":[{"base_info":{` + listed + `}}],"total_count":1}`
	if d := cmp.Diff(want, b.post("/wxa/get_store_list?access_token="+token, obj{"offset": 0, "limit": 10}, nil).raw); d != "" {
		t.Error(d)
	}
}

func TestStoreListPages(t *testing.T) {
	t.Parallel()
	b, _ := authorized(t)
	token := b.accessToken(LeavingAccount)
	list := func(offset, limit int) (out struct {
		Code  int        `json:"errcode"`
		List  []baseInfo `json:"business_list"`
		Total int        `json:"total_count"`
	}) {
		b.post("/wxa/get_store_list?access_token="+token, obj{"offset": offset, "limit": limit}, &out)
		return out
	}
	if got := list(0, 10); got.Code != 0 || got.Total != 0 || got.List == nil {
		t.Errorf("0 of 0 = %+v", got)
	}
	b.control("POST", "accounts/"+LeavingAccount+"/stores", `{"count":60}`, nil)
	for _, tt := range []struct{ offset, limit, want int }{{0, 50, 50}, {50, 50, 10}, {0, 0, 20}, {59, 0, 1}} {
		if got := list(tt.offset, tt.limit); len(got.List) != tt.want || got.Total != 60 {
			t.Errorf("list(%d, %d) = %d of %d, want %d of 60", tt.offset, tt.limit, len(got.List), got.Total, tt.want)
		}
	}
	if got := list(60, 1); got.Code != 40097 {
		t.Errorf("offset 60 of 60 = %d, want 40097", got.Code)
	}
}

// wechat/000 §4.9: only pictures that were not there are audited; an update replaces them all.
func TestUpdateStore(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"472671857","pictures":["http://mmbiz.qpic.cn/a","http://mmbiz.qpic.cn/b"]}]}`, nil)
	update := func(pics, phone string) reply {
		return b.post("/wxa/update_store?access_token="+token, updateStoreExample().with(obj{"pic_list": pics, "hour": "08:00-24:00", "contract_phone": phone}), nil)
	}
	show := func() string {
		return b.post("/wxa/get_store_info?access_token="+token, obj{"poi_id": "472671857"}, nil).raw
	}
	if got := update(`{"list":["http://mmbiz.qpic.cn/b"]}`, "123456"); got.raw != `{"errcode":0,"errmsg":"ok","data":{"has_audit_id":0,"audit_id":0}}` {
		t.Errorf("no new picture = %s", got.raw)
	}
	contains(t, show(), `"photo_list":[{"photo_url":"http://mmbiz.qpic.cn/b"}],"open_time":"08:00-24:00"`)

	got := update(`{"list":["http://mmbiz.qpic.cn/b","http://mmbiz.qpic.cn/c"]}`, "654321")
	if got.Data.HasAuditID != 1 || got.Data.AuditID == 0 {
		t.Fatalf("a new picture = %s", got.raw)
	}
	contains(t, show(), `"status":2`)
	contains(t, show(), `"telephone":"654321"`)
	contains(t, show(), `"photo_list":[{"photo_url":"http://mmbiz.qpic.cn/b"}],`)
	b.control("POST", "clock", `{"advance":"5s"}`, nil)
	if p := b.pushes.wait("modify_store_audit_info", nil); p.Get("audit_id") != strconv.FormatInt(got.Data.AuditID, 10) || p.Get("status") != "1" {
		t.Errorf("push = %s", p.plain)
	}
	contains(t, show(), `"photo_list":[{"photo_url":"http://mmbiz.qpic.cn/b"},{"photo_url":"http://mmbiz.qpic.cn/c"}],`)
	contains(t, show(), `"status":1`)

	if got := update(`{"list":["http://mmbiz.qpic.cn/d"]}`, "10000003"); got.Data.HasAuditID != 1 {
		t.Fatalf("a third picture = %s", got.raw)
	}
	b.control("POST", "clock", `{"advance":"5s"}`, nil)
	b.pushes.wait("modify_store_audit_info", func(p received) bool { return p.Get("status") == "3" })
	contains(t, show(), `{"photo_url":"http://mmbiz.qpic.cn/c"}],`)
}

func TestDelStore(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"472671857","map_poi_id":"2880741500279549033"}]}`, nil)
	del := func() reply { return b.post("/wxa/del_store?access_token="+token, obj{"poi_id": "472671857"}, nil) }
	if got := del(); got.raw != `{"errcode":0,"errmsg":"ok"}` {
		t.Errorf("del_store = %s", got.raw)
	}
	if got := del(); got.ErrCode != 65115 {
		t.Errorf("again = %s, want 65115", got.raw)
	}
	if got := b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil); got.ErrCode != 0 {
		t.Errorf("the place is free again: %s", got.raw)
	}
}

// A migrated store keeps its poi_id and is told as an upgrade (wechat/000 §4.13).
func TestMigratedStore(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","needs_upgrade":true}`, nil)
	b.post("/wxa/add_store?access_token="+token, addStoreExample().with(obj{"poi_id": "285633617"}), nil)
	b.control("POST", "clock", `{"advance":"5s"}`, nil)
	if p := b.pushes.wait("add_store_audit_info", nil); p.Get("poiid") != "285633617" || p.Get("is_upgrade") != "1" {
		t.Errorf("push = %s", p.plain)
	}
}

func TestRejectedStoreCanBeAddedAgain(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.post("/wxa/add_store?access_token="+token, addStoreExample().with(obj{"contract_phone": "10000003"}), nil)
	b.control("POST", "clock", `{"advance":"5s"}`, nil)
	b.pushes.wait("add_store_audit_info", nil)
	if got := b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil); got.ErrCode != 0 {
		t.Errorf("add_store = %s", got.raw)
	}
}

func TestQuotaIsCountedByTheDayInBeijing(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","daily_limits":{"/wxa/get_store_list":2}}`, nil)
	list := func() int {
		return b.post("/wxa/get_store_list?access_token="+token, obj{"offset": 0, "limit": 1}, nil).ErrCode
	}
	if a, c, d := list(), list(), list(); a != 0 || c != 0 || d != 45009 {
		t.Errorf("three calls with a limit of two = %d, %d, %d", a, c, d)
	}
	contains(t, b.post("/cgi-bin/openapi/quota/get?access_token="+token, obj{"cgi_path": "/wxa/get_store_list"}, nil).raw,
		`"quota":{"daily_limit":2,"used":2,"remain":0}`)
	b.control("POST", "clock", `{"advance":"24h"}`, nil)
	token = b.accessTokenAgain()
	if got := list(); got != 0 {
		t.Errorf("the next day = %d", got)
	}
}
