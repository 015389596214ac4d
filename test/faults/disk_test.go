package faults

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/mendian/mendian/test/world"
)

// The spool's disk is full: writes are refused before WeChat is called, and
// nothing of them is kept; all else goes on, and so do they, by the same
// process, when there is room again. What is under way at that moment is
// committed without the spool.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "failpoint")
	w := world.New(t, world.Options{Tags: []string{"faults"}, Env: map[string]string{"GATEWAY_FAILPOINT_FILE": file}})
	g := w.Start(nil)
	c := w.Demo(g)
	w.Hold(true)
	disk := func(order string, ready int) {
		t.Helper()
		if err := os.WriteFile(file, []byte(order), 0o600); err != nil {
			t.Fatal(err)
		}
		w.Eventually("readiness tells", func() error {
			resp, err := http.Get(g.URL + "/readyz")
			if err == nil && resp.StatusCode != ready {
				err = fmt.Errorf("%d", resp.StatusCode)
			}
			return err
		})
	}
	const add = "wxa/add_store"
	w.Fault(add, 1, map[string]any{"delay_ms": 3000})
	first := c.Begin("POST", "/v1/stores", w.NewStore(1), "Idempotency-Key", "first")
	w.WaitCalls(add, 1)
	disk("disk:full", http.StatusServiceUnavailable)
	if a := first().Want(202); a.Get("status") != "in_review" || a.Get("audit", "wechat_audit_id") == "null" {
		t.Errorf("under way when the disk became full: %s", a.Body)
	}

	made := func() int64 { return w.Row(`SELECT count(*) AS n FROM operations`)["n"].(int64) }
	calls, operations, second := len(w.Journal("")), made(), w.NewStore(2)
	for _, write := range []struct {
		method, path string
		body         any
	}{{"POST", "/v1/stores", second}, {"POST", "/v1/stores?validate_only=true", second}, {"PATCH", "/v1/merchants/" + c.Merchant + "/store-program", map[string]string{"introduction": "tea"}}} {
		a := c.Do(write.method, write.path, write.body, "Idempotency-Key", write.path).WantProblem(503, "storage_unavailable")
		if a.Get("retryable") != "true" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%v %s", a.Header, a.Body)
		}
	}
	if now := len(w.Journal("")); now != calls || made() != operations {
		t.Errorf("%d calls of WeChat and %d operations for what was refused", now-calls, made()-operations)
	}
	c.Do("GET", "/v1/stores", nil).Want(200)
	c.Do("GET", "/v1/stores?source=live", nil).Want(200)

	disk("", http.StatusOK)
	c.Do("POST", "/v1/stores", second, "Idempotency-Key", "/v1/stores").Want(202)
	w.WaitCalls(add, 2)
}
