package torture

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A Nemesis hurts an arena until ctx ends, tells each time that it did, and
// leaves all of it well.
type Nemesis func(ctx context.Context, a *Arena, r *rand.Rand, hurt func())

// storm lets callers write at all slots while the nemesis is at work, in
// rounds, until it has done its share. cuts says that replies of WeChat's may
// be cut off on their way to the spool.
func storm(cuts bool, count func(*Figures) *int, nemesis Nemesis) suite {
	return func(a *Arena, r *rand.Rand, f *Figures, goal int) {
		urls := a.up()
		for round := 0; *count(f) < goal; round++ {
			writes := a.Prepare(min(24, max(1, (goal-*count(f))/8)), Kinds...)
			ctx, cancel := context.WithCancel(context.Background())
			var done atomic.Int64
			enough := int64(goal - *count(f))
			hurt := func() {
				if done.Add(1) >= enough {
					cancel()
				}
			}
			var nemeses sync.WaitGroup
			nemesisRand := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
			nemeses.Go(func() { nemesis(ctx, a, nemesisRand, hurt) })
			a.crowd(writes, r, map[string]any{"delay_ms": 40}, func(w *Write, own *rand.Rand) { a.drive(w, urls, own) })
			cancel()
			nemeses.Wait()
			a.Control("DELETE", "faults", nil, nil)
			*count(f) += int(done.Load())
			// Which replies were cut off can't be known, so what no event can
			// tell is looked at afterwards.
			for _, w := range writes {
				w.Forgotten = cuts
			}
			a.judge(writes, f)
			a.t.Logf("round %d: %s", round, f)
		}
		for _, s := range a.Slots {
			s.Kill()
		}
	}
}

// up starts a process in each slot, and tells where they listen.
func (a *Arena) up() (urls []string) {
	a.t.Helper()
	for _, s := range a.Slots {
		s.Up(nil)
		urls = append(urls, s.URL())
	}
	return urls
}

// crowd lets a dozen callers make these writes, while WeChat is slow, so that
// what is done meanwhile meets requests on their way, and keeps its pushes back.
func (a *Arena) crowd(writes []*Write, r *rand.Rand, slow map[string]any, call func(w *Write, own *rand.Rand)) {
	a.t.Helper()
	r.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	a.Fault("*", 1_000_000, slow)
	a.Hold(true)
	sideBySide(12, writes, r, func(w *Write, own *rand.Rand) {
		call(w, own)
		time.Sleep(time.Duration(own.IntN(600)) * time.Millisecond)
	})
}

// sideBySide lets so many callers make the writes, each with choices of its own.
func sideBySide(callers int, writes []*Write, r *rand.Rand, call func(w *Write, own *rand.Rand)) {
	queue := make(chan *Write, len(writes))
	for _, w := range writes {
		queue <- w
	}
	close(queue)
	var wait sync.WaitGroup
	for range callers {
		own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		wait.Go(func() {
			for w := range queue {
				call(w, own)
			}
		})
	}
	wait.Wait()
}

// Callers hang up at any moment of a write, and ask for it again. Nothing else
// is hurt: every id is known from WeChat's reply, before anything else could
// have told it.
func TestHangUps(t *testing.T) { run(t, *hangUps, leavers(Kinds)) }

func leavers(kinds []string) suite {
	return func(a *Arena, r *rand.Rand, f *Figures, goal int) {
		urls := a.up()
		for round := 0; f.HangUps < goal; round++ {
			writes := a.Prepare(min(24, 1+(goal-f.HangUps)/len(kinds)), kinds...)
			var left atomic.Int64
			// Most hang up between what WeChat does and its reply.
			a.crowd(writes, r, map[string]any{"delay_ms": 300, "before": false}, func(w *Write, own *rand.Rand) {
				for range 2 {
					if a.hangUp(w, urls[own.IntN(len(urls))], time.Duration(1+own.IntN(400))*time.Millisecond) {
						left.Add(1)
					}
				}
				a.drive(w, urls, own)
			})
			a.Control("DELETE", "faults", nil, nil)
			f.HangUps += int(left.Load())
			a.judge(writes, f)
			if f.Late+f.Untold+f.Attention > 0 {
				a.t.Errorf("ids were not told by WeChat's reply, though it came: %s", f)
			}
			a.t.Logf("round %d: %s", round, f)
		}
	}
}

// Processes die at any moment and come back on their spool.
func TestKills(t *testing.T) {
	run(t, *randomKills, storm(true, func(f *Figures) *int { return &f.Kills }, func(ctx context.Context, a *Arena, r *rand.Rand, hurt func()) {
		var wait sync.WaitGroup
		for _, s := range a.Slots {
			own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
			wait.Go(func() {
				for ctx.Err() == nil {
					if own.IntN(6) > 0 { // else it may die while it starts
						s.WaitReady()
					}
					if !pause(ctx, 50+own.IntN(900)) {
						break
					}
					s.Kill()
					hurt()
					pause(ctx, own.IntN(1000))
					s.Launch(nil)
				}
				s.WaitReady()
			})
		}
		wait.Wait()
	}))
}

// Toxics are what a network does, each in one direction.
var Toxics = []Toxic{
	{Name: "latency", Delay: 150 * time.Millisecond},
	{Name: "reset", Reset: true},
	{Name: "half-closed", Half: true},
	{Name: "truncated", Cut: 700},
	{Name: "cut at once", Cut: 1},
	{Name: "slow", Drip: 64},
	{Name: "mute", Mute: true},
	{Name: "down", Down: true},
}

// Links fail, to WeChat and to Postgres, one slot and direction at a time.
func TestNetwork(t *testing.T) {
	run(t, *networkFaults, storm(true, func(f *Figures) *int { return &f.Network }, func(ctx context.Context, a *Arena, r *rand.Rand, hurt func()) {
		var wait sync.WaitGroup
		for _, s := range a.Slots {
			own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
			wait.Go(func() {
				for pause(ctx, 50+own.IntN(200)) {
					link, toxic := s.WeChat, Toxics[own.IntN(len(Toxics))]
					if own.IntN(2) == 0 {
						link = s.DB
					}
					toxic.Up = own.IntN(2) == 0
					link.Set(toxic)
					pause(ctx, 100+own.IntN(400))
					if link.Heal(a.t) > 0 {
						hurt()
					}
				}
			})
		}
		wait.Wait()
	}))
}

// Postgres loses connections, crashes and recovers, and is replaced by its
// synchronous standby. No process dies: every reply that comes is kept.
func TestPostgres(t *testing.T) {
	run(t, *databaseFaults, storm(false, func(f *Figures) *int { return &f.Database }, func(ctx context.Context, a *Arena, r *rand.Rand, hurt func()) {
		for n := 1; pause(ctx, 100+r.IntN(400)); n++ {
			switch {
			case n%40 == 0:
				standby := a.Cluster.Standby()
				pause(ctx, 300)
				a.Cluster.Kill()
				standby.Promote()
				a.MoveDatabase(standby)
			case n%8 == 0:
				a.Cluster.Kill()
				pause(ctx, r.IntN(500))
				a.Cluster.Start()
			case n%3 == 0:
				if a.Cluster.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'`) != nil {
					continue
				}
			default:
				if a.Cluster.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY random() LIMIT 5`) != nil {
					continue
				}
			}
			hurt()
		}
	}))
}

// pause waits and reports whether ctx goes on.
func pause(ctx context.Context, ms int) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return true
	}
}
