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
	option := []refusal{
		{"unknown option", "platform.md §5.5", 61012, account.with(obj{"option_name": "x"}), nil},
		{"with the component's token, no authorizer_appid", "platform.md §5.5", 40013, component.with(obj{"option_name": "voice_recognize"}), func(s *scene) { s.token = s.component }},
		{"with the component's token, other component", "platform.md §5.5", 40013, obj{"component_appid": "wx0"}, func(s *scene) { s.token = s.component }},
		{"not authorised", "platform.md §5.6", 61003, stranger, func(s *scene) { s.token = s.component }},
	}
	setOption := append(slices.Clone(option),
		refusal{"value out of range", "platform.md §5.5", 61013, account.with(obj{"option_name": "voice_recognize", "option_value": "2"}), nil},
		refusal{"value a number", "platform.md §5.5, always a string", 61013, account.with(obj{"option_name": "voice_recognize", "option_value": 1}), nil})
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
		"/cgi-bin/openapi/quota/get": {
			{"no slash", "platform.md §9.2, §10", 76003, obj{"cgi_path": "wxa/add_store"}, nil},
			{"no path", "platform.md §9.2", 76003, obj{}, nil},
			{"unknown path", "platform.md §9.2", 76021, obj{"cgi_path": "/wxa/nothing"}, nil},
		},
	}
	maps.Copy(tables, storeRefusals())
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
