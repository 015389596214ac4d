package sandbox

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// refusal is one thing that a document forbids, with where it says so.
type refusal struct {
	name string
	cite string
	want int
	body any          // default: the valid request
	prep func(*scene) // before the call
}

// scene is a running simulator with every credential there is, and the request under test.
type scene struct {
	*bundle
	component, access string // tokens
	token             string // what the call is made with
	name              string // of the query parameter
	method            string
	account           string // whose access token it is
}

func newScene(t *testing.T, ep endpoint) *scene {
	t.Helper()
	b := connected(t)
	s := &scene{bundle: b, name: "access_token", method: ep.method, account: DemoOfficialAccount}
	switch {
	case ep.kind == miniProgram:
		s.account = DemoMiniProgram
	case slices.Equal(ep.sets, messageSets):
		s.account = NoStoreSetsAccount
	}
	s.access, s.component = b.accessToken(s.account), b.componentToken()
	b.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"472671857","map_poi_id":"5938314494307741153"}]}`, nil)
	if strings.HasPrefix(ep.path, "/cgi-bin/poi/") {
		b.control("POST", "accounts/"+DemoOfficialAccount+"/legacy-stores", `{"stores":[{"poi_id":"271262077"},{"poi_id":"271864249"}]}`, nil)
	}
	switch ep.token {
	case tokenComponent:
		s.token = s.component
	case tokenAuthorizer, tokenEither:
		s.token = s.access
	}
	return s
}

// of is the scene for another test.
func (s *scene) of(t *testing.T) *scene {
	b, c := *s.bundle, *s
	b.t, c.bundle = t, &b
	return &c
}

func (s *scene) send(path string, body any) reply {
	s.t.Helper()
	if path += "?"; s.token != "" {
		path += s.name + "=" + s.token
	}
	switch v := body.(type) {
	case url.Values:
		return s.call(s.method, path+"&"+v.Encode(), "", nil)
	case upload:
		return s.upload(s.method, path, v)
	default:
		return s.call(s.method, path, encode(s.t, body), nil)
	}
}

// valid is a request that passes, by path; the store calls have the documents' examples.
func valid(s *scene, path string) any {
	component := obj{"component_appid": DefaultComponentAppID}
	account := component.with(obj{"authorizer_appid": DemoOfficialAccount})
	switch strings.ReplaceAll(path, "/api_", "/") {
	case "/cgi-bin/component/start_push_ticket":
		return component.with(obj{"component_secret": DefaultComponentSecret})
	case "/cgi-bin/component/component_token":
		return component.with(obj{
			"component_appsecret":     DefaultComponentSecret,
			"component_verify_ticket": s.pushes.wait("component_verify_ticket", nil).Get("ComponentVerifyTicket"),
		})
	case "/cgi-bin/component/create_preauthcode":
		return component
	case "/cgi-bin/component/query_auth":
		s.control("POST", "accounts/"+LeavingAccount+"/authorize", ``, nil)
		p := s.pushes.wait("authorized", func(p received) bool { return p.Get("AuthorizerAppid") == LeavingAccount })
		return component.with(obj{"authorization_code": p.Get("AuthorizationCode")})
	case "/cgi-bin/component/authorizer_token":
		return account.with(obj{"authorizer_refresh_token": s.refreshToken()})
	case "/cgi-bin/component/get_authorizer_info":
		return account
	case "/cgi-bin/component/get_authorizer_list":
		return component.with(obj{"offset": 0, "count": 500})
	case "/cgi-bin/component/get_authorizer_option":
		return account.with(obj{"option_name": "voice_recognize"})
	case "/cgi-bin/component/set_authorizer_option":
		return account.with(obj{"option_name": "voice_recognize", "option_value": "1"})
	case "/wxa/search_map_poi":
		return obj{"districtid": 440105, "keyword": "x"}
	case "/wxa/create_map_poi":
		return createMapPOIExample()
	case "/wxa/add_store":
		return addStoreExample()
	case "/wxa/update_store":
		return updateStoreExample()
	case "/wxa/get_store_info", "/wxa/del_store":
		return obj{"poi_id": "472671857"}
	case "/wxa/get_store_list":
		return obj{"offset": 0, "limit": 10}
	case "/wxa/apply_merchant":
		s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"none"}`, nil)
		return applyMerchantExample()
	case "/wxa/modify_merchant":
		return modifyMerchantExample()
	case "/card/storewxa/get":
		return obj{"poi_id": 472671857}
	case "/card/storewxa/set":
		return obj{"poi_id": 472671857, "card_id": "pabcedfg1234567hijklmn"}
	case "/cgi-bin/poi/addpoi":
		return business(addPOIExample())
	case "/cgi-bin/poi/getpoi", "/cgi-bin/poi/delpoi":
		return obj{"poi_id": "271262077"}
	case "/cgi-bin/poi/getpoilist":
		return obj{"begin": 0, "limit": 10}
	case "/cgi-bin/poi/updatepoi":
		return business(updatePOIExample())
	case "/cgi-bin/message/custom/send":
		return customSendExample()
	case "/cgi-bin/openapi/quota/get":
		return obj{"cgi_path": "/wxa/add_store"}
	}
	if body := goodsExample(s, path); body != nil {
		return body
	}
	if body, found := mediaExamples()[path]; found {
		return body
	}
	return ""
}

