package ledger

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// A write that WeChat limits by the day, as a kind without rows of its own.
var quotaKind = &Kind{Name: "test.goods", Subject: "goods", Endpoint: wechat.AddGoods}

func (b *bundle) limited() Write {
	id := typeid.New()
	return Write{Kind: quotaKind, Request: Request{Caller: tenant.Caller{Actor: "test"}, Merchant: b.merchant}, Subject: id, Body: []byte(`{}`),
		Natural: id.String(), Begin: func(*postgres.Batch, *Operation) error { return nil }}
}

// used sets what today's bucket has seen.
func (b *bundle) used(t *testing.T, n int) {
	t.Helper()
	b.texts(t, `INSERT INTO quota_buckets (tenant_id, merchant_id, bucket, day, "limit", used, granted)
		VALUES ($1, $2, 'goods-audit', quota_day(now()), 500, $3, 0) RETURNING ''`, b.merchant.TenantID, b.merchant.ID, n)
}

func (b *bundle) count(t *testing.T) string {
	t.Helper()
	return b.texts(t, `SELECT used || ' ' || (closed_at IS NOT NULL) FROM quota_buckets WHERE bucket = 'goods-audit'`)
}

// Two processes, one place left after the other: exactly as many writes begin
// as WeChat allows.
func TestQuotaUnderConcurrency(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.used(t, 480)
	var begun, refused atomic.Int32
	var work sync.WaitGroup
	for i := range 60 {
		work.Go(func() {
			_, err := b.ledgers[i%2].begin(t.Context(), b.limited())
			switch {
			case err == nil:
				begun.Add(1)
			case quota.Exhausted(err):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	work.Wait()
	if begun.Load() != 20 || refused.Load() != 40 || b.count(t) != "500 false" {
		t.Errorf("%d begun, %d refused, bucket %s; want 20, 40, 500 false", begun.Load(), refused.Load(), b.count(t))
	}
	if n := b.texts(t, `SELECT count(*)::text FROM operations`); n != "20" {
		t.Errorf("%s operations, want 20", n)
	}
}

func TestQuotaOfOutcomes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	begin := func() *Operation {
		t.Helper()
		op, err := l.begin(t.Context(), b.limited())
		if err != nil {
			t.Fatal(err)
		}
		return op
	}
	want := func(what, bucket string) {
		t.Helper()
		if got := b.count(t); got != bucket {
			t.Errorf("%s: bucket %s, want %s", what, got, bucket)
		}
	}
	settle := func(op *Operation, out Outcome) {
		t.Helper()
		if err := l.settle(t.Context(), op, out, nil); err != nil {
			t.Fatal(err)
		}
	}
	notSent := Outcome{Class: wechat.NotSent, Source: FromResponse, Err: problem.Of(problem.CodeWeChatUnreachable)}

	op := begin()
	want("begun", "1 false")
	settle(op, notSent)
	want("not sent", "0 false")
	again := *op
	_ = l.settle(t.Context(), &again, notSent, nil) // whatever it says, it gives nothing back
	begin()
	want("not sent, told twice, and another", "1 false")

	settle(begin(), Outcome{Class: wechat.Ambiguous, Source: FromResponse})
	settle(begin(), Outcome{Class: wechat.Refused, Source: FromResponse, Errno: 300002})
	settle(begin(), Outcome{Class: wechat.Executed, Source: FromResponse})
	settle(begin(), Outcome{Class: wechat.NotSent, Source: FromReconciler, Err: problem.Of(problem.CodeWeChatSystemError)})
	want("other outcomes", "5 false")

	valid := b.limited()
	valid.ValidateOnly = true
	if _, err := l.Do(t.Context(), valid); !errors.Is(err, ErrValid) {
		t.Errorf("a validation: %v", err)
	}
	want("validated", "5 false")

	settle(begin(), Outcome{Class: wechat.Refused, Source: FromResponse, Errno: 300012})
	want("WeChat says that it is spent", "6 true")
	for what, w := range map[string]Write{"write": b.limited(), "validation": valid} {
		var told quota.State
		_, err := l.Do(quota.Watch(t.Context(), func(s quota.State) { told = s }), w)
		p, ok := problem.As(err)
		if !ok || p.Code != problem.CodeWeChatQuotaExhausted || p.RetryAfter <= 0 || p.RetryAfter > 24*time.Hour {
			t.Errorf("a %s when it is closed: %v", what, err)
		}
		if told.Bucket != "goods-audit" || told.Left != 0 || told.Limit != 500 {
			t.Errorf("a %s when it is closed tells of %+v", what, told)
		}
	}
}

// The day is Shanghai's: it turns at 16:00 UTC. What was used the day before,
// and that it was closed, is over.
func TestQuotaDay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for at, day := range map[string]string{"2026-11-21T15:59:59.999Z": "2026-11-21 2026-11-21 16:00:00", "2026-11-21T16:00:00Z": "2026-11-22 2026-11-22 16:00:00"} {
		if got := b.texts(t, `SELECT quota_day($1::text::timestamptz) || ' ' || (quota_day_ends($1::text::timestamptz) AT TIME ZONE 'UTC')`, at); got != day {
			t.Errorf("%s is on %s, want %s", at, got, day)
		}
	}
	b.used(t, 500)
	b.texts(t, `UPDATE quota_buckets SET day = day - 1, closed_at = now() RETURNING ''`)
	if _, err := b.ledgers[0].begin(t.Context(), b.limited()); err != nil {
		t.Errorf("the day after: %v", err)
	}
	if got := b.texts(t, `SELECT used::text FROM quota_buckets WHERE day = quota_day(now())`); got != "1" {
		t.Errorf("the day after: used %s, want 1", got)
	}
}
