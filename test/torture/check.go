package torture

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/mendian/mendian/test/world"
)

// Figures are what a run amounts to.
type Figures struct {
	Kills, Network, Database int // faults that touched something
	HangUps                  int // callers who didn't wait for their answer
	Writes, Issued           int // writes asked for; ids that WeChat gave for them
	Lost, Duplicated         int // of those
	Late                     int // ids known by the event only: their reply died with its process, between arrival and fsync
	Untold                   int // audit ids of goods and rich_ids that died so: WeChat tells them in the reply only (docs/reliability.md)
	Attention                int // operations left to a person, each with candidates or a reason
	Slowest                  time.Duration
}

func (f Figures) String() string {
	return fmt.Sprintf("process kills %d, network faults %d, Postgres faults %d, callers gone %d, writes %d, ids issued %d, lost %d, duplicated %d "+
		"(%d known by a later event, %d that WeChat tells only once, %d operations left to a person, all quiet after %s)",
		f.Kills, f.Network, f.Database, f.HangUps, f.Writes, f.Issued, f.Lost, f.Duplicated, f.Late, f.Untold, f.Attention, f.Slowest.Round(100*time.Millisecond))
}

// unproven are the kinds that no read can prove: they wait for WeChat's event,
// with their deadline shown.
var unproven = []string{"map_poi.create", "store_program.apply"}

// quiet is how long operations may take to end once nothing is hurt any more.
const quiet = 120 * time.Second

// Quiesce waits until every operation has ended or says what it waits for.
func (a *Arena) Quiesce(f *Figures) {
	a.t.Helper()
	var last []map[string]any
	begun := time.Now()
	world.Eventually(a.t, quiet, "every operation to end", func() error {
		open := a.Query(`SELECT kind, state, error::text AS error, next_check_at, lease_until, sent_at, attempt FROM operations
			WHERE state IN ('pending', 'executing') OR state = 'reconciling' AND NOT (kind = ANY($1) AND next_check_at IS NOT NULL) LIMIT 5`, unproven)
		if len(open) > 0 {
			last = open
			return fmt.Errorf("%v", open)
		}
		return nil
	})
	if took := time.Since(begun); took > f.Slowest {
		f.Slowest = took
		a.t.Logf("quiet after %s; last was %v", took.Round(time.Millisecond), last)
	}
}

// judge checks the writes before WeChat pushes anything, and after it has
// decided and pushed all.
func (a *Arena) judge(writes []*Write, f *Figures) {
	a.t.Helper()
	a.Check(writes, f, false)
	a.Release()
	a.Check(writes, f, true)
}

// Check compares what the gateways know of the writes with what the simulator
// did, before (released false) or after its pushes are let out.
func (a *Arena) Check(writes []*Write, f *Figures, released bool) {
	a.t.Helper()
	// A caller who asks again makes one more attempt, where the one before
	// certainly did nothing.
	for _, w := range writes {
		a.consistent(w)
	}
	a.Quiesce(f)
	ids, effects := a.Truth()
	merchants := map[string]*Write{}
	for _, w := range writes {
		merchants[w.AppID] = w
	}
	known := map[string]bool{}
	for _, row := range a.Query(`SELECT m.appid, l.id_type, l.wechat_id FROM wechat_id_ledger l JOIN merchants m ON m.tenant_id = l.tenant_id AND m.id = l.merchant_id`) {
		known[fmt.Sprint(row["appid"], " ", row["id_type"], " ", row["wechat_id"])] = true
	}
	operations := map[string]map[string]any{}
	for _, row := range a.Query(`SELECT id::text AS id, kind, state, candidates::text AS candidates, error::text AS error, attempt, idempotency_key FROM operations WHERE idempotency_key IS NOT NULL`) {
		key := row["idempotency_key"].(string)
		if old := operations[key]; old != nil && old["state"] == "succeeded" {
			continue // a file that was sent again under its key
		}
		operations[key] = row
	}
	cut := a.cutOff()
	for _, w := range writes {
		w.Forgotten = w.Forgotten || cut[w.Key]
		n, id := 0, ""
		for _, e := range effects {
			if w.of(e) {
				n++
				id = e.ID
			}
		}
		op := operations[w.Key]
		state := "never recorded"
		if op != nil {
			state = fmt.Sprint(op["state"])
		}
		if n > 1 && !w.repeatable() {
			f.Duplicated++
			a.t.Errorf("%s %s: %d effects at WeChat (%s)", w.Kind, w.Sub, n, state)
		}
		switch state {
		case "succeeded":
			if n == 0 {
				a.t.Errorf("%s %s: succeeded, and WeChat knows nothing of it", w.Kind, w.Sub)
			}
		case "failed", "never recorded":
			if n > 0 && !w.repeatable() {
				a.t.Errorf("%s %s: %s, and WeChat executed it (%s): %v", w.Kind, w.Sub, state, id, op)
			}
		case "needs_attention":
			if !released {
				f.Attention++
				a.t.Logf("left to a person: %s %s, attempt %v, candidates %v, %d effects", w.Kind, w.Sub, op["attempt"], op["candidates"], n)
			}
			// Nothing shows a modification of the program, which the operation names.
			if list := op["candidates"]; list == nil || list == "[]" && w.Kind != "store_program.modify" {
				a.t.Errorf("%s %s: needs attention without a candidate: %v", w.Kind, w.Sub, op)
			}
		default:
			if !slices.Contains(unproven, w.Kind) || released && n > 0 {
				a.t.Errorf("%s %s: %v", w.Kind, w.Sub, op)
			}
		}
	}

	// Every id that WeChat told for these merchants, and by whom.
	byEffect := map[string]*Write{} // by what the truth log calls the effect, and what the ids are of
	for _, e := range effects {
		for _, w := range writes {
			if w.of(e) {
				byEffect[e.AppID+" "+e.ID], byEffect[e.AppID+" "+e.Key] = w, w
			}
		}
	}
	late := 0
	for _, i := range ids {
		if merchants[i.AppID] == nil {
			continue
		}
		if !released {
			f.Issued++
		}
		if known[i.AppID+" "+i.Type+" "+i.ID] {
			continue
		}
		w := cmp.Or(byEffect[i.AppID+" "+i.ID], byEffect[i.AppID+" "+i.Key])
		switch goods := w != nil && strings.HasPrefix(w.Kind, "goods."); {
		case i.Type == "media_id" || i.Type == "image_url":
			continue // the caller was told that it failed, and sends the file again
		case w != nil && w.Forgotten && (goods && i.Type == "audit_id" || i.Type == "rich_id"):
			if !released {
				f.Untold++
			}
		case !released && (w == nil || w.Forgotten || i.Type == "poi_id"): // a list showed it on the way to another one; it shows it again
			late++
		default:
			f.Lost++
			of := ""
			if w != nil {
				of = "; " + w.Kind + " " + w.Fate
			}
			a.t.Errorf("WeChat gave %s %s to %s (%s%s), and nobody here knows it", i.Type, i.ID, i.AppID, i.Key, of)
		}
	}
	if !released {
		f.Late += late
		f.Writes += len(writes)
	}
	// Nothing was invented, nothing is another merchant's. What was there
	// before was read at WeChat. A place's base_id is the id of its audit too.
	given := map[string]bool{}
	for _, i := range ids {
		given[i.AppID+" "+i.ID] = true
	}
	for _, row := range a.Query(`SELECT m.appid, l.id_type, l.wechat_id, l.source FROM wechat_id_ledger l JOIN merchants m ON m.tenant_id = l.tenant_id AND m.id = l.merchant_id
		WHERE NOT EXISTS (SELECT 1 FROM wechat_id_ledger p WHERE p.source = 'poll' AND p.tenant_id = l.tenant_id AND p.merchant_id = l.merchant_id AND p.id_type = l.id_type AND p.wechat_id = l.wechat_id)`) {
		if appid := fmt.Sprint(row["appid"]); merchants[appid] != nil && !given[appid+" "+fmt.Sprint(row["wechat_id"])] {
			a.t.Errorf("the ledger holds what WeChat never gave: %v", row)
		}
	}
}

