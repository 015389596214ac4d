package sandbox

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// snapshot is the whole state as JSON, so that nothing is left out of the comparison.
func (s *Server) snapshot(t *testing.T) map[string]string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{"meta": encode(t, s.st.meta)}
	for name, table := range s.st.byName {
		table.each(func(key string, row any) { out[name+" "+key] = encode(t, row) })
	}
	return out
}

// busy does a bit of everything that changes the state.
func busy(t *testing.T, b *bundle) {
	t.Helper()
	token := b.accessToken(DemoOfficialAccount)
	b.post("/wxa/search_map_poi?access_token="+token, obj{"districtid": 440105, "keyword": "茶"}, nil)
	b.post("/wxa/create_map_poi?access_token="+token, createMapPOIExample(), nil)
	b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/stores", `{"stores":[{"poi_id":"472671857"},{"poi_id":"472671858"}]}`, nil)
	b.post("/wxa/update_store?access_token="+token, updateStoreExample().with(obj{"pic_list": `{"list":["http://mmbiz.qpic.cn/new"]}`}), nil)
	b.post("/wxa/del_store?access_token="+token, obj{"poi_id": "472671858"}, nil)
	b.post("/card/storewxa/set?access_token="+token, obj{"poi_id": 472671857, "card_id": "pabcedfg1234567hijklmn"}, nil)
	b.control("POST", "accounts/"+DemoOfficialAccount+"/legacy-stores", `{"stores":[{"poi_id":"271864249"},{"poi_id":"271262077"}]}`, nil)
	b.post("/cgi-bin/poi/addpoi?access_token="+token, business(addPOIExample()), nil)
	b.post("/cgi-bin/poi/updatepoi?access_token="+token, business(updatePOIExample()), nil)
	b.post("/cgi-bin/poi/delpoi?access_token="+token, obj{"poi_id": "271262077"}, nil)
	b.post("/wxa/modify_merchant?access_token="+token, modifyMerchantExample(), nil)
	b.control("POST", "accounts", `{"appid":"`+DemoOfficialAccount+`","store_program":"none"}`, nil)
	b.post("/wxa/apply_merchant?access_token="+token, applyMerchantExample(), nil)
	live := b.accessToken(DemoMiniProgram)
	b.upload(http.MethodPost, "/cgi-bin/media/upload?access_token="+live, temporary("png", 300))
	b.control("POST", "accounts/"+DemoMiniProgram+"/goods", `{"goods":[{"goods_id":9},{"goods_id":10,"audit_status":0}]}`, nil)
	b.post("/wxaapi/broadcast/goods/add?access_token="+live, addGoodsExample(nil), nil)
	b.post("/wxaapi/broadcast/goods/audit?access_token="+live, obj{"goodsId": 10}, nil)
	b.post("/wxaapi/broadcast/goods/resetaudit?access_token="+live, obj{"goodsId": 10, "auditId": b.audits(auditGoods)[2].ID}, nil)
	b.post("/wxaapi/broadcast/goods/update?access_token="+live, updateGoodsExample(obj{"goodsId": 10}), nil)
	b.post("/wxaapi/broadcast/goods/delete?access_token="+live, obj{"goodsId": 9}, nil)
	b.control("POST", "settings", `{"rotate_refresh_tokens":true,"audit_delay":"7s"}`, nil)
	b.control("POST", "accounts", `{"appid":"`+LeavingAccount+`","daily_limits":{"/wxa/add_store":3}}`, nil)
	s := &scene{bundle: b, component: b.componentToken()}
	b.post("/cgi-bin/component/api_authorizer_token?access_token="+s.component, obj{
		"component_appid": DefaultComponentAppID, "authorizer_appid": DemoOfficialAccount, "authorizer_refresh_token": s.refreshToken(),
	}, nil)
	b.post("/cgi-bin/component/api_set_authorizer_option?access_token="+token, obj{"option_name": "voice_recognize", "option_value": "1"}, nil)
	b.control("POST", "clock", `{"advance":"1h"}`, nil)
	b.control("POST", "pushes", `{"hold":true}`, nil)
	b.control("POST", "messages", `{"appid":"`+DemoOfficialAccount+`","xml":"<xml><Event>kept</Event></xml>","name":"kept"}`, nil)
}

func stateFile(path string) func(*Config) { return func(c *Config) { c.StateFile = path } }

func TestStateSurvivesKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	b := connected(t, stateFile(path))
	busy(t, b)
	eventually(t, "only the held push is left", func() bool {
		b.sim.mu.Lock()
		defer b.sim.mu.Unlock()
		return len(b.sim.sending) == 0 && len(b.sim.st.dirty) == 0
	})
	want := b.sim.snapshot(t)
	// What a kill -9 leaves behind: the file as it is now, nothing closed, and a line cut off.
	left, err := os.ReadFile(path) //nolint:gosec // of this test
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	if err := os.WriteFile(path, append(left, `[{"t":"store","k":"cut o`...), 0o600); err != nil { //nolint:gosec // of this test
		t.Fatal(err)
	}

	again := start(t, stateFile(path))
	got := again.sim.snapshot(t)
	want["meta"] = strings.Replace(want["meta"], `"Boots":1`, `"Boots":2`, 1)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, table := range []string{"account", "authorization", "token", "ticket", "code", "map_poi", "store", "legacy_store", "audit", "media", "goods", "push", "usage", "truth_id", "effect"} {
		if !strings.Contains(encode(t, got), `"`+table+` `) {
			t.Errorf("the test left no row in %s", table)
		}
	}
	again.control("POST", "component", `{"push_url":"`+again.pushes.url+`"}`, nil)
	again.control("POST", "pushes", `{"hold":false}`, nil)
	again.pushes.wait("kept", nil)
	if name, err := os.Stat(path + ".tmp"); err == nil {
		t.Errorf("%s was left behind", name.Name())
	}
}

func TestBrokenStateIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"no JSON": "x\n", "unknown table": `[{"t":"nothing","k":"1","v":{}}]` + "\n", "wrong row": `[{"t":"store","k":"1","v":1}]` + "\n"} {
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := New(Config{StateFile: path}); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: New() = %v, %v", name, s, err)
		}
	}
	if _, err := New(Config{StateFile: filepath.Join(t.TempDir(), "no", "such", "directory")}); err == nil {
		t.Error("a directory that does not exist was accepted")
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	b := connected(t, stateFile(path))
	fresh := start(t).sim.snapshot(t)
	busy(t, b)
	b.control("POST", "faults", `{"path":"*","n":9,"errcode":-1}`, nil)
	b.control("POST", "reset", "", nil)
	got := b.sim.snapshot(t)
	for k := range fresh {
		if _, found := got[k]; !found && !strings.HasPrefix(k, "store ") {
			t.Errorf("%s is missing after the reset", k)
		}
	}
	for k := range got {
		if _, found := fresh[k]; !found && !strings.HasPrefix(k, "store ") {
			t.Errorf("%s outlived the reset", k)
		}
	}
	var m meta
	if err := json.Unmarshal([]byte(got["meta"]), &m); err != nil {
		t.Fatal(err)
	}
	if m.ClockOffset != 0 || m.Hold || m.Settings.RotateRefreshTokens || m.Component.PushURL != "" {
		t.Errorf("meta after the reset = %s", got["meta"])
	}
	var j struct{ Requests []journalEntry }
	if b.control("GET", "journal", "", &j); len(j.Requests) != 0 {
		t.Errorf("%d requests outlived the reset", len(j.Requests))
	}
	b.stop()
	again := start(t, stateFile(path)).sim.snapshot(t)
	delete(got, "meta")
	delete(again, "meta")
	if d := cmp.Diff(got, again); d != "" {
		t.Error(d)
	}
}

// The same seed gives the same ids; tokens are random all the same.
func TestSeed(t *testing.T) {
	t.Parallel()
	run := func(seed int64) (string, string) {
		b, token := authorized(t, func(c *Config) { c.Seed = seed })
		return b.post("/wxa/add_store?access_token="+token, addStoreExample(), nil).raw, token
	}
	one, tokenOne := run(7)
	two, tokenTwo := run(7)
	other, _ := run(8)
	if one != two || one == other || tokenOne == tokenTwo {
		t.Errorf("seed 7 gave %s and %s, seed 8 %s", one, two, other)
	}
}

// The simulator is written from the documents: of ours it may import the message encryption alone.
func TestImports(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range bytes.Lines(out) {
		pkg := strings.TrimSpace(string(name))
		if strings.HasPrefix(pkg, "github.com/mendian/mendian/") &&
			pkg != "github.com/mendian/mendian/internal/sandbox" && pkg != "github.com/mendian/mendian/internal/wechat/msgcrypt" {
			t.Errorf("imports %s", pkg)
		}
	}
}

func TestMemoryOnly(t *testing.T) {
	t.Parallel()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := len(s.snapshot(t))
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/_sandbox/reset", nil))
	if rec.Code != 200 || len(s.snapshot(t)) != before {
		t.Errorf("reset = %d %s", rec.Code, rec.Body)
	}
}
