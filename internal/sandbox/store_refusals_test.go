package sandbox

import (
	"maps"
	"slices"
	"strings"
)

// updateStoreExample is wechat/000 §4.9 and 003 §5, verbatim.
func updateStoreExample() obj {
	return obj{
		"map_poi_id":     "5938314494307741153",
		"poi_id":         "472671857",
		"hour":           "10:00-21:00",
		"contract_phone": "123456",
		"pic_list":       addStoreExample()["pic_list"],
	}
}

// createMapPOIExample is wechat/000 §4.7, verbatim but for the comma behind the last member.
func createMapPOIExample() obj {
	const photo = "http://mmbiz.qpic.cn/mmbiz_png/tW66AWE2K6ECFPcyAcIZTG8RlcR0sAqBibOm8gao5xOoLfIic9ZJ6MADAktGPxZI7MZLcadZUT36b14NJ2cHRHA/0?wx_fmt=png"
	return obj{
		"name": "hardenzhang", "longitude": "113.323753357", "latitude": "23.0974903107", "province": "Guangdong",
		"city": "Guangzhou", "district": "Haizhu District", "address": "TIT", "category": "Category 1:Category 2",
		"telephone": "12345678901", "photo": photo, "license": photo, "introduct": "test", "districtid": "440105",
	}
}

