package authorizer

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// How many calls to WeChat may be under way at once in this process, where the
// tenant's limits don't say otherwise (design reliability.md §10). A tenant's
// are half of what the process serves by default (GATEWAY_MAX_IN_FLIGHT): one
// whose WeChat is slow leaves the others as much.
const (
	tenantPlaces   = 256
	merchantPlaces = 64
	writePlaces    = 8 // of the merchant's
)

// places counts the calls that are under way. What isn't under way has no
// entry, so it is as small as the traffic.
type places struct {
	mu        sync.Mutex
	tenants   map[uuid.UUID]int
	merchants map[postgres.Key]underWay
}

type underWay struct{ calls, writes int }

// placesOf are a tenant's limits.
type placesOf struct{ tenant, merchant, writes int }

func newPlaces() *places {
	return &places{tenants: map[uuid.UUID]int{}, merchants: map[postgres.Key]underWay{}}
}

// take counts a call in until leave is called, once. Errors: rate_limited.
func (p *places) take(c account, write bool, most placesOf) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.merchants[c.key()]
	switch {
	case write && m.writes >= most.writes:
		return nil, crowded("The merchant has %d writes under way at WeChat, as many as it may; repeat when one has ended.", most.writes)
	case m.calls >= most.merchant:
		return nil, crowded("The merchant has %d calls under way at WeChat, as many as it may; repeat when one has ended.", most.merchant)
	case p.tenants[c.tenant] >= most.tenant:
		return nil, crowded("The tenant has %d calls under way at WeChat, as many as it may; repeat when one has ended.", most.tenant)
	}
	p.add(c, write, 1)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.add(c, write, -1)
	}, nil
}

func (p *places) add(c account, write bool, n int) {
	m := p.merchants[c.key()]
	m.calls += n
	if write {
		m.writes += n
	}
	p.merchants[c.key()] = m
	if m.calls == 0 {
		delete(p.merchants, c.key())
	}
	if p.tenants[c.tenant] += n; p.tenants[c.tenant] == 0 {
		delete(p.tenants, c.tenant)
	}
}

func crowded(format string, most int) error {
	p := problem.Newf(problem.RateLimited, problem.CodeRateLimited, format, most)
	p.Retryable = true
	return p
}

// place counts a call in, by the tenant's limits as far as they are known.
// Errors: rate_limited.
func (a *Authorizer) place(ctx context.Context, c account, e *wechat.Endpoint) (leave func(), err error) {
	own := a.Tenants.Limits(ctx, c.tenant)
	most := placesOf{tenantPlaces, merchantPlaces, writePlaces}
	for _, l := range []struct {
		of  *int
		own *int
	}{{&most.tenant, own.InFlight}, {&most.merchant, own.MerchantInFlight}, {&most.writes, own.MerchantWritesInFlight}} {
		if l.own != nil {
			*l.of = *l.own
		}
	}
	return a.places.take(c, e.Risk != wechat.Read, most)
}
