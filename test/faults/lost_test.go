package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// A loss is an answer to a write that proves nothing.
type loss struct {
	name  string
	fault map[string]any
	done  bool // WeChat executed the write nevertheless
}

var losses = []loss{
	{"reply dropped", map[string]any{"drop_reply": true}, true},
	{"connection cut before", map[string]any{"drop_reply": true, "before": true}, false},
	{"system error", map[string]any{"errcode": -1}, false},
	{"system error after all", map[string]any{"errcode": -1, "before": false}, true},
	{"an errcode of no document", map[string]any{"errcode": 87654321}, false},
	{"bad gateway", map[string]any{"http_status": 502}, false},
	{"bad gateway after all", map[string]any{"http_status": 502, "before": false}, true},
	{"reply cut short", map[string]any{"truncate_to": 12}, true},
	{"empty reply", map[string]any{"truncate_to": 0}, true},
	{"HTML instead", map[string]any{"body": "<html><body>busy</body></html>"}, false},
	{"no errcode", map[string]any{"body": `{"data":{}}`}, false},
}

// What WeChat answers proves nothing: the caller gets 202 with an operation
// that is being reconciled, the same key neither sends again nor makes another
// one, and reading proves what happened. A write that was executed is not sent
// again; one that wasn't is, once.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	type sent struct {
		write
		loss
		first *world.Answer
		calls int
	}
	var all []sent
	lose := func(w write, l loss) {
		t.Helper()
		p.Fault(w.call, 1, l.fault)
		key := fmt.Sprintf("lost-%d", len(all))
		first := p.c.Do(w.method, w.path, w.body, "Idempotency-Key", key)
		p.Eventually("calls are no longer paused", func() error {
			// So much is lost here that they are now and then; nothing was sent.
			if first.Code() == "upstream_circuit_open" {
				first = p.c.Do(w.method, w.path, w.body, "Idempotency-Key", key)
			}
			if first.Code() == "upstream_circuit_open" {
				return fmt.Errorf("%s", first.Body)
			}
			return nil
		})
		id := first.Header.Get("Operation-Id")
		if first.Status != http.StatusAccepted || first.Get("operation", "status") != "reconciling" || first.Get("operation", "id") != id ||
			first.Header.Get("Link") != "</v1/operations/"+id+`>; rel="status"` || first.Header.Get("Idempotency-Replayed") != "" {
			t.Fatalf("%s: %d %v %s", l.name, first.Status, first.Header, first.Body)
		}
		again := p.c.Do(w.method, w.path, w.body, "Idempotency-Key", key)
		if again.Header.Get("Operation-Id") != id || again.Header.Get("Idempotency-Replayed") != "true" || again.Get("id") != first.Get("id") && again.Status != 204 {
			t.Errorf("%s: the same key again: %d %v %s", l.name, again.Status, again.Header, again.Body)
		}
		calls := 2
		if l.done {
			calls = 1
		}
		all = append(all, sent{w, l, first, calls})
	}
	for _, l := range losses {
		lose(p.creation(), l)
	}
	// Of the pictures' audits one at a time may have no id.
	lose(p.change(), losses[0])
	lose(p.deletion(), losses[0])
	lose(p.deletion(), losses[1])
	hours := p.change()
	hours.body, hours.audit = map[string]any{"business_hours": map[string]string{"open": "07:00", "close": "23:00"}}, ""
	lose(hours, losses[0])
	lose(p.card("p1"), losses[0])
	lose(p.card("p2"), losses[1])
	for _, s := range all {
		op := p.settled(s.first.Header.Get("Operation-Id"))
		if op.Get("status") != "succeeded" {
			t.Errorf("%s %s: %s", s.name, s.effect, op.Body)
		}
		if n := p.calls(s.write); n != s.calls {
			t.Errorf("%s %s: %d calls, want %d", s.name, s.effect, n, s.calls)
		}
		if n := effects(p.World, s.effect, s.key); n != 1 {
			t.Errorf("%s %s: %d effects", s.name, s.effect, n)
		}
	}
	p.compareAudits()
	for _, s := range all {
		if s.effect == "set_card" {
			if a := p.c.Do("GET", strings.TrimSuffix(s.path, "/card"), nil).Want(200); a.Get("card_id") != s.key || a.Get("operation", "id") != "" {
				t.Errorf("%s %s: in the end: %s", s.name, s.effect, a.Body)
			}
			continue
		}
		a := p.c.Do("GET", "/v1/stores/"+s.first.Get("id"), nil).Want(200)
		want := "active"
		if s.effect == "del_store" {
			want = "deleted"
		}
		if a.Get("status") != want || a.Get("operation", "id") != "" || a.Get("poi_id") == "null" {
			t.Errorf("%s %s: in the end: %s", s.name, s.effect, a.Body)
		}
	}
	// Whoever got 202 is told how it ended.
	resolved := query(p.World, `SELECT payload->'object'->>'id' FROM outbox WHERE type = 'operation.resolved'`)
	if len(resolved) != len(all) {
		t.Errorf("%d events operation.resolved for %d operations: %v", len(resolved), len(all), resolved)
	}
}

