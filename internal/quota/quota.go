// Package quota counts the calls that WeChat allows a merchant in a day of
// Shanghai (document 004, each call's "Call frequency"), over all processes,
// so that a call beyond them is refused here and never sent.
//
// A call is counted before it is made. A write is counted one by one, in the
// transaction that records it; reads draw on blocks of twenty that a process
// takes at once, so that most of them touch no database. What a process that
// was killed held is lost for the day: too few calls are made then, never too
// many. WeChat's own word that nothing is left overrules every count.
//
// It must never let a call through that isn't counted, nor count one on
// another merchant.
package quota

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// A State is how much of a bucket is left, as of the newest call.
type State struct {
	Merchant uuid.UUID
	Bucket   string
	Limit    int
	Left     int
	Resets   time.Duration // until Shanghai's midnight
}

type watchKey struct{}

// Watch returns a context whose calls tell fn of the buckets that they are
// counted against.
func Watch(ctx context.Context, fn func(State)) context.Context {
	return context.WithValue(ctx, watchKey{}, fn)
}

// Tell tells whoever watches ctx.
func Tell(ctx context.Context, s State) {
	if fn, ok := ctx.Value(watchKey{}).(func(State)); ok {
		fn(s)
	}
}

type backgroundKey struct{}

// InBackground marks work that nobody waits for: its calls get at most half of
// each bucket.
func InBackground(ctx context.Context) context.Context {
	return context.WithValue(ctx, backgroundKey{}, true)
}

// IsInBackground reports whether InBackground marked the work.
func IsInBackground(ctx context.Context) bool {
	is, _ := ctx.Value(backgroundKey{}).(bool)
	return is
}

// spent is the refusal of a call that is one too many.
func spent(s State) *problem.Error {
	p := problem.Of(problem.CodeWeChatQuotaExhausted)
	p.RetryAfter, p.Retryable = s.Resets, true
	return p
}

// Exhausted reports whether err says that WeChat's quota for the day is spent,
// by our count or by WeChat's.
func Exhausted(err error) bool {
	p, ok := problem.As(err)
	return ok && p.Code == problem.CodeWeChatQuotaExhausted
}

// SpentBy reports whether WeChat's errcode says that nothing is left of the
// bucket that calls of e are counted against (300012, 45009).
func SpentBy(e *wechat.Endpoint, code int64) bool {
	if e.Quota.PerDay == 0 || code == 0 {
		return false
	}
	row, ok := e.Errcode(code)
	return ok && row.Code == problem.CodeWeChatQuotaExhausted
}

// TellSpent tells whoever watches ctx that WeChat's errcode says that nothing is
// left of the bucket of e, if it does.
func TellSpent(ctx context.Context, merchant uuid.UUID, e *wechat.Endpoint, code int64) {
	if SpentBy(e, code) {
		Tell(ctx, State{Merchant: merchant, Bucket: e.Quota.Name, Limit: e.Quota.PerDay, Resets: time.Until(Resets(time.Now()))})
	}
}

func stateOf(merchant uuid.UUID, bucket wechat.Bucket, row dbsqlc.QuotaTakeRow) State {
	s := State{Merchant: merchant, Bucket: bucket.Name, Limit: int(row.Limit), Left: int(max(0, row.Limit-row.Used)),
		Resets: time.Duration(row.DayEndsIn * float64(time.Second))}
	if row.Closed {
		s.Left = 0
	}
	return s
}

// A Reservation is one write's place in its bucket, within a batch.
type Reservation struct {
	merchant uuid.UUID
	bucket   wechat.Bucket
	row      dbsqlc.QuotaTakeRow
}

// Reserve queues the count of one call of e into the batch that records it,
// which is refused with postgres.RefusedQuota if none is left. It should be
// the last that is queued: other writes of the merchant wait for it.
func Reserve(b *postgres.Batch, tenant, merchant uuid.UUID, e *wechat.Endpoint) *Reservation {
	r := &Reservation{merchant: merchant, bucket: e.Quota}
	if e.Quota.PerDay == 0 {
		return r
	}
	postgres.QueueOne(b, dbsqlc.QuotaTake, dbsqlc.QuotaTakeParams{TenantID: tenant, MerchantID: merchant, Bucket: e.Quota.Name,
		Most: int32(e.Quota.PerDay), N: 1}, &r.row)
	b.Queue(dbsqlc.QuotaRequire, dbsqlc.QuotaRequireParams{TenantID: tenant, MerchantID: merchant, Bucket: e.Quota.Name})
	return r
}

// Told tells whoever watches ctx of the reservation, once its batch has run
// and err came of it, and returns the problem where it was refused, else err.
func (r *Reservation) Told(ctx context.Context, err error) error {
	refused := postgres.IsCode(err, postgres.RefusedQuota)
	if r.row.Limit == 0 && !refused || err != nil && !refused {
		return err
	}
	s := stateOf(r.merchant, r.bucket, r.row)
	Tell(ctx, s)
	if refused {
		return spent(s).WithErr(err)
	}
	return nil
}

// Settle queues what the end of an operation's attempt means for its bucket:
// a call that was certainly not sent is given back, and WeChat's errcode may
// close the bucket.
func Settle(b *postgres.Batch, tenant, operation uuid.UUID, e *wechat.Endpoint, notSent bool, errcode int64) {
	switch {
	case e.Quota.PerDay == 0:
	case notSent:
		b.Queue(dbsqlc.QuotaGiveBackAttempt, dbsqlc.QuotaGiveBackAttemptParams{TenantID: tenant, OperationID: operation, Bucket: e.Quota.Name})
	case SpentBy(e, errcode):
		b.Queue(dbsqlc.QuotaCloseAttempt, dbsqlc.QuotaCloseAttemptParams{TenantID: tenant, OperationID: operation, Bucket: e.Quota.Name})
	}
}
