package torture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Death is a moment of a write at which its process is killed, and what is
// left of it.
type Death struct {
	Point     string // of the process that makes the write
	Power     bool   // the machine loses its power: what was written and not synced is gone
	Second    string // of its successor, which dies too
	NoSpool   bool   // the disk is lost with it
	Forgotten bool   // nothing of ours holds WeChat's reply
}

func (d Death) String() string {
	n := d.Point
	if d.Power {
		n += " by loss of power"
	}
	if d.Second != "" {
		n += ", then " + d.Second
	}
	if d.NoSpool {
		n += ", spool lost"
	}
	return n
}

// Deaths are the steps of the protocol (docs/reliability.md).
var Deaths = []Death{
	{Point: "before_t1"},
	{Point: "after_t1"},
	{Point: "request_written", Forgotten: true},
	{Point: "reply_begun", Forgotten: true},
	{Point: "after_upstream", Forgotten: true},
	{Point: "spool_rotated", Forgotten: true}, // before the record, or before the note that it is done with
	{Point: "spool_written"},
	{Point: "spool_written", Power: true, Forgotten: true},
	{Point: "after_spool"},
	{Point: "after_spool", Power: true},
	{Point: "before_t2"},
	{Point: "after_t2"},
	{Point: "before_reply"},
	{Point: "spool_done"},
	{Point: "after_spool", Second: "spool_replayed"},
	{Point: "after_spool", Second: "before_t2"},
	{Point: "after_spool", NoSpool: true, Forgotten: true},
	{Point: "after_upstream", Second: "reconcile_taken", Forgotten: true},
}

// Each write kind is killed at each step. WeChat keeps every push and audit
// back until the ids were read from the processes that came after: the spool is
// what tells them.
func TestMatrix(t *testing.T) { run(t, *matrixKills, matrix(Kinds, Deaths)) }

func matrix(kinds []string, deaths []Death) suite {
	return func(a *Arena, r *rand.Rand, f *Figures, goal int) {
		lanes := a.Slots
		var files []string
		for i, s := range lanes {
			files = append(files, filepath.Join(a.Dir, fmt.Sprintf("failpoint-%d", i)))
			s.Up(mortal(files[i]))
		}
		type fate struct {
			w *Write
			d Death
		}
		for round := 0; f.Kills < goal; round++ {
			// A round takes one step of each kind, another one next time.
			writes := a.Prepare(min(len(deaths), max(1, (goal-f.Kills+len(kinds)-1)/len(kinds))), kinds...)
			r.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
			n := map[string]int{}
			fates := make(chan fate, len(writes))
			for _, w := range writes {
				fates <- fate{w, deaths[(round+n[w.Kind])%len(deaths)]}
				n[w.Kind]++
			}
			close(fates)
			a.Hold(true)
			a.Fault("*", 1_000_000, map[string]any{"delay_ms": 40, "before": round%2 == 0})
			var kills atomic.Int64
			var wait sync.WaitGroup
			for i, s := range lanes {
				own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
				wait.Go(func() {
					for fate := range fates {
						kills.Add(s.die(fate.w, fate.d, files[i], own))
					}
				})
			}
			wait.Wait()
			a.Control("DELETE", "faults", nil, nil)
			f.Kills += int(kills.Load())
			a.judge(writes, f)
			a.t.Logf("round %d: %s", round, f)
		}
	}
}

// mortal is the environment of a process that dies of what the file says, and
// whose spool takes a new file for each record.
func mortal(file string) map[string]string {
	return map[string]string{"GATEWAY_FAILPOINT_FILE": file, "GATEWAY_FAULT_SEGMENT": "1"}
}

// die sends the write to the slot's process, which dies of it, and repeats the
// request as its caller would. It returns how many processes died.
func (s *Slot) die(w *Write, d Death, file string, r *rand.Rand) (kills int64) {
	a := s.arena
	w.Forgotten, w.Fate = d.Forgotten, d.String()
	order := d.Point + ":kill"
	if d.Power {
		order = d.Point + ":power"
	}
	if err := os.WriteFile(file, []byte(order), 0o600); err != nil {
		a.t.Error(err)
	}
	answer, err := a.ask(w, s.URL())
	if err == nil && answer != nil {
		a.t.Errorf("%s: answered although its process was to die at %s: %d %s", w.Kind, d, answer.Status, answer.Body)
	}
	s.g.WaitExit(30 * time.Second)
	kills++
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		a.t.Error(err)
	}
	if d.NoSpool {
		segments, _ := filepath.Glob(filepath.Join(s.spool, "seg-*.log"))
		for _, path := range segments {
			if err := os.Remove(path); err != nil {
				a.t.Error(err)
			}
		}
	}
	if d.Second != "" {
		if g := s.Launch(map[string]string{"GATEWAY_FAILPOINT": d.Second + ":kill"}); strings.HasPrefix(d.Second, "reconcile") {
			// Another process may look at it first: then this one lives.
			g.ExitsWithin(3 * time.Second)
			s.Kill()
		} else {
			g.WaitExit(30 * time.Second)
		}
		kills++
	}
	s.Up(mortal(file))
	a.drive(w, []string{s.URL()}, r)
	return kills
}
