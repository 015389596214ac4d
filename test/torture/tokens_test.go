package torture

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

const (
	componentCall = "cgi-bin/component/api_component_token"
	refreshCall   = "cgi-bin/component/api_authorizer_token"
	liveRead      = "/v1/stores?source=live"
)

// tokenFigures are what a storm of expiries amounts to.
type tokenFigures struct {
	Expiries, Refreshes, Reads, Failed int // of merchants' and the platform's tokens
	Stops, Waited                      int // processes stopped with a lease; reads of its merchant told to come again meanwhile
	Slowest                            time.Duration
}

func (f tokenFigures) String() string {
	return fmt.Sprintf("token expiries %d, refreshes %d, reads %d, failed %d, slowest %s (processes stopped with the lease %d, reads told to wait for it %d)",
		f.Expiries, f.Refreshes, f.Reads, f.Failed, f.Slowest.Round(time.Millisecond), f.Stops, f.Waited)
}

// WeChat ends access tokens, of many merchants and of the platform at once,
// while every process reads for all of them: each is refreshed exactly once,
// and nobody who reads is told of it. Now and then a process is stopped with
// the lease of one more merchant and goes on after the lease is over: what it
// does then changes nothing.
func TestTokens(t *testing.T) {
	figures(t, arenaOf{}, func(a *Arena, r *rand.Rand) fmt.Stringer {
		s := &tokenStorm{Arena: a, r: r, over: &http.Transport{MaxIdleConnsPerHost: 256}, newest: map[string]map[string]any{}}
		const merchants = 20
		for range merchants + 1 {
			m := a.newMerchant(map[string]any{"daily_limits": map[string]int{"/wxa/get_store_list": 10_000_000}})
			m.authorize()
			s.merchants = append(s.merchants, m)
		}
		for _, m := range s.merchants {
			m.wait()
		}
		held := s.merchants[merchants]
		s.merchants = s.merchants[:merchants]
		for _, slot := range a.Slots {
			slot.Up(nil)
		}
		s.read(held, a.Slots)
		s.calls() // so far
		s.Control("POST", "settings", map[string]any{"rotate_refresh_tokens": r.IntN(2) == 0}, nil)
		const perStop = 1000 // each takes as long as a lease
		for s.f.Expiries < *expiries {
			if s.stopped == nil && *expiries >= perStop && s.f.Stops <= s.f.Expiries/perStop {
				s.stop(held)
			}
			s.round()
			if s.stopped != nil && time.Now().After(s.resume) {
				s.goOn()
			}
		}
		for s.stopped != nil { // the storm goes on until it is over
			s.round()
			if time.Now().After(s.resume) {
				s.goOn()
			}
		}
		for _, m := range s.merchants {
			s.keepsNewest(m)
		}
		return s.f
	})
}

type tokenStorm struct {
	*Arena
	r         *rand.Rand
	over      *http.Transport
	merchants []*merchant
	newest    map[string]map[string]any // by appid: WeChat's newest reply to a refresh
	seq       int64                     // of the journal, as far as it was read
	f         tokenFigures

	stopped *Slot // with the lease of held
	held    *merchant
	resume  time.Time
	asked   int // times that WeChat was asked for held's token since
}

// calls reads the journal on, and counts the refreshes since the last time by
// appid, "" for the platform's.
func (s *tokenStorm) calls() map[string]int {
	s.t.Helper()
	n := map[string]int{}
	last := s.seq
	for _, path := range []string{componentCall, refreshCall} {
		var j struct{ Requests []world.Request }
		s.Control("GET", fmt.Sprintf("journal?path=%s&since=%d", path, s.seq), nil, &j)
		for _, c := range j.Requests {
			var asked, told map[string]any
			if json.Unmarshal([]byte(c.Body), &asked) != nil || json.Unmarshal([]byte(c.Reply), &told) != nil {
				s.t.Fatalf("%+v", c)
			}
			last = max(last, c.Seq)
			appid, _ := asked["authorizer_appid"].(string)
			if told["errcode"] != nil && told["errcode"] != 0.0 {
				if appid != "" && told["errcode"] == 42001.0 { // the platform's token was over too
					continue
				}
				s.t.Errorf("%s: %s", path, c.Reply)
			}
			n[appid]++
			if appid != "" {
				s.newest[appid] = told
			}
		}
	}
	s.seq = last
	return n
}

// running are the slots whose process isn't stopped.
func (s *tokenStorm) running() []*Slot {
	return slices.DeleteFunc(slices.Clone(s.Slots), func(slot *Slot) bool { return slot == s.stopped })
}

// read reads once for the merchant at each of these slots, side by side, and
// wants it to succeed.
func (s *tokenStorm) read(m *merchant, slots []*Slot) {
	var wait sync.WaitGroup
	for _, slot := range slots {
		wait.Go(func() {
			if status, said := s.try(m, slot); status != http.StatusOK {
				s.t.Errorf("%s at %s: %d %s", m.appid, slot.name, status, said)
			}
		})
	}
	wait.Wait()
}

func (s *tokenStorm) try(m *merchant, slot *Slot) (int, string) {
	answer, err := world.NewClient(s.t, slot.URL(), s.World.Key, s.over).For(m.id).Try("GET", liveRead, nil)
	if err != nil {
		return 0, err.Error()
	}
	return answer.Status, string(answer.Body)
}

