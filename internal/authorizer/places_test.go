package authorizer

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/memory"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

func TestPlaces(t *testing.T) {
	t.Parallel()
	p := newPlaces()
	most := placesOf{tenant: 10, merchant: 5, writes: 2}
	tenant, other := uuid.New(), uuid.New()
	m := account{tenant: tenant, id: uuid.New()}
	var held []func()
	take := func(c account, write, want bool) {
		t.Helper()
		leave, err := p.take(c, write, most)
		if (err == nil) != want {
			t.Fatalf("taken = %t, want %t (%v)", err == nil, want, err)
		}
		if err != nil {
			if broken, _ := problem.As(err); broken.Code != problem.CodeRateLimited || !broken.Retryable {
				t.Fatalf("refused by %+v", broken)
			}
			return
		}
		held = append(held, leave)
	}
	take(m, true, true)
	take(m, true, true)
	take(m, true, false) // writes are over
	for range 3 {
		take(m, false, true)
	}
	take(m, false, false)                                     // all of the merchant's are over
	take(account{tenant: other, id: m.id}, false, true)       // another tenant's
	take(account{tenant: tenant, id: uuid.New()}, true, true) // another merchant's
	for range 4 {
		take(account{tenant: tenant, id: uuid.New()}, false, true)
	}
	take(account{tenant: tenant, id: uuid.New()}, false, false) // all of the tenant's are over
	take(account{tenant: other, id: uuid.New()}, true, true)
	for _, leave := range held {
		leave()
	}
	if len(p.tenants)+len(p.merchants) != 0 {
		t.Errorf("left behind: %v %v", p.tenants, p.merchants)
	}
	take(m, true, true)
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget()
		spend := func() (n int) {
			for b.spend() {
				n++
			}
			return n
		}
		if n := spend(); n != retriesKept {
			t.Fatalf("%d at first", n)
		}
		for range 100 {
			b.earn()
		}
		if n := spend(); n != 9 && n != 10 { // a tenth is no binary fraction
			t.Fatalf("%d for 100 reads", n)
		}
		time.Sleep(3 * time.Second)
		if n := spend(); n != 3 && n != 4 {
			t.Fatalf("%d for 3 seconds", n)
		}
		time.Sleep(time.Hour)
		if n := spend(); n != retriesKept {
			t.Fatalf("%d for an hour", n)
		}
	})
}

// While WeChat is away reads are made again a tenth of the time at most, and
// once a second; refusals of WeChat's never are.
func TestRetriesStayWithinTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &Authorizer{budgets: memory.New[postgres.Key, *budget](10)}
		c, calls, began := account{tenant: uuid.New(), id: uuid.New()}, 0, time.Now()
		read := func(code int64) {
			_, _ = a.patiently(t.Context(), c, wechat.GetStoreList, func() (wechat.Reply, error) {
				calls++
				return wechat.Reply{Status: 200, Body: fmt.Appendf(nil, `{"errcode":%d,"errmsg":"x"}`, code)}, nil
			})
		}
		const reads = 1000
		for range reads {
			read(-1)
		}
		if most := 1.1*reads + retriesKept + time.Since(began).Seconds() + 1; float64(calls) > most || calls <= reads {
			t.Errorf("%d calls for %d reads, at most %.0f", calls, reads, most)
		}
		time.Sleep(time.Hour)
		calls = 0
		if read(-1); calls != 1+maxRetries {
			t.Errorf("%d calls of one read", calls)
		}
		calls = 0
		if read(45011); calls != 1 {
			t.Errorf("%d calls of a read that was refused", calls)
		}
	})
}
