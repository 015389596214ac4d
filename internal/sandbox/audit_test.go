package sandbox

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The events are the samples of wechat/000, element by element; `poiid` is the one without CDATA.
func TestEventShapes(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	user := b.pushesTo()
	add := b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil)
	place := b.post("/wxa/create_map_poi?access_token="+token, createMapPOIExample(), nil)
	b.control("POST", "clock", `{"advance":"72h"}`, nil)
	stored := b.pushes.wait("add_store_audit_info", nil)
	placed := b.pushes.wait("create_map_poi_audit_info", nil)
	token = b.accessTokenAgain()
	update := b.post("/wxa/update_store?access_token="+token, updateStoreExample().with(obj{
		"poi_id": stored.Get("poiid"), "pic_list": `{"list":["http://mmbiz.qpic.cn/new"]}`,
	}), nil)
	if update.Data.HasAuditID != 1 {
		t.Fatalf("update_store = %s", update.raw)
	}
	b.control("POST", "audits/"+auditKey(auditStoreUpdate, update.Data.AuditID), `{"decision":"reject","reason":"too dark"}`, nil)
	modified := b.pushes.wait("modify_store_audit_info", nil)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"in_review"}`, nil)
	pending := b.audits(auditStoreProgram)[0].ID
	b.control("POST", "audits/"+auditKey(auditStoreProgram, pending), `{"decision":"admin_reject","reason":"no"}`, nil)
	program := b.pushes.wait("apply_merchant_audit_info", nil)

	head := func(p received, event string) string {
		return "<xml> \n  <ToUserName><![CDATA[" + user + "]]></ToUserName> \n  <FromUserName><![CDATA[od1P50M-fNQI5Gcq-trm4a7apsU8]]></FromUserName> \n  <CreateTime>" +
			p.Get("CreateTime") + "</CreateTime> \n  <MsgType><![CDATA[event]]></MsgType> \n  <Event><![CDATA[" + event + "]]></Event> \n  "
	}
	n := func(id int64) string { return strconv.FormatInt(id, 10) }
	for _, tt := range []struct {
		got  received
		want string
	}{
		{stored, head(stored, "add_store_audit_info") + "<audit_id>" + n(add.Data.AuditID) + "</audit_id> \n  <status>1</status> \n  <reason><![CDATA[]]></reason> \n  <is_upgrade>0</is_upgrade> \n  <poiid>" +
			stored.Get("poiid") + "</poiid> \n</xml>"},
		{placed, head(placed, "create_map_poi_audit_info") + "<audit_id>" + n(place.Data.BaseID) + "</audit_id> \n  <status>0</status> \n  <map_poi_id><![CDATA[" +
			placed.Get("map_poi_id") + "]]></map_poi_id> \n  <name><![CDATA[hardenzhang]]></name> \n  <address><![CDATA[TIT]]></address> \n  <latitude><![CDATA[23.0974903107]]></latitude> \n  <longitude><![CDATA[113.323753357]]></longitude> \n  <sh_remark><![CDATA[]]></sh_remark> \n</xml>"},
		{modified, head(modified, "modify_store_audit_info") + "<audit_id>" + n(update.Data.AuditID) + "</audit_id> \n  <status>3</status> \n  <reason><![CDATA[too dark]]></reason> \n</xml>"},
		{program, head(program, "apply_merchant_audit_info") + "<audit_id>" + n(pending) + "</audit_id> \n  <status>4</status> \n  <reason><![CDATA[no]]></reason> \n</xml>"},
	} {
		if d := cmp.Diff(tt.want, tt.got.plain); d != "" {
			t.Error(d)
		}
		if tt.got.envelope.ToUserName != user {
			t.Errorf("envelope to %q, want %q", tt.got.envelope.ToUserName, user)
		}
	}
	if got := b.get("/wxa/get_merchant_audit_info?access_token="+token, nil).raw; !strings.Contains(got, `"status":4,"reason":"no"`) {
		t.Errorf("get_merchant_audit_info = %s", got)
	}

	// The new place can carry a store.
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"approved"}`, nil)
	got := b.post("/wxa/add_store?access_token="+token, addStoreExample().with(obj{"map_poi_id": placed.Get("map_poi_id"), "credential": "other"}), nil)
	if got.ErrCode != 0 {
		t.Errorf("add_store at the new place = %s", got.raw)
	}
}

func (b *bundle) pushesTo() string {
	b.sim.mu.Lock()
	defer b.sim.mu.Unlock()
	return b.sim.st.accounts.get(DemoOfficialAccount).UserName
}

// accessTokenAgain refreshes the demo account's token, also when every other token is long expired.
func (b *bundle) accessTokenAgain() string { return b.accessTokenOf(DemoOfficialAccount) }

// accessTokenOf refreshes an authorised account's token.
func (b *bundle) accessTokenOf(appid string) string {
	b.t.Helper()
	var comp string
	eventually(b.t, "a ticket for the time gone by", func() bool {
		comp = b.askComponentToken()
		return comp != ""
	})
	var out struct {
		Token string `json:"authorizer_access_token"`
	}
	b.post("/cgi-bin/component/api_authorizer_token?access_token="+comp, obj{
		"component_appid": DefaultComponentAppID, "authorizer_appid": appid, "authorizer_refresh_token": mustAuth(b, appid).RefreshToken,
	}, &out)
	return out.Token
}

