package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

const broadcast = "wxaapi/broadcast/goods/"

// An item whose number is lost can't be deleted any more, and nothing at WeChat
// keeps a second one from being made: what was sent is looked for, and never
// sent again by us.
func TestGoodsAnswerLost(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.c = p.c.For(p.Authorize(p.g, sandbox.DemoMiniProgram))
	p.Hold(true)
	item := func(name string) map[string]any {
		return map[string]any{"name": name, "cover_media_id": "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR",
			"pricing": map[string]string{"type": "fixed", "amount": "99.50"}, "path": "pages/index/index"}
	}
	adds := func(name string) (n int) {
		for _, call := range p.Journal(broadcast + "add") {
			if strings.Contains(call.Body, `"`+name+`"`) {
				n++
			}
		}
		return n
	}
	// The one that is there already is as alike as can be.
	twin := p.c.Do("POST", "/v1/goods", item("Dropped")).Want(http.StatusAccepted)
	type sent struct {
		name   string
		first  *world.Answer
		status string // of the item in the end
		code   string // of the operation's error
	}
	var all []sent
	lose := func(name string, fault map[string]any, status, code string) {
		t.Helper()
		if fault != nil {
			p.Fault(broadcast+"add", 1, fault)
		}
		first := p.c.Do("POST", "/v1/goods", item(name), "Idempotency-Key", "k"+strings.ReplaceAll(name, " ", "-")).Want(http.StatusAccepted)
		if first.Get("status") != "outcome_unknown" || first.Get("operation", "status") != "reconciling" {
			t.Errorf("%s: %s", name, first.Body)
		}
		p.c.Do("POST", "/v1/goods", item(name)).WantProblem(409, "operation_in_progress")
		all = append(all, sent{name, first, status, code})
	}
	p.Control("POST", "settings", map[string]any{"goods_prices_in_fen": true}, nil)
	lose("Dropped", map[string]any{"drop_reply": true}, "in_review", "")
	lose("Cut off", map[string]any{"truncate_to": 20}, "in_review", "")
	lose("Busy after all", map[string]any{"errcode": -1, "before": false}, "in_review", "")
	lose("audit-fails no-id", nil, "unreviewed", "")
	lose("Never there", map[string]any{"drop_reply": true, "before": true}, "failed", "wechat_system_error")
	lose("add-fails", nil, "failed", "goods_add_failed")
	for _, s := range all {
		op := p.settled(s.first.Header.Get("Operation-Id"))
		a := p.c.Do("GET", "/v1/goods/"+s.first.Get("id"), nil).Want(200)
		if a.Get("status") != s.status || (op.Get("status") == "succeeded") != (s.code == "") || s.code != "" && op.Get("error", "code") != s.code {
			t.Errorf("%s: %s, %s", s.name, op.Body, a.Body)
		}
		if n := adds(s.name); s.name != "Dropped" && n != 1 || s.name == "Dropped" && n != 2 {
			t.Errorf("%s: sent %d times", s.name, n)
		}
		if s.code == "" && (a.Get("goods_id") == "null" || a.Get("goods_id") == twin.Get("goods_id") || a.Get("audit", "id") == "") {
			t.Errorf("%s: %s", s.name, a.Body)
		}
		if s.status == "unreviewed" && a.Get("audit", "status") != "submit_failed" {
			t.Errorf("%s: %s", s.name, a.Body)
		}
	}
	for _, id := range issuedGoods(p.World) {
		if rows := query(p.World, `SELECT wechat_id FROM resources WHERE type = 'goods' AND wechat_id = $1`, id); len(rows) != 1 {
			t.Errorf("goods %s: %d records", id, len(rows))
		}
	}
	// What certainly did nothing is tried again by the same key only.
	again := p.c.Do("POST", "/v1/goods", item("Never there"), "Idempotency-Key", "kNever-there").Want(http.StatusAccepted)
	if again.Get("status") != "in_review" || again.Get("id") != all[4].first.Get("id") || adds("Never there") != 2 {
		t.Errorf("again: %s", again.Body)
	}

	// The other writes are proven by reading, and not sent again where they were executed.
	lost := func(call, method, path string, body any, status string) *world.Answer {
		t.Helper()
		before := len(p.Journal(broadcast + call))
		p.Fault(broadcast+call, 1, map[string]any{"drop_reply": true})
		first := p.c.Do(method, path, body).Want(http.StatusAccepted)
		if op := p.settled(first.Header.Get("Operation-Id")); op.Get("status") != "succeeded" {
			t.Errorf("%s: %s", call, op.Body)
		}
		a := p.c.Do("GET", "/v1/goods/"+again.Get("id"), nil).Want(200)
		if a.Get("status") != status || a.Get("operation") != "" || len(p.Journal(broadcast+call)) != before+1 {
			t.Errorf("%s: %d calls, %s", call, len(p.Journal(broadcast+call))-before, a.Body)
		}
		return a
	}
	path := "/v1/goods/" + again.Get("id")
	if a := lost("resetaudit", "POST", "/v1/audits/"+again.Get("audit", "id")+"/withdrawal", nil, "unreviewed"); a.Get("audit", "status") != "withdrawn" {
		t.Errorf("withdrawn: %s", a.Body)
	}
	if a := lost("update", "PATCH", path, map[string]any{"name": "Other", "pricing": map[string]string{"type": "range", "min": "1", "max": "2.5"}}, "unreviewed"); a.Get("name") != "Other" || a.Get("pricing", "max") != "2.5" {
		t.Errorf("changed: %s", a.Body)
	}
	// WeChat shows a new picture only by another address. Where the one before
	// isn't known nothing proves the change: it is sent again, and at last left
	// to a person, but not called failed.
	p.Exec(`UPDATE resources SET fields = fields - 'cover_image_url' WHERE id = $1`, p.UUID(typeid.Goods, again.Get("id")))
	updates := len(p.Journal(broadcast + "update"))
	p.Fault(broadcast+"update", 3, map[string]any{"drop_reply": true})
	picture := p.c.Do("PATCH", path, map[string]any{"cover_media_id": "AtzkRk0UqFI0o17dMcbX8TPBaU1VdRYFMTrN9zsgAprmGqzNdIza9mjyshCVmms5"}).Want(http.StatusAccepted).Header.Get("Operation-Id")
	p.Eventually("the picture is sent three times", func() error {
		if n := len(p.Journal(broadcast+"update")) - updates; n != 3 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if op := p.settled(picture); op.Get("status") != "needs_attention" || op.Get("attempts", "2", "outcome") != "ambiguous" {
		t.Errorf("a picture that can't be compared: %s", op.Body)
	}
	p.c.Do("POST", "/v1/operations/"+picture+"/resolution", map[string]any{"decision": "executed"}).Want(200)

	if a := lost("audit", "POST", path+"/audits", nil, "in_review"); a.Get("audit", "id") == again.Get("audit", "id") || a.Get("audit", "wechat_audit_id") != "null" {
		t.Errorf("submitted again: %s", a.Body)
	}
	// Its number is lost for good: it can't be withdrawn, but its end is heard of.
	audit := p.c.Do("GET", path, nil).Get("audit", "id")
	p.c.Do("POST", "/v1/audits/"+audit+"/withdrawal", nil).WantProblem(409, "audit_not_withdrawable")
	for _, a := range p.Audits() {
		if a["kind"] == "goods" && a["status"] == "pending" && fmt.Sprint(a["subject"]) == again.Get("goods_id") {
			p.Decide("goods", fmt.Sprintf("%.0f", a["id"]), "approve", "")
		}
	}
	p.Eventually("the item is approved", func() error {
		if a := p.c.Do("GET", path, nil); a.Get("status") != "approved" || a.Get("audit", "status") != "approved" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	lost("delete", "DELETE", path, nil, "deleted")
}

// issuedGoods are the numbers of the goods that were added, as the simulator's
// log of effects has them.
func issuedGoods(w *world.World) (ids []string) {
	_, all := w.Truth()
	for _, e := range all {
		if e.Kind == "goods_add" {
			ids = append(ids, e.ID)
		}
	}
	return ids
}
