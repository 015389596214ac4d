package authorizer

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// How often a read that got no answer is made again (design reliability.md
// §10). A budget, not only a count: while WeChat is away retries must not add
// to what it has to bear.
const (
	maxRetries    = 2 // of one read
	retryShare    = 0.1
	retriesSecond = 1.0
	retriesKept   = 10.0
	retryFirst    = 100 * time.Millisecond // the wait before one: anything between these two
	retryLast     = 2 * time.Second
)

// A budget is what a merchant's reads may be retried: a tenth of their number
// and one a second, of which some are kept.
type budget struct {
	mu   sync.Mutex
	left float64
	at   time.Time
}

func newBudget() *budget { return &budget{left: retriesKept, at: time.Now()} }

// earn counts a read.
func (b *budget) earn() { b.add(retryShare) }

// spend takes one retry, if there is one left.
func (b *budget) spend() bool {
	b.add(0)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (b *budget) add(n float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.left = min(retriesKept, b.left+n+now.Sub(b.at).Seconds()*retriesSecond)
	b.at = now
}

func (a *Authorizer) budget(key postgres.Key) *budget {
	if b, ok := a.budgets.Get(key); ok {
		return b
	}
	fresh := newBudget()
	if b, found, _ := a.budgets.PeekOrAdd(key, fresh); found {
		return b
	}
	return fresh
}

// patiently makes a call that only reads, and makes it again where WeChat gave
// no answer, as long as the merchant's budget and the call's own deadline last:
// what timed out isn't tried again.
func (a *Authorizer) patiently(ctx context.Context, c account, e *wechat.Endpoint, call func() (wechat.Reply, error)) (wechat.Reply, error) {
	budget, begun := a.budget(c.key()), time.Now()
	budget.earn()
	for n := 0; ; n++ {
		reply, err := call()
		if n == maxRetries || ctx.Err() != nil || !unanswered(e, reply, err) {
			return reply, err
		}
		wait := retryFirst + rand.N(retryLast-retryFirst) // #nosec G404 -- jitter
		if time.Since(begun)+wait > e.Deadline() || !budget.spend() {
			return reply, err
		}
		select {
		case <-ctx.Done():
			return reply, err
		case <-time.After(wait):
		}
		if a.Metrics.ReadRetried != nil {
			a.Metrics.ReadRetried(e.Name)
		}
	}
}

// unanswered reports whether a call ended without an answer of WeChat's.
func unanswered(e *wechat.Endpoint, reply wechat.Reply, err error) bool {
	if err == nil {
		_, we := wechat.Classify(e, reply)
		return we != nil && we.Outage()
	}
	if _, ok := problem.As(err); ok {
		return false // refused here, whatever its cause was
	}
	we, ok := errors.AsType[*wechat.Error](err)
	return ok && we.Outage()
}
