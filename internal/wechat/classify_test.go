package wechat

import (
	"encoding/json"
	"flag"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Properties are tried on ten thousand cases; -rapid.checks says otherwise.
func init() { _ = flag.Set("rapid.checks", "10000") }

// addStoreExample is document 000's (§4.8).
const addStoreExample = `{
"errcode" : 0,
"errmsg" : "ok",
"data" : {"audit_id":111}
}`

// What document 000's table of get_store_list says instead of its example: the
// fields of a store stand in the list itself.
func TestFlatStore(t *testing.T) {
	t.Parallel()
	nested := example(t, "get_store_info.reply")
	flat := strings.Replace(strings.Replace(nested, `"base_info": {`, "", 1), "}\n}\n}", "}\n}", 1)
	if diff := cmp.Diff(decoded[GetStoreInfoReply](t, GetStoreInfo, nested).Store(), decoded[GetStoreInfoReply](t, GetStoreInfo, flat).Store()); diff != "" {
		t.Errorf("get_store_info, flat: %s", diff)
	}
	if got := decoded[GetStoreInfoReply](t, GetStoreInfo, flat).Store(); got.PoiID != "472671857" {
		t.Errorf("get_store_info, flat: poi_id %q", got.PoiID)
	}
}

func decoded[T any](t *testing.T, e *Endpoint, body string) T {
	t.Helper()
	r := Reply{Status: 200, Body: []byte(body)}
	if class, err := Classify(e, r); class != Executed {
		t.Fatalf("%s: class %v, %v", e.Name, class, err)
	}
	v, err := Decode[T](e, r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		e      *Endpoint
		status int
		body   string
		want   Class
	}{
		"success":                      {AddStore, 200, addStoreExample, Executed},
		"errcode as a string":          {AddStore, 200, `{"errcode":"0","data":{"audit_id":1}}`, Executed},
		"refused":                      {AddStore, 200, `{"errcode":85038,"errmsg":"store has added"}`, Refused},
		"refused, errcode as a string": {AddStore, 200, `{"errcode":"85038"}`, Refused},
		"token":                        {AddStore, 200, `{"errcode":40001,"errmsg":"invalid credential"}`, TokenRejected},
		"token expired":                {AddStore, 200, `{"errcode":42001}`, TokenRejected},
		"busy":                         {AddStore, 200, `{"errcode":-1,"errmsg":"system error"}`, Ambiguous},
		"busy on del_store":            {DelStore, 200, `{"errcode":-1,"errmsg":"system error"}`, Refused},
		"unknown errcode":              {AddStore, 200, `{"errcode":987654}`, Ambiguous},
		"no errcode":                   {AddStore, 200, `{}`, Ambiguous},
		"null":                         {AddStore, 200, `null`, Ambiguous},
		"array":                        {AddStore, 200, `[]`, Ambiguous},
		"empty":                        {AddStore, 200, ``, Ambiguous},
		"HTML":                         {AddStore, 200, `<html>502</html>`, Ambiguous},
		"cut":                          {AddStore, 200, addStoreExample[:20], Ambiguous},
		"502 that says ok":             {AddStore, 502, addStoreExample, Ambiguous},
		"302":                          {AddStore, 302, ``, Ambiguous},
		"BOM":                          {AddStore, 200, "\xef\xbb\xbf" + addStoreExample, Executed},
		"district":                     {GetDistrict, 200, `{"status":0,"message":"query ok","result":[]}`, Executed},
		"district, token":              {GetDistrict, 200, `{"errcode":40001,"errmsg":"x"}`, TokenRejected},
		"district, map service":        {GetDistrict, 200, `{"status":120,"message":"limit"}`, Ambiguous},
		"district, nothing":            {GetDistrict, 200, `{}`, Ambiguous},
		"district, huge status":        {GetDistrict, 200, `{"status":9223372036854775807}`, Ambiguous},
		"errcode empty":                {AddStore, 200, `{"errcode":""}`, Ambiguous},
		"errcode null":                 {AddStore, 200, `{"errcode":null}`, Ambiguous},
		"errcode twice":                {AddStore, 200, `{"errcode":85038,"errcode":0}`, Ambiguous},
		"errcode in two cases":         {AddStore, 200, `{"errcode":85038,"ErrCode":0}`, Ambiguous},
		"errcode twice, one blank off": {AddStore, 200, `{"errcode":85038,"errcode ":0}`, Ambiguous},
		"errcode twice, the same":      {AddStore, 200, `{"errcode":0,"errcode ":"0"}`, Executed},
		"errcode with a blank":         {AddStore, 200, `{"errcode ":85038}`, Refused},
		"huge errcode":                 {CreateMapPOI, 200, `{"errcode":1000000000}`, Ambiguous},
		"map POI":                      {CreateMapPOI, 200, `{"error":null,"data":{"base_id":42160,"rich_id":42010}}`, Executed},
		"map POI, newer page":          {CreateMapPOI, 200, `{"errcode":0,"errmsg":"ok","data":{"base_id":"42160"}}`, Executed},
		"map POI, error":               {CreateMapPOI, 200, `{"error":"name is taken","data":null}`, Refused},
		"map POI, error as object":     {CreateMapPOI, 200, `{"error":{"code":1}}`, Refused},
		"map POI, error and base_id":   {CreateMapPOI, 200, `{"error":"late","data":{"base_id":42160}}`, Ambiguous},
		"map POI, neither":             {CreateMapPOI, 200, `{"error":null,"data":{}}`, Ambiguous},
		"map POI, base_id 0":           {CreateMapPOI, 200, `{"errcode":0,"data":{"base_id":0}}`, Ambiguous},
		"map POI, token":               {CreateMapPOI, 200, `{"errcode":40001,"errmsg":"x"}`, TokenRejected},
		"image":                        {UploadImage, 200, `{"url":"http://mmbiz.qpic.cn/XXXXX"}`, Executed},
		"image without a URL":          {UploadImage, 200, `{"errcode":0,"url":""}`, Ambiguous},
		"temporary media, no id":       {UploadMedia, 200, `{"type":"image"}`, Ambiguous},
	} {
		if got, err := Classify(tc.e, Reply{Status: tc.status, Body: []byte(tc.body)}); got != tc.want || (got == Executed) != (err == nil) {
			t.Errorf("%s: Classify = %v, %v, want %v", name, got, err, tc.want)
		}
	}
}

// Goods that were added and whose audit was not started exist: the errcode is
// a warning (document 004, appendix).
func TestExecutedWithWarning(t *testing.T) {
	t.Parallel()
	class, err := Classify(AddGoods, Reply{Status: 200, Body: []byte(`{"errcode":300021,"errmsg":"audit failed","goodsId":51}`)})
	if class != Executed || err == nil || err.Code != 300021 || err.Class != Executed {
		t.Errorf("Classify = %s, %v", class, err)
	}
}

// No reply is a success but one with status 200 and errcode 0.
func TestNoInventedSuccess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		status := rapid.SampledFrom([]int{200, 201, 204, 301, 400, 404, 500, 502, 503}).Draw(t, "status")
		code := rapid.Int64Range(math.MinInt32, math.MaxInt32).Draw(t, "code")
		asText := rapid.Bool().Draw(t, "text")
		cut := rapid.IntRange(0, 40).Draw(t, "cut")
		var v any = code
		if asText {
			v = string(must(json.Marshal(code)))
		}
		body := must(json.Marshal(map[string]any{"errcode": v, "errmsg": "x", "data": map[string]any{"audit_id": 7}}))
		body = body[:max(0, len(body)-cut)]
		class, err := Classify(AddStore, Reply{Status: status, Body: body})
		success := status == 200 && code == 0 && json.Valid(body)
		if (class == Executed) != success {
			t.Fatalf("Classify(%d, %s) = %v, %v", status, body, class, err)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestErrmsgIsCleaned(t *testing.T) {
	t.Parallel()
	_, err := Classify(AddStore, Reply{Status: 200, Body: []byte(`{"errcode":85038,"errmsg":"store has added access_token=SECRET\r\n\u001b[31m rid: 5f28aaaa-1bbb-2ccc"}`)})
	if err.RID != "5f28aaaa-1bbb-2ccc" || strings.ContainsAny(err.Msg, "\r\n\x1b") || strings.Contains(err.Msg, "SECRET") || !strings.HasPrefix(err.Msg, "store has added") {
		t.Errorf("cleaned to %q, rid %q", err.Msg, err.RID)
	}
	_, err = Classify(AddStore, Reply{Status: 200, Body: []byte(`{"errcode":85038,"errmsg":"` + strings.Repeat("长", 1000) + `"}`)})
	if n := len([]rune(err.Msg)); n != 256 {
		t.Errorf("errmsg of %d characters, want 256", n)
	}
}

func TestFlexibleJSON(t *testing.T) {
	t.Parallel()
	var v struct {
		A, B, C, D ID
		N, M, K    Int
		X, Y       Decimal
		T, U, W    Texts
	}
	err := json.Unmarshal([]byte(`{"A":2708071440732747189,"B":"2880741500279549033","C":null,"D":"  1 ","N":"3","M":4,"K":"",
		"X":113.274810791,"Y":"23.10","T":["a"],"U":"a, b,","W":null}`), &v)
	if err != nil || v.A != "2708071440732747189" || v.B != "2880741500279549033" || v.C != "" || v.D != "1" || v.N != 3 || v.M != 4 || v.K != 0 ||
		v.X != "113.274810791" || v.Y != "23.10" || len(v.T) != 1 || !cmp.Equal(v.U, Texts{"a", "b"}) || v.W != nil {
		t.Errorf("decoded %+v, %v", v, err)
	}
	for _, bad := range []string{`{"A":{}}`, `{"A":true}`, `{"N":"x"}`, `{"N":1.5}`, `{"X":"abc"}`, `{"X":"NaN"}`, `{"X":"0x1p-2"}`, `{"X":"Infinity"}`, `{"T":5}`} {
		if json.Unmarshal([]byte(bad), &v) == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// A body is raw UTF-8: WeChat refuses \u escapes (47002).
func TestEncode(t *testing.T) {
	t.Parallel()
	body, err := Encode(AddStoreRequest{MapPoiID: "1", PicList: PicList{`http://mmbiz.qpic.cn/a?b=1&c=<2>`}, CompanyName: "茶杯\u2028\u2029&<>\\u2028"})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(body), `\u0026`) || strings.Contains(string(body), `\u003c`) || !strings.Contains(string(body), "茶杯\u2028\u2029&<>") {
		t.Errorf("encoded %s", body)
	}
	var back struct {
		PicList     string `json:"pic_list"`
		CompanyName string `json:"company_name"`
	}
	if err := json.Unmarshal(body, &back); err != nil || back.CompanyName != "茶杯\u2028\u2029&<>\\u2028" || back.PicList != `{"list":["http://mmbiz.qpic.cn/a?b=1&c=<2>"]}` {
		t.Errorf("read back %+v, %v", back, err)
	}
	if empty, err := Encode(AddStoreRequest{}); err != nil || !strings.Contains(string(empty), `"pic_list":"{\"list\":[]}"`) {
		t.Errorf("no pictures: %s, %v", empty, err)
	}
}

// Nothing that could break out of pic_list does.
func TestPicListRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOf(rapid.String()).Draw(t, "list")
		outer := must(Encode(PicList(list)))
		var inner string
		if err := json.Unmarshal(outer, &inner); err != nil {
			t.Fatal(err)
		}
		var got struct{ List []string }
		if err := json.Unmarshal([]byte(inner), &got); err != nil || !cmp.Equal(append([]string{}, list...), append([]string{}, got.List...)) {
			t.Fatalf("%q came back as %q, %v", list, got.List, err)
		}
	})
}
