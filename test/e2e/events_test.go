package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// What happened by itself is listed in order, once each, and the push behind an
// audit's decision can be read; one that is none of ours is kept and shown.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	store := c.Do("POST", "/v1/stores", world.DocumentsStore()).Want(202)
	id, auditID := store.Get("id"), store.Get("audit", "id")
	c.Do("POST", "/v1/operations/"+store.Header.Get("Operation-Id")+"/resolution", map[string]string{"decision": "executed"}).WantProblem(409, "operation_not_resolvable")
	c.Until("/v1/stores/"+id, "active")
	const text = `<xml><ToUserName>gh_x</ToUserName><FromUserName>o1</FromUserName><CreateTime>1800000000</CreateTime><MsgType>text</MsgType><Content>营业到几点？</Content><MsgId>7</MsgId></xml>`
	w.Control("POST", "messages", map[string]string{"appid": sandbox.DemoOfficialAccount, "xml": text, "name": "text"}, nil)

	// In pages of two, oldest first, each once.
	seen := map[string]map[string]any{}
	w.Eventually("all events", func() error {
		var types []string
		seen = map[string]map[string]any{}
		for after, more := "0", true; more; {
			page := c.Do("GET", "/v1/events?limit=2&after="+after, nil).Want(200)
			var body struct {
				Data      []map[string]any `json:"data"`
				HasMore   bool             `json:"has_more"`
				NextAfter int64            `json:"next_after"`
			}
			page.Into(&body)
			for _, e := range body.Data {
				types = append(types, e["type"].(string))
				seen[e["type"].(string)] = e
			}
			after, more = fmt.Sprint(body.NextAfter), body.HasMore
		}
		for _, want := range []string{"store.audit.decided", "store.activated", "push.other"} {
			if seen[want] == nil || strings.Count(strings.Join(types, " ")+" ", want+" ") != 1 {
				return fmt.Errorf("%s in %v", want, types)
			}
		}
		return nil
	})
	if o := objectOf(seen["store.activated"]); o["id"] != id || o["poi_id"] == nil {
		t.Errorf("store.activated: %v", o)
	}
	other := seen["push.other"]
	if o := objectOf(other); o["appid"] != sandbox.DemoOfficialAccount || o["msg_type"] != "text" || !strings.Contains(fmt.Sprint(o["xml"]), "营业到几点？") {
		t.Errorf("push.other: %v", o)
	}
	if rows := w.Query(`SELECT payload::text AS p FROM outbox WHERE type = 'push.other' AND payload::text LIKE '%营业%'`); len(rows) > 0 {
		t.Errorf("a subscriber's words lie open in the database: %v", rows)
	}
	one := c.Do("GET", "/v1/events/"+other["id"].(string), nil).Want(200)
	if one.Get("type") != "push.other" || !strings.Contains(one.Get("data", "object", "xml"), "营业到几点？") {
		t.Errorf("%s", one.Body)
	}
	if a := c.Do("GET", "/v1/events?type=store.activated", nil).Want(200); a.Get("data", "0", "data", "object", "id") != id || a.Get("data", "1") != "" {
		t.Errorf("by type: %s", a.Body)
	}

	// The push behind the decision.
	audit := c.Do("GET", "/v1/audits/"+auditID, nil).Want(200)
	raw := c.Do("GET", "/v1/events/"+audit.Get("history", "1", "raw_event_id"), nil).Want(200)
	if raw.Get("type") != "push.received" || !strings.Contains(raw.Get("data", "object", "xml"), audit.Get("wechat_audit_id")) {
		t.Errorf("raw: %s", raw.Body)
	}
	for _, row := range w.Query(`SELECT id::text FROM event_inbox WHERE event = 'component_verify_ticket' LIMIT 1`) {
		c.Do("GET", "/v1/events/"+typeid.Format(typeid.Event, uuid.MustParse(row["id"].(string))), nil).WantProblem(404, "not_found")
	}
	c.Do("GET", "/v1/events/evt_01jd7k8w6yf2n4p6q8r0s2t4vx", nil).WantProblem(404, "not_found")
	c.Do("GET", "/v1/events?after=-1", nil).WantProblem(400, "invalid_parameter")
	c.As(w.NewKey("--scopes", "stores:read")).Do("GET", "/v1/events", nil).WantProblem(403, "scope_missing")
}

func objectOf(event map[string]any) map[string]any {
	return event["data"].(map[string]any)["object"].(map[string]any)
}

