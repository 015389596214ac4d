package faults

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/test/world"
)

// The database is cut off around a write. Before T1 nothing is sent; between
// WeChat's answer and T2 the caller waits for the commit, or, where the
// process dies too, the next one has the answer on its disk.
func TestDatabaseCutOffAroundAWrite(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)

	w := p.creation()
	stop := p.cutAll("operations")
	a := p.c.Do(w.method, w.path, w.body, "Idempotency-Key", "before")
	stop()
	if a.Status != http.StatusServiceUnavailable || a.Code() != "storage_unavailable" || p.calls(w) != 0 {
		t.Errorf("before T1: %d calls, %d %s", p.calls(w), a.Status, a.Body)
	}
	p.Eventually("the same key works", func() error {
		if a = p.c.Do(w.method, w.path, w.body, "Idempotency-Key", "before"); a.Status != 202 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	if n := effects(p.World, w.effect, w.key); n != 1 || a.Get("audit", "wechat_audit_id") != issued(p.World, "audit_id", w.key)[0] {
		t.Errorf("%d effects: %s", n, a.Body)
	}

	// The process lives: it commits as soon as it can.
	w = p.creation()
	answer, stop := p.cutBeforeT2(w, "between")
	stop()
	if a := <-answer; a == nil || a.Status != 202 || a.Get("audit", "wechat_audit_id") != issued(p.World, "audit_id", w.key)[0] {
		t.Errorf("before T2: %+v", a)
	}

	// It dies: the spool has it.
	w = p.creation()
	answer, stop = p.cutBeforeT2(w, "dying")
	p.g.Kill()
	stop()
	<-answer
	p.start("")
	a = p.c.Do(w.method, w.path, w.body, "Idempotency-Key", "dying").Want(202)
	if a.Header.Get("Idempotency-Replayed") != "true" || a.Get("audit", "wechat_audit_id") != issued(p.World, "audit_id", w.key)[0] || p.calls(w) != 1 {
		t.Errorf("after the death: %d calls, %v %s", p.calls(w), a.Header, a.Body)
	}
	p.compareAudits()
	if rows := query(p.World, `SELECT id::text || ' ' || state FROM operations WHERE state NOT IN ('succeeded', 'failed')`); len(rows) != 0 {
		t.Errorf("left open: %v", rows)
	}
}

// cutBeforeT2 makes the write and cuts the database off while WeChat is being
// asked, until stop. The answer is nil if there is none.
func (p *place) cutBeforeT2(w write, key string) (answer <-chan *world.Answer, stop func()) {
	p.t.Helper()
	before := len(p.g.Logged("outcome not committed yet"))
	p.Fault(w.call, 1, map[string]any{"delay_ms": 700})
	c := make(chan *world.Answer, 1)
	go func() {
		a, err := p.c.Try(w.method, w.path, w.body, "Idempotency-Key", key)
		if err != nil {
			a = nil
		}
		c <- a
	}()
	p.Eventually("the call is under way", func() error {
		if n := p.calls(w); n != 1 {
			return fmt.Errorf("%d calls", n)
		}
		return nil
	})
	stop = p.cutAll("operations")
	world.Eventually(p.t, 20*time.Second, "T2 fails", func() error {
		if len(p.g.Logged("outcome not committed yet")) == before {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	return c, stop
}

// cutAll ends every connection to the database as soon as it is made, until
// stop, which may be called again. Nothing that needs the table slips through.
func (p *place) cutAll(table string) (stop func()) {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), p.DSN)
	if err != nil {
		p.t.Fatal(err)
	}
	cut := func(ctx context.Context) error {
		_, err := conn.PgConn().Exec(ctx, `SELECT pg_stat_clear_snapshot(); SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid(); SELECT pg_sleep(0.005)`).ReadAll()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	locked, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer conn.Close(context.Background()) // and with it the lock
		if _, err := conn.Exec(ctx, `BEGIN; LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`); err != nil {
			locked <- err
			return
		}
		err := cut(ctx)
		locked <- err
		for err == nil {
			err = cut(ctx)
		}
		if ctx.Err() == nil {
			p.t.Error(err)
		}
	}()
	if err := <-locked; err != nil {
		p.t.Fatal(err)
	}
	stop = func() { cancel(); <-ended }
	p.t.Cleanup(stop)
	return stop
}