// cutOff are the keys of the writes that were sent again, in the background of
// a process that died of another write meanwhile: at which moment, nobody knows.
func (a *Arena) cutOff() map[string]bool {
	keys := map[string]bool{}
	for _, row := range a.Query(`SELECT o.idempotency_key FROM operations o JOIN operation_attempts t ON t.tenant_id = o.tenant_id AND t.operation_id = o.id
		WHERE t.n > 1 AND t.outcome IS NULL AND o.idempotency_key IS NOT NULL`) {
		keys[row["idempotency_key"].(string)] = true
	}
	return keys
}

// consistent asks for the write once more, with its key: every answer that was
// ever given names the same ids.
func (a *Arena) consistent(w *Write) {
	if len(w.told) == 0 || w.repeatable() {
		return
	}
	a.drive(w, []string{a.Settled.URL}, rand.New(rand.NewPCG(0, 0)))
	seen := map[string]string{}
	for _, answer := range w.told {
		var body map[string]any
		if len(answer.Body) == 0 || json.Unmarshal(answer.Body, &body) != nil {
			continue
		}
		audit, _ := body["audit"].(map[string]any)
		for name, v := range map[string]any{"id": body["id"], "poi_id": body["poi_id"], "goods_id": body["goods_id"], "base_id": body["base_id"],
			"audit.id": audit["id"], "audit.wechat_audit_id": audit["wechat_audit_id"]} {
			if v == nil {
				continue
			}
			if was := seen[name]; was != "" && was != fmt.Sprint(v) {
				a.t.Errorf("%s %s: %s was %s, and is %v", w.Kind, w.Path, name, was, v)
			}
			seen[name] = fmt.Sprint(v)
		}
	}
}

// DecideAll lets WeChat approve what waits for its people.
func (a *Arena) DecideAll() {
	a.t.Helper()
	for _, audit := range a.Audits() {
		if audit["status"] != "pending" {
			continue
		}
		kind, id := fmt.Sprint(audit["kind"]), number(audit["id"])
		if audit["awaits_admin"] == true {
			a.Decide(kind, id, "confirm", "")
		}
		a.Decide(kind, id, "approve", "")
	}
}

// Release lets WeChat decide and push, and waits until nothing is unknown here.
func (a *Arena) Release() {
	a.t.Helper()
	a.DecideAll()
	a.Hold(false)
	world.Eventually(a.t, quiet, "WeChat's decisions to be known here", func() error {
		at := map[string]string{}
		for _, audit := range a.Audits() {
			at[fmt.Sprint(audit["appid"], " ", number(audit["id"]))] = fmt.Sprint(audit["status"])
		}
		for _, row := range a.Query(`SELECT m.appid, a.wechat_audit_id, a.status, a.kind FROM audits a JOIN merchants m ON m.tenant_id = a.tenant_id AND m.id = a.merchant_id
			WHERE a.wechat_audit_id IS NOT NULL`) {
			theirs, ours := at[fmt.Sprint(row["appid"], " ", row["wechat_audit_id"])], fmt.Sprint(row["status"])
			if (theirs == "approved" || theirs == "rejected") && ours != theirs {
				return fmt.Errorf("%s at WeChat: %v", theirs, row)
			}
		}
		return nil
	})
}

func number(v any) string {
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprint(v)
}
