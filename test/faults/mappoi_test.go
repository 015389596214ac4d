package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// Nothing at WeChat shows a place that was proposed, and nothing keeps a second
// one from being made: a proposal whose answer was lost is never sent again. It
// is a person's to decide, unless Tencent's decision tells first.
func TestMapPOIAnswerLost(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	const create = "wxa/create_map_poi"
	const picture = "http://mmbiz.qpic.cn/mmbiz_png/tW66AWE2K6ECFPcyAcIZTG8RlcR0sAqBibOm8gao5xOoLfIic9ZJ6MADAktGPxZI7MZLcadZUT36b14NJ2cHRHA/0?wx_fmt=png"
	place := func(name string) map[string]any {
		return map[string]any{"name": name, "location": map[string]string{"latitude": "23.0974903107", "longitude": "113.323753357"}, "province": "Guangdong", "city": "Guangzhou",
			"district": "Haizhu District", "district_id": "440105", "address": "TIT", "category_path": []string{"Shopping"}, "phones": []string{"12345678901"}, "photo_url": picture,
			"license_url": picture, "introduction": "test"}
	}
	calls := func(name string) (n int) {
		for _, call := range p.Journal(create) {
			var sent struct{ Name string }
			if json.Unmarshal([]byte(call.Body), &sent) == nil && sent.Name == name {
				n++
			}
		}
		return n
	}
	first := map[string]*world.Answer{}
	for _, l := range losses {
		p.Fault(create, 1, l.fault)
		a := p.c.Do("POST", "/v1/map-pois", place(l.name), "Idempotency-Key", "place-"+fmt.Sprint(len(first))).Want(http.StatusAccepted)
		if a.Get("status") != "outcome_unknown" || a.Get("operation", "status") != "reconciling" || a.Get("base_id") != "null" {
			t.Errorf("%s: %s", l.name, a.Body)
		}
		again := p.c.Do("POST", "/v1/map-pois", place(l.name), "Idempotency-Key", "place-"+fmt.Sprint(len(first))).Want(http.StatusAccepted)
		if again.Header.Get("Idempotency-Replayed") != "true" || again.Get("id") != a.Get("id") {
			t.Errorf("%s: the same key again: %v %s", l.name, again.Header, again.Body)
		}
		p.c.Do("POST", "/v1/map-pois", place(l.name)).WantProblem(http.StatusConflict, "operation_in_progress")
		first[l.name] = a
	}
	// Nothing is to be looked at: it waits for its event, and says for how long.
	for _, l := range losses {
		op := p.c.Do("GET", "/v1/operations/"+first[l.name].Header.Get("Operation-Id"), nil).Want(200)
		until, err := time.Parse(time.RFC3339, op.Get("attention_at"))
		if wait := time.Until(until); op.Get("status") != "reconciling" || err != nil || wait < 3*time.Hour || wait > 4*time.Hour { // fifty times as fast as seven days
			t.Errorf("%s: %s", l.name, op.Body)
		}
	}
	// The decision names the place: it finds the one proposal that it is about.
	for _, a := range p.Audits() {
		if a["kind"] == "map_poi" {
			p.Decide("map_poi", fmt.Sprintf("%.0f", a["id"]), "approve", "")
		}
	}
	p.Hold(false)
	for _, l := range losses {
		a := first[l.name]
		path, op := "/v1/map-pois/"+a.Get("id"), "/v1/operations/"+a.Header.Get("Operation-Id")
		if !l.done {
			continue
		}
		p.Eventually("the place "+l.name+" is approved", func() error {
			if a := p.c.Do("GET", path, nil); a.Get("status") != "approved" || a.Get("base_id") == "null" || a.Get("map_poi_id") == "null" || a.Get("operation") != "" {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
		if o := p.c.Do("GET", op, nil).Want(200); o.Get("status") != "succeeded" {
			t.Errorf("%s: %s", l.name, o.Body)
		}
		if got := issued(p.World, "base_id", l.name); len(got) != 1 || p.c.Do("GET", path, nil).Get("base_id") != got[0] {
			t.Errorf("%s: WeChat's number is %v", l.name, got)
		}
	}
	// What was not executed is left to a person in the end, who looks at WeChat's
	// pages, and may do so before.
	for i, l := range losses {
		if l.done {
			continue
		}
		path, op := "/v1/map-pois/"+first[l.name].Get("id"), "/v1/operations/"+first[l.name].Header.Get("Operation-Id")
		want := "reconciling"
		if i%2 == 0 {
			want = "needs_attention"
			p.Exec(`UPDATE operations SET sent_at = sent_at - interval '7 days', next_check_at = now() WHERE id = $1`, p.UUID(typeid.Operation, first[l.name].Header.Get("Operation-Id")))
			p.settled(first[l.name].Header.Get("Operation-Id"))
		}
		if o := p.c.Do("GET", op, nil).Want(200); o.Get("status") != want {
			t.Errorf("%s: %s", l.name, o.Body)
		}
		p.c.Do("POST", op+"/resolution", map[string]string{"decision": "not_executed"}).Want(200)
		if a := p.c.Do("GET", path, nil).Want(200); a.Get("status") != "failed" || a.Get("operation") != "" {
			t.Errorf("%s: %s", l.name, a.Body)
		}
		if a := p.c.Do("POST", "/v1/map-pois", place(l.name)).Want(http.StatusAccepted); a.Get("status") != "in_review" || a.Get("base_id") == "null" {
			t.Errorf("%s, sent again: %s", l.name, a.Body)
		}
	}
	for _, l := range losses {
		want := 1
		if !l.done {
			want = 2
		}
		if n := calls(l.name); n != want || effects(p.World, "create_map_poi", l.name) != 1 {
			t.Errorf("%s: %d calls, want %d; %d places", l.name, n, want, effects(p.World, "create_map_poi", l.name))
		}
	}
}
