package wechat

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math/big"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// One target per shape of reply, each seeded with every example of the
// documents. What they hold against Classify reads JSON in another way than
// the package does: token by token.

// seed adds every example, as the documents print it and mended, and some
// replies that were made to be misread.
func seed(f *testing.F) {
	f.Helper()
	files, err := os.ReadDir("testdata/documents")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add([]byte(example(f, file.Name())))
	}
	for _, x := range examples() {
		if x.reply != "" {
			f.Add([]byte(mended(f, x.reply, x.mend...)))
		}
		if x.example != "" {
			f.Add([]byte(mended(f, x.example, x.otherwise...)))
		}
	}
	for _, s := range []string{
		``, `null`, `[]`, `{}`, `0`, `"ok"`, `<html>502</html>`, "\xef\xbb\xbf" + `{"errcode":0}`, `{"errcode":0}{"errcode":-1}`,
		`{"errcode":"0"}`, `{"errcode":""}`, `{"errcode":null}`, `{"errcode":-0}`, `{"errcode":0.0}`, `{"errcode":"85038"}`, `{"errcode ":1}`,
		`{"errcode":1,"ErrCode":0}`, `{"errcode":0,"errcode\u0020":1}`, `{"errcode":1000000000}`, `{"errcode":9223372036854775807}`, `{"errcode":[0]}`,
		`{"status":120,"message":"limit"}`, `{"status":0,"ſtatus":7}`, `{"status":-1}`, `{"status":9223372036854775807}`,
		`{"error":"taken"}`, `{"error":{},"data":{"base_id":1}}`, `{"error":null,"data":{"base_id":0}}`, `{"error":"","data":{"base_id":"7"}}`, `{"data":[]}`,
		`{"errcode":300021,"goodsId":51}`, `{"errcode":0,"goods_id":9007199254740993,"auditId":"9007199254740993"}`, `{"errcode":0,"goodsId":51,"goods_id":52}`,
		`{"url":""}`, `{"url":null}`, `{"media_id":"x","errcode":40009}`,
	} {
		f.Add([]byte(s))
	}
}

// members are the members of the object that b is, without regard to case, in
// order, or nil if b is none.
func members(b []byte, name string) (values []json.RawMessage) {
	d := json.NewDecoder(bytes.NewReader(b))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil
	}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return nil
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil
		}
		if key, ok := tok.(string); ok && strings.EqualFold(key, name) {
			values = append(values, v)
		}
	}
	return values
}

// zero reports whether v, a number or a string of one, is 0; absent whether it
// says nothing.
func zero(v json.RawMessage) (zero, absent bool) {
	s := string(v)
	if strings.HasPrefix(s, `"`) {
		var text string
		if json.Unmarshal(v, &text) != nil {
			return false, false
		}
		s = strings.TrimSpace(text)
	}
	if s == "" || s == "null" {
		return false, true
	}
	n, ok := new(big.Float).SetString(s)
	return ok && n.Sign() == 0, false
}

// onlyZero reports whether all that stands under name is 0 or says nothing,
// and whether there is a 0.
func onlyZero(body []byte, name string) (only, some bool) {
	only = true
	for _, v := range members(body, name) {
		z, absent := zero(v)
		only = only && (z || absent)
		some = some || z
	}
	return only, some
}

// check is what holds for every reply to every call. It reports whether the
// reply was taken for a plain success.
func check(t *testing.T, e *Endpoint, body []byte) bool {
	t.Helper()
	r := Reply{Status: 200, Body: body}
	class, err := Classify(e, r)
	switch {
	case err == nil && class != Executed:
		t.Fatalf("%s: %s without an error for %q", e.Name, class, body)
	case err != nil && err.Class != class:
		t.Fatalf("%s: %s and an error of class %s for %q", e.Name, class, err.Class, body)
	case err != nil && class == Executed && err.Code != 300021:
		t.Fatalf("%s: executed with %v for %q", e.Name, err, body)
	case err != nil && class != Ambiguous && err.Code == 0:
		t.Fatalf("%s: %s without a code for %q", e.Name, class, body)
	}
	if err != nil {
		_ = err.Error()
		if len([]rune(err.Msg)) > 256 || strings.ContainsAny(err.Msg, "\r\n\x00\u2028\ufeff") {
			t.Fatalf("%s: shows %q", e.Name, err.Msg)
		}
	}
	if got, _ := Classify(e, Reply{Status: 502, Body: body}); got != Ambiguous {
		t.Fatalf("%s: %s with status 502", e.Name, got)
	}
	if class != Executed {
		return false
	}
	if !json.Valid(r.JSON()) {
		t.Fatalf("%s: executed, and no JSON: %q", e.Name, body)
	}
	if only, _ := onlyZero(r.JSON(), "errcode"); !only && err == nil {
		t.Fatalf("%s: executed in spite of an errcode: %q", e.Name, body)
	}
	return err == nil
}

