package sandbox

import (
	"fmt"
	"strconv"
	"testing"
)

type legacyEntry struct {
	POIID   string `json:"poi_id"`
	Upgrade int    `json:"upgrade_status"`
	Comment string `json:"upgrade_comment"`
	MapID   string `json:"mapid"`
}

func (k *keeper) list() (out []legacyEntry) {
	k.t.Helper()
	var list struct {
		List []struct {
			Info legacyEntry `json:"base_info"`
		} `json:"business_list"`
	}
	mustJSON(k.t, []byte(k.poi("getpoilist", obj{"begin": 0, "limit": 50}).raw), &list)
	for _, e := range list.List {
		out = append(out, e.Info)
	}
	return out
}

func (k *keeper) show(id string) legacyEntry {
	k.t.Helper()
	for _, e := range k.list() {
		if e.POIID == id {
			return e
		}
	}
	k.t.Fatalf("no legacy store %s", id)
	return legacyEntry{}
}

func startMigration(t *testing.T) *keeper {
	t.Helper()
	b := connected(t)
	return &keeper{b, b.accessToken(MigratingAccount)}
}

func (k *keeper) migrate(e legacyEntry, more obj) reply {
	k.t.Helper()
	body := addStoreExample().with(obj{"poi_id": e.POIID, "map_poi_id": e.MapID, "credential": "c" + e.POIID}).with(more)
	return k.post("/wxa/add_store?access_token="+k.token, body, nil)
}

// wechat/000 §4.13 from beginning to end, on the account that is there for it.
func TestMigration(t *testing.T) {
	t.Parallel()
	k := startMigration(t)
	states := map[int]int{}
	homeless := ""
	for _, e := range k.list() {
		states[e.Upgrade]++
		if (e.Upgrade == upgradeFailed) != (e.Comment != "") {
			t.Errorf("upgrade_comment of %+v", e)
		}
		if e.Upgrade == upgradePending && e.MapID == "" {
			homeless = e.POIID
		}
	}
	if want := (map[int]int{0: 7, 1: 2, 2: 1, 3: 1, 4: 1}); fmt.Sprint(states) != fmt.Sprint(want) || homeless == "" {
		t.Fatalf("upgrade_status = %v, want %v; without a place: %q", states, want, homeless)
	}
	if got := k.post("/wxa/add_store?access_token="+k.token, addStoreExample(), nil); got.ErrCode != 85054 {
		t.Errorf("a new store before the upgrade = %s", got.raw)
	}

	// A place is made for the store that has none; it is in the list once it is approved.
	place := k.post("/wxa/create_map_poi?access_token="+k.token, createMapPOIExample().with(obj{"poi_id": homeless}), nil)
	k.control("POST", "audits/"+auditKey(auditMapPOI, place.Data.BaseID), `{"decision":"approve"}`, nil)
	if p := k.pushes.wait("create_map_poi_audit_info", nil); k.show(homeless).MapID != p.Get("map_poi_id") {
		t.Errorf("mapid = %q after %s", k.show(homeless).MapID, p.plain)
	}

	moved := 0
	for _, e := range k.list() {
		switch e.Upgrade {
		case upgradePending, upgradeFailed:
			if got := k.migrate(e, nil); got.ErrCode != 0 {
				t.Errorf("add_store for %+v = %s", e, got.raw)
			}
			if now := k.show(e.POIID); now.Upgrade != upgradeRunning || now.Comment != "" {
				t.Errorf("under way: %+v", now)
			}
			moved++
		case upgradeNotAllowed:
			if got := k.poi("delpoi", obj{"poi_id": e.POIID}); got.ErrCode != 0 {
				t.Errorf("delpoi = %s", got.raw)
			}
		case upgradeRunning:
			for _, a := range k.audits(auditStoreCreate) {
				if a.Subject == e.POIID {
					k.control("POST", "audits/"+auditKey(a.Kind, a.ID), `{"decision":"approve"}`, nil)
				}
			}
		}
	}
	k.control("POST", "clock", `{"advance":"5s"}`, nil)
	list := k.list()
	if moved != 9 || len(list) != 11 {
		t.Errorf("moved %d, %d are left", moved, len(list))
	}
	for _, e := range list {
		if e.Upgrade != upgradeDone {
			t.Errorf("at the end %+v", e)
		}
		if got := k.post("/wxa/get_store_info?access_token="+k.token, obj{"poi_id": e.POIID}, nil); got.ErrCode != 0 {
			t.Errorf("get_store_info(%s) = %s", e.POIID, got.raw)
		}
	}
	if got := k.post("/wxa/add_store?access_token="+k.token, addStoreExample(), nil); got.ErrCode != 0 {
		t.Errorf("a new store after the upgrade = %s", got.raw)
	}
}

