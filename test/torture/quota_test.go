package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// quotaFigures are what a midnight amounts to.
type quotaFigures struct {
	Asked, Created, Refused, Limit int
	Before, After                  int // calls that WeChat counted on the two days
	Beyond                         int // of those, refused by it
}

func (f quotaFigures) String() string {
	return fmt.Sprintf("goods asked for %d, created %d, refused here %d times; of a limit of %d a day WeChat counted %d before midnight and %d after it, %d beyond",
		f.Asked, f.Created, f.Refused, f.Limit, f.Before, f.After, f.Beyond)
}

// WeChat lets a merchant create so many goods a day of Shanghai (document 004
// §1). All processes are asked for more than two days' worth around midnight,
// and ask again for what was refused: on each of the two days WeChat sees
// exactly the limit, and no call beyond it.
//
// The database says which day it is. Its owner moves midnight, by other
// functions for it, and the simulator's clock is advanced by as much: to an
// hour before it at first, then, when the day's goods are created, to a second
// before it. What is under way at midnight would count for the old day here and
// for the new one at WeChat, as long as the old day had any left.
func TestMidnight(t *testing.T) {
	figures(t, arenaOf{}, func(a *Arena, _ *rand.Rand) fmt.Stringer {
		f := quotaFigures{Asked: *creates * len(a.Slots), Limit: min(500, *creates*4/9)} // more wanted of each process than both days have
		days := &calendar{Arena: a}
		days.midnightIn(time.Hour)
		const path = "/wxaapi/broadcast/goods/add"
		shop := a.newMerchant(map[string]any{"kind": "mini_program", "daily_limits": map[string]int{path: f.Limit}})
		shop.authorize()
		shop.wait()
		if f.Limit < 500 { // WeChat may allow less than its document says: it is asked
			shop.client.Do("POST", "/v1/quotas/sync", nil).Want(http.StatusOK)
		}
		a.Hold(true)
		over := &http.Transport{MaxIdleConnsPerHost: 256}
		callers := make([]*caller, len(a.Slots))
		for i, slot := range a.Slots {
			slot.Up(nil)
			callers[i] = &caller{Client: world.NewClient(t, slot.URL(), a.World.Key, over).For(shop.id), wanted: make(chan map[string]any, *creates)}
			for range *creates {
				callers[i].wanted <- item(a.name("item"))
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for _, c := range callers {
			for range min(*creates, 40) {
				wait.Go(func() { c.ask(ctx, t) })
			}
		}
		// spent waits until so many are created, and every process refuses more.
		spent := func(created int) {
			t.Helper()
			var refused []int64
			for _, c := range callers {
				refused = append(refused, c.refused.Load())
			}
			world.Eventually(t, 3*time.Minute, fmt.Sprintf("%d goods", created), func() error {
				sum, more := 0, 0
				for i, c := range callers {
					sum += int(c.created.Load())
					if c.refused.Load() > refused[i]+40 {
						more++
					}
				}
				if sum < created || more < len(callers) {
					return fmt.Errorf("%d created, %d of %d processes refuse", sum, more, len(callers))
				}
				return nil
			})
		}
		spent(f.Limit)
		midnight := days.midnightIn(time.Second)
		spent(2 * f.Limit)
		stop()
		wait.Wait()
		for _, c := range callers {
			f.Created += int(c.created.Load())
			f.Refused += int(c.refused.Load())
		}

		for _, call := range a.Journal(path[1:]) {
			at, err := time.Parse(time.RFC3339Nano, call.Time)
			if err != nil {
				t.Fatal(err)
			}
			if at.Before(midnight) {
				f.Before++
			} else {
				f.After++
			}
		}
		_, effects := a.Truth()
		executed := 0
		for _, e := range effects {
			if e.Kind == "goods_add" {
				executed++
			}
		}
		f.Beyond = f.Before + f.After - executed
		if f.Before != f.Limit || f.After != f.Limit || f.Beyond != 0 || f.Created != 2*f.Limit {
			t.Errorf("%s", f)
		}
		for _, row := range a.Query(`SELECT day, used, "limit", closed_at FROM quota_buckets WHERE bucket = 'goods-audit' AND merchant_id = $1`, a.UUID(typeid.Merchant, shop.id)) {
			if fmt.Sprint(row["used"]) != fmt.Sprint(f.Limit) || fmt.Sprint(row["limit"]) != fmt.Sprint(f.Limit) || row["closed_at"] != nil {
				t.Errorf("counted: %v", row)
			}
		}
		return f
	})
}

// A caller asks one process for goods, and again for what was refused.
type caller struct {
	*world.Client
	wanted           chan map[string]any
	created, refused atomic.Int64
}

func (c *caller) ask(ctx context.Context, t *testing.T) {
	for pause(ctx, 5) {
		goods := <-c.wanted
		answer, err := c.Try("POST", "/v1/goods", goods)
		switch {
		case err != nil:
			t.Error(err)
		case answer.Status == http.StatusAccepted:
			c.created.Add(1)
			continue
		case answer.Code() == "wechat_quota_exhausted" && answer.Get("upstream") == "null":
			c.refused.Add(1)
		default:
			t.Errorf("%d %s", answer.Status, answer.Body)
		}
		c.wanted <- goods
	}
}

// A calendar moves the midnight of Shanghai, for the database and WeChat alike.
type calendar struct {
	*Arena
	ahead time.Duration // that both are of the clock
}

// midnightIn makes the midnight that comes next, by the calendar so far, come
// in that time, and returns when that is.
func (c *calendar) midnightIn(wait time.Duration) time.Time {
	c.t.Helper()
	at := time.Now().Add(wait)
	shanghai := time.FixedZone("Asia/Shanghai", 8*60*60)
	y, m, d := time.Now().Add(c.ahead).In(shanghai).Date()
	ahead := time.Date(y, m, d+1, 0, 0, 0, 0, shanghai).Sub(at)
	if ahead < c.ahead {
		ahead += 24 * time.Hour // clocks don't go back
	}
	for _, sql := range []string{
		`CREATE OR REPLACE FUNCTION quota_day(at timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS
			$$ SELECT ((at + interval '%[1]d microseconds') AT TIME ZONE 'Asia/Shanghai')::date $$`,
		`CREATE OR REPLACE FUNCTION quota_day_ends(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
			$$ SELECT (quota_day(at) + 1)::timestamp AT TIME ZONE 'Asia/Shanghai' - interval '%[1]d microseconds' $$`,
	} {
		if err := c.Cluster.Exec(fmt.Sprintf(sql, ahead.Microseconds())); err != nil {
			c.t.Fatal(err)
		}
	}
	c.Control("POST", "clock", map[string]string{"advance": (ahead - c.ahead).String()}, nil)
	c.ahead = ahead
	return at
}