// WeChat fails again and again: the operation fails as retryable, and the same
// key tries once more, under the same operation.
func TestGivenUpAndTriedAgain(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	w := p.creation()
	p.Fault(w.call, 3, map[string]any{"errcode": -1})
	first := p.c.Do(w.method, w.path, w.body, "Idempotency-Key", "stubborn").Want(http.StatusAccepted)
	id := first.Header.Get("Operation-Id")
	op := p.settled(id)
	if op.Get("status") != "failed" || op.Get("error", "code") != "wechat_system_error" || op.Get("error", "retryable") != "true" || op.Get("attempts", "2", "outcome") != "ambiguous" {
		t.Fatalf("%s", op.Body)
	}
	if s := p.c.Do("GET", "/v1/stores/"+first.Get("id"), nil).Want(200); s.Get("status") != "failed" {
		t.Errorf("the store: %s", s.Body)
	}
	again := p.c.Do(w.method, w.path, w.body, "Idempotency-Key", "stubborn").Want(http.StatusAccepted)
	if again.Header.Get("Operation-Id") != id || again.Get("id") != first.Get("id") || again.Get("status") != "in_review" {
		t.Errorf("tried again: %v %s", again.Header, again.Body)
	}
	if n := effects(p.World, w.effect, w.key); n != 1 || p.calls(w) != 4 {
		t.Errorf("%d effects of %d calls", n, p.calls(w))
	}
	// WeChat's -1 to a deletion means "not deleted" (document 000 §4.12).
	d := p.deletion()
	p.Fault(d.call, 1, map[string]any{"errcode": -1})
	a := p.c.Do(d.method, d.path, nil, "Idempotency-Key", "kept")
	if a.Code() != "store_delete_failed" || effects(p.World, d.effect, d.key) != 0 {
		t.Errorf("a refused deletion: %d %s", a.Status, a.Body)
	}
}

// A caller who leaves changes nothing: what was sent is heard and recorded.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	w := p.creation()
	p.Fault(w.call, 1, map[string]any{"delay_ms": 1500})
	js, err := json.Marshal(w.body)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, w.method, p.g.URL+w.path, bytes.NewReader(js))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + p.Key, "Merchant-Id": p.c.Merchant, "Content-Type": "application/json", "Idempotency-Key": "gone"} {
		req.Header.Set(name, value)
	}
	left := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		left <- err
	}()
	p.Eventually("the call is under way", func() error {
		if p.calls(w) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("the caller was answered before it left: %v", err)
	}
	again := p.c.Do(w.method, w.path, w.body, "Idempotency-Key", "gone").Want(202)
	if again.Header.Get("Idempotency-Replayed") != "true" || again.Get("audit", "wechat_audit_id") != issued(p.World, "audit_id", w.key)[0] || p.calls(w) != 1 {
		t.Errorf("%d calls, %v %s", p.calls(w), again.Header, again.Body)
	}
}

