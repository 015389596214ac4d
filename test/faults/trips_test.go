package faults

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// What the database is asked while a request waits: nothing for a read that
// was made before, one for a read of our records, two round trips for a write,
// one for a push. Counted by the gateway's own metric, and on the wire.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{Tags: []string{"faults"}, Env: map[string]string{
		"GATEWAY_KEY_RATE": "100000", "GATEWAY_KEY_BURST": "100000", "GATEWAY_TENANT_RATE": "100000"}})
	p := &place{World: w, t: t}
	through, wire := countTurns(t, w.DSN)
	p.g = w.Start(map[string]string{"DATABASE_URL": through})
	p.c = w.Demo(p.g)
	p.Hold(true) // no tickets either: whatever is counted was asked for here
	trips := func() float64 { return p.g.Metric("mendian_database_round_trips_total") }
	cost := func(what string, want float64, do func()) {
		t.Helper()
		before := trips()
		do()
		if got := trips() - before; got != want {
			t.Errorf("%s: %v round trips, want %v", what, got, want)
		}
	}
	// onWire is the same, counted on the connections. A connection's first use of
	// a statement costs one more, and so does its first use after a second's rest.
	onWire := func(what, share string, want int, do func()) {
		t.Helper()
		p.Eventually(what, func() error {
			before := wire.of("mendian " + share)
			do()
			if got := wire.of("mendian "+share) - before; got != want {
				return fmt.Errorf("%d turns on the connections of %s, want %d", got, share, want)
			}
			return nil
		})
	}
	p.c.Do("POST", "/v1/stores", p.newStore()).Want(202)
	p.Eventually("our records have caught up with what is shown", func() error {
		before := trips()
		p.c.Do("GET", "/v1/stores?source=live", nil).Want(200)
		if n := trips() - before; n != 0 {
			return fmt.Errorf("%v round trips", n)
		}
		return nil
	})
	cost("1,000 reads of live stores", 0, func() {
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				for range 125 {
					if a, err := p.c.Try("GET", "/v1/stores?source=live", nil); err != nil || a.Status != 200 {
						t.Errorf("%v %+v", err, a)
						return
					}
				}
			})
		}
		readers.Wait()
	})
	cost("a read of our records", 1, func() { p.c.Do("GET", "/v1/stores", nil).Want(200) })
	s := p.newStore()
	cost("a creation", 2, func() { p.c.Do("POST", "/v1/stores", s, "Idempotency-Key", "two").Want(202) })
	p.Control("POST", "messages", map[string]string{"appid": sandbox.DemoOfficialAccount, "xml": storeEvent("add_store_audit_info", 1, 1, "1")}, nil)
	onWire("a warm read on the wire", "requests", 0, func() { p.c.Do("GET", "/v1/stores?source=live", nil).Want(200) })
	onWire("a read of our records on the wire", "requests", 1, func() { p.c.Do("GET", "/v1/stores", nil).Want(200) })
	onWire("a creation on the wire", "requests", 2, func() { p.c.Do("POST", "/v1/stores", p.newStore()).Want(202) })
	push := func() {
		p.Control("POST", "messages", map[string]string{"appid": sandbox.DemoOfficialAccount, "xml": storeEvent("add_store_audit_info", 1, 1, "1")}, nil)
		newest := func() pushed {
			return slices.MaxFunc(p.pushes("message"), func(a, b pushed) int { return cmp.Compare(a.ID, b.ID) })
		}
		p.Control("POST", "pushes/"+newest().id()+"/release", nil, nil)
		p.Eventually("the push is delivered", func() error { return newest().delivered() })
	}
	cost("a push", 1, push)
	onWire("a push on the wire", "pushes", 1, push)
}