// An event that was lost is made up for: the audit is asked for, by a caller or
// in time. What can't be asked for is said so.
func TestAuditRefresh(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	w.Hold(true)
	create := func(n int) (*world.Answer, string) {
		a := c.Do("POST", "/v1/stores", w.NewStore(n)).Want(202)
		return a, "/v1/audits/" + a.Get("audit", "id")
	}
	yes, yesAudit := create(1)
	no, noAudit := create(2)
	_, open := create(9) // its phone says that it waits for the simulator's control API
	if a := c.Do("POST", yesAudit+"/refresh", nil).Want(200); a.Get("status") != "in_review" {
		t.Errorf("not decided yet: %s", a.Body)
	}
	w.Decide("store_create", yes.Get("audit", "wechat_audit_id"), "approve", "")
	w.Decide("store_create", no.Get("audit", "wechat_audit_id"), "reject", "too dark")
	if a := c.Do("POST", yesAudit+"/refresh", nil).Want(200); a.Get("status") != "approved" || a.Get("source") != "poll" {
		t.Errorf("approved: %s", a.Body)
	}
	if a := c.Do("GET", "/v1/stores/"+yes.Get("id"), nil).Want(200); a.Get("status") != "active" || a.Get("poi_id") == "null" || a.Get("name") == "null" {
		t.Errorf("its store: %s", a.Body)
	}
	if a := c.Do("POST", noAudit+"/refresh", nil).Want(200); a.Get("status") != "rejected" || a.Get("reason") != "null" {
		t.Errorf("rejected: %s", a.Body)
	}
	// The event, when it comes at last, changes nothing more.
	w.Hold(false)
	w.Eventually("the events have come", func() error {
		if n := len(w.Query(`SELECT 1 FROM event_inbox WHERE event = 'add_store_audit_info' AND state = 'applied'`)); n < 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if n := len(w.Query(`SELECT 1 FROM outbox WHERE type = 'store.audit.decided'`)); n != 2 {
		t.Errorf("%d events for two decisions", n)
	}
	c.As(w.NewKey("--scopes", "audits:read,audits:write")).Do("POST", open+"/refresh", nil).WantProblem(403, "scope_missing")
	c.Do("POST", "/v1/audits/aud_01jd7k4b2sf1a8w4p9x2y7c3de/refresh", nil).WantProblem(404, "not_found")

	// In time: due audits are asked for, each of them, and one that takes too
	// long is shown so.
	w.Hold(true)
	late, lateAudit := create(3)
	w.Decide("store_create", late.Get("audit", "wechat_audit_id"), "approve", "")
	w.Exec(`UPDATE audits SET next_poll_at = now(), submitted_at = now() - interval '11 days' WHERE status = 'in_review'`)
	w.Eventually("the audit beside the undecided one is read", func() error {
		if a := c.Do("GET", lateAudit, nil).Want(200); a.Get("status") != "approved" || a.Get("source") != "poll" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	w.Eventually("the audit is overdue", func() error {
		if a := c.Do("GET", open, nil).Want(200); a.Get("overdue_at") == "null" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	w.Eventually("audit.overdue is told", func() error {
		if a := c.Do("GET", "/v1/events?type=audit.overdue", nil).Want(200); a.Get("data", "0", "type") != "audit.overdue" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
}

// What nothing could settle is settled by a person.
func TestResolution(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	stuck := func(n int) (store, operation string) {
		w.Fault("wxa/add_store", 1, map[string]any{"drop_reply": true})
		a := c.Do("POST", "/v1/stores", w.NewStore(n)).Want(202)
		operation = a.Header.Get("Operation-Id")
		w.Exec(`UPDATE operations SET state = 'needs_attention', next_check_at = NULL WHERE id = $1`, w.UUID(typeid.Operation, operation))
		return a.Get("id"), operation
	}
	w.Hold(true)
	store, op := stuck(1)
	path := "/v1/operations/" + op + "/resolution"
	for name, body := range map[string]any{
		"no decision":      map[string]any{},
		"unknown decision": map[string]any{"decision": "maybe"},
		"no id of it":      map[string]any{"decision": "executed", "wechat_ids": map[string]string{"goods_id": "1"}},
		"no number":        map[string]any{"decision": "executed", "wechat_ids": map[string]string{"poi_id": "x"}},
		"a leading zero":   map[string]any{"decision": "executed", "wechat_ids": map[string]string{"poi_id": "007"}},
		"zero":             map[string]any{"decision": "executed", "wechat_ids": map[string]string{"poi_id": "0"}},
		"ids of nothing":   map[string]any{"decision": "not_executed", "wechat_ids": map[string]string{"poi_id": "1"}},
	} {
		if a := c.Do("POST", path, body); a.Status != 422 || a.Code() != "validation_failed" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	c.As(w.NewKey("--scopes", "operations:read")).Do("POST", path, map[string]string{"decision": "executed"}).WantProblem(403, "scope_missing")
	auditID := fmt.Sprintf("%.0f", w.Audits()[0]["id"])
	a := c.Do("POST", path, map[string]any{"decision": "executed", "wechat_ids": map[string]string{"audit_id": auditID}, "note": "seen in the console"}).Want(200)
	if a.Get("status") != "succeeded" {
		t.Errorf("%s", a.Body)
	}
	if s := c.Do("GET", "/v1/stores/"+store, nil).Want(200); s.Get("status") != "in_review" || s.Get("audit", "wechat_audit_id") != auditID {
		t.Errorf("%s", s.Body)
	}
	if n := len(w.Query(`SELECT 1 FROM wechat_id_ledger WHERE source = 'person' AND wechat_id = $1`, auditID)); n != 1 {
		t.Error("the id is not in the ledger")
	}
	c.Do("POST", path, map[string]string{"decision": "not_executed"}).WantProblem(409, "operation_not_resolvable")

	store, op = stuck(2)
	if a := c.Do("POST", "/v1/operations/"+op+"/resolution", map[string]string{"decision": "not_executed"}).Want(200); a.Get("status") != "failed" {
		t.Errorf("%s", a.Body)
	}
	if s := c.Do("GET", "/v1/stores/"+store, nil).Want(200); s.Get("status") != "failed" {
		t.Errorf("%s", s.Body)
	}
	if n := len(w.Query(`SELECT 1 FROM change_log WHERE action = 'operation.resolve'`)); n != 2 {
		t.Errorf("%d entries in the change log", n)
	}
}