func (s *scene) refreshToken() string {
	var out struct {
		List []struct {
			Token string `json:"refresh_token"`
		} `json:"list"`
	}
	s.post("/cgi-bin/component/api_get_authorizer_list?access_token="+s.component,
		obj{"component_appid": DefaultComponentAppID, "offset": 0, "count": 1}, &out)
	return out.List[0].Token
}

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

func TestValidRequestsPass(t *testing.T) {
	t.Parallel()
	for _, ep := range (&Server{}).endpoints() {
		t.Run(trimSlash(ep.path), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, ep)
			if got := s.send(ep.path, valid(s, ep.path)); got.ErrCode != 0 {
				t.Errorf("%s = %s", ep.path, got.raw)
			}
		})
	}
}

// common is what platform.md §13 says of every call; the order of its checks is that of the rows.
func common(ep endpoint) []refusal {
	rows := []refusal{{name: "method", cite: "platform.md §9.2, §13", want: 43002, prep: func(s *scene) { s.method = http.MethodGet }}}
	if ep.method == http.MethodGet {
		rows[0] = refusal{name: "method", cite: "platform.md §9.2, §13", want: 43001, prep: func(s *scene) { s.method = http.MethodPost }}
	}
	if ep.token != tokenNone {
		rows = append(rows,
			refusal{name: "no token", cite: "platform.md §9.1", want: 41001, prep: func(s *scene) { s.token = "" }},
			refusal{name: "unknown token", cite: "platform.md §9.1", want: 40001, prep: func(s *scene) { s.token = "nonsense" }},
			refusal{name: "expired token", cite: "platform.md §1, §9.1", want: 42001, prep: func(s *scene) { s.control("POST", "clock", `{"advance":"2h"}`, nil) }},
			refusal{name: "body empty before account rules", cite: "platform.md §13", want: 42001, body: "", prep: func(s *scene) {
				s.control("POST", "credentials", `{"expire_access_tokens":"all"}`, nil)
			}},
		)
	}
	if ep.token == tokenComponent {
		rows = append(rows,
			refusal{name: "merchant's token", cite: "platform.md §9.1", want: 61014, prep: func(s *scene) { s.token = s.access }},
			refusal{name: "client IP", cite: "platform.md §10", want: 61004, prep: func(s *scene) {
				s.control("POST", "settings", `{"ip_whitelist":["192.0.2.1"]}`, nil)
			}},
			refusal{name: "no component_appid", cite: "platform.md §9.1", want: 41018, body: obj{}},
			refusal{name: "other component_appid", cite: "platform.md §9.1", want: 40013, body: obj{"component_appid": "wxffffffffffffffff"}},
		)
	}
	if ep.token == tokenAuthorizer {
		rows = append(rows,
			refusal{name: "component's token", cite: "platform.md §9.1", want: 61015, prep: func(s *scene) { s.token = s.component }},
			refusal{name: "de-authorised", cite: "platform.md §5.6, §6", want: 61003, prep: func(s *scene) {
				s.control("POST", "accounts/"+s.account+"/unauthorize", "", nil)
			}},
			refusal{name: "token from before a new authorization", cite: "platform.md §5.2, §9.1", want: 40001, prep: func(s *scene) {
				s.control("POST", "accounts/"+s.account+"/unauthorize", "", nil)
				s.control("POST", "accounts/"+s.account+"/authorize", "", nil)
			}},
			refusal{name: "no set that opens it", cite: "platform.md §8.2", want: 61007, prep: func(s *scene) {
				s.control("POST", "accounts", `{"appid":"`+s.account+`","sets":[4]}`, nil)
			}},
			refusal{name: "daily quota", cite: "platform.md §9.2, wechat/004", want: cmp.Or(ep.quota.code, 45009), prep: func(s *scene) {
				s.control("POST", "accounts", `{"appid":"`+s.account+`","daily_limits":{"`+ep.path+`":0}}`, nil)
			}},
		)
	}
	if ep.kind != "" {
		other := map[accountKind]string{officialAccount: DemoMiniProgram, miniProgram: DemoOfficialAccount}[ep.kind]
		rows = append(rows, refusal{name: "an account of the other kind with the set", cite: "platform.md §8.2", want: 48001, prep: func(s *scene) {
			s.control("POST", "accounts", `{"appid":"`+other+`","sets":[8,52]}`, nil)
			s.token = s.accessToken(other)
		}})
	}
	if ep.method == http.MethodPost && !ep.upload {
		rows = append(rows,
			refusal{name: "empty body", cite: "platform.md §9.2, §11.1 no. 8", want: 44002, body: ""},
			refusal{name: "bad JSON", cite: "platform.md §9.2", want: 47001, body: `{"a":1,}`},
			refusal{name: "not an object", cite: "platform.md §9.2", want: 47001, body: `[]`},
			refusal{name: "not UTF-8", cite: "platform.md heading (bodies are UTF-8)", want: 47001, body: "{\"a\":\"\xc4\xe3\"}"},
			refusal{name: "escaped text", cite: "platform.md §11.1 no. 7", want: 47002, body: `{"a":"\u4f60"}`},
		)
	}
	if ep.program {
		rows = append(rows, refusal{name: "no store program", cite: "wechat/000 §4.2, §4.9, §4.12; 003 §6", want: 85053, prep: func(s *scene) {
			s.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"failed"}`, nil)
		}})
	}
	return rows
}

// missing has a row for each required field of a request.
func missing(cite string, example obj, code int, fields ...string) []refusal {
	rows := make([]refusal, len(fields))
	for i, f := range fields {
		rows[i] = refusal{name: "without " + f, cite: cite, want: code, body: example.without(f)}
	}
	return rows
}

func specific() map[string][]refusal {
	component := obj{"component_appid": DefaultComponentAppID}
	account := component.with(obj{"authorizer_appid": DemoOfficialAccount})
	stranger := component.with(obj{"authorizer_appid": LeavingAccount})
	secret := component.with(obj{"component_secret": DefaultComponentSecret})
	appsecret := component.with(obj{"component_appsecret": DefaultComponentSecret, "component_verify_ticket": "ticket@@@nonsense"})
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
	option := []refusal{
		{"unknown option", "platform.md §5.5", 61012, account.with(obj{"option_name": "x"}), nil},
		{"with the component's token, no authorizer_appid", "platform.md §5.5", 40013, component.with(obj{"option_name": "voice_recognize"}), func(s *scene) { s.token = s.component }},
		{"with the component's token, other component", "platform.md §5.5", 40013, obj{"component_appid": "wx0"}, func(s *scene) { s.token = s.component }},
		{"not authorised", "platform.md §5.6", 61003, stranger, func(s *scene) { s.token = s.component }},
	}
	setOption := append(slices.Clone(option),
		refusal{"value out of range", "platform.md §5.5", 61013, account.with(obj{"option_name": "voice_recognize", "option_value": "2"}), nil},
		refusal{"value a number", "platform.md §5.5, always a string", 61013, account.with(obj{"option_name": "voice_recognize", "option_value": 1}), nil})

	const s48, s49, s47 = "wechat/000 §4.8, 002 §2", "wechat/000 §4.9, 003 §2", "wechat/000 §4.7"
	tables := map[string][]refusal{
		"/cgi-bin/component/api_start_push_ticket": {
			{"no appid", "platform.md §2.2, §9.1", 41018, secret.without("component_appid"), nil},
			{"wrong appid", "platform.md §2.2", 40013, secret.with(obj{"component_appid": "wxffffffffffffffff"}), nil},
			{"no secret", "platform.md §9.1", 41004, component, nil},
			{"secret under the other call's name", "platform.md §2.2", 41004, component.with(obj{"component_appsecret": DefaultComponentSecret}), nil},
			{"wrong secret", "platform.md §2.2, UNVERIFIED", 40125, secret.with(obj{"component_secret": "x"}), nil},
		},
		"/cgi-bin/component/api_component_token": {
			{"no appid", "platform.md §3", 41018, appsecret.without("component_appid"), nil},
			{"wrong appid", "platform.md §3", 40013, appsecret.with(obj{"component_appid": "wxffffffffffffffff"}), nil},
			{"an account's appid", "platform.md §3", 61011, appsecret.with(obj{"component_appid": DemoOfficialAccount}), nil},
			{"no secret", "platform.md §3", 41004, appsecret.without("component_appsecret"), nil},
			{"wrong secret", "platform.md §3", 40125, appsecret.with(obj{"component_appsecret": "x"}), nil},
			{"no ticket", "platform.md §3", 61006, appsecret.without("component_verify_ticket"), nil},
			{"unknown ticket", "platform.md §3", 61006, appsecret, nil},
			{"newest ticket rejected", "platform.md §9.1", 61006, nil, func(s *scene) { s.control("POST", "credentials", `{"reject_ticket":"newest"}`, nil) }},
			{"ticket 12 h old", "platform.md §2.1", 61005, nil, func(s *scene) {
				s.control("POST", "settings", `{"tickets_stopped":true}`, nil)
				s.control("POST", "clock", `{"advance":"12h1m"}`, nil)
			}},
		},
		"/cgi-bin/component/api_query_auth": {
			{"no code", "platform.md §5.1", 61009, component, nil},
			{"unknown code", "platform.md §5.1", 61009, component.with(obj{"authorization_code": "queryauthcode@@@x"}), nil},
		},
		"/cgi-bin/component/api_authorizer_token": {
			{"no appid", "platform.md §5.2", 40013, component, nil},
			{"not authorised", "platform.md §5.2", 61003, stranger, nil},
			{"no refresh token", "platform.md §5.2", 61023, account, nil},
			{"wrong refresh token", "platform.md §5.2", 61023, account.with(obj{"authorizer_refresh_token": "x"}), nil},
		},
		"/cgi-bin/component/api_get_authorizer_info": {
			{"no appid", "platform.md §5.3", 40013, component, nil},
			{"not authorised", "platform.md §5.3", 61003, stranger, nil},
		},
		"/cgi-bin/component/api_get_authorizer_list": {
			{"count over 500", "platform.md §5.4", 40170, component.with(obj{"offset": 0, "count": 501}), nil},
			{"no count", "platform.md §5.4", 40097, component.with(obj{"offset": 0}), nil},
			{"negative offset", "platform.md §5.4", 40097, component.with(obj{"offset": -1, "count": 1}), nil},
		},
		"/cgi-bin/component/get_authorizer_option":     option,
		"/cgi-bin/component/api_get_authorizer_option": option,
		"/cgi-bin/component/set_authorizer_option":     setOption,
		"/cgi-bin/component/api_set_authorizer_option": setOption,
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
		"/cgi-bin/openapi/quota/get": {
			{"no slash", "platform.md §9.2, §10", 76003, obj{"cgi_path": "wxa/add_store"}, nil},
			{"no path", "platform.md §9.2", 76003, obj{}, nil},
			{"unknown path", "platform.md §9.2", 76021, obj{"cgi_path": "/wxa/nothing"}, nil},
		},
	}
	maps.Copy(tables, programRefusals())
	maps.Copy(tables, cardRefusals())
	maps.Copy(tables, legacyRefusals())
	maps.Copy(tables, goodsRefusals())
	maps.Copy(tables, mediaRefusals())
	maps.Copy(tables, messageRefusals())
	return tables
}

// A call is refused with the code that the document names, and a refused call has no effect.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tables := specific()
	for _, ep := range (&Server{}).endpoints() {
		rows := append(common(ep), tables[ep.path]...)
		delete(tables, ep.path)
		// A refused call changes nothing, so those that need no preparation share a simulator.
		shared := sync.OnceValue(func() *scene { return newScene(t, ep) })
		for _, row := range rows {
			t.Run(trimSlash(ep.path)+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				if row.cite == "" {
					t.Error("no citation")
				}
				var s *scene
				if row.prep == nil && row.body != nil {
					s = shared().of(t)
				} else {
					s = newScene(t, ep)
				}
				body := row.body
				if body == nil {
					body = valid(s, ep.path)
				}
				if row.prep != nil {
					row.prep(s)
				}
				before := s.effects()
				got := s.send(ep.path, body)
				if got.ErrCode != row.want {
					t.Errorf("%s = %s, want %d (%s)", ep.path, got.raw, row.want, row.cite)
				}
				if got.ErrMsg == "" || strings.HasPrefix(got.ErrMsg, " ") {
					t.Errorf("errmsg = %q", got.ErrMsg)
				}
				if after := s.effects(); after != before {
					t.Errorf("a refused call had an effect: %d, then %d", before, after)
				}
			})
		}
	}
	if len(tables) > 0 {
		t.Errorf("tables for paths that do not exist: %v", slices.Collect(maps.Keys(tables)))
	}
}

func (s *scene) effects() int {
	var truth struct{ Effects []effect }
	s.control("GET", "truth", "", &truth)
	return len(truth.Effects)
}

func TestUnknownPath(t *testing.T) {
	t.Parallel()
	b := start(t)
	if status, _ := b.do("POST", "/wxa/nothing", "{}"); status != http.StatusNotFound {
		t.Errorf("status = %d, want 404", status)
	}
	var journal struct{ Requests []journalEntry }
	b.control("GET", "journal?path=/wxa/nothing", "", &journal)
	if len(journal.Requests) != 1 || journal.Requests[0].Status != http.StatusNotFound {
		t.Errorf("journal = %+v", journal.Requests)
	}
}