// storeRefusals is of stores and of places on the map.
func storeRefusals() map[string][]refusal {
	const s48, s49, s47 = "wechat/000 §4.8, 002 §2", "wechat/000 §4.9, 003 §2", "wechat/000 §4.7"
	add, update, create := addStoreExample(), updateStoreExample(), createMapPOIExample()
	store := func(cite string) []refusal {
		return []refusal{
			{"without poi_id", cite, 40097, obj{}, nil},
			{"poi_id a number", cite + ", type string", 40097, obj{"poi_id": 472671857}, nil},
			{"unknown store", cite, 65115, obj{"poi_id": "1"}, nil},
			{"another account's store", cite, 65115, obj{"poi_id": "400000001"}, func(s *scene) {
				s.control("POST", "accounts/"+LeavingAccount+"/stores", `{"stores":[{"poi_id":"400000001"}]}`, nil)
			}},
		}
	}
	return map[string][]refusal{
		"/wxa/search_map_poi": {
			{"without districtid", "wechat/000 §4.6", 40097, obj{"keyword": "x"}, nil},
			{"without keyword", "wechat/000 §4.6", 40097, obj{"districtid": 440105}, nil},
			{"empty keyword", "wechat/000 §4.6", 40097, obj{"districtid": 440105, "keyword": " "}, nil},
			{"unknown district", "wechat/000 §4.6", 40097, obj{"districtid": 999999, "keyword": "x"}, nil},
			{"a city", "wechat/000 §4.6", 40097, obj{"districtid": 440100, "keyword": "x"}, nil},
		},
		"/wxa/create_map_poi": append(missing(s47, create, 40097, slices.Sorted(maps.Keys(create))...), []refusal{
			{"latitude 91", s47, 40097, create.with(obj{"latitude": "91"}), nil},
			{"longitude not a number", s47, 40097, create.with(obj{"longitude": "east"}), nil},
			{"empty name", s47, 40097, create.with(obj{"name": ""}), nil},
			{"name a number", s47, 40097, create.with(obj{"name": 1}).without("name"), nil},
			{"category with an empty part", s47, 40097, create.with(obj{"category": "Food:"}), nil},
			{"unknown district", s47, 40097, create.with(obj{"districtid": "1"}), nil},
			{"photo elsewhere", s47 + ", platform.md §10", 65105, create.with(obj{"photo": "http://example.com/a.png"}), nil},
			{"license elsewhere", s47 + ", platform.md §10", 65105, create.with(obj{"license": "http://mmbiz.qpic.cn.example.com/a"}), nil},
			{"phones split by a comma", s47, 65111, create.with(obj{"telephone": "010-6666666,010-6666667"}), nil},
			{"phone in brackets", s47, 65111, create.with(obj{"telephone": "(010)6666666"}), nil},
			{"poi_id a number", s47, 40097, create.with(obj{"poi_id": 1}), nil},
			{"unknown legacy store", s47 + ", wechat/001 §5", 65115, create.with(obj{"poi_id": "1"}), nil},
		}...),
		"/wxa/add_store": append(append(missing(s48, add, 40097, "pic_list", "contract_phone", "hour", "credential", "card_id"),
			missing(s48, add, 85055, "map_poi_id")...), []refusal{
			{"unknown map_poi_id", "wechat/000 §4.8, 002 §6", 85055, add.with(obj{"map_poi_id": "2880741500279549034"}), nil},
			{"map_poi_id a number", "platform.md §11.1 no. 6", 85055, add.with(obj{"map_poi_id": 2880741500279549033}), nil},
			{"pic_list an object", s48 + ", platform.md §11.1 no. 9", 40097, add.with(obj{"pic_list": obj{"list": []string{samplePhoto}}}), nil},
			{"pic_list not JSON", s48, 40097, add.with(obj{"pic_list": samplePhoto}), nil},
			{"pic_list without list", s48, 40097, add.with(obj{"pic_list": `{}`}), nil},
			{"pic_list empty", "platform.md §9.3", 65114, add.with(obj{"pic_list": `{"list":[]}`}), nil},
			{"picture elsewhere", "platform.md §9.3, §10", 65105, add.with(obj{"pic_list": `{"list":["http://example.com/a.jpg"]}`}), nil},
			{"escapes inside pic_list", "platform.md §11.1 no. 7", 47002, add.with(obj{"pic_list": `{"list":["http://mmbiz.qpic.cn/a?b=1\u0026c=2"]}`}), nil},
			{"hour without minutes", s48, 40097, add.with(obj{"hour": "10-21"}), nil},
			{"hour 25:00", s48, 40097, add.with(obj{"hour": "10:00-25:00"}), nil},
			{"hour with blanks", s48, 40097, add.with(obj{"hour": "11: 11 - 12: 12"}), nil},
			{"phone with letters", s48, 40097, add.with(obj{"contract_phone": "call me"}), nil},
			{"phone a number", s48, 40097, add.with(obj{"contract_phone": 1111222222}), nil},
			{"empty credential", s48, 40097, add.with(obj{"credential": ""}), nil},
			{"card_id null", s48 + ", may be empty but is required", 40097, add.with(obj{"card_id": nil}), nil},
			{"another entity without documents", s48 + " (qualification_list)", 40097, add.with(obj{"company_name": "Other Co."}).without("qualification_list"), nil},
			{"six documents", s48 + " (0-5 mediaIDs)", 40097, add.with(obj{"qualification_list": strings.Repeat(sampleMediaID+",", 5) + sampleMediaID}), nil},
			{"documents an array", "platform.md §11.1 no. 10", 40097, add.with(obj{"qualification_list": []string{sampleMediaID}}), nil},
			{"unknown media", "wechat/000 §4.8, 002 §6", 85056, add.with(obj{"qualification_list": "x"}), nil},
			{"migration pending, no poi_id", "wechat/000 §4.8, 002 §6", 85054, nil, func(s *scene) {
				s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","needs_upgrade":true}`, nil)
			}},
			{"legacy stores that are not migrated, no poi_id", "wechat/000 §4.8, §4.13, 002 §6", 85054, nil, legacyStores(`{"count":1}`)},
			{"poi_id a number", s48, 40097, add.with(obj{"poi_id": 271262077}), legacyStores(`{"count":1}`)},
			{"unknown legacy store", "wechat/001 §5", 65115, add.with(obj{"poi_id": "1"}), nil},
			{"another account's legacy store", "wechat/001 §5", 65115, add.with(obj{"poi_id": "271262077"}), func(s *scene) {
				s.control("POST", "accounts/"+LeavingAccount+"/legacy-stores", `{"stores":[{"poi_id":"271262077"}]}`, nil)
			}},
			{"deleted legacy store", "platform.md §9.3", 65116, add.with(obj{"poi_id": "271262077"}), func(s *scene) {
				legacyStores(`{"stores":[{"poi_id":"271262077"}]}`)(s)
				s.post("/cgi-bin/poi/delpoi?access_token="+s.access, obj{"poi_id": "271262077"}, nil)
			}},
			{"legacy store in audit", "wechat/001 §5", 65106, add.with(obj{"poi_id": "271262077"}), legacyStores(`{"stores":[{"poi_id":"271262077","available_state":2}]}`)},
			{"migration under way", "wechat/000 §4.8, §4.13", 85038, add.with(obj{"poi_id": "271262077"}), legacyStores(`{"stores":[{"poi_id":"271262077","upgrade_status":2}]}`)},
			{"migration done", "wechat/000 §4.8, §4.13", 85040, add.with(obj{"poi_id": "271262077"}), legacyStores(`{"stores":[{"poi_id":"271262077","upgrade_status":3}]}`)},
			{"migration not allowed", "wechat/000 §4.8, §4.13", 85039, add.with(obj{"poi_id": "271262077"}), legacyStores(`{"stores":[{"poi_id":"271262077","upgrade_status":4}]}`)},
			{"rejected legacy store", "wechat/000 §4.13", 85039, add.with(obj{"poi_id": "271262077"}), legacyStores(`{"stores":[{"poi_id":"271262077","available_state":4}]}`)},
			{"poi_id twice, the first in audit", "wechat/000 §4.8", 85038, add.with(obj{"poi_id": "1", "map_poi_id": sampleUpdate, "credential": "2"}), func(s *scene) {
				s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","needs_upgrade":true}`, nil)
				s.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"1","status":2}]}`, nil)
			}},
			{"poi_id twice, the first approved", "wechat/000 §4.8", 85040, add.with(obj{"poi_id": "1", "map_poi_id": sampleUpdate, "credential": "2"}), func(s *scene) {
				s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","needs_upgrade":true}`, nil)
				s.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"1"}]}`, nil)
			}},
			{"custom-code card", s48 + ", §14", 40097, add.with(obj{"card_id": "p-custom-1"}), nil},
			{"twice, the first in audit", "wechat/000 §4.8, 002 §6", 85038, nil, func(s *scene) { s.send("/wxa/add_store", add) }},
			{"twice, the first approved", "wechat/000 §4.8, 002 §6", 85040, nil, func(s *scene) {
				s.send("/wxa/add_store", add)
				s.control("POST", "clock", `{"advance":"5s"}`, nil)
			}},
			{"another account's place", "002 §6", 85039, nil, func(s *scene) {
				s.control("POST", "accounts/"+LeavingAccount+"/stores", `{"stores":[{"map_poi_id":"2880741500279549033"}]}`, nil)
			}},
			{"credential used", "wechat/000 §4.8, 002 §6", 85041, nil, func(s *scene) {
				s.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"credential":"22883878-0"}]}`, nil)
			}},
			{"too many stores", "wechat/000 §4.8, 002 §6", 85042, nil, func(s *scene) {
				s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_limit":1}`, nil)
			}},
		}...),
		"/wxa/update_store": append(missing(s49, update, 40097, "poi_id", "hour", "contract_phone", "pic_list"), []refusal{
			{"unknown store", "wechat/000 §4.9, 003 §6", 65115, update.with(obj{"poi_id": "1"}), nil},
			{"poi_id a number", s49 + ", type string", 40097, update.with(obj{"poi_id": 472671857}), nil},
			{"card_id a number", s49, 40097, update.with(obj{"card_id": 1}), nil},
			{"custom-code card", "003 §2, wechat/000 §14", 40097, update.with(obj{"card_id": "p-custom-1"}), nil},
			{"hour", s49, 40097, update.with(obj{"hour": "9:00-21:00"}), nil},
			{"picture elsewhere", "platform.md §9.3", 65105, update.with(obj{"pic_list": `{"list":["ftp://mmbiz.qpic.cn/a"]}`}), nil},
			{"store in audit", "wechat/000 §4.9, 003 §6", 65118, nil, func(s *scene) {
				s.send("/wxa/update_store", update.with(obj{"pic_list": `{"list":["http://mmbiz.qpic.cn/new"]}`}))
			}},
			{"store failed", "wechat/000 §4.9, 003 §6", 65118, update.with(obj{"poi_id": "400000002"}), func(s *scene) {
				s.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"400000002","status":3}]}`, nil)
			}},
		}...),
		"/wxa/get_store_info": store("wechat/000 §4.10"),
		"/wxa/del_store": append(store("wechat/000 §4.12"), refusal{"store in audit", "wechat/000 §4.12 (-1 Deletion failed)", -1,
			obj{"poi_id": "400000003"}, func(s *scene) {
				s.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"400000003","status":2}]}`, nil)
			}}),
		"/wxa/get_store_list": {
			{"without offset", "wechat/000 §4.11", 40097, obj{"limit": 10}, nil},
			{"without limit", "wechat/000 §4.11", 40097, obj{"offset": 0}, nil},
			{"limit over 50", "wechat/000 §4.11", 40097, obj{"offset": 0, "limit": 51}, nil},
			{"limit a string", "wechat/000 §4.11", 40097, obj{"offset": 0, "limit": "10"}, nil},
			{"offset beyond the last store", "wechat/000 §4.11", 40097, obj{"offset": 4, "limit": 10}, nil},
			{"negative", "wechat/000 §4.11", 40097, obj{"offset": 0, "limit": -1}, nil},
		},
	}
}
