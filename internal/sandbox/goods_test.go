package sandbox

import (
	"fmt"
	"net/url"
	"strings"
)

// addGoodsExample is the request of wechat/004 §1, verbatim but for its comment; more goes into goodsInfo.
func addGoodsExample(more obj) obj {
	return obj{"goodsInfo": obj{
		"coverImgUrl": "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR",
		"name":        "TIT茶杯",
		"priceType":   1,
		"price":       99.5,
		"url":         "pages/index/index",
	}.with(more)}
}

// updateGoodsExample is the request of wechat/004 §5.
func updateGoodsExample(more obj) obj { return addGoodsExample(obj{"goodsId": 9}.with(more)) }

// goods9 seeds the item that the documents' examples name, in a state.
func goods9(s *scene, status int) {
	s.control("POST", "accounts/"+DemoMiniProgram+"/goods", fmt.Sprintf(`{"goods":[{"goods_id":9,"name":"xxxxx","audit_status":%d}]}`, status), nil)
}

// auditOf9 is the audit of goods 9 in review.
func auditOf9(b *bundle) int64 {
	for _, a := range b.audits(auditGoods) {
		if a.Subject == "9" {
			return a.ID
		}
	}
	b.t.Fatal("goods 9 are not in review")
	return 0
}

// goodsExample is the document's own request, for goods that are in the state it needs.
func goodsExample(s *scene, path string) any {
	switch trimSlash(path) {
	case "wxaapi/broadcast/goods/add":
		return addGoodsExample(nil)
	case "wxaapi/broadcast/goods/resetaudit":
		goods9(s, goodsInReview)
		return obj{"auditId": auditOf9(s.bundle), "goodsId": 9}
	case "wxaapi/broadcast/goods/audit", "wxaapi/broadcast/goods/delete":
		goods9(s, goodsUnreviewed)
		return obj{"goodsId": 9}
	case "wxaapi/broadcast/goods/update":
		goods9(s, goodsUnreviewed)
		return updateGoodsExample(nil)
	case "wxa/business/getgoodswarehouse":
		return obj{"goods_ids": []int{1}}
	case "wxaapi/broadcast/goods/getapproved":
		return url.Values{"offset": {"0"}, "limit": {"30"}, "status": {"2"}}
	}
	return nil
}

