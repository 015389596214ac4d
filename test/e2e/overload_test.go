package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/test/world"
)

const (
	liveStores = "/v1/stores?source=live"
	listPath   = "wxa/get_store_list"
	addPath    = "wxa/add_store"
)

// A front is the way to a simulator, which can be cut: then nobody listens.
type front struct {
	t    testing.TB
	addr string
	to   http.Handler
	srv  *http.Server
}

func newFront(t testing.TB, simulator string) *front {
	t.Helper()
	to, err := url.Parse(simulator)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{t: t, addr: world.FreeAddr(t), to: httputil.NewSingleHostReverseProxy(to)}
	f.up()
	t.Cleanup(f.down)
	return f
}

func (f *front) up() {
	f.t.Helper()
	ln, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.srv = &http.Server{Handler: f.to, ReadHeaderTimeout: time.Second}
	go f.srv.Serve(ln)
}

func (f *front) down() { f.srv.Close() }

// What one merchant's calls may take up, what is tried again, and when calls
// are paused: nothing of what is refused is written or sent.
func TestLimitsOfCalls(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	f := newFront(t, w.SandboxURL)
	w.Env["GATEWAY_WECHAT_API_URL"] = "http://" + f.addr
	g := w.Start(nil)
	c := w.Demo(g)
	w.Hold(true)
	operations := func() int64 { return w.Row(`SELECT count(*) AS n FROM operations`)["n"].(int64) }
	n := 0
	store := func() map[string]any { n++; return w.NewStore(n) }
	first := store()
	c.Do("POST", "/v1/stores", first, "Idempotency-Key", "first").Want(202)

	// A read that got no answer is made again.
	before := len(w.Journal(listPath))
	w.Fault(listPath, 1, map[string]any{"drop_reply": true})
	c.Do("GET", liveStores, nil).Want(200)
	w.WaitCalls(listPath, before+2)
	if got := g.Metric("mendian_wechat_retries_total", `call="store.list"`); got != 1 {
		t.Errorf("%v retries are counted", got)
	}

	// Eight writes are under way; the ninth is refused before anything is written.
	const writes = 8
	before = len(w.Journal(addPath))
	w.Fault(addPath, writes, map[string]any{"delay_ms": 3000})
	var slow []func() *world.Answer
	for range writes {
		slow = append(slow, c.Begin("POST", "/v1/stores", store()))
	}
	w.WaitCalls(addPath, before+writes)
	known, ninth := operations(), store()
	a := c.Do("POST", "/v1/stores", ninth, "Idempotency-Key", "ninth").WantProblem(429, "rate_limited")
	if after := a.Header.Get("Retry-After"); !slices.Contains([]string{"1", "2", "3"}, after) || a.Get("retryable") != "true" {
		t.Errorf("Retry-After %q: %s", after, a.Body)
	}
	c.Do("POST", "/v1/stores", first, "Idempotency-Key", "first").Want(202) // was done before
	c.Do("GET", liveStores, nil).Want(200)                                  // is no write
	if got := operations(); got != known {
		t.Errorf("%d operations, %d before the ninth", got, known)
	}
	for _, answer := range slow {
		answer().Want(202)
	}
	w.WaitCalls(addPath, before+writes)
	c.Do("POST", "/v1/stores", ninth, "Idempotency-Key", "ninth").Want(202)

	// Refusals of WeChat's are answers: they pause nothing.
	w.Fault(listPath, 30, map[string]any{"errcode": 45011})
	for range 30 {
		c.Do("GET", liveStores, nil).WantProblem(429, "wechat_rate_limited")
	}
	c.Do("GET", liveStores, nil).Want(200)

	// WeChat is gone.
	known, before = operations(), len(w.Journal(addPath))
	f.down()
	var reads sync.WaitGroup
	for range 60 { // half of what the window remembers, and more
		reads.Go(func() {
			a, err := c.Try("GET", liveStores, nil)
			if err != nil {
				t.Error(err)
			} else if a.Code() != "wechat_unreachable" && a.Code() != "upstream_circuit_open" {
				t.Errorf("%d %s", a.Status, a.Body)
			}
		})
	}
	reads.Wait()
	began := time.Now()
	a = c.Do("GET", liveStores, nil).WantProblem(503, "upstream_circuit_open")
	if after, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || after < 1 || after > 11 {
		t.Errorf("Retry-After %v: %s", a.Header, a.Body)
	}
	second := store()
	c.Do("POST", "/v1/stores", second, "Idempotency-Key", "second").WantProblem(503, "upstream_circuit_open")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("two refusals took %s", took)
	}
	if got := operations(); got != known {
		t.Errorf("%d operations, %d before the pause", got, known)
	}
	if a := c.Do("POST", "/v1/stores", first, "Idempotency-Key", "first").Want(202); a.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%v", a.Header)
	}
	if resp, err := http.Get(g.URL + "/readyz"); err != nil || resp.StatusCode != 200 {
		t.Errorf("readyz without WeChat: %v %v", resp, err)
	}

	// It is back: other calls go through at once, these after one that tries.
	f.up()
	listed := len(w.Journal(listPath))
	c.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil).Want(200)
	w.Eventually("the pause is over", func() error {
		had := len(w.Journal(listPath))
		a := c.Do("GET", liveStores, nil)
		if a.Status != 200 && had != listed {
			return fmt.Errorf("%d calls went through the pause: %s", had-listed, a.Body)
		} else if a.Status != 200 {
			a.WantProblem(503, "upstream_circuit_open")
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	w.WaitCalls(listPath, listed+1)
	c.Do("POST", "/v1/stores", second, "Idempotency-Key", "second").Want(202)
	w.WaitCalls(addPath, before+1)
	for _, state := range []string{"open", "half_open", "closed"} {
		if g.Metric("mendian_circuit_changes_total", `family="store"`, `state="`+state+`"`) == 0 {
			t.Errorf("no change to %s is counted", state)
		}
	}
	if !strings.Contains(g.Tail(10_000), `"msg":"circuit to WeChat"`) {
		t.Error("no change is logged")
	}
}

// Requests have used up their connections to the database: pushes are kept, the
// background goes on, and what needs no database is answered.
func TestPushesGetThrough(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(map[string]string{"GATEWAY_DB_MAX_CONNS": "4"})
	c := w.Demo(g)
	c.Do("GET", liveStores, nil).Want(200)
	conn, err := pgx.Connect(t.Context(), w.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), `BEGIN; LOCK TABLE resources IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var crowd sync.WaitGroup
	for range 12 {
		crowd.Go(func() {
			for {
				a, err := c.Try("GET", "/v1/stores", nil)
				select {
				case <-over:
					return
				default:
				}
				if err != nil {
					t.Error(err)
					return
				}
				if a.Code() != "storage_unavailable" {
					t.Errorf("%d %s", a.Status, a.Body)
					return
				}
			}
		})
	}
	full := func() {
		w.Eventually("two requests have their connections, and wait for the table", func() error {
			var n int
			err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE relation = 'resources'::regclass AND NOT granted`).Scan(&n)
			if err == nil && n < 2 {
				err = fmt.Errorf("%d wait", n)
			}
			return err
		})
	}
	full()
	kept := func() float64 { return g.Metric("mendian_pushes_total", `outcome="kept"`) }
	applied := func() float64 { return g.Metric("mendian_inbox_applied_total") }
	was, were := kept(), applied()
	w.Eventually("pushes are kept and applied", func() error {
		if k, a := kept(), applied(); k < was+3 || a < were+3 {
			return fmt.Errorf("%v kept, %v applied", k-was, a-were)
		}
		return nil
	})
	full() // still
	if failed := g.Metric("mendian_pushes_total", `outcome="failed"`); failed != 0 {
		t.Errorf("%v pushes failed", failed)
	}
	if resp, err := http.Get(g.URL + "/readyz"); err != nil || resp.StatusCode != 200 {
		t.Errorf("readyz: %v %v", resp, err)
	}
	c.Do("GET", liveStores, nil).Want(200)
	close(over)
	if _, err := conn.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	crowd.Wait()
	c.Do("GET", "/v1/stores", nil).Want(200)
}
