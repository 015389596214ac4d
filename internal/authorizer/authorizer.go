// Package authorizer acts on behalf of merchants: it turns "call this endpoint
// for that merchant" into a request that WeChat accepts, and keeps everything
// that this takes: the platform's tickets and token, links and their
// callbacks, what each merchant granted, its tokens.
//
// A token is refreshed by one process at a time: the right to do so is a lease
// on the token's row, given and judged by the database's clock alone, and
// numbered, so that whoever was stopped and comes back late changes nothing
// (design reliability.md §7). No connection is held during a call.
//
// What must never happen here: a refresh token overwritten with an empty one;
// a token or code in an error, a log line or a reply; a loop between a
// rejected token and its refresh; an account moved from one tenant to another.
package authorizer

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/mendian/mendian/internal/memory"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// Config is what an Authorizer is told about its surroundings.
type Config struct {
	PublicURL string // what WeChat and browsers see, without a slash at its end
	MPURL     string // https://mp.weixin.qq.com
	OpenURL   string // https://open.weixin.qq.com
	Instance  string // names this process in lease_owner
	// Remembered is how many merchants are kept in memory; 0 counts as 20,000.
	Remembered int
	// Pace multiplies the times by which calls are paused; 0 counts as 1. Tests
	// of faults shorten them; nothing else does.
	Pace float64
}

// Metrics hears what happens. Any of its functions may be nil.
type Metrics struct {
	// TokenRefreshed: of is "component" or "merchant", outcome "ok" or the
	// code of the problem.
	TokenRefreshed func(of, outcome string)
	// TicketReceived hears of each ticket, with the skew of its CreateTime.
	TicketReceived func(tenant uuid.UUID, skew time.Duration)
	// CircuitChanged: the calls of a tenant to a part of WeChat are paused, or
	// no longer; to is "open", "half_open" or "closed".
	CircuitChanged func(family, to string)
	// ReadRetried hears of each read that is made again, by its call.
	ReadRetried func(call string)
}

// Deps is what an Authorizer works with.
type Deps struct {
	DB      *postgres.DB
	Keyset  *secret.Keyset
	Tenants *tenant.Tenants
	WeChat  *wechat.Client
	Changes *postgres.Changes
	Spool   *spool.Spool // keeps the tokens that WeChat gave until the database does
	Log     *slog.Logger
	Metrics Metrics
	Config  Config
	// Background runs what goes on beside the callers.
	Background *observe.Background
}

const (
	maxTenants  = 10_000
	maxCircuits = 20_000
)

// An Authorizer acts on behalf of merchants. It is safe for concurrent use.
type Authorizer struct {
	Deps
	// Quotas counts the reads that WeChat limits by the day.
	Quotas *quota.Reads

	q          *dbsqlc.Queries
	merchants  *postgres.Cache[Merchant]
	appids     *postgres.Cache[uuid.UUID] // an account never gets another id
	tokens     *postgres.Cache[held]
	components *postgres.Cache[held]
	flights    singleflight.Group
	reads      singleflight.Group                  // of calls that are counted
	used       *lru.Cache[postgres.Key, time.Time] // when a merchant's use was noted
	nudged     *lru.Cache[postgres.Key, time.Time] // when a refresh ahead was last begun
	refused    *lru.Cache[postgres.Key, refusal]
	circuits   *lru.Cache[postgres.Key, *circuit] // by the name of the part of WeChat
	budgets    *lru.Cache[postgres.Key, *budget]  // by merchant
	places     *places

	running    context.Context // ends with Close
	stop       context.CancelFunc
	mu         sync.Mutex // guards closed, and that nothing enters once Close waits
	closed     bool
	background sync.WaitGroup
}

// New makes an Authorizer whose caches follow d.Changes.
func New(d Deps) *Authorizer {
	d.Config.Pace = cmp.Or(d.Config.Pace, 1)
	d.Config.Remembered = cmp.Or(d.Config.Remembered, 20_000)
	most := d.Config.Remembered
	d.Config.PublicURL = strings.TrimSuffix(d.Config.PublicURL, "/")
	a := &Authorizer{
		Deps: d, q: dbsqlc.New(), Quotas: quota.NewReads(d.DB, d.Changes, d.Log),
		merchants:  postgres.NewCache[Merchant](d.Changes, most, "merchants"),
		appids:     postgres.NewCache[uuid.UUID](d.Changes, most),
		tokens:     postgres.NewCache[held](d.Changes, most, "authorizer_tokens"),
		components: postgres.NewCache[held](d.Changes, maxTenants, "component_tokens"),
		used:       memory.New[postgres.Key, time.Time](most),
		nudged:     memory.New[postgres.Key, time.Time](most),
		refused:    memory.New[postgres.Key, refusal](most),
		circuits:   memory.New[postgres.Key, *circuit](maxCircuits),
		budgets:    memory.New[postgres.Key, *budget](most),
		places:     newPlaces(),
	}
	a.running, a.stop = context.WithCancel(postgres.Using(context.Background(), postgres.Workers))
	return a
}

// Close ends what goes on beside the callers, and waits for it.
func (a *Authorizer) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.stop()
	a.background.Wait()
	a.Quotas.Close(context.Background())
}

// enter counts work that Close waits for, until background.Done; false: it is
// too late to begin.
func (a *Authorizer) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.background.Add(1)
	}
	return !a.closed
}

// beside runs fn off the caller's path. What it does must be no harm to lose.
func (a *Authorizer) beside(what string, fn func(context.Context) error) {
	if !a.enter() {
		return
	}
	go func() {
		defer a.background.Done()
		ctx, cancel := context.WithTimeout(a.running, time.Minute)
		defer cancel()
		a.Background.Run(ctx, what, fn)
	}()
}

// storage maps what the database says to what a caller may see.
func storage(err error) error {
	if _, ok := problem.As(err); ok || err == nil {
		return err
	}
	if errors.Is(err, secret.ErrSealed) {
		return problem.Of(problem.CodeSecretUnavailable).WithErr(err)
	}
	if postgres.Refused(err) || postgres.IsNotFound(err) || errors.Is(err, errFenced) || errors.Is(err, context.Canceled) {
		return err
	}
	if we := (*wechat.Error)(nil); errors.As(err, &we) {
		return err
	}
	p := problem.Of(problem.CodeStorageUnavailable).WithErr(err)
	p.RetryAfter = time.Second
	return p
}

// commit runs what build queues, again and again on a broken connection: what
// WeChat has just given must not be lost to a moment's weakness of the
// database. build must make something that may be repeated.
func (a *Authorizer) commit(ctx context.Context, build func() error) error {
	deadline := time.Now().Add(commitFor)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := build()
		p, told := problem.As(err)
		switch {
		case err == nil, postgres.Refused(err), postgres.IsNotFound(err), errors.Is(err, errFenced), time.Now().After(deadline),
			told && p.Code != problem.CodeStorageUnavailable:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// commitFor is how long what WeChat gave is carried to a database that fails.
const commitFor = 30 * time.Second
