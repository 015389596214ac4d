// Package faults kills, stops and cuts off gateways while they work, and
// compares what they know afterwards with what the simulator knows.
//
// The processes are the built binary, most of them with -tags faults, and die
// by their own failpoint, so that each test hits the very moment it is about.
package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// A place is a world of fault builds whose gateway dies and comes back on the
// same spool directory and address.
type place struct {
	*world.World
	t     *testing.T
	spool string
	g     *world.Gateway
	c     *world.Client // of the merchant with stores
	n     int           // stores asked for
	taken map[string]bool
}

// newPlace has a gateway with the demo merchant. The looks of the reconciler
// come fifty times as fast as in production.
func newPlace(t *testing.T) *place {
	t.Helper()
	w := world.New(t, world.Options{Tags: []string{"faults"}, Env: map[string]string{"GATEWAY_FAULT_SCHEDULE": "0.02"}})
	w.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/stores", map[string]any{"count": 8}, nil)
	p := &place{World: w, t: t, spool: filepath.Join(w.Dir, "spool"), taken: map[string]bool{}}
	p.start("")
	p.c = w.Demo(p.g)
	return p
}

func (p *place) environ(failpoint string) map[string]string {
	env := map[string]string{"GATEWAY_SPOOL_DIR": p.spool, "GATEWAY_ADDR": strings.TrimPrefix(p.PublicURL, "http://"), "GATEWAY_FAILPOINT": failpoint}
	if strings.HasPrefix(failpoint, "spool_rotated") {
		env["GATEWAY_FAULT_SEGMENT"] = "1" // each record fills a segment
	}
	return env
}

// start brings a gateway up on the place's spool, with a failpoint or "".
func (p *place) start(failpoint string) {
	p.t.Helper()
	p.g = p.Start(p.environ(failpoint))
	if p.c != nil {
		p.c = p.c.At(p.g)
	}
}

// restart kills the gateway and brings up the next one.
func (p *place) restart(failpoint string) {
	p.t.Helper()
	p.g.Kill()
	p.start(failpoint)
}

// dying sends a request that the gateway does not survive.
func (p *place) dying(method, path string, body any, key string) {
	p.t.Helper()
	a, err := p.c.Try(method, path, body, "Idempotency-Key", key)
	if err == nil {
		p.t.Fatalf("%s %s was answered: %d %s", method, path, a.Status, a.Body)
	}
	p.g.WaitExit(20 * time.Second)
}

// loseSpool removes what the dead gateway had written down.
func (p *place) loseSpool() {
	p.t.Helper()
	segments, err := filepath.Glob(filepath.Join(p.spool, "seg-*.log"))
	if err != nil || len(segments) == 0 {
		p.t.Fatalf("no segments in %s (%v)", p.spool, err)
	}
	for _, path := range segments {
		if err := os.Remove(path); err != nil {
			p.t.Fatal(err)
		}
	}
}

// newStore is a store like no other of this place, whose phone has no meaning
// to the simulator.
func (p *place) newStore() map[string]any {
	p.n++
	s := p.NewStore(p.n)
	s["contact_phone"] = "020-12345678"
	return s
}

// settled waits for the operation to end, and returns it.
func (p *place) settled(id string) *world.Answer {
	p.t.Helper()
	var op *world.Answer
	world.Eventually(p.t, time.Minute, "the end of "+id, func() error {
		op = p.c.Do("GET", "/v1/operations/"+id, nil).Want(200)
		if s := op.Get("status"); s != "succeeded" && s != "failed" && s != "needs_attention" {
			return fmt.Errorf("%s", op.Body)
		}
		return nil
	})
	return op
}

// effects counts what the simulator executed of a kind on a key.
func effects(w *world.World, kind, key string) (n int) {
	_, all := w.Truth()
	for _, e := range all {
		if e.Kind == kind && e.Key == key {
			n++
		}
	}
	return n
}

// issued are the ids of a type that the simulator gave for a key, as its truth
// log has them.
func issued(w *world.World, typ, key string) (ids []string) {
	all, _ := w.Truth()
	for _, id := range all {
		if id.Type == typ && id.Key == key {
			ids = append(ids, id.ID)
		}
	}
	return ids
}

// query reads rows of one column as text, past what the REST API shows.
func query(w *world.World, sql string, args ...any) []string {
	var texts []string
	for _, row := range w.Query(sql, args...) {
		for _, v := range row {
			texts = append(texts, fmt.Sprint(v))
		}
	}
	return texts
}

// demoUserName is what the merchant with stores is called in pushes.
var demoUserName = "gh_" + strings.TrimPrefix(sandbox.DemoOfficialAccount, "wx")[4:]