func TestMagicPhones(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		phone, status string // of the push; empty: none comes
	}{
		"approved": {"02087654321", "1"},
		"rejected": {"02087650003", "3"},
		"stays":    {"02087650009", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, token := authorized(t)
			got := b.post("/wxa/add_store?access_token="+token, addStoreExample().with(obj{"contract_phone": tt.phone}), nil)
			b.control("POST", "clock", `{"advance":"1000h"}`, nil)
			if tt.status == "" {
				if a := b.audit(auditStoreCreate, got.Data.AuditID); a.Status != auditPending || a.Due != nil {
					t.Errorf("audit = %+v", a)
				}
				return
			}
			p := b.pushes.wait("add_store_audit_info", nil)
			if p.Get("status") != tt.status || (tt.status == "3") != (p.Get("reason") != "") {
				t.Errorf("push = %s", p.plain)
			}
		})
	}
}

func (b *bundle) audit(kind auditKind, id int64) audit {
	b.t.Helper()
	var list struct{ Audits []audit }
	b.control("GET", "audits", "", &list)
	for _, a := range list.Audits {
		if a.Kind == kind && a.ID == id {
			return a
		}
	}
	b.t.Fatalf("no audit %s/%d", kind, id)
	return audit{}
}

// A map place takes three virtual days; until then its id is unknown to add_store.
func TestMapPOIAuditTakesThreeDays(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	got := b.post("/wxa/create_map_poi?access_token="+token, createMapPOIExample(), nil)
	id := strconv.FormatInt(got.Data.BaseID, 10)
	if !strings.HasPrefix(got.raw, `{"error":null,"data":{"base_id":`+id+`,"rich_id":`) {
		t.Errorf("create_map_poi = %s", got.raw)
	}
	b.control("POST", "clock", `{"advance":"71h59m"}`, nil)
	if a := b.audit(auditMapPOI, got.Data.BaseID); a.Status != auditPending {
		t.Errorf("after 71:59 = %+v", a)
	}
	b.control("POST", "clock", `{"advance":"1m"}`, nil)
	if p := b.pushes.wait("create_map_poi_audit_info", nil); p.Get("audit_id") != id || p.Get("status") != "0" || len(p.Get("map_poi_id")) != 19 {
		t.Errorf("push = %s", p.plain)
	}
}

func TestMapPOIReplyShapes(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	path := "/wxa/create_map_poi?access_token=" + token
	if got := b.post(path, createMapPOIExample().with(obj{"name": "refused-by-map"}), nil); got.raw != `{"error":"the name is not allowed","data":null}` {
		t.Errorf("refused = %s", got.raw)
	}
	b.control("POST", "settings", `{"map_poi_errcode_shape":true}`, nil)
	got := b.post(path, createMapPOIExample().with(obj{"longitude": 113.3, "latitude": 23, "districtid": 440105, "poi_id": ""}), nil)
	if !strings.HasPrefix(got.raw, `{"errcode":0,"errmsg":"ok","data":{"base_id":`) {
		t.Errorf("newer shape = %s", got.raw)
	}
	b.control("POST", "audits/"+auditKey(auditMapPOI, got.Data.BaseID), `{"decision":"reject","reason":"not found"}`, nil)
	if p := b.pushes.wait("create_map_poi_audit_info", nil); p.Get("status") != "1" || p.Get("map_poi_id") != "" || p.Get("sh_remark") != "not found" {
		t.Errorf("push = %s", p.plain)
	}
}

func TestDecisionRefusals(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	got := b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil)
	key := auditKey(auditStoreCreate, got.Data.AuditID)
	for _, tt := range []struct {
		path, body string
		want       int
	}{
		{"audits/store_create/1", `{"decision":"approve"}`, 404},
		{"audits/" + key, `{"decision":"maybe"}`, 400},
		{"audits/" + key, `{"decision":"admin_reject"}`, 400},
		{"audits/" + key, `{"decision":"approve","reasn":""}`, 400},
		{"audits/" + key, `{"decision":"approve"}`, 200},
		{"audits/" + key, `{"decision":"reject"}`, 409},
	} {
		if status, raw := b.do("POST", "/_sandbox/"+tt.path, tt.body); status != tt.want {
			t.Errorf("%s %s = %d %s, want %d", tt.path, tt.body, status, raw, tt.want)
		}
	}
}

// WeChat tells nothing about an account that has left.
func TestNoEventAfterDeauthorization(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/unauthorize", "", nil)
	b.control("POST", "clock", `{"advance":"5s"}`, nil)
	b.pushes.wait("unauthorized", nil)
	var list struct{ Pushes []push }
	b.control("GET", "pushes", "", &list)
	for _, p := range list.Pushes {
		if p.Name == "add_store_audit_info" {
			t.Errorf("pushed %s", p.XML)
		}
	}
}
