package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// A write is one request that reaches WeChat, and how its effect is known.
type write struct {
	method, path string
	body         any
	call         string // path at WeChat
	effect, key  string // in the truth log
	audit        string // kind; "" where nothing is audited
}

func (p *place) creation() write {
	s := p.newStore()
	return write{"POST", "/v1/stores", s, "wxa/add_store", "add_store", s["map_poi_id"].(string), "store_create"}
}

// spare takes one of the stores that were there before.
func (p *place) spare() (id, poi string) {
	p.t.Helper()
	var list struct {
		Data []struct {
			ID     string
			PoiID  string `json:"poi_id"`
			Status string
			Audit  *struct{ Status string }
		}
	}
	p.c.Do("GET", "/v1/stores?limit=100&status=active", nil).Want(200).Into(&list)
	for _, s := range list.Data {
		if s.Audit == nil && s.PoiID != "" && !p.taken[s.ID] {
			p.taken[s.ID] = true
			return s.ID, s.PoiID
		}
	}
	p.t.Fatal("no store is left")
	return "", ""
}

// change gives a store new pictures, which WeChat audits.
func (p *place) change() write {
	id, poi := p.spare()
	body := map[string]any{"photos": []string{"http://mmbiz.qpic.cn/mmbiz_png/" + poi + "/0?wx_fmt=png"}, "contact_phone": "020-12345678"}
	return write{"PATCH", "/v1/stores/" + id, body, "wxa/update_store", "update_store", poi, "store_update"}
}

func (p *place) deletion() write {
	id, poi := p.spare()
	return write{"DELETE", "/v1/stores/" + id, nil, "wxa/del_store", "del_store", poi, ""}
}

// card lets a store offer a card, which has no audit.
func (p *place) card(id string) write {
	store, _ := p.spare()
	return write{"PUT", "/v1/stores/" + store + "/card", map[string]string{"card_id": id}, "card/storewxa/set", "set_card", id, ""}
}

// calls counts the write's requests that reached the simulator.
func (p *place) calls(w write) (n int) {
	member := map[string]string{"add_store": "map_poi_id", "set_card": "card_id"}[w.effect]
	if member == "" {
		member = "poi_id"
	}
	for _, r := range p.Journal(w.call) {
		var body map[string]any
		if json.Unmarshal([]byte(r.Body), &body) == nil && body[member] == w.key {
			n++
		}
	}
	return n
}

// A death is a moment at which the process is killed, and what remains.
type death struct {
	failpoint string // of the process that makes the write
	second    string // of the next one, which dies too
	noSpool   bool   // the spool is lost with it
	unsent    bool   // WeChat never saw the request
	forgotten bool   // nothing of ours holds WeChat's answer
}

func (d death) name() string {
	n := d.failpoint
	if d.second != "" {
		n += " then " + d.second
	}
	if d.noSpool {
		n += ", spool lost"
	}
	return n
}

var deaths = []death{
	{failpoint: "after_t1:kill", unsent: true},
	{failpoint: "after_upstream:kill", forgotten: true},
	{failpoint: "after_spool:kill"},
	{failpoint: "before_t2:kill"},
	{failpoint: "after_t2:kill"},
	{failpoint: "after_spool:kill", second: "spool_replayed:kill"},
	{failpoint: "after_spool:kill", noSpool: true, forgotten: true},
	{failpoint: "after_upstream:kill", second: "reconcile_taken:kill", forgotten: true},
}

// onTheWay are the moments between those, which one kind of write is enough for.
var onTheWay = []death{
	{failpoint: "request_written:kill", forgotten: true},
	{failpoint: "reply_begun:kill", forgotten: true},
	{failpoint: "spool_written:kill"}, // the system has it, and syncs it later
	{failpoint: "before_reply:kill"},
	{failpoint: "spool_done:kill"},
	{failpoint: "spool_rotated:kill"}, // to note that the database has it
}

// A gateway is killed at each step of a write, between WeChat's answer and our
// commit above all, while WeChat keeps every push and audit back. The next one
// on its spool directory knows the audit's id before any push; where the
// answer was lost altogether, reading proves what happened. WeChat executed
// the write once.
func TestKilledInAWrite(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		next   func(*place) write
		deaths []death
	}{
		"create": {(*place).creation, deaths}, "update": {(*place).change, deaths}, "delete": {(*place).deletion, deaths},
		"create, on the way": {(*place).creation, onTheWay},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.Hold(true)
			for i, d := range tc.deaths {
				t.Logf("killed %s", d.name())
				w := tc.next(p)
				p.die(w, d, fmt.Sprintf("key-%d", i))
				if d.forgotten && w.effect == "update_store" {
					// The event names no store: it belongs to the one audit
					// whose id is unknown, as long as there is only one.
					p.compareAudits()
				}
			}
			p.compareAudits()
		})
	}
}

