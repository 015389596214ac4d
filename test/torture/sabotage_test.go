package torture

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// A sabotage is a way to break the protocol that fault builds know
// (fault.Sabotaged), and the least of a suite that notices it.
type sabotage struct {
	breach string
	play   suite
	goal   int
	says   string // what the suite complains of first
}

const unknown = `^WeChat gave audit_id \d+ to wx\w+ \(.*\), and nobody here knows it$`

var sabotages = []sabotage{
	// T2 before the spool: who dies in T2 takes the only copy along.
	{"commit_before_spool", matrix([]string{"goods.create"}, []Death{{Point: "before_t2"}}), 1, unknown},
	// The spool's sync is left out: the power goes, and the record with it.
	{"spool_unsynced", matrix([]string{"goods.create"}, []Death{{Point: "after_spool", Power: true}}), 1, unknown},
	// Who hangs up takes the call to WeChat along.
	{"call_ends_with_client", leavers([]string{"goods.create"}), 7, unknown},
	// A push is taken for another one of its sender's of the same second.
	{"dedupe_by_second", decisions, 8, `^8 decisions were pushed, and \d kept$`},
	// What was not answered is sent again.
	{"sent_again", lostReplies, 2, `^goods\.create .*: 2 effects at WeChat`},
}

// Each sabotage turns a suite red, for its own reason, that is green with the
// same seed when nothing is broken: a harness that can't fail proves nothing.
func TestSabotage(t *testing.T) {
	t.Parallel()
	heard := &recorder{TB: t}
	a := NewArena(heard, 1, nil, "")
	for _, breach := range []bool{false, true} {
		for _, s := range sabotages {
			if breach {
				a.Slots[0].Sabotage = s.breach
			}
			begun, name := time.Now(), fmt.Sprintf("%s (broken: %t)", s.breach, breach)
			switch said := heard.during(func() { s.play(a, rand.New(rand.NewPCG(7, 0)), &Figures{}, s.goal) }); {
			case !breach && len(said) > 0:
				t.Fatalf("%s: %q", name, said)
			case breach && len(said) == 0:
				t.Errorf("%s: no one noticed", name)
			case breach && !regexp.MustCompile(s.says).MatchString(said[0]):
				t.Errorf("%s: noticed for another reason: %q", name, said)
			case breach:
				t.Logf("%s: %s", name, said[0])
			}
			a.Slots[0].Kill()
			t.Logf("%s took %s", name, time.Since(begun).Round(time.Millisecond))
		}
	}
}

// A recorder is a test that is told of failures and does not fail. What was
// made for it ends with the real one, which is also asked whether it failed.
type recorder struct {
	testing.TB
	mu   sync.Mutex
	said []string
}

// during is what failed while do ran.
func (r *recorder) during(do func()) []string {
	var work sync.WaitGroup
	work.Go(do) // Fatal ends its goroutine
	work.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.said
	r.said = nil
	return said
}

func (r *recorder) keep(said string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, said)
}

func (r *recorder) Error(args ...any)                 { r.keep(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.keep(fmt.Sprintf(format, args...)) }
func (r *recorder) Fail()                             { r.keep("failed without a word") }
func (r *recorder) Fatal(args ...any)                 { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) { r.Errorf(format, args...); runtime.Goexit() }
func (r *recorder) FailNow()                          { r.Fail(); runtime.Goexit() }

// lostReplies are of goods that WeChat has made, and whose reply never comes.
func lostReplies(a *Arena, r *rand.Rand, f *Figures, goal int) {
	urls := a.up()
	writes := a.Prepare(goal, "goods.create")
	a.Hold(true)
	for _, w := range writes {
		a.Fault(w.Call, 1, map[string]any{"drop_reply": true})
		a.drive(w, urls, r)
		f.Network++
		w.Forgotten = true
	}
	a.Check(writes, f, false)
	a.Hold(false)
}

// decisions are as many as asked for in one second, on one account. Each push is
// kept, though polls would tell the same later.
func decisions(a *Arena, r *rand.Rand, f *Figures, goal int) {
	urls := a.up()
	a.Control("POST", "component", map[string]any{"push_url": urls[0] + "/wechat/" + a.Tenant.Ref}, nil)
	defer a.Control("POST", "component", map[string]any{"push_url": a.PublicURL + "/wechat/" + a.Tenant.Ref}, nil)
	writes := a.Prepare(goal, "store.create")
	a.Hold(true)
	for _, w := range writes {
		a.drive(w, urls, r)
	}
	a.DecideAll()
	a.Hold(false)
	world.Eventually(a.t, quiet, "the pushes", func() error {
		var list struct {
			Pushes []struct{ Status, AppID string }
		}
		a.Control("GET", "pushes", nil, &list)
		delivered := 0
		for _, p := range list.Pushes {
			if p.AppID == writes[0].AppID && p.Status == "delivered" {
				delivered++
			}
		}
		if delivered != goal {
			return fmt.Errorf("%d delivered", delivered)
		}
		return nil
	})
	if kept := a.Query(`SELECT 1 FROM event_inbox WHERE appid = $1 AND event = 'add_store_audit_info'`, writes[0].AppID); len(kept) != goal {
		a.t.Errorf("%d decisions were pushed, and %d kept", goal, len(kept))
		return // the rest would wait for the polls
	}
	a.Release()
	a.Check(writes, f, true)
}
