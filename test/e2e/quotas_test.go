package e2e

import (
	"fmt"
	"sync"
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

	answersEveryErrcode(t, w, mini, errcodeCall{"syncQuotas", "quota.get", "cgi-bin/openapi/quota/get", false, nil, func(c *world.Client) *world.Answer {
		return c.Do("POST", "/v1/quotas/sync", nil)
	}})
}

// Reads that WeChat limits by the day, equal and at the same time, are one call;
// others aren't.
func TestEqualReadsAreOneCall(t *testing.T) {
	t.Parallel()
	m := openMarket(t, 1)
	number := rows(m.client.Do("GET", "/v1/goods?status=approved&limit=1", nil).Want(200))[0]["goods_id"]
	for call, path := range map[string]string{
		"wxa/business/getgoodswarehouse":     fmt.Sprintf("/v1/goods/%v?source=live", number),
		"wxaapi/broadcast/goods/getapproved": "/v1/goods?source=live&status=approved",
	} {
		before := len(m.Journal(call))
		m.Fault(call, 1, map[string]any{"delay_ms": 3000})
		var readers sync.WaitGroup
		read := func(path string) {
			readers.Go(func() {
				a, err := m.client.Try("GET", path, nil)
				if err != nil || a.Status != 200 {
					t.Errorf("%s: %v, %+v", path, err, a)
				}
			})
		}
		read(path)
		m.WaitCalls(call, before+1)
		for range 20 {
			read(path)
		}
		readers.Wait()
		if n := len(m.Journal(call)) - before; n != 1 {
			t.Errorf("%s: 21 equal reads were %d calls", path, n)
		}
		m.client.Do("GET", path, nil).Want(200)
		if n := len(m.Journal(call)) - before; n != 2 {
			t.Errorf("%s: a later read was answered without asking WeChat", path)
		}
	}
}