func goodsRefusals() map[string][]refusal {
	const s1, s2, s3, s4, s5 = "wechat/004 §1", "wechat/004 §2", "wechat/004 §3", "wechat/004 §4", "wechat/004 §5"
	const s6, s7, codes = "wechat/004 §6", "wechat/004 §7", "wechat/004 Appendix"
	without := func(name string) obj { return obj{"goodsInfo": addGoodsExample(nil)["goodsInfo"].(obj).without(name)} }
	in := func(status int) func(*scene) { return func(s *scene) { goods9(s, status) } }
	console := func(s *scene) {
		s.control("POST", "accounts/"+DemoMiniProgram+"/goods", `{"goods":[{"goods_id":9,"audit_status":0,"third_party_tag":0}]}`, nil)
	}
	foreign := func(s *scene) {
		s.control("POST", "accounts", `{"appid":"wx00000000000000bb","kind":"mini_program"}`, nil)
		s.control("POST", "accounts/wx00000000000000bb/goods", `{"goods":[{"goods_id":9}]}`, nil)
	}

	// What add and update have in common: the rules of the fields.
	rules := func(cite string, body func(obj) obj, prep func(*scene)) []refusal {
		long := strings.Repeat("茶", 14) + "x"
		rows := []refusal{
			{"goodsInfo missing", "platform.md §11.1 no. 17", 47001, obj{"name": "x"}, prep},
			{"goodsInfo a string", "platform.md §11.1 no. 17", 47001, obj{"goodsInfo": `{"goodsId":9}`}, prep},
			{"name a number", cite, 47001, body(obj{"name": 1}), prep},
			{"name empty", cite + ", " + codes, 300002, body(obj{"name": ""}), prep},
			{"14 Chinese characters and a Latin one", cite + ", " + codes, 300002, body(obj{"name": long}), prep},
			{"29 Latin characters", cite + ", " + codes, 300002, body(obj{"name": strings.Repeat("x", 29)}), prep},
			{"name magic", codes, 300004, body(obj{"name": nameIllegal}), prep},
			{"picture magic", codes, 300005, body(obj{"name": namePicture}), prep},
			{"blocked magic", codes, 300001, body(obj{"name": nameBlocked}), prep},
			{"media unknown", cite + ", " + codes, 300006, body(obj{"coverImgUrl": "x"}), prep},
			{"media a URL", cite + ", " + codes, 300006, body(obj{"coverImgUrl": samplePhoto}), prep},
			{"media a number", cite, 47001, body(obj{"coverImgUrl": 1}), prep},
			{"url a number", cite, 47001, body(obj{"url": 1}), prep},
			{"url empty", codes, 300007, body(obj{"url": ""}), prep},
			{"url of the web", codes, 300007, body(obj{"url": "https://example.com/a"}), prep},
			{"url in the query not encoded", cite, 300007, body(obj{"url": "pages/web?url=https://example.com/"}), prep},
			{"url badly encoded", cite, 300007, body(obj{"url": "pages/web?url=%zz"}), prep},
			{"url magic", codes, 300007, body(obj{"url": "pages/" + pathUnreleased}), prep},
		}
		for name, prices := range map[string]obj{
			"type 0":                    {"priceType": 0},
			"type 4":                    {"priceType": 4},
			"type a string":             {"priceType": "1"},
			"price a string":            {"price": "99.5"},
			"price null":                {"price": nil},
			"price 0":                   {"price": 0}, // platform.md §11.1 no. 17
			"price negative":            {"price": -1},
			"three decimals":            {"price": 99.555},
			"type 1 with price2":        {"price2": 150.5},
			"type 2 without price2":     {"priceType": 2},
			"type 3 without price2":     {"priceType": 3},
			"type 2, left above right":  {"priceType": 2, "price2": 99.49},
			"type 3, present above old": {"priceType": 3, "price2": 150.5},
			"price2 a string":           {"priceType": 2, "price2": "150.5"},
			"price2 0":                  {"priceType": 3, "price2": 0},
		} {
			rows = append(rows, refusal{name, cite + " (priceType, price, price2), " + codes, 300003, body(prices), prep})
		}
		return rows
	}
	// What audit, delete, update and resetaudit have in common: goods that are there and the API's.
	item := func(cite string, body func(id any) any) []refusal {
		return []refusal{
			{"unknown goods", cite + ", " + codes, 1003, body(10), nil},
			{"another account's goods", cite + ", " + codes, 1003, body(9), foreign},
			{"goods of the console", "wechat/004 First, " + codes, 300011, body(9), console},
		}
	}
	byID := func(id any) any { return obj{"goodsId": id} }
	typed := func(cite string) []refusal {
		return []refusal{
			{"without goodsId", cite, 200002, obj{}, nil},
			{"goodsId a string", cite + ", type Number", 47001, obj{"goodsId": "9"}, in(goodsUnreviewed)},
		}
	}
	update := func(id any) any { return updateGoodsExample(obj{"goodsId": id}) }
	reset := func(goodsID, auditID any) obj { return obj{"goodsId": goodsID, "auditId": auditID} }
	query := func(offset, limit, status string) url.Values {
		return url.Values{"offset": {offset}, "limit": {limit}, "status": {status}}
	}

	return map[string][]refusal{
		"/wxaapi/broadcast/goods/add": append(rules(s1, addGoodsExample, nil),
			refusal{"without coverImgUrl", s1, 200002, without("coverImgUrl"), nil},
			refusal{"without name", s1, 200002, without("name"), nil},
			refusal{"without priceType", s1, 200002, without("priceType"), nil},
			refusal{"without price", s1, 200002, without("price"), nil},
			refusal{"without url", s1, 200002, without("url"), nil},
			refusal{"magic", codes, 300008, addGoodsExample(obj{"name": nameNotAdded}), nil},
			refusal{"the other call used up the quota", "wechat/004 §3 (shared with interface 1), " + codes, 300012, nil, func(s *scene) {
				goods9(s, goodsUnreviewed)
				s.control("POST", "accounts", `{"appid":"`+DemoMiniProgram+`","daily_limits":{"/wxaapi/broadcast/goods/add":1}}`, nil)
				s.send("/wxaapi/broadcast/goods/audit", obj{"goodsId": 9})
			}},
		),
		"/wxaapi/broadcast/goods/audit": append(append(item(s3, byID), typed(s3)...),
			refusal{"in review", s3 + ", " + codes, 300010, byID(9), in(goodsInReview)},
			refusal{"approved", s3 + ", " + codes, 300010, byID(9), in(goodsApproved)},
			refusal{"magic", codes, 300013, byID(9), func(s *scene) {
				s.control("POST", "accounts/"+DemoMiniProgram+"/goods", `{"goods":[{"goods_id":9,"audit_status":0,"name":"`+nameNeverAudited+`"}]}`, nil)
			}},
			refusal{"the other call used up the quota", s3 + " (shared with interface 1), " + codes, 300012, byID(9), func(s *scene) {
				goods9(s, goodsUnreviewed)
				s.control("POST", "accounts", `{"appid":"`+DemoMiniProgram+`","daily_limits":{"/wxaapi/broadcast/goods/audit":1}}`, nil)
				s.send("/wxaapi/broadcast/goods/add", addGoodsExample(nil))
			}},
		),
		"/wxaapi/broadcast/goods/resetaudit": append(item(s2, func(id any) any { return reset(id, 525022184) }),
			refusal{"without goodsId", s2, 200002, obj{"auditId": 525022184}, in(goodsInReview)},
			refusal{"without auditId", s2 + ", platform.md §11.1 no. 18", 300009, obj{"goodsId": 9}, in(goodsInReview)},
			refusal{"auditid", "platform.md §11.1 no. 18", 300009, obj{"goodsId": 9, "auditid": 525022184}, in(goodsInReview)},
			refusal{"ids as strings", "platform.md §11.1 no. 18", 300009, reset("9", "525022184"), in(goodsInReview)},
			refusal{"another audit", s2 + ", " + codes, 300009, reset(9, 525022184), in(goodsInReview)},
			refusal{"never submitted", codes, 300017, reset(9, 525022184), in(goodsUnreviewed)},
			refusal{"approved", codes, 300010, reset(9, 525022184), in(goodsApproved)},
			refusal{"rejected", codes, 300010, reset(9, 525022184), in(goodsRejected)},
		),
		"/wxaapi/broadcast/goods/delete": append(append(item(s4, byID), typed(s4)...),
			refusal{"in review", codes, 300014, byID(9), in(goodsInReview)},
		),
		"/wxaapi/broadcast/goods/update": append(append(rules(s5, updateGoodsExample, in(goodsRejected)), item(s5, update)...),
			refusal{"without goodsId", s5, 200002, addGoodsExample(nil), in(goodsUnreviewed)},
			refusal{"goodsId a string", s5, 47001, update("9"), in(goodsUnreviewed)},
			refusal{"goodsId alone", s5, 200002, obj{"goodsInfo": obj{"goodsId": 9}}, in(goodsUnreviewed)},
			refusal{"in review", s5, 300010, update(9), in(goodsInReview)},
			refusal{"price in review", s5, 300010, obj{"goodsInfo": obj{"goodsId": 9, "price": 1}}, in(goodsInReview)},
			refusal{"approved, every field", s5, 300010, update(9), in(goodsApproved)},
			refusal{"approved, name", s5, 300010, obj{"goodsInfo": obj{"goodsId": 9, "name": "x"}}, in(goodsApproved)},
			refusal{"approved, url", s5, 300010, obj{"goodsInfo": obj{"goodsId": 9, "url": "pages/a"}}, in(goodsApproved)},
			refusal{"approved, picture", s5, 300010, obj{"goodsInfo": obj{"goodsId": 9, "coverImgUrl": sampleCoverID}}, in(goodsApproved)},
			refusal{"a type without its price", s5, 300003, obj{"goodsInfo": obj{"goodsId": 9, "priceType": 1}}, in(goodsApproved)},
			refusal{"price2 for the type that is there", s5, 300003, obj{"goodsInfo": obj{"goodsId": 9, "price2": 1}}, in(goodsApproved)},
		),
		"/wxa/business/getgoodswarehouse": {
			{"without goods_ids", s6, 200002, obj{}, nil},
			{"no id", s6, 200002, obj{"goods_ids": []int{}}, nil},
			{"21 ids", "platform.md §11.3", 200002, obj{"goods_ids": make([]int, 21)}, nil},
			{"ids as strings", s6 + ", Array<Number>", 47001, obj{"goods_ids": []string{"1"}}, nil},
			{"one number", s6 + ", Array<Number>", 47001, obj{"goods_ids": 1}, nil},
		},
		"/wxaapi/broadcast/goods/getapproved": {
			{"without offset", s7, 200002, url.Values{"status": {"2"}}, nil},
			{"without status", s7, 200002, url.Values{"offset": {"0"}}, nil},
			{"status 4", s7, 200002, query("0", "30", "4"), nil},
			{"status -1", s7, 200002, query("0", "30", "-1"), nil},
			{"limit over 100", s7, 200002, query("0", "101", "2"), nil},
			{"limit 0", s7, 200002, query("0", "0", "2"), nil},
			{"offset negative", s7, 200002, query("-1", "30", "2"), nil},
			{"offset no number", s7, 200002, query("first", "30", "2"), nil},
		},
	}
}
