// Package torture kills gateways, cuts their networks and their Postgres off
// while they write, and compares what they know with what the simulator did:
// no id that WeChat gave is lost, and no write had two effects because of us.
// It storms them with pushes and with tokens that expire, and lets midnight come.
//
// It drives the built binary (with the fault hooks), several processes with a
// spool each, a real Postgres with fsync on, and the simulator, whose truth log
// is the judge. `make torture` runs it at full size; `go test` runs a short
// form. It must never forgive: what a check excuses is named and counted.
package torture

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A suite hurts an arena until it has done its share, and checks what is left.
type suite func(a *Arena, r *rand.Rand, f *Figures, goal int)

var (
	seed        = flag.Uint64("seed", 0, "of every choice; 0: another one each time")
	slots       = flag.Int("slots", 3, "gateway processes")
	matrixKills = flag.Int("matrix", 17, "kills at a step of a write")

	hangUps        = flag.Int("hangups", 12, "callers who hang up before their answer")
	randomKills    = flag.Int("kills", 8, "kills at any moment, under load")
	networkFaults  = flag.Int("network", 12, "faults of the network, under load")
	databaseFaults = flag.Int("postgres", 8, "faults of Postgres, under load")

	expiries = flag.Int("expiries", 200, "access tokens that expire")
	pushes   = flag.Int("pushes", 300, "pushes, each sent one to four times")
	creates  = flag.Int("creates", 90, "goods that each process is asked to create around midnight")
)

// run gives a suite its arena and its seed, and prints its figures.
func run(t *testing.T, goal int, play suite) {
	figures(t, arenaOf{}, func(a *Arena, r *rand.Rand) fmt.Stringer {
		var f Figures
		play(a, r, &f, goal)
		return f
	})
}

// arenaOf is what a suite's arena has of its own.
type arenaOf struct {
	env    map[string]string
	binary func() string // of its first processes; nil: this checkout's
}

// figures is run for a suite with figures of its own.
func figures(t *testing.T, of arenaOf, suite func(*Arena, *rand.Rand) fmt.Stringer) {
	t.Parallel()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-args -seed %d repeats this run", s)
	begun, binary := time.Now(), ""
	if of.binary != nil {
		binary = of.binary()
	}
	a := NewArena(t, *slots, of.env, binary)
	f := suite(a, rand.New(rand.NewPCG(s, 0)))
	a.CheckEvents()
	a.CheckLogs()
	t.Logf("%s: %s, in %s", t.Name(), f, time.Since(begun).Round(time.Second))
}
