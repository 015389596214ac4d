package faults

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
	"github.com/mendian/mendian/test/world"
)

// A pushed is one push as the simulator lists it.
type pushed struct {
	ID        int64
	Name      string
	XML       string
	Status    string
	Attempts  int
	LastError string `json:"last_error"`
}

func (m pushed) id() string { return strconv.FormatInt(m.ID, 10) }

func (m pushed) delivered() error {
	if m.Status != "delivered" {
		return fmt.Errorf("%s after %d attempts: %s", m.Status, m.Attempts, m.LastError)
	}
	return nil
}

func (p *place) pushes(name string) (out []pushed) {
	p.t.Helper()
	var list struct{ Pushes []pushed }
	p.Control("GET", "pushes", nil, &list)
	for _, m := range list.Pushes {
		if m.Name == name {
			out = append(out, m)
		}
	}
	return out
}

// decided lets WeChat decide the audit of a store, and release what it pushes.
func (p *place) decide(audit, decision string) {
	p.t.Helper()
	p.Decide("store_create", audit, decision, "")
	for _, m := range p.pushes("add_store_audit_info") {
		p.Control("POST", "pushes/"+m.id()+"/release", nil, nil)
	}
}

// standing waits until the store's audit has this status.
func (p *place) standing(store, status string) *world.Answer {
	p.t.Helper()
	var a *world.Answer
	p.Eventually("the audit is "+status, func() error {
		if a = p.c.Do("GET", "/v1/stores/"+store, nil).Want(200); a.Get("audit", "status") != status {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	return a
}

// inboxIs waits until every push of an audit is in this state.
func (p *place) inboxIs(audit string, states ...string) {
	p.t.Helper()
	p.Eventually("the pushes of audit "+audit+" are dealt with", func() error {
		rows := query(p.World, `SELECT e.state FROM event_inbox e WHERE e.event = 'add_store_audit_info' ORDER BY e.id`)
		if diff := cmp.Diff(states, rows); diff != "" {
			return fmt.Errorf("%s", diff)
		}
		return nil
	})
}

// effectsOf counts everything that an approval leaves behind.
func (p *place) effectsOf(audit string) map[string]string {
	out := map[string]string{}
	for name, sql := range map[string]string{
		"approved in the history": `SELECT count(*) FROM audit_history h JOIN audits a ON a.id = h.audit_id WHERE h.status = 'approved' AND a.wechat_audit_id = $1`,
		"rows of the audit":       `SELECT count(*) FROM audits WHERE wechat_audit_id = $1`,
		"store.activated":         `SELECT count(*) FROM outbox WHERE type = 'store.activated' AND $1 <> ''`,
		"store.audit.decided":     `SELECT count(*) FROM outbox WHERE type = 'store.audit.decided' AND payload->'object'->>'wechat_audit_id' = $1`,
		"poi_id in the ledger":    `SELECT count(*) FROM wechat_id_ledger WHERE id_type = 'poi_id' AND source = 'event' AND $1 <> ''`,
	} {
		out[name] = strings.Join(query(p.World, sql, audit), ",")
	}
	return out
}

// A push that comes seven times is kept once and has one effect. Another word
// that comes after the final one changes nothing.
func TestPushHasOneEffect(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	store := p.c.Do("POST", "/v1/stores", p.newStore()).Want(202)
	audit := store.Get("audit", "wechat_audit_id")
	p.Control("POST", "settings", map[string]any{"push_copies": 4}, nil)
	p.decide(audit, "approve")
	active := p.standing(store.Get("id"), "approved")
	p.Control("POST", "settings", map[string]any{"push_copies": 1}, nil)
	first := p.pushes("add_store_audit_info")[0]
	p.Control("POST", "pushes/"+first.id()+"/copies", map[string]int{"n": 3}, nil)
	for _, m := range p.pushes("add_store_audit_info") {
		p.Control("POST", "pushes/"+m.id()+"/release", nil, nil)
	}
	p.Eventually("seven pushes are delivered", func() error {
		list := p.pushes("add_store_audit_info")
		for _, m := range list {
			if m.Status != "delivered" || m.XML != first.XML {
				return fmt.Errorf("%+v", m)
			}
		}
		if len(list) != 7 {
			return fmt.Errorf("%d pushes", len(list))
		}
		return nil
	})
	p.inboxIs(audit, "applied")
	once := map[string]string{"approved in the history": "1", "rows of the audit": "1", "store.activated": "1", "store.audit.decided": "1", "poi_id in the ledger": "1"}
	if diff := cmp.Diff(once, p.effectsOf(audit)); diff != "" {
		t.Errorf("effects: %s", diff)
	}
	if n := query(p.World, `SELECT string_agg(attempts::text, ' ') FROM event_inbox WHERE event = 'add_store_audit_info'`); n[0] != "1" {
		t.Errorf("tried %s times, want one push that was once", n[0])
	}

	// The opposite, late.
	var id int64
	if _, err := fmt.Sscan(audit, &id); err != nil {
		t.Fatal(err)
	}
	p.push(storeEvent("add_store_audit_info", id, 3, "0"))
	p.inboxIs(audit, "applied", "applied")
	if diff := cmp.Diff(once, p.effectsOf(audit)); diff != "" {
		t.Errorf("effects after the opposite: %s", diff)
	}
	if now := p.standing(store.Get("id"), "approved"); now.Get("status") != "active" || now.Get("poi_id") != active.Get("poi_id") {
		t.Errorf("after the opposite: %s", now.Body)
	}
}

// WeChat decides many stores in the same second, all in the name of the same
// system account, and pushes them in any order: none is taken for another's.
func TestManyDecisionsInOneSecond(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	reasons := map[string]string{} // by store; none: approved
	for i := range 12 {
		s := p.c.Do("POST", "/v1/stores", p.newStore()).Want(202)
		decision, reason := "approve", ""
		if i%3 == 0 {
			decision, reason = "reject", fmt.Sprintf("too dark %d", i)
		}
		reasons[s.Get("id")] = reason
		p.Decide("store_create", s.Get("audit", "wechat_audit_id"), decision, reason)
	}
	list := p.pushes("add_store_audit_info")
	for i := len(list) - 1; i >= 0; i-- {
		p.Control("POST", "pushes/"+list[i].id()+"/release", nil, nil)
	}
	for id, reason := range reasons {
		if reason != "" {
			if s := p.standing(id, "rejected"); s.Get("audit", "reason") != reason || s.Get("status") != "rejected" {
				t.Errorf("want %q: %s", reason, s.Body)
			}
		} else if s := p.standing(id, "approved"); s.Get("poi_id") == "null" || s.Get("status") != "active" {
			t.Errorf("approved: %s", s.Body)
		}
	}
}

// WeChat decides and pushes before it answers the creation: the event waits for
// its audit, then counts.
func TestEventBeforeTheReply(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	body := p.newStore()
	p.Fault("wxa/add_store", 1, map[string]any{"delay_ms": 2500, "before": false})
	answered := make(chan *world.Answer, 1)
	go func() {
		a, err := p.c.Try("POST", "/v1/stores", body)
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	var audit string
	p.Eventually("WeChat has the store", func() error {
		if ids := issued(p.World, "audit_id", body["map_poi_id"].(string)); len(ids) == 1 {
			audit = ids[0]
			return nil
		}
		return fmt.Errorf("not yet")
	})
	p.decide(audit, "approve")
	p.inboxIs(audit, "unmatched")
	select {
	case a := <-answered:
		t.Fatalf("answered before the event was looked at: %+v", a)
	default:
	}
	a := <-answered
	if a == nil {
		return
	}
	if a.Want(202).Get("audit", "wechat_audit_id") != audit {
		t.Errorf("%s", a.Body)
	}
	// Well before the next look of its own: T2 wakes it.
	begun := time.Now()
	if s := p.standing(a.Get("id"), "approved"); s.Get("status") != "active" || s.Get("poi_id") == "null" {
		t.Errorf("%s", s.Body)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the event was taken up after %s", took)
	}
	p.inboxIs(audit, "applied")
}

// Pushes that are none of WeChat's to this tenant get 403 with nothing in it,
// and leave no row. The last one shows that the others were well made.
func TestForgedPushes(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	key, err := msgcrypt.ParseKey(sandbox.DefaultEncodingAESKey)
	if err != nil {
		t.Fatal(err)
	}
	xml := []byte(storeEvent("add_store_audit_info", 999000111, 1, "472671857"))
	nonce := [16]byte([]byte("0123456789abcdef"))
	good := key.Encrypt(nonce, xml, sandbox.DefaultComponentAppID)
	spoiled := func(change func([]byte) []byte) string {
		raw, err := base64.StdEncoding.DecodeString(good)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(change(raw))
	}
	envelope := func(encrypt string) string {
		return "<xml><ToUserName><![CDATA[" + demoUserName + "]]></ToUserName><Encrypt><![CDATA[" + encrypt + "]]></Encrypt></xml>"
	}
	sign := func(token, encrypt string) url.Values {
		stamp := fmt.Sprint(time.Now().Unix())
		return url.Values{"timestamp": {stamp}, "nonce": {"123456789"}, "encrypt_type": {"aes"},
			"signature":     {msgcrypt.Signature(token, stamp, "123456789", "")},
			"msg_signature": {msgcrypt.Signature(token, stamp, "123456789", encrypt)}}
	}
	honest := func(encrypt string) url.Values { return sign(sandbox.DefaultMessageToken, encrypt) }
	otherKey, err := msgcrypt.ParseKey("othersSandboxothersSandboxothersSandboxothe")
	if err != nil {
		t.Fatal(err)
	}
	path := "/wechat/" + p.Tenant.Ref + "/messages/" + sandbox.DemoOfficialAccount
	plain := honest(good)
	plain.Del("encrypt_type")
	unsigned := honest(good)
	unsigned.Del("msg_signature")
	foreign := key.Encrypt(nonce, xml, "wxffffffffffffffff")
	unreadable := key.Encrypt(nonce, []byte("no XML at all"), sandbox.DefaultComponentAppID)
	entity := key.Encrypt(nonce, []byte(`<!DOCTYPE xml [<!ENTITY a "b">]><xml><CreateTime>1</CreateTime><a>&a;</a></xml>`), sandbox.DefaultComponentAppID)
	padding := spoiled(func(b []byte) []byte { b[len(b)-17] ^= 0xff; return b })
	short := spoiled(func(b []byte) []byte { return b[:len(b)-16] })
	ragged := spoiled(func(b []byte) []byte { return b[:len(b)-5] })
	sealed := otherKey.Encrypt(nonce, xml, sandbox.DefaultComponentAppID)
	for name, forged := range map[string]struct {
		path, body string
		query      url.Values
	}{
		"signed with another token": {path, envelope(good), sign("anothertoken", good)},
		"signature of another text": {path, envelope(good), honest(good + "A")},
		"no signature":              {path, envelope(good), unsigned},
		"appid of another platform": {path, envelope(foreign), honest(foreign)},
		"padding":                   {path, envelope(padding), honest(padding)},
		"cut by a block":            {path, envelope(short), honest(short)},
		"no whole block":            {path, envelope(ragged), honest(ragged)},
		"no base64":                 {path, envelope("###"), honest("###")},
		"another key":               {path, envelope(sealed), honest(sealed)},
		"not encrypted":             {path, string(xml), plain},
		"no XML inside":             {path, envelope(unreadable), honest(unreadable)},
		"a document type inside":    {path, envelope(entity), honest(entity)},
		"no XML":                    {path, "{}", honest(good)},
		"nothing":                   {path, "", honest(good)},
		"too large":                 {path, envelope(good) + strings.Repeat(" ", 300<<10), honest(good)},
		"another tenant":            {"/wechat/nobody/messages/" + sandbox.DemoOfficialAccount, envelope(good), honest(good)},
	} {
		if status, body := p.post(forged.path, forged.query, forged.body); status != http.StatusForbidden || body != "" {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
	if rows := query(p.World, `SELECT event FROM event_inbox WHERE event = 'add_store_audit_info' OR event LIKE 'message%'`); len(rows) != 0 {
		t.Errorf("forged pushes left %v", rows)
	}
	if status, body := p.post(path, honest(good), envelope(good)); status != http.StatusOK || body != "success" {
		t.Errorf("a true push: %d %q", status, body)
	}
	if rows := query(p.World, `SELECT event FROM event_inbox WHERE event = 'add_store_audit_info'`); len(rows) != 1 {
		t.Errorf("a true push left %d rows", len(rows))
	}
}

func (p *place) post(path string, q url.Values, body string) (int, string) {
	p.t.Helper()
	resp, err := http.Post(p.PublicURL+path+"?"+q.Encode(), "text/xml", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Every connection to the database is cut while pushes come: WeChat is told
// that they weren't kept, pushes again, and then they count.
func TestPushWhileTheDatabaseIsCutOff(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	store := p.c.Do("POST", "/v1/stores", p.newStore()).Want(202)
	stop := p.cutAll("event_inbox")
	p.decide(store.Get("audit", "wechat_audit_id"), "approve")
	p.Eventually("a push is refused", func() error {
		m := p.pushes("add_store_audit_info")[0]
		if m.Attempts == 0 || m.LastError == "" {
			return fmt.Errorf("%+v", m)
		}
		if !strings.Contains(m.LastError, "HTTP 500") {
			t.Errorf("a push that couldn't be kept: %s", m.LastError)
		}
		return nil
	})
	stop()
	p.Eventually("the gateway is back", func() error {
		if a := p.c.Do("GET", "/v1/stores", nil); a.Status != 200 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	p.standing(store.Get("id"), "approved")
	p.Eventually("the push is made again", func() error { // which isn't waited for: the spool had kept the first one
		if m := p.pushes("add_store_audit_info")[0]; m.Attempts < 2 {
			return fmt.Errorf("%+v", m)
		}
		return p.pushes("add_store_audit_info")[0].delivered()
	})
	p.c.Do("POST", "/v1/stores", p.newStore()).Want(202)
}

// A database that goes away just when a process has become ready ends nothing:
// the applying of pushes begins when the database is back.
func TestDatabaseLostWhileStarting(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	store := p.c.Do("POST", "/v1/stores", p.newStore()).Want(202)
	p.g.Stop()
	p.g = p.Launch(p.environ("before_workers:stop"))
	p.c = p.c.At(p.g)
	p.g.WaitStopped()
	stop := p.cutAll("event_inbox")
	p.g.Signal(syscall.SIGCONT)
	p.Eventually("the workers can't begin", func() error {
		for _, m := range p.g.Logged("background work") {
			if m["work"] == "apply pushes" {
				return nil
			}
		}
		return errors.New("no word of it")
	})
	stop()
	p.decide(store.Get("audit", "wechat_audit_id"), "approve")
	p.standing(store.Get("id"), "approved")
}
