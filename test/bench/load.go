package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// traffic is a kind of request: how each is written, and what answers are good.
type traffic struct {
	// next appends a whole request to b. tag tells check which one it was.
	next   func(r *rand.Rand, b []byte) (_ []byte, tag int)
	status int
	// check looks at the body of one answer in sampleEvery; nil: any is good.
	check func(tag int, body []byte) error
}

const (
	sampleEvery = 100
	patience    = 5 * time.Second // for one answer
)

// A result is what a load saw. Times are in microseconds.
type result struct {
	N       int     `json:"n"`
	Errors  int     `json:"errors"`
	Error   string  `json:"error,omitempty"` // the first one
	Checked int     `json:"checked"`         // bodies that were looked at
	RPS     float64 `json:"rps"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	Max     float64 `json:"max_us"`
}

// A client is one connection of a load and what it saw.
type client struct {
	*wire
	addr    string
	t       traffic
	rand    *rand.Rand
	out     []byte
	n       int
	took    []time.Duration
	checked int
	errors  int
	err     error
}

func newClients(addr string, t traffic, n int) ([]*client, error) {
	clients := make([]*client, n)
	for i := range clients {
		c := &client{addr: addr, t: t, rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
		if err := c.dial(); err != nil {
			return nil, errors.Join(err, finish(clients[:i]))
		}
		clients[i] = c
	}
	return clients, nil
}

func finish(clients []*client) error {
	var errs []error
	for _, c := range clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (c *client) dial() error {
	conn, err := net.DialTimeout("tcp4", c.addr, patience)
	if err != nil {
		return err
	}
	c.wire = newWire(conn)
	return nil
}

// send writes the next request.
func (c *client) send() (tag int, err error) {
	c.out, tag = c.t.next(c.rand, c.out[:0])
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return tag, err
	}
	_, err = c.Write(c.out)
	return tag, err
}

// receive reads its answer and judges it. since is when it counts from.
func (c *client) receive(tag int, since time.Time) error {
	if err := c.read(); err != nil {
		return err
	}
	took := time.Since(since)
	c.n++
	if got := c.status(); got != c.t.status {
		c.failed(fmt.Errorf("status %d, want %d: %.300s", got, c.t.status, c.body))
	} else {
		c.took = append(c.took, took)
		if c.t.check != nil && c.n%sampleEvery == 1 {
			c.checked++
			if err := c.t.check(tag, c.body); err != nil {
				c.failed(fmt.Errorf("a wrong answer: %w: %.300s", err, c.body))
			}
		}
	}
	if c.close {
		return c.redial()
	}
	return nil
}

func (c *client) failed(err error) {
	c.errors++
	if c.err == nil {
		c.err = err
	}
}

func (c *client) redial() error { return errors.Join(c.Close(), c.dial()) }

func collect(clients []*client, took time.Duration) result {
	var r result
	var all []time.Duration
	for _, c := range clients {
		all = append(all, c.took...)
		r.Errors += c.errors
		r.Checked += c.checked
		if c.err != nil && r.Error == "" {
			r.Error = c.err.Error()
		}
	}
	r.N = len(all)
	r.RPS = float64(r.N) / took.Seconds()
	if slices.Sort(all); r.N > 0 {
		at := func(q float64) float64 { return float64(all[min(r.N-1, int(q*float64(r.N)))].Nanoseconds()) / 1e3 }
		r.P50, r.P99, r.Max = at(.5), at(.99), at(1)
	}
	return r
}

// closedLoop keeps so many connections busy: each sends when it was answered.
func closedLoop(addr string, t traffic, conns int, d time.Duration) (result, error) {
	clients, err := newClients(addr, t, conns)
	if err != nil {
		return result{}, err
	}
	var wg sync.WaitGroup
	begun := time.Now()
	end := begun.Add(d)
	for _, c := range clients {
		wg.Go(func() {
			for since := time.Now(); since.Before(end); since = time.Now() {
				tag, err := c.send()
				if err == nil {
					err = c.receive(tag, since)
				}
				if err != nil {
					c.failed(err)
					if err := c.redial(); err != nil {
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return collect(clients, time.Since(begun)), finish(clients)
}

// openConns is how many requests an open loop has under way at most. One that
// finds no free connection waits, and its wait counts.
const openConns = 192

// openLoop sends at a constant rate whatever is answered, and counts each
// request from the moment that it was due (no coordinated omission).
func openLoop(addr string, t traffic, rate int, d time.Duration) (result, error) {
	clients, err := newClients(addr, t, openConns)
	if err != nil {
		return result{}, err
	}
	type sent struct {
		tag int
		due time.Time
	}
	idle := make(chan *client, len(clients))
	under := map[*client]chan sent{}
	var readers sync.WaitGroup
	for _, c := range clients {
		under[c] = make(chan sent, 1)
	}
	for _, c := range clients {
		idle <- c
		readers.Go(func() {
			for s := range under[c] {
				if err := c.receive(s.tag, s.due); err != nil {
					c.failed(err)
					if err := c.redial(); err != nil {
						return // it doesn't come back: the sender goes short of connections
					}
				}
				idle <- c
			}
		})
	}
	// The pacer has a thread to itself: the timers of Go's runtime may be late by
	// a millisecond, the kernel's by microseconds.
	pace := func() error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, 1, 0)
		begun := time.Now()
		for i := range int(float64(rate) * d.Seconds()) {
			due := begun.Add(time.Duration(float64(i) / float64(rate) * float64(time.Second)))
			for wait := time.Until(due); wait > 0; wait = time.Until(due) { // signals wake it early
				ts := syscall.NsecToTimespec(wait.Nanoseconds())
				_ = syscall.Nanosleep(&ts, nil)
			}
			c := within(idle)
			if c == nil {
				return errors.New("no request is answered any more")
			}
			tag, err := c.send()
			if err != nil {
				c.failed(err) // what reads will see it too, and dial again
			}
			under[c] <- sent{tag, due}
		}
		return nil
	}
	begun := time.Now()
	err = pace()
	took := time.Since(begun)
	for range clients {
		if within(idle) == nil {
			break
		}
	}
	for _, c := range clients {
		close(under[c])
	}
	readers.Wait()
	return collect(clients, took), errors.Join(err, finish(clients))
}

// within is a free connection, or nil where none gets free.
func within(idle <-chan *client) *client {
	select {
	case c := <-idle:
		return c
	default:
	}
	select {
	case c := <-idle:
		return c
	case <-time.After(2 * patience):
		return nil
	}
}