// A migration that fails says why, and can be tried again; the store keeps its poi_id throughout.
func TestMigrationFails(t *testing.T) {
	t.Parallel()
	k := startMigration(t)
	e := k.list()[0]
	got := k.migrate(e, obj{"contract_phone": "02087650009"})
	k.control("POST", "audits/"+auditKey(auditStoreCreate, got.Data.AuditID), `{"decision":"reject","reason":"too dark"}`, nil)
	audited := func(id int64) func(received) bool {
		return func(p received) bool { return p.Get("audit_id") == strconv.FormatInt(id, 10) }
	}
	if p := k.pushes.wait("add_store_audit_info", audited(got.Data.AuditID)); p.Get("status") != "3" || p.Get("is_upgrade") != "1" || p.Get("poiid") != "0" {
		t.Errorf("push = %s", p.plain)
	}
	if now := k.show(e.POIID); now.Upgrade != upgradeFailed || now.Comment != "too dark" {
		t.Errorf("failed: %+v", now)
	}
	again := k.migrate(e, nil)
	k.control("POST", "clock", `{"advance":"5s"}`, nil)
	if p := k.pushes.wait("add_store_audit_info", audited(again.Data.AuditID)); p.Get("status") != "1" || p.Get("is_upgrade") != "1" || p.Get("poiid") != e.POIID {
		t.Errorf("push = %s", p.plain)
	}
	if now := k.show(e.POIID); now.Upgrade != upgradeDone {
		t.Errorf("done: %+v", now)
	}
	var list struct {
		List []baseInfo `json:"business_list"`
	}
	k.post("/wxa/get_store_list?access_token="+k.token, obj{"offset": 0, "limit": 50}, &list)
	n := 0
	for _, st := range list.List {
		if st.Info.POIID == e.POIID {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the store is in the list %d times", n)
	}
}

func TestSeedLegacyRefusals(t *testing.T) {
	t.Parallel()
	b := start(t)
	for body, want := range map[string]int{
		`{"stores":[{"poi_id":"1"}]}`:            200,
		`{"stores":[{"poi_id":"2"}],"more":1}`:   400,
		`{"stores":[{"available_state":5}]}`:     400,
		`{"stores":[{"upgrade_status":-1}]}`:     400,
		`{"stores":[{"upgrade_status":"done"}]}`: 400,
	} {
		if status, raw := b.do("POST", "/_sandbox/accounts/"+DemoOfficialAccount+"/legacy-stores", body); status != want {
			t.Errorf("%s = %d %s, want %d", body, status, raw, want)
		}
	}
	if status, raw := b.do("POST", "/_sandbox/accounts/"+DemoOfficialAccount+"/legacy-stores", `{"stores":[{"poi_id":"1"}]}`); status != 409 {
		t.Errorf("the same poi_id again = %d %s", status, raw)
	}
	if status, raw := b.do("POST", "/_sandbox/accounts/wx00000000000000ee/legacy-stores", `{}`); status != 404 {
		t.Errorf("an unknown account = %d %s", status, raw)
	}
}
