package quota

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// Two processes that read for one merchant.
type readers struct {
	t                *testing.T
	db               *postgres.DB
	tenant, merchant uuid.UUID
	processes        [2]*Reads
}

func newReaders(t *testing.T) *readers {
	t.Helper()
	r := &readers{t: t, db: pgtest.New(t), tenant: typeid.New(), merchant: typeid.New()}
	r.exec(`INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, 'T', 'ref', 'wx0000000000000001')`, r.tenant)
	r.exec(`INSERT INTO merchants (tenant_id, id, appid, status) VALUES ($1, $2, 'wx0000000000000002', 'authorized')`, r.tenant, r.merchant)
	log := slog.New(slog.DiscardHandler)
	for i := range r.processes {
		changes := r.db.NewChanges(log)
		r.processes[i] = NewReads(r.db, changes, log)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); changes.Run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
		for deadline := time.Now().Add(10 * time.Second); !changes.Hearing(); {
			if time.Now().After(deadline) {
				t.Fatal("no changes are heard")
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	return r
}

func (r *readers) exec(sql string, args ...any) {
	r.t.Helper()
	err := r.db.InTenant(r.t.Context(), r.tenant, func(tx postgres.DBTX) error {
		_, err := tx.Exec(r.t.Context(), sql, args...)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// bucket is what the row of goods-status says.
func (r *readers) bucket() (out string) {
	r.t.Helper()
	err := r.db.InTenant(r.t.Context(), r.tenant, func(tx postgres.DBTX) error {
		return tx.QueryRow(r.t.Context(), `SELECT used || ' ' || background || ' ' || (closed_at IS NOT NULL) FROM quota_buckets WHERE bucket = 'goods-status'`).Scan(&out)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func (r *readers) want(what, bucket string) {
	r.t.Helper()
	if got := r.bucket(); got != bucket {
		r.t.Errorf("%s: bucket %s, want %s", what, got, bucket)
	}
}

func (r *readers) take(ctx context.Context, process int) (Call, error) {
	return r.processes[process].Take(ctx, r.tenant, r.merchant, wechat.GetGoodsWarehouse)
}

func (r *readers) spend(n int) {
	r.t.Helper()
	r.exec(`INSERT INTO quota_buckets (tenant_id, merchant_id, bucket, day, "limit", used, granted) VALUES ($1, $2, 'goods-status', quota_day(now()), 1000, $3, 0)`,
		r.tenant, r.merchant, n)
}

// Over the last blocks, by two processes at once: never one too many, and all
// of them.
func TestReadsOverTheLastBlock(t *testing.T) {
	t.Parallel()
	r := newReaders(t)
	r.spend(955) // 45 are left: two blocks and a quarter
	var taken atomic.Int32
	var work sync.WaitGroup
	for i := range 100 {
		work.Go(func() {
			switch _, err := r.take(t.Context(), i%2); {
			case err == nil:
				taken.Add(1)
			case !Exhausted(err):
				t.Error(err)
			}
		})
	}
	work.Wait()
	if taken.Load() != 45 {
		t.Errorf("%d calls, want 45", taken.Load())
	}
	r.want("spent", "1000 0 false")
	_, err := r.take(t.Context(), 0)
	if p, ok := problem.As(err); !ok || p.RetryAfter <= 0 || p.RetryAfter > 24*time.Hour {
		t.Errorf("%v", err)
	}
}

func TestReadsTouchTheDatabaseOnceInTwenty(t *testing.T) {
	t.Parallel()
	r := newReaders(t)
	var trips atomic.Int64
	ctx := postgres.WithTripCounter(t.Context(), &trips)
	for range 40 {
		if _, err := r.take(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
	if trips.Load() != 2 {
		t.Errorf("%d trips for 40 calls, want 2", trips.Load())
	}
	r.want("two blocks", "40 0 false")
}

// What isn't used is given back: by a process that ends, that is idle, or that
// sees the day end.
func TestReadsHandBack(t *testing.T) {
	t.Parallel()
	r := newReaders(t)
	call, err := r.take(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.take(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.want("two blocks", "40 0 false")
	r.processes[1].Close(t.Context())
	r.want("one process ends", "21 0 false")
	call.NotSent(t.Context())
	if err := r.processes[0].HandBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.want("in use", "21 0 false")
	r.processes[0].now = func() time.Time { return time.Now().Add(2 * idleAfter) }
	if err := r.processes[0].HandBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.want("idle, and the one call wasn't sent", "1 0 false")

	// Midnight: the block of yesterday is not used today.
	r.processes[0].now = time.Now
	if _, err := r.take(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	r.exec(`UPDATE quota_buckets SET day = day - 1`)
	for _, b := range r.processes[0].blocks {
		b.day.Time = b.day.Time.AddDate(0, 0, -1)
	}
	r.processes[0].now = func() time.Time { return time.Now().Add(24 * time.Hour) }
	if _, err := r.take(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	var days string
	err = r.db.InTenant(t.Context(), r.tenant, func(tx postgres.DBTX) error {
		return tx.QueryRow(t.Context(), `SELECT string_agg(used::text, ' ' ORDER BY day) FROM quota_buckets`).Scan(&days)
	})
	if err != nil || days != "2 20" {
		t.Errorf("used yesterday and today: %s, want 2 20 (%v)", days, err)
	}
}

// WeChat's word closes the bucket, for the other process too, until midnight.
func TestReadsClose(t *testing.T) {
	t.Parallel()
	r := newReaders(t)
	call, err := r.take(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.take(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	call.Spent(t.Context())
	if _, err := r.take(t.Context(), 0); !Exhausted(err) {
		t.Errorf("after it was closed: %v", err)
	}
	for deadline := time.Now().Add(10 * time.Second); r.bucket() != "2 0 true"; {
		if time.Now().After(deadline) {
			t.Fatalf("the other process still holds its block: %s", r.bucket())
		}
		<-time.After(10 * time.Millisecond)
	}
	if _, err := r.take(t.Context(), 1); !Exhausted(err) {
		t.Errorf("the other process: %v", err)
	}
}

// Background work gets half, and leaves the other half to people.
func TestReadsInBackground(t *testing.T) {
	t.Parallel()
	r := newReaders(t)
	r.spend(0)
	background := InBackground(t.Context())
	n := 0
	for {
		if _, err := r.take(background, 0); Exhausted(err) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 500 {
		t.Errorf("%d calls in the background, want 500", n)
	}
	r.want("background is spent", "500 500 false")
	if _, err := r.take(t.Context(), 1); err != nil {
		t.Errorf("a person: %v", err)
	}
}

// A tenant is told at 80 % and at 100 %, once.
func TestThresholds(t *testing.T) {
	t.Parallel()
	r := newReaders(t)
	told := func() (out string) {
		t.Helper()
		if err := TellTenants(t.Context(), r.db); err != nil {
			t.Fatal(err)
		}
		err := r.db.InTenant(t.Context(), r.tenant, func(tx postgres.DBTX) error {
			return tx.QueryRow(t.Context(), `SELECT coalesce(string_agg(payload #>> '{object,threshold}', ' ' ORDER BY id), '') FROM outbox WHERE type = 'quota.threshold'`).Scan(&out)
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, step := range []struct {
		used int
		want string
	}{{0, ""}, {799, ""}, {800, "80"}, {700, "80"}, {900, "80"}, {1000, "80 100"}, {1000, "80 100"}} {
		if step.used == 0 {
			r.spend(0)
		}
		r.exec(fmt.Sprintf(`UPDATE quota_buckets SET used = %d`, step.used))
		if got := told(); got != step.want {
			t.Errorf("%d used: told %q, want %q", step.used, got, step.want)
		}
	}
}

// WeChat's own limit counts, from the day on which it was told.
func TestLimitOfWeChat(t *testing.T) {
	t.Parallel()
	r := newReaders(t)
	b := r.db.NewBatch(r.tenant)
	b.Queue(dbsqlc.QuotaSync, dbsqlc.QuotaSyncParams{TenantID: r.tenant, MerchantID: r.merchant, Bucket: "goods-status", Most: 30, Used: 5})
	if err := r.db.Run(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	r.exec(`UPDATE quota_buckets SET day = day - 3`)
	n := 0
	for {
		if _, err := r.take(t.Context(), 0); err != nil {
			break
		}
		n++
	}
	if n != 30 {
		t.Errorf("%d calls, want 30", n)
	}
}