func FuzzErrcodeReply(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, e := range []*Endpoint{AddStore, UpdateStore, DelStore, GetStoreInfo, GetStoreList, ApplyMerchant, ModifyMerchant,
			GetMerchantAuditInfo, SetStoreCard, AddPoi, UpdatePoi, DelPoi, GetPoiList, SendCustomMessage} {
			if _, some := onlyZero(Reply{Status: 200, Body: body}.JSON(), "errcode"); check(t, e, body) && !some {
				t.Fatalf("%s: executed without an errcode: %q", e.Name, body)
			}
		}
		r := Reply{Status: 200, Body: body}
		_, _ = Decode[AddStoreReply](AddStore, r)
		_, _ = Decode[UpdateStoreReply](UpdateStore, r)
		_, _ = Decode[GetStoreInfoReply](GetStoreInfo, r)
		_, _ = Decode[GetStoreListReply](GetStoreList, r)
		_, _ = Decode[GetMerchantCategoryReply](GetMerchantCategory, r)
		_, _ = Decode[GetMerchantAuditInfoReply](GetMerchantAuditInfo, r)
		_, _ = Decode[GetStoreCardReply](GetStoreCard, r)
		_, _ = Decode[SearchMapPOIReply](SearchMapPOI, r)
		_, _ = Decode[AddPoiReply](AddPoi, r)
		_, _ = Decode[GetPoiReply](GetPoi, r)
		_, _ = Decode[GetPoiListReply](GetPoiList, r)
		// Taking blanks off names makes nothing readable that wasn't, nor the
		// other way round, and leaves nothing to do.
		once := trimNames(body)
		if json.Valid(once) != json.Valid(body) || !bytes.Equal(trimNames(once), once) && json.Valid(body) {
			t.Fatalf("%q became %q", body, once)
		}
	})
}

func FuzzStatusReply(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		only, some := onlyZero(Reply{Status: 200, Body: body}.JSON(), "status")
		if check(t, GetDistrict, body) && (!only || !some) {
			t.Fatalf("executed without a status of 0: %q", body)
		}
		_, _ = Decode[GetDistrictReply](GetDistrict, Reply{Status: 200, Body: body})
	})
}

func FuzzErrorDataReply(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := Reply{Status: 200, Body: body}
		ok := check(t, CreateMapPOI, body)
		reply, err := Decode[CreateMapPOIReply](CreateMapPOI, r)
		if !ok {
			return
		}
		errors := members(r.JSON(), "error")
		if len(errors) > 0 && !blank(errors[len(errors)-1]) {
			t.Fatalf("executed in spite of an error: %q", body)
		}
		if err == nil && (reply.Data.BaseID == "" || reply.Data.BaseID == "0") {
			t.Fatalf("executed without a base_id: %q", body)
		}
	})
}

func FuzzLooseReply(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := Reply{Status: 200, Body: body}
		for e, decode := range map[*Endpoint]func() (string, error){
			UploadImage: func() (string, error) { v, err := Decode[UploadImageReply](UploadImage, r); return v.URL, err },
			UploadMedia: func() (string, error) { v, err := Decode[UploadMediaReply](UploadMedia, r); return v.MediaID, err },
		} {
			got, err := decode()
			if check(t, e, body) && err == nil && got == "" && len(members(r.JSON(), e.proof)) == 1 {
				t.Fatalf("%s: executed without %s: %q", e.Name, e.proof, body)
			}
		}
		check(t, GetWXCategory, body)
		_, _ = Decode[GetWXCategoryReply](GetWXCategory, r)
		check(t, GetQuota, body)
		_, _ = Decode[GetQuotaReply](GetQuota, r)
		for _, e := range []*Endpoint{GetComponentToken, CreatePreAuthCode, QueryAuth, GetAuthorizerToken, GetAuthorizerInfo, GetAuthorizerList} {
			check(t, e, body)
		}
		info, _ := Decode[GetAuthorizerInfoReply](GetAuthorizerInfo, r)
		if sets := info.AuthorizationInfo.PermissionSets(); slices.Contains(sets, 0) {
			t.Fatalf("permission set 0: %v", sets)
		}
	})
}

