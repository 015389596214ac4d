package e2e

import (
	"fmt"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// Quotas are shown, and compared with WeChat's own count.
func TestQuotas(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	w.WaitTicket(g)
	mini := w.Client(g, w.Authorize(g, sandbox.DemoMiniProgram))

	a := mini.Do("GET", "/v1/quotas", nil).Want(200)
	for i, want := range []string{"goods-audit 500", "goods-withdraw 500", "goods-delete 1000", "goods-update 1000", "goods-status 1000", "goods-list 10000"} {
		at := string(rune('0' + i))
		if got := a.Get("data", at, "bucket") + " " + a.Get("data", at, "limit"); got != want || a.Get("data", at, "used") != "0" || a.Get("data", at, "state") != "ok" || a.Get("data", at, "upstream") != "null" {
			t.Errorf("bucket %d is %s, want %s: %s", i, got, want, a.Body)
		}
	}

	w.Control("POST", "accounts", map[string]any{"appid": sandbox.DemoMiniProgram, "daily_limits": map[string]int{"/wxaapi/broadcast/goods/delete": 0}}, nil)
	a = mini.Do("POST", "/v1/quotas/sync", nil).Want(200)
	if a.Get("data", "2", "limit") != "0" || a.Get("data", "2", "state") != "exhausted" || a.Get("data", "2", "upstream", "used") != "0" || a.Get("data", "0", "state") != "ok" {
		t.Errorf("after a comparison: %s", a.Body)
	}
	w.Eventually("the tenant is told", func() error {
		if rows := w.Query(`SELECT payload FROM outbox WHERE type = 'quota.threshold'`); len(rows) != 2 {
			return fmt.Errorf("%v", rows)
		}
		return nil
	})

	account := w.Client(g, w.Authorize(g, sandbox.DemoOfficialAccount))
	account.Do("GET", "/v1/quotas", nil).Want(200)
	account.Do("POST", "/v1/quotas/sync", nil).WantProblem(403, "permission_set_missing")
	mini.Do("GET", "/v1/quotas?merchant_id="+account.Merchant, nil).WantProblem(400, "merchant_mismatch")
	mini.For("").Do("GET", "/v1/quotas", nil).WantProblem(400, "merchant_required")
	mini.For("").Do("GET", "/v1/quotas?merchant_id="+mini.Merchant, nil).Want(200)
}
