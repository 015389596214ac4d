package authorizer

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
)

// A held is a token as one reading of its row showed it.
type held struct {
	token   secret.Text
	gen     int32
	until   time.Time // by this process's monotonic clock, counted from what the database said was left
	invalid string    // why it can't be refreshed; empty: it can
	leased  bool      // somebody was refreshing it
}

// noGen is the generation of no token: nothing was rejected.
const noGen int32 = -1

// ahead is how long before its end a token is refreshed. The queries say the
// same: a lease is granted no earlier.
const ahead = 10 * time.Minute

// A move is what to do with a token that was read.
type move uint8

const (
	use           move = iota
	useAndRefresh      // it is good, but not for long: have it refreshed beside
	refresh            // it is over, or WeChat rejected it
	cannotRefresh      // it is over, and will stay so until the merchant authorises again
)

// decide is the whole of a caller's side of the lease: rejected is the
// generation that WeChat refused, or noGen.
func decide(h held, rejected int32, now time.Time) move {
	good := h.gen != rejected && now.Before(h.until)
	switch {
	case good && h.invalid == "" && h.until.Sub(now) < ahead:
		return useAndRefresh
	case good && h.invalid == "":
		return use
	case h.invalid != "":
		return cannotRefresh
	}
	return refresh
}

// lifetime is how long a token that WeChat gives for ttl is used: five minutes
// less, within which WeChat takes the old and the new one.
func lifetime(ttl int64) float64 {
	const margin, usual = 300, 7200
	switch {
	case ttl <= 0:
		ttl = usual
	case ttl < 2*margin:
		return float64(ttl) / 2
	}
	return float64(ttl - margin)
}

// A grant is the right to refresh one token, numbered.
type grant struct {
	leaseGen int32
	gen      int32 // of the token as it was
	row      any   // what else the lease brought along
}

// A tokenRow is a row with a token and a lease.
type tokenRow struct {
	of    string // "component", "merchant"
	key   postgres.Key
	cache *postgres.Cache[held]
	// read reads the row, or finds that there is none.
	read func(ctx context.Context) (held, error)
	// prepare, if there is one, gets ready what refresh needs, before the lease runs.
	prepare func(ctx context.Context) error
	// take asks for the lease and reads the row, in one round trip. A nil
	// grant: somebody has it, or nothing needs to be refreshed.
	take func(ctx context.Context, rejected int32) (*grant, held, error)
	// refresh uses the grant up. errFenced: it was lost meanwhile.
	refresh func(ctx context.Context, g grant) (held, error)
	// invalid is the problem of a row that can't be refreshed.
	invalid func(held) error
}

// errFenced is how whoever lost the lease learns of it: nothing was changed.
var errFenced = errors.New("the lease was lost")

const (
	obtainFor = 10 * time.Second // that a caller waits for a token
	pollFirst = 50 * time.Millisecond
	pollMost  = 400 * time.Millisecond
	// coolDown keeps the lease of a refresh that failed: no process tries
	// again before.
	coolDown = time.Second
)

// obtain returns a token that is not the rejected one, from memory when there
// is one. As long as the old one lives it is used, and refreshed beside.
func (a *Authorizer) obtain(ctx context.Context, r tokenRow, rejected int32) (held, error) {
	h, err := r.cache.Get(ctx, r.key, r.read)
	if err != nil {
		return held{}, err
	}
	switch decide(h, rejected, time.Now()) {
	case use:
		return h, nil
	case useAndRefresh:
		if at, ok := a.nudged.Get(r.key); !ok || time.Since(at) > coolDown {
			a.nudged.Add(r.key, time.Now())
			a.beside("refresh ahead", func(ctx context.Context) error {
				_, err := a.renew(ctx, r, rejected)
				return err
			})
		}
		return h, nil
	case cannotRefresh:
		return held{}, r.invalid(h)
	}
	return a.renew(ctx, r, rejected)
}

// renew gets a token that is not the rejected one by lease, once at a time in
// this process; callers that leave don't end it.
func (a *Authorizer) renew(ctx context.Context, r tokenRow, rejected int32) (held, error) {
	name := r.key.Tenant.String() + " " + r.of + " " + r.key.ID.String() + " " + strconv.Itoa(int(rejected))
	ch := a.flights.DoChan(name, func() (any, error) {
		if !a.enter() {
			return held{}, problem.Of(problem.CodeShuttingDown)
		}
		defer a.background.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		var h held
		err := observe.Caught(func() (err error) { h, err = a.lead(ctx, r, rejected); return err })
		if err == nil {
			r.cache.Drop(r.key)
		}
		return h, err
	})
	wait, cancel := context.WithTimeout(ctx, obtainFor)
	defer cancel()
	select {
	case <-wait.Done():
		return held{}, notYet(context.Cause(wait))
	case res := <-ch:
		if res.Err != nil {
			return held{}, res.Err
		}
		return res.Val.(held), nil
	}
}

func notYet(cause error) error {
	p := problem.Of(problem.CodeMerchantTokenUnavailable).WithErr(cause)
	p.RetryAfter = time.Second
	return p
}

// lead goes for the lease until the row shows another token, refreshing it
// itself if it is granted.
func (a *Authorizer) lead(ctx context.Context, r tokenRow, rejected int32) (held, error) {
	if r.prepare != nil {
		if err := r.prepare(ctx); err != nil {
			return held{}, err
		}
	}
	give, cancel := context.WithTimeout(ctx, obtainFor)
	defer cancel()
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		g, seen, err := r.take(give, rejected)
		if err != nil {
			return held{}, storage(err)
		}
		if g != nil {
			fault.At("token_leased")
			h, err := r.refresh(ctx, *g)
			a.refreshed(r.of, err)
			if err == nil {
				return h, nil
			}
			// Whoever was stopped for long finds the work done by somebody else.
			now, readErr := r.read(ctx)
			if readErr == nil && now.gen != g.gen && decide(now, rejected, time.Now()) == use {
				return now, nil
			}
			if !errors.Is(err, errFenced) {
				return held{}, err
			}
		}
		switch decide(seen, rejected, time.Now()) {
		case use, useAndRefresh:
			return seen, nil
		case cannotRefresh:
			return held{}, r.invalid(seen)
		}
		select {
		case <-give.Done():
			return held{}, notYet(errors.New("another process is refreshing the token"))
		case <-time.After(wait):
		}
	}
}

func (a *Authorizer) refreshed(of string, err error) {
	if a.Metrics.TokenRefreshed == nil {
		return
	}
	outcome := "ok"
	switch p, ok := problem.As(err); {
	case ok:
		outcome = p.Code
	case errors.Is(err, errFenced):
		outcome = "fenced"
	case err != nil:
		outcome = "error"
	}
	a.Metrics.TokenRefreshed(of, outcome)
}
