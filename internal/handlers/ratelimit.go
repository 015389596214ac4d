package handlers

import (
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/labstack/echo/v4"
	"golang.org/x/time/rate"

	"github.com/mendian/mendian/internal/memory"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
)

// bucketsKept bounds memory. Who uses more keys than that at once gets a full
// bucket again, no more.
const bucketsKept = 100_000

// The headers of a limit, as net/http spells them.
const (
	headerRateLimit = "Ratelimit"
	headerPolicy    = "Ratelimit-Policy"
)

// limits holds token buckets, one for each key and one for each tenant, in
// this process: with R replicas a caller gets up to R times as much. The buckets
// unused for longest are forgotten, full.
type limits struct {
	keyRate    tenant.RateLimit
	tenantRate float64
	keys       *lru.Cache[uuid.UUID, *bucket]
	tenants    *lru.Cache[uuid.UUID, *bucket]
}

// A bucket is a limiter and what it was made for, so that a changed setting
// replaces it.
type bucket struct {
	*rate.Limiter
	set    tenant.RateLimit
	policy string // RateLimit-Policy of this bucket
}

func newLimits(cfg Config) *limits {
	return &limits{keyRate: cfg.KeyRate, tenantRate: cfg.TenantRate,
		keys: memory.New[uuid.UUID, *bucket](bucketsKept), tenants: memory.New[uuid.UUID, *bucket](bucketsKept)}
}

// take counts a request against its key and its tenant, and tells the caller
// in RateLimit headers how much is left (draft-ietf-httpapi-ratelimit-headers)
// of what is scarcer.
func (l *limits) take(c echo.Context, s *state) error {
	who, set, now := &s.caller, l.keyRate, time.Now()
	if who.RateLimit != nil {
		set = *who.RateLimit
	}
	key := bucketFor(l.keys, who.KeyID, "key", set)
	scarce, name := key, "key"
	ok := key.AllowN(now, 1)
	policy := key.policy
	if who.TenantID != uuid.Nil {
		per := l.tenantRate
		if who.TenantRate != nil {
			per = *who.TenantRate
		}
		all := bucketFor(l.tenants, who.TenantID, "tenant", tenant.RateLimit{PerSecond: per, Burst: int(math.Ceil(per))})
		policy += ", " + all.policy
		if ok && !all.AllowN(now, 1) {
			ok = false
		}
		if all.TokensAt(now) < key.TokensAt(now) {
			scarce, name = all, "tenant"
		}
	}
	s.left = int(max(0, scarce.TokensAt(now)))
	h := c.Response().Header()
	h[headerPolicy] = []string{policy}
	h[headerRateLimit] = []string{`"` + name + `";r=` + strconv.Itoa(s.left) + `;t=1`}
	if ok {
		return nil
	}
	p := problem.Of(problem.CodeRateLimited)
	p.RetryAfter = time.Second
	if perSecond := float64(scarce.Limit()); perSecond > 0 && perSecond < 1 {
		p.RetryAfter = time.Duration(float64(time.Second) / perSecond)
	}
	return p
}

func bucketFor(buckets *lru.Cache[uuid.UUID, *bucket], id uuid.UUID, name string, set tenant.RateLimit) *bucket {
	if b, ok := buckets.Get(id); ok && b.set == set {
		return b
	}
	fresh := &bucket{
		Limiter: rate.NewLimiter(rate.Limit(set.PerSecond), max(1, set.Burst)), set: set,
		policy: `"` + name + `";q=` + strconv.FormatFloat(set.PerSecond, 'f', -1, 64) + `;w=1`,
	}
	b, found, _ := buckets.PeekOrAdd(id, fresh)
	switch {
	case !found:
		return fresh
	case b.set == set:
		return b // another request was quicker
	}
	buckets.Add(id, fresh)
	return fresh
}