// round ends tokens and lets everybody read.
func (s *tokenStorm) round() {
	const readers = 3 // of each merchant at each process
	of := s.merchants[:1+s.r.IntN(len(s.merchants))]
	s.r.Shuffle(len(s.merchants), func(i, j int) { s.merchants[i], s.merchants[j] = s.merchants[j], s.merchants[i] })
	over := map[string]bool{}
	for _, m := range of {
		s.Control("POST", "credentials", map[string]string{"expire_access_tokens": m.appid}, nil)
		over[m.appid] = true
	}
	if s.r.IntN(4) == 0 {
		s.Control("POST", "credentials", map[string]string{"expire_access_tokens": "component"}, nil)
		over[""] = true
	}
	var wait sync.WaitGroup
	var failed, slowest atomic.Int64
	for _, m := range of {
		for _, slot := range s.running() {
			for range readers {
				s.f.Reads++
				wait.Go(func() {
					begun := time.Now()
					if status, said := s.try(m, slot); status != http.StatusOK {
						failed.Add(1)
						s.t.Errorf("%s at %s: %d %s", m.appid, slot.name, status, said)
					}
					for took := int64(time.Since(begun)); ; {
						if was := slowest.Load(); took <= was || slowest.CompareAndSwap(was, took) {
							break
						}
					}
				})
			}
		}
	}
	wait.Wait()
	s.f.Failed += int(failed.Load())
	s.f.Slowest = max(s.f.Slowest, time.Duration(slowest.Load()))
	n := s.calls()
	if s.held != nil {
		s.asked += n[s.held.appid]
		delete(n, s.held.appid)
	}
	for appid := range over {
		s.f.Expiries++
		if n[appid] != 1 {
			s.t.Errorf("the token of %q expired once and was refreshed %d times", appid, n[appid])
		}
	}
	for appid, times := range n {
		s.f.Refreshes += times
		if !over[appid] {
			s.t.Errorf("the token of %q was refreshed %d times and had not expired", appid, times)
		}
	}
}

// leaseEnds is when a lease that was just taken is over.
const leaseEnds = 16 * time.Second

// stop stops a process with the lease of one merchant's token, before it asks
// WeChat or with WeChat's answer in its hands.
func (s *tokenStorm) stop(m *merchant) {
	slot := s.Slots[s.r.IntN(len(s.Slots))]
	slot.Kill()
	slot.Up(map[string]string{"GATEWAY_FAILPOINT": []string{"token_leased", "token_answered"}[s.r.IntN(2)] + ":stop"})
	s.try(m, slot) // what it needs besides the token is in its memory
	s.Control("POST", "credentials", map[string]string{"expire_access_tokens": m.appid}, nil)
	s.held, s.asked, s.stopped = m, 0, slot
	go s.try(m, slot) // whatever it is told in the end
	slot.g.WaitStopped()
	s.resume = time.Now().Add(leaseEnds)
	s.f.Stops++
}

// goOn lets another process refresh, then the stopped one go on.
func (s *tokenStorm) goOn() {
	m, slot := s.held, s.stopped
	world.Eventually(s.t, 20*time.Second, "another process refreshes", func() error {
		status, said := s.try(m, s.running()[0])
		if status == http.StatusServiceUnavailable {
			s.f.Waited++
		}
		if status != http.StatusOK {
			return fmt.Errorf("%d %s", status, said)
		}
		return nil
	})
	row := s.tokenRow(m)
	slot.g.Signal(syscall.SIGCONT)
	world.Eventually(s.t, 20*time.Second, "the late refresh comes to nothing", func() error {
		all, ok := slot.g.Metric("mendian_token_refreshes_total", `kind="merchant"`), slot.g.Metric("mendian_token_refreshes_total", `kind="merchant"`, `outcome="ok"`)
		if all < 1 || ok != 0 {
			return fmt.Errorf("%v refreshes, %v of them ok", all, ok)
		}
		return nil
	})
	if now := s.tokenRow(m); now != row {
		s.t.Errorf("the late refresh changed %s to %s", row, now)
	}
	s.stopped = nil
	s.read(m, s.Slots)
	s.asked += s.calls()[m.appid]
	// Once by the stopped one at most, once by its successor, and once more
	// where the late one, that nobody kept, ended what was kept.
	if s.asked > 3 {
		s.t.Errorf("WeChat was asked for %d tokens for one expiry, with a process stopped", s.asked)
	}
	s.keepsNewest(m)
	s.held = nil
}

// tokenRow is what the database holds of a merchant's tokens.
func (s *tokenStorm) tokenRow(m *merchant) string {
	return fmt.Sprint(s.Row(`SELECT encode(access_ct, 'hex') AS token, access_gen, encode(refresh_token_ct, 'hex') AS refresh FROM authorizer_tokens WHERE merchant_id = $1`,
		s.UUID(typeid.Merchant, m.id)))
}

// keepsNewest checks that the refresh token is kept that WeChat gave last.
func (s *tokenStorm) keepsNewest(m *merchant) {
	id := s.UUID(typeid.Merchant, m.id)
	row := s.Row(`SELECT refresh_token_ct FROM authorizer_tokens WHERE merchant_id = $1`, id)
	if kept := s.Open("authorizer_tokens", "refresh_token_ct", m.appid, id.String(), row["refresh_token_ct"]); s.newest[m.appid] != nil && kept != s.newest[m.appid]["authorizer_refresh_token"] {
		s.t.Errorf("the newest refresh token of %s is not kept", m.appid)
	}
}
