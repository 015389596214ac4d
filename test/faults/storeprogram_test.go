package faults

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// An account has one Store Mini Program, so that a second application is
// refused (85050) while the first is under way: what proves nothing is sent
// again, and ends as one application. A change is sent again too: it is the
// same one.
func TestStoreProgramAnswerLost(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	const apply, modify = "wxa/apply_merchant", "wxa/modify_merchant"
	const media = "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P"
	type sent struct {
		loss
		appid, path string
		body        map[string]any
		first       *world.Answer
		c           *world.Client
	}
	var all []sent
	for i, l := range losses {
		appid := fmt.Sprintf("wx570bc396a51b8e%02d", i)
		p.Control("POST", "accounts", map[string]any{"appid": appid, "store_program": "none"}, nil)
		p.Control("POST", "accounts/"+appid+"/authorize", nil, nil)
		s := sent{loss: l, appid: appid, body: map[string]any{"primary_category_id": "476", "secondary_category_id": "477", "nickname": fmt.Sprint("shop no ", i),
			"introduction": "tea", "head_image_media_id": media, "qualification_media_ids": []string{media}}}
		all = append(all, s)
	}
	p.Hold(false) // the events of their authorization
	for i := range all {
		s := &all[i]
		p.Eventually("the merchant comes", func() error {
			a := p.c.For("").Do("GET", "/v1/merchants/"+s.appid, nil)
			if s.c = p.c.For(a.Get("id")); a.Get("status") != "authorized" {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
		s.path = "/v1/merchants/" + s.c.Merchant + "/store-program"
	}
	p.Hold(true)
	for i := range all {
		s := &all[i]
		p.Fault(apply, 1, s.fault)
		s.first = s.c.Do("POST", s.path, s.body, "Idempotency-Key", "apply").Want(http.StatusAccepted)
		if s.first.Get("status") != "outcome_unknown" || s.first.Get("operation", "status") != "reconciling" {
			t.Errorf("%s: %s", s.name, s.first.Body)
		}
		again := s.c.Do("POST", s.path, s.body, "Idempotency-Key", "apply").Want(http.StatusAccepted)
		if again.Header.Get("Idempotency-Replayed") != "true" || again.Get("id") != s.first.Get("id") {
			t.Errorf("%s: the same key again: %v %s", s.name, again.Header, again.Body)
		}
		s.c.Do("POST", s.path, s.body).WantProblem(http.StatusConflict, "audit_in_progress")
	}
	for _, s := range all {
		if op := p.settled(s.first.Header.Get("Operation-Id")); op.Get("status") != "succeeded" {
			t.Errorf("%s: %s", s.name, op.Body)
		}
		a := s.c.Do("GET", s.path, nil).Want(200)
		if a.Get("status") != "awaiting_admin_confirmation" || a.Get("operation") != "" || a.Get("id") != s.first.Get("id") {
			t.Errorf("%s: in the end: %s", s.name, a.Body)
		}
	}
	made := map[string]int{}
	_, executed := p.Truth()
	for _, e := range executed {
		if e.Kind == "apply_merchant" {
			made[e.AppID]++
		}
	}
	for _, s := range all {
		if made[s.appid] != 1 {
			t.Errorf("%s: %d applications", s.name, made[s.appid])
		}
	}
	if n := len(p.Journal(apply)); n != 2*len(all) {
		t.Errorf("%d calls of %d applications, want two of each", n, len(all))
	}

	// WeChat tells their numbers with its decision.
	one := all[0]
	for _, a := range p.Audits() {
		if a["kind"] == "store_program" && a["appid"] == one.appid {
			id := fmt.Sprintf("%.0f", a["id"])
			p.Decide("store_program", id, "confirm", "")
			p.Decide("store_program", id, "approve", "")
		}
	}
	p.Hold(false)
	p.Eventually("the program is approved", func() error {
		if a := one.c.Do("GET", one.path, nil); a.Get("status") != "approved" || a.Get("audit", "wechat_audit_id") == "null" || a.Get("id") != one.first.Get("id") {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})

	lose := func(fault map[string]any, text string) (operation string) {
		t.Helper()
		p.Fault(modify, 1, fault)
		first := one.c.Do("PATCH", one.path, map[string]string{"introduction": text}).Want(http.StatusAccepted)
		if first.Get("operation", "status") != "reconciling" || first.Get("introduction") == text {
			t.Errorf("%v: %s", fault, first.Body)
		}
		one.c.Do("PATCH", one.path, map[string]string{"introduction": "another"}).WantProblem(http.StatusConflict, "operation_in_progress")
		return first.Header.Get("Operation-Id")
	}
	for i, fault := range []map[string]any{{"drop_reply": true}, {"drop_reply": true, "before": true}, {"errcode": -1}} {
		before := len(p.Journal(modify))
		text := fmt.Sprint("tea and more ", i)
		op := p.settled(lose(fault, text))
		a := one.c.Do("GET", one.path, nil).Want(200)
		if n := len(p.Journal(modify)) - before; op.Get("status") != "succeeded" || a.Get("introduction") != text || a.Get("operation") != "" || n != 2 {
			t.Errorf("%v: %d calls, %s, %s", fault, n, op.Body, a.Body)
		}
	}

	// The fifth change is the last of the month (85049), and its answer is lost:
	// that the next attempt is refused doesn't mean that it wasn't executed, not
	// even where the next process finds that refusal in the spool.
	p.restart("again_after_spool:kill")
	p.Fault(modify, 1, map[string]any{"truncate_to": 5})
	body := map[string]string{"introduction": "the last tea"}
	one.c = one.c.At(p.g)
	one.c.Do("PATCH", one.path, body, "Idempotency-Key", "last").Want(http.StatusAccepted)
	p.g.WaitExit(20 * time.Second)
	p.start("")
	one.c = one.c.At(p.g)
	again := one.c.Do("PATCH", one.path, body, "Idempotency-Key", "last").Want(http.StatusAccepted)
	last := "/v1/operations/" + again.Header.Get("Operation-Id")
	p.Eventually("two more attempts were refused", func() error {
		if op := one.c.Do("GET", last, nil); op.Get("attempts", "2", "errcode") != "85049" || op.Get("status") != "needs_attention" {
			return fmt.Errorf("%s", op.Body)
		}
		return nil
	})
	one.c.Do("POST", last+"/resolution", map[string]string{"decision": "executed"}).Want(200)
	if a := one.c.Do("GET", one.path, nil).Want(200); a.Get("introduction") != "the last tea" || a.Get("operation") != "" {
		t.Errorf("after a person has looked: %s", a.Body)
	}
	one.c.Do("PATCH", one.path, map[string]string{"introduction": "one too many"}).WantProblem(http.StatusTooManyRequests, "monthly_modification_limit")
}