func FuzzGoodsReply(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := Reply{Status: 200, Body: body}
		for _, e := range []*Endpoint{AddGoods, ResetGoodsAudit, AuditGoods, DeleteGoods, UpdateGoods, GetGoodsWarehouse, GetApproved} {
			if _, some := onlyZero(r.JSON(), "errcode"); check(t, e, body) && !some {
				t.Fatalf("%s: executed without an errcode: %q", e.Name, body)
			}
		}
		// An id has the digits that it came in.
		added, err := Decode[AddGoodsReply](AddGoods, r)
		ids := append(members(r.JSON(), "goodsId"), members(r.JSON(), "goods_id")...)
		if err == nil && len(ids) == 1 && !bytes.ContainsAny(ids[0], `"n`) && string(added.GoodsID) != string(ids[0]) {
			t.Fatalf("goodsId %q of %s", added.GoodsID, body)
		}
		_, _ = Decode[AuditGoodsReply](AuditGoods, r)
		_, _ = Decode[GoodsReply](GetGoodsWarehouse, r)
	})
}

// What the fast decoder takes, encoding/json takes, and reads the same.
func FuzzUnmarshal(f *testing.F) {
	seed(f)
	f.Add([]byte(`{"business_list":[{"base_info":{"poi_id":"1","categories":"a,b"},"poi_id":2}],"TOTAL_COUNT":"3","total_count":4}`))
	f.Add([]byte("{\"errmsg\":\"\xff\\ud800\\u0041\",\"errcode\":-0,\"business_list\":null}"))
	f.Add([]byte(`{"x":"\0"}`))
	f.Add([]byte("{\"errmsg\":\"\x01\",\"errcode\":01,}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		same[GetStoreListReply](t, body)
		same[GetStoreInfoReply](t, body)
		same[GetPoiListReply](t, body)
		same[GetDistrictReply](t, body)
		same[GoodsReply](t, body)
		same[GetAuthorizerInfoReply](t, body)
		same[answer](t, body)
		same[storeListAnswer](t, body)
		same[[]string](t, body)
		same[string](t, body)
	})
}

func same[T any](t *testing.T, body []byte) {
	t.Helper()
	var want T
	wantErr := json.Unmarshal(body, &want)
	var got T
	again := bytes.Clone(body)
	if !quick(again, &got) {
		return // encoding/json is asked
	}
	clear(again)
	if wantErr != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%T of %q: %+v, encoding/json: %+v, %v", got, body, got, want, wantErr)
	}
}

func FuzzNumbers(f *testing.F) {
	for _, s := range []string{`0`, `-1`, `"3"`, `3`, `""`, `null`, `"null"`, `" 1 "`, `2708071440732747189`, `"2880741500279549033"`, `460123456`,
		`99.5`, `12300`, `113.274810791`, `"23.0974903107"`, `1e400`, `"1e5"`, `"NaN"`, `"0x10"`, `true`, `{}`, `[1]`, `9223372036854775808`,
		`"a,b"`, `["a","b"]`, `"Food:Chinese Restaurant"`, `" 020-89190388"`, `"010-6666666-111; 010-6666666"`, `["a,b"]`, `"{\"list\":[\"x\"]}"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		written := string(bytes.TrimSpace(b))
		isNumber := json.Valid(b) && written != "" && strings.ContainsAny(written[:1], "-0123456789")
		var id ID
		if err := json.Unmarshal(b, &id); err == nil && isNumber && string(id) != written {
			t.Fatalf("id %q of %s", id, b)
		}
		var n Int
		if json.Unmarshal(b, &n) == nil && isNumber {
			if want, ok := new(big.Int).SetString(written, 10); !ok || want.Int64() != int64(n) || !want.IsInt64() {
				t.Fatalf("%d of %s", n, b)
			}
		}
		var d Decimal
		if json.Unmarshal(b, &d) == nil && d != "" {
			digits, exponent, _ := strings.Cut(strings.ToLower(string(d)), "e") // which may be greater than big.Float holds
			_, ok := new(big.Float).SetString(digits)
			_, whole := new(big.Int).SetString(cmp.Or(exponent, "0"), 10)
			if !ok || !whole || isNumber && string(d) != written {
				t.Fatalf("decimal %q of %s", d, b)
			}
		}
		list[MediaIDs](t, b)
		list[CategoryPath](t, b)
		list[LegacyCategory](t, b)
		list[Phones](t, b)
		var pics PicList
		if json.Unmarshal(b, &pics) == nil {
			var again PicList
			if err := json.Unmarshal(must(Encode(pics)), &again); err != nil || !slices.Equal(again, pics) {
				t.Fatalf("%q came back as %q, %v", pics, again, err)
			}
		}
	})
}

// list checks that a list which was read can be written, and comes back as it was.
func list[T ~[]string](t *testing.T, b []byte) {
	t.Helper()
	var l, again T
	if json.Unmarshal(b, &l) != nil {
		return
	}
	out, err := Encode(l)
	if err != nil {
		t.Fatalf("%q of %s: %v", l, b, err)
	}
	if err := json.Unmarshal(out, &again); err != nil || !slices.Equal(l, again) {
		t.Fatalf("%q was written as %s and came back as %q, %v", l, out, again, err)
	}
}
