package authorizer

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// When calls are paused and for how long (design reliability.md §10).
const (
	circuitWindow = 30 * time.Second // that is looked back
	circuitCalls  = 20               // fewer within it prove nothing
	circuitSlots  = 10               // of the window, dropped one by one
	firstPause    = 5 * time.Second  // doubled by each probe that fails
	longestPause  = time.Minute
	probeWait     = time.Second // what those are told who come while a probe is under way
)

// A circuitState is where a circuit stands, as log and metrics name it.
type circuitState string

const (
	circuitClosed   circuitState = "closed"    // calls go through
	circuitOpen     circuitState = "open"      // calls are refused here
	circuitHalfOpen circuitState = "half_open" // one call tries, all others are refused
)

// A circuit pauses the calls of one tenant to one part of WeChat while half of
// them or more get no answer. Whatever WeChat answers, refusals too, is an
// answer: only outages count (wechat.Error.Outage).
//
// A permit may be given back unused, and says nothing once the circuit has
// moved on: a call that was sent before the pause doesn't judge the probe.
type circuit struct {
	pace    float64                                    // multiplies all times but probeWait
	changed func(to circuitState, pause time.Duration) // called under no lock

	mu    sync.Mutex
	state circuitState
	round int // counts the changes of state
	slots [circuitSlots]struct {
		at             int64 // which slot of all time
		calls, outages int
	}
	until time.Time // open: when a call may try
	pause time.Duration
}

// A permit is leave to make one call.
type permit struct {
	of    *circuit
	round int
}

func newCircuit(pace float64, changed func(circuitState, time.Duration)) *circuit {
	return &circuit{pace: pace, changed: changed, state: circuitClosed}
}

func (c *circuit) paced(d time.Duration) time.Duration { return time.Duration(float64(d) * c.pace) }

// enter asks for leave. wait > 0: there is none, and when to ask again.
func (c *circuit) enter() (_ permit, wait time.Duration) {
	c.mu.Lock()
	wait = c.wait()
	probe := wait == 0 && c.state == circuitOpen
	if probe {
		c.become(circuitHalfOpen)
	}
	p := permit{c, c.round}
	c.mu.Unlock()
	if probe {
		c.changed(circuitHalfOpen, 0)
	}
	return p, wait
}

// paused is how long enter would make a caller wait.
func (c *circuit) paused() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wait()
}

func (c *circuit) wait() time.Duration {
	switch c.state {
	case circuitOpen:
		return max(0, time.Until(c.until))
	case circuitHalfOpen:
		return probeWait
	}
	return 0
}

func (c *circuit) become(s circuitState) {
	c.state = s
	c.round++
}

// heard notes what became of the permit's call.
func (p permit) heard(outage bool) {
	c := p.of
	c.mu.Lock()
	now, was := time.Now(), c.round
	switch {
	case p.round != c.round: // it has been judged by others
	case c.state == circuitHalfOpen && outage:
		c.pause = min(2*c.pause, c.paced(longestPause))
		c.until = now.Add(c.pause)
		c.become(circuitOpen)
	case c.state == circuitHalfOpen:
		clear(c.slots[:])
		c.become(circuitClosed)
	case c.count(now, outage):
		c.pause = c.paced(firstPause)
		c.until = now.Add(c.pause)
		c.become(circuitOpen)
	}
	moved, state, pause := c.round != was, c.state, c.pause
	c.mu.Unlock()
	if moved {
		c.changed(state, pause)
	}
}

// judge is heard of what Do returned. That a caller has left tells nothing.
func (p permit) judge(ctx context.Context, e *wechat.Endpoint, reply wechat.Reply, err error) {
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) {
		p.heard(unanswered(e, reply, err))
	}
}

// leave gives a permit back. After heard it does nothing.
func (p permit) leave() {
	c := p.of
	c.mu.Lock()
	unused := p.round == c.round && c.state == circuitHalfOpen
	if unused {
		c.become(circuitOpen) // until is over: the next one tries
	}
	c.mu.Unlock()
	if unused {
		c.changed(circuitOpen, 0)
	}
}

// count adds a call to the window, and tells whether that is too much.
func (c *circuit) count(now time.Time, outage bool) bool {
	at := now.UnixNano() / int64(c.paced(circuitWindow/circuitSlots))
	s := &c.slots[at%circuitSlots]
	if s.at != at {
		s.at, s.calls, s.outages = at, 0, 0
	}
	s.calls++
	if outage {
		s.outages++
	}
	calls, outages := 0, 0
	for _, s := range c.slots {
		if s.at > at-circuitSlots {
			calls += s.calls
			outages += s.outages
		}
	}
	return calls >= circuitCalls && 2*outages >= calls
}

// circuitName is the part of WeChat that an endpoint belongs to. The platform's
// own token stands apart: that the calls made with it fail is no reason not to
// get one, and the other way round.
func circuitName(e *wechat.Endpoint) string {
	if e == wechat.GetComponentToken {
		return "component_token"
	}
	return string(e.Family)
}

func (a *Authorizer) circuit(tenantID uuid.UUID, e *wechat.Endpoint) *circuit {
	name := circuitName(e)
	key := postgres.Key{Tenant: tenantID, Name: name}
	if c, ok := a.circuits.Get(key); ok {
		return c
	}
	fresh := newCircuit(a.Config.Pace, func(to circuitState, pause time.Duration) {
		if a.Metrics.CircuitChanged != nil {
			a.Metrics.CircuitChanged(name, string(to))
		}
		level := slog.LevelInfo
		if to == circuitOpen {
			level = slog.LevelWarn
		}
		a.Log.Log(context.Background(), level, "circuit to WeChat", "tenant_id", tenantID, "family", name, "state", string(to), "pause_seconds", pause.Seconds())
	})
	if c, found, _ := a.circuits.PeekOrAdd(key, fresh); found {
		return c
	}
	return fresh
}

// permit asks for leave to make a call. Errors: upstream_circuit_open, and
// nothing was sent.
func (a *Authorizer) permit(tenantID uuid.UUID, e *wechat.Endpoint) (permit, error) {
	p, wait := a.circuit(tenantID, e).enter()
	if wait > 0 {
		return p, circuitIsOpen(wait)
	}
	return p, nil
}

func circuitIsOpen(wait time.Duration) error {
	p := problem.Of(problem.CodeUpstreamCircuitOpen)
	p.RetryAfter = wait + rand.N(time.Second) // #nosec G404 -- those who were turned away together should not come back together
	return p
}