// An event about another store, one made in WeChat's console perhaps, is not
// taken for the answer of a creation whose reply was lost.
func TestAnotherStoresEvent(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	_, other := p.spare()
	w := p.creation()
	p.Fault(w.call, 1, map[string]any{"drop_reply": true, "before": true})
	first := p.c.Do(w.method, w.path, w.body).Want(http.StatusAccepted)
	p.push(storeEvent("add_store_audit_info", 777000111, 1, other))
	p.Eventually("the event is kept as unmatched", func() error {
		if rows := query(p.World, `SELECT state FROM event_inbox WHERE audit_id = '777000111'`); len(rows) != 1 || rows[0] != "unmatched" {
			return fmt.Errorf("%v", rows)
		}
		return nil
	})
	if op := p.settled(first.Header.Get("Operation-Id")); op.Get("status") != "succeeded" || p.calls(w) != 2 {
		t.Errorf("%d calls: %s", p.calls(w), op.Body)
	}
	if rows := query(p.World, `SELECT wechat_audit_id FROM audits WHERE wechat_audit_id = '777000111'`); len(rows) != 0 {
		t.Errorf("the audit of another store was given to this one")
	}
	if rows := query(p.World, `SELECT wechat_id FROM wechat_id_ledger WHERE id_type = 'audit_id' AND source = 'event' AND operation_id IS NULL`); len(rows) != 1 || rows[0] != "777000111" {
		t.Errorf("ids of nobody's audits: %v: this one isn't written down", rows)
	}

	// Nor when the creation is known to have succeeded, and only its audit's id
	// was lost.
	w = p.creation()
	p.Fault(w.call, 1, map[string]any{"drop_reply": true})
	second := p.c.Do(w.method, w.path, w.body).Want(http.StatusAccepted)
	p.settled(second.Header.Get("Operation-Id"))
	p.push(storeEvent("add_store_audit_info", 777000222, 1, other))
	p.Eventually("the second event is kept as unmatched", func() error {
		rows := query(p.World, `SELECT state FROM event_inbox WHERE audit_id = '777000222'`)
		if a := p.c.Do("GET", "/v1/stores/"+second.Get("id"), nil).Want(200); len(rows) != 1 || rows[0] != "unmatched" || a.Get("status") != "in_review" {
			return fmt.Errorf("%v %s", rows, a.Body)
		}
		return nil
	})
	p.compareAudits()
	if a := p.c.Do("GET", "/v1/stores/"+second.Get("id"), nil).Want(200); a.Get("status") != "active" || a.Get("poi_id") == other || a.Get("poi_id") == "null" {
		t.Errorf("its own approval: %s", a.Body)
	}
}

// storeEvent is an audit event in the shape of document 000 §4.8 and §4.9.
func storeEvent(event string, audit int64, status int, poi string) string {
	return fmt.Sprintf(`<xml><ToUserName><![CDATA[%s]]></ToUserName><FromUserName><![CDATA[od1P50M-fNQI5Gcq-trm4a7apsU8]]></FromUserName>`+
		`<CreateTime>%d</CreateTime><MsgType><![CDATA[event]]></MsgType><Event><![CDATA[%s]]></Event><audit_id>%d</audit_id><status>%d</status>`+
		`<reason><![CDATA[]]></reason><is_upgrade>0</is_upgrade><poiid>%s</poiid></xml>`, demoUserName, time.Now().Unix(), event, audit, status, poi)
}

// push lets WeChat push a message to the demo merchant, although pushes are held.
func (p *place) push(xml string) {
	p.t.Helper()
	var list struct{ Pushes []struct{ ID int64 } }
	p.Control("POST", "messages", map[string]string{"appid": sandbox.DemoOfficialAccount, "xml": xml, "name": "by hand"}, nil)
	p.Control("GET", "pushes", nil, &list)
	p.Control("POST", fmt.Sprintf("pushes/%d/release", list.Pushes[len(list.Pushes)-1].ID), nil, nil)
}
