package faults

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// WeChat lets a merchant add and submit 500 goods a day (document 004 §1, §3):
// of more, asked for at the same time over two processes, it sees exactly 500.
// Reads, which take their calls in blocks, come to exactly what is left too.
// Everything beyond is refused here, and our own records go on answering.
func TestQuotaOverTwoProcesses(t *testing.T) {
	t.Parallel()
	const many = "100000"
	w := world.New(t, world.Options{Env: map[string]string{"GATEWAY_KEY_RATE": many, "GATEWAY_KEY_BURST": many, "GATEWAY_TENANT_RATE": many}})
	a, b := w.Start(nil), w.Start(nil)
	w.Run("tenant", "update", w.Tenant.ID, "--merchant-writes-in-flight", "100") // the day's quota is what refuses here
	c := w.Client(a, w.Authorize(a, sandbox.DemoMiniProgram))
	both := []*world.Client{c, c.At(b)}
	w.Eventually("the inventory of goods", func() error {
		if list := c.Do("GET", "/v1/goods", nil); list.Get("synced_at") == "null" {
			return fmt.Errorf("%s", list.Body)
		}
		return nil
	})
	w.Hold(true)

	// at makes n requests, sixteen at once, and counts what came of them.
	at := func(n int, status int, bucket string, limit int, request func(c *world.Client, i int) (*world.Answer, error)) (made int) {
		t.Helper()
		var mu sync.Mutex
		var workers sync.WaitGroup
		next := make(chan int)
		for range 16 {
			workers.Go(func() {
				for i := range next {
					answer, err := request(both[i%2], i)
					if err != nil {
						t.Error(err)
						continue
					}
					mu.Lock()
					if answer.Status == status {
						made++
					} else {
						refusedHere(t, answer, bucket, limit)
					}
					mu.Unlock()
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		workers.Wait()
		return made
	}

	// 45 of the day's reads are left: two blocks and a quarter. Equal reads
	// would be one call, so each asks for another item.
	w.Exec(`INSERT INTO quota_buckets (tenant_id, merchant_id, bucket, day, "limit", used, granted)
		VALUES ($1, $2, 'goods-status', quota_day(now()), 1000, 955, 0)`, w.UUID(typeid.Tenant, w.Tenant.ID), w.UUID(typeid.Merchant, c.Merchant))
	const warehouse = "wxa/business/getgoodswarehouse"
	before := len(w.Journal(warehouse))
	read := at(120, http.StatusOK, "goods-status", 1000, func(c *world.Client, i int) (*world.Answer, error) {
		return c.Try("GET", "/v1/goods?source=live&goods_id="+strconv.Itoa(880000+i), nil)
	})
	if n := len(w.Journal(warehouse)) - before; read != 45 || n != 45 {
		t.Errorf("%d reads were answered by %d calls, want 45", read, n)
	}

	const add = "wxaapi/broadcast/goods/add"
	created := at(520, http.StatusAccepted, "goods-audit", 500, func(c *world.Client, i int) (*world.Answer, error) {
		return c.Try("POST", "/v1/goods", map[string]any{"name": "Tea " + strconv.Itoa(i), "path": "pages/index/index", "pricing": map[string]string{"type": "fixed", "amount": "1"},
			"cover_media_id": "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR"})
	})
	if n := len(w.Journal(add)); created != 500 || n != 500 {
		t.Errorf("%d goods were created by %d calls, want 500", created, n)
	}
	if n := len(issuedGoods(w)); n != 500 {
		t.Errorf("WeChat added %d", n)
	}

	for _, c := range both {
		// Submitting again is of the same bucket.
		rejected := c.Do("GET", "/v1/goods?status=rejected", nil).Want(200).Get("data", "0", "id")
		refusedHere(t, c.Do("POST", "/v1/goods/"+rejected+"/audits", nil), "goods-audit", 500)
		refusedHere(t, c.Do("POST", "/v1/goods/"+rejected+"/audits?validate_only=true", nil), "goods-audit", 500)
		list := c.Do("GET", "/v1/goods?status=in_review&limit=1", nil).Want(200)
		item := "/v1/goods/" + list.Get("data", "0", "id")
		c.Do("GET", item, nil).Want(200)
		refusedHere(t, c.Do("GET", item+"?source=live", nil), "goods-status", 1000)
		for _, q := range [][]string{{"0", "goods-audit", "500"}, {"4", "goods-status", "1000"}} {
			a := c.Do("GET", "/v1/quotas", nil).Want(200)
			if a.Get("data", q[0], "bucket") != q[1] || a.Get("data", q[0], "used") != q[2] || a.Get("data", q[0], "remaining") != "0" || a.Get("data", q[0], "state") != "exhausted" {
				t.Errorf("%s: %s", q[1], a.Body)
			}
		}
	}
	if calls, audits := len(w.Journal(add))+len(w.Journal(warehouse))-before, len(w.Journal("wxaapi/broadcast/goods/audit")); calls != 545 || audits != 0 {
		t.Errorf("%d calls and %d submissions in the end, want 545 and 0", calls, audits)
	}
}

// refusedHere checks our own refusal of a call that is one too many for the day:
// when it may be made, and which quota is spent.
func refusedHere(t *testing.T, a *world.Answer, bucket string, limit int) {
	t.Helper()
	wait, err := strconv.Atoi(a.Header.Get("Retry-After"))
	if a.Status != http.StatusTooManyRequests || a.Code() != "wechat_quota_exhausted" || err != nil || wait < 1 || wait > 24*60*60 || a.Get("upstream") != "null" ||
		a.Get("retryable") != "true" || a.Get("retry_after_seconds") != a.Header.Get("Retry-After") {
		t.Errorf("%s %s = %d %v %s", a.Method, a.Path, a.Status, a.Header, a.Body)
	}
	policy := fmt.Sprintf(`"%s";q=%d;w=86400;qu="calls";pk=:`, bucket, limit)
	if left := a.Header.Get("RateLimit"); !strings.HasPrefix(left, `"`+bucket+`";r=0;t=`) || !strings.Contains(a.Header.Get("RateLimit-Policy"), policy) {
		t.Errorf("%s %s: RateLimit %s, RateLimit-Policy %s", a.Method, a.Path, left, a.Header.Get("RateLimit-Policy"))
	}
}