func (p *place) die(w write, d death, key string) {
	t := p.t
	t.Helper()
	p.restart(d.failpoint)
	if strings.HasPrefix(d.failpoint, "request_written") {
		p.Fault(w.call, 1, map[string]any{"delay_ms": 500}) // no reply before it dies
	}
	p.dying(w.method, w.path, w.body, key)
	arrived := map[bool]int{false: 1, true: 0}[d.unsent]
	p.Eventually(d.name()+": what was sent has arrived", func() error {
		if got := p.calls(w); got != arrived {
			return fmt.Errorf("WeChat got %d calls before the process died, want %d", got, arrived)
		}
		return nil
	})
	if d.noSpool {
		p.loseSpool()
	}
	if d.second != "" {
		p.Launch(p.environ(d.second)).WaitExit(20 * time.Second)
	}
	p.start("")

	// What the caller does who got no answer: the same request again.
	again := p.c.Do(w.method, w.path, w.body, "Idempotency-Key", key)
	if again.Status < 200 || again.Status > 299 || again.Header.Get("Idempotency-Replayed") != "true" {
		t.Fatalf("%s: the repeated request: %d %v %s", d.name(), again.Status, again.Header, again.Body)
	}
	op := p.settled(again.Header.Get("Operation-Id"))
	if op.Get("status") != "succeeded" {
		t.Fatalf("%s: %s", d.name(), op.Body)
	}
	if n := effects(p.World, w.effect, w.key); n != 1 {
		t.Errorf("%s: WeChat executed the write %d times", d.name(), n)
	}
	if n := p.calls(w); n != 1 {
		t.Errorf("%s: WeChat was called %d times", d.name(), n)
	}
	again = p.c.Do(w.method, w.path, w.body, "Idempotency-Key", key)
	if w.audit == "" {
		if again.Status != http.StatusNoContent {
			t.Errorf("%s: afterwards: %d %s", d.name(), again.Status, again.Body)
		}
		return
	}
	// Pushes are still held: only the reply can have told the id.
	ids := issued(p.World, "audit_id", w.key)
	if len(ids) != 1 {
		t.Fatalf("%s: WeChat gave %d audit ids", d.name(), len(ids))
	}
	want := ids[0]
	if d.forgotten {
		want = "null" // until the audit's event comes
	}
	if got := again.Get("audit", "wechat_audit_id"); got != want || again.Get("audit", "status") != "in_review" {
		t.Errorf("%s: audit id %s, want %s: %s", d.name(), got, want, again.Body)
	}
	if !d.forgotten {
		known := p.c.Do("GET", "/v1/audits?kind="+w.audit+"&wechat_audit_id="+want, nil).Want(200)
		if known.Get("data", "0", "id") != again.Get("audit", "id") {
			t.Errorf("%s: found by its id: %s", d.name(), known.Body)
		}
		if rows := query(p.World, `SELECT source FROM wechat_id_ledger WHERE id_type = 'audit_id' AND wechat_id = $1`, want); len(rows) == 0 {
			t.Errorf("%s: the ledger of ids lacks %s", d.name(), want)
		}
	}
}

// compareAudits lets WeChat decide and push, and waits until every audit is
// known here by its id and decision, also those whose id no reply told.
func (p *place) compareAudits() {
	t := p.t
	t.Helper()
	p.Hold(false)
	defer p.Hold(true)
	p.Eventually("every audit is decided", func() error {
		for _, a := range p.Audits() {
			if a["status"] == "pending" && a["due_at"] != nil { // not the demo's goods, which wait for people
				return fmt.Errorf("pending at WeChat: %v", a)
			}
		}
		var list struct {
			Data []struct {
				WechatAuditID *string `json:"wechat_audit_id"`
				Status        string
			}
		}
		answer := p.c.Do("GET", "/v1/audits?limit=100", nil).Want(200)
		answer.Into(&list)
		var known []string
		for _, a := range list.Data {
			if a.WechatAuditID != nil && a.Status == "approved" {
				known = append(known, *a.WechatAuditID)
			}
		}
		all, _ := p.Truth()
		for _, id := range all {
			if id.Type == "audit_id" && !slices.Contains(known, id.ID) {
				return fmt.Errorf("WeChat's audit %s of %s isn't known as approved: %s", id.ID, id.Key, answer.Body)
			}
		}
		if len(known) != len(list.Data) {
			return fmt.Errorf("an audit that WeChat doesn't know: %s", answer.Body)
		}
		return nil
	})
	// A comparison finds what was there before, too: the audit of the Store Mini
	// Program. What a test pushed by itself is no operation's.
	for _, id := range query(p.World, `SELECT wechat_id FROM wechat_id_ledger WHERE id_type = 'audit_id' AND source <> 'poll' AND operation_id IS NOT NULL`) {
		all, _ := p.Truth()
		if !slices.ContainsFunc(all, func(i world.Issued) bool { return i.Type == "audit_id" && i.ID == id }) {
			t.Errorf("the ledger holds an audit id that WeChat never gave: %s", id)
		}
	}
}
