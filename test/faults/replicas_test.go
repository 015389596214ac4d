package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// The same Idempotency-Key fifty times over two processes, WeChat answering in
// 300 ms: every caller gets the same store and audit, one call is made.
func TestOneKeyFiftyTimes(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	a, b := w.Start(nil), w.Start(nil)
	c := w.Demo(a)
	w.Hold(true)
	w.Fault("wxa/add_store", 1, map[string]any{"delay_ms": 300})
	store := w.NewStore(1)
	answers := make([]*world.Answer, 50)
	var callers sync.WaitGroup
	for i := range answers {
		at := c
		if i%2 == 1 {
			at = c.At(b)
		}
		callers.Go(func() {
			answer, err := at.Try("POST", "/v1/stores", store, "Idempotency-Key", "one-and-the-same")
			if err != nil {
				t.Error(err)
				return
			}
			answers[i] = answer
		})
	}
	callers.Wait()
	if t.Failed() {
		return
	}
	replayed := 0
	first := answers[0].Want(http.StatusAccepted)
	for _, answer := range answers {
		answer.Want(http.StatusAccepted)
		if answer.Get("id") != first.Get("id") || answer.Get("audit", "wechat_audit_id") != first.Get("audit", "wechat_audit_id") || first.Get("audit", "wechat_audit_id") == "null" {
			t.Errorf("answers differ: %s and %s", first.Body, answer.Body)
		}
		if answer.Header.Get("Idempotency-Replayed") == "true" {
			replayed++
		}
	}
	if replayed != 49 {
		t.Errorf("%d of 50 answers were replays, want 49", replayed)
	}
	if n := len(w.Journal("wxa/add_store")); n != 1 {
		t.Errorf("%d calls of add_store, want 1", n)
	}
	other := w.NewStore(2)
	c.Do("POST", "/v1/stores", other, "Idempotency-Key", "one-and-the-same").WantProblem(http.StatusUnprocessableEntity, "idempotency_key_reused")

	// Another merchant's keys are its own.
	w.Hold(false)
	elsewhere := c.For(w.Authorize(a, "wx00000000000000aa"))
	if own := elsewhere.Do("POST", "/v1/stores", other, "Idempotency-Key", "one-and-the-same").Want(http.StatusAccepted); own.Header.Get("Idempotency-Replayed") != "" || own.Get("id") == first.Get("id") {
		t.Errorf("another merchant's request with that key: %v %s", own.Header, own.Body)
	}
}

// While WeChat takes five seconds, twins are told to come back.
func TestTwinOfASlowWrite(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	c := w.Demo(w.Start(nil))
	w.Fault("wxa/add_store", 1, map[string]any{"delay_ms": 5000})
	store := w.NewStore(1)
	store["client_reference"] = "one-shop"
	first := c.Begin("POST", "/v1/stores", store, "Idempotency-Key", "slow")
	w.WaitCalls("wxa/add_store", 1)
	twin := c.Do("POST", "/v1/stores", store, "Idempotency-Key", "slow").WantProblem(http.StatusConflict, "idempotency_in_flight")
	if twin.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After for the twin")
	}
	c.Do("POST", "/v1/stores", store).WantProblem(http.StatusConflict, "operation_in_progress") // the same place without the key
	other := w.NewStore(2)
	other["client_reference"] = "one-shop"
	c.Do("POST", "/v1/stores", other).WantProblem(http.StatusConflict, "duplicate_client_reference")
	first().Want(http.StatusAccepted)
	if n := len(w.Journal("wxa/add_store")); n != 1 {
		t.Errorf("%d calls of add_store, want 1", n)
	}
}

// What one process learns is heeded by all of three within five seconds, also
// while none of them can listen: a key that was revoked, a merchant's new token,
// a merchant who has left, a signing key that was rotated and then retired.
func TestChangesReachEveryProcess(t *testing.T) {
	t.Parallel()
	for _, deaf := range []bool{false, true} {
		t.Run(fmt.Sprintf("deaf %v", deaf), func(t *testing.T) {
			t.Parallel()
			w := world.New(t, world.Options{})
			processes := []*world.Gateway{w.Start(nil), w.Start(nil), w.Start(nil)}
			c := w.Demo(processes[0])
			var key struct{ ID, Token string }
			w.JSON(&key, "key", "create", "--tenant", w.Tenant.ID, "--scopes", "merchants:read", "-o", "json")
			of := func(c *world.Client) (all []*world.Client) {
				for _, g := range processes {
					all = append(all, c.At(g))
				}
				return all
			}
			keys, merchants := of(c.As(key.Token)), of(c)
			for i := range processes {
				keys[i].Do("GET", "/v1/me", nil).Want(http.StatusOK)
				merchants[i].Do("GET", "/v1/stores?source=live", nil).Want(http.StatusOK)
			}
			if deaf {
				stop := cutListeners(t, w, int64(len(processes)))
				defer stop()
			}
			everywhere := func(what string, check func(i int) error) {
				t.Helper()
				begun := time.Now()
				for i := range processes {
					world.Eventually(t, 6*time.Second, fmt.Sprintf("process %d to heed %s", i, what), func() error { return check(i) })
				}
				if took := time.Since(begun); took > 5*time.Second {
					t.Errorf("%s was heeded after %s", what, took)
				}
			}
			w.Run("key", "revoke", "--tenant", w.Tenant.ID, key.ID)
			everywhere("a revoked key", func(i int) error { return says(keys[i].Do("GET", "/v1/me", nil), "key_revoked") })

			token := func(r world.Request) string {
				q, _ := url.ParseQuery(r.Query)
				return q.Get("access_token")
			}
			calls := w.Journal("wxa/get_store_list")
			before := token(calls[len(calls)-1])
			c.Do("POST", "/v1/merchants/"+c.Merchant+"/token-refreshes", nil).Want(http.StatusOK)
			everywhere("a new token", func(i int) error {
				merchants[i].Do("GET", "/v1/stores?source=live", nil).Want(http.StatusOK)
				if calls := w.Journal("wxa/get_store_list"); token(calls[len(calls)-1]) == before {
					return errors.New("the former one was used")
				}
				return nil
			})

			w.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/unauthorize", map[string]string{}, nil)
			everywhere("a merchant who has left", func(i int) error {
				return says(merchants[i].Do("GET", "/v1/stores?source=live", nil), "merchant_deauthorized")
			})

			// The ring: after a rotation both keys' tokens are good, after the
			// retirement of the former one all that it signed is refused.
			var ring []struct{ KID, State string }
			w.JSON(&ring, "key", "signing", "list", "-o", "json")
			signer := ring[slices.IndexFunc(ring, func(k struct{ KID, State string }) bool { return k.State == "active" })].KID
			w.Run("key", "rotate-signing")
			second := of(c.As(w.NewKey("--scopes", "*")))
			for i := range processes {
				merchants[i].Do("GET", "/v1/me", nil).Want(http.StatusOK)
			}
			everywhere("the key that signs now", func(i int) error {
				if a := second[i].Do("GET", "/v1/me", nil); a.Status != http.StatusOK {
					return fmt.Errorf("%d %s", a.Status, a.Body)
				}
				return nil
			})
			w.Run("key", "retire-signing", signer)
			everywhere("a retired signing key", func(i int) error {
				second[i].Do("GET", "/v1/me", nil).Want(http.StatusOK)
				return says(merchants[i].Do("GET", "/v1/me", nil), "token_invalid")
			})
		})
	}
}

func says(a *world.Answer, code string) error {
	if a.Code() != code {
		return fmt.Errorf("%d %s", a.Status, a.Body)
	}
	return nil
}

// cutListeners ends all listeners' connections again and again.
func cutListeners(t *testing.T, w *world.World, listeners int64) (stop func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.DSN)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	cut := func() (int64, error) {
		tag, err := conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mendian listener' AND datname = current_database()`)
		return tag.RowsAffected(), err
	}
	if n, err := cut(); err != nil || n != listeners {
		t.Fatalf("cut %d listeners, %v, want %d: is the name still right?", n, err, listeners)
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := cut(); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done; _ = conn.Close(context.Background()) }
}

// SIGTERM while WeChat is being asked: the caller gets its answer, the process
// ends well, the id is recorded.
func TestTermDuringAWrite(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	w.Hold(true)
	w.Fault("wxa/add_store", 1, map[string]any{"delay_ms": 2000})
	store := w.NewStore(1)
	answer := c.Begin("POST", "/v1/stores", store)
	w.WaitCalls("wxa/add_store", 1)
	g.Signal(syscall.SIGTERM)
	a := answer()
	id := a.Want(http.StatusAccepted).Get("id")
	g.WaitExit(30 * time.Second)
	if code := g.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	next := w.Start(nil)
	if got := c.At(next).Do("GET", "/v1/stores/"+id, nil).Want(http.StatusOK).Get("audit", "wechat_audit_id"); got != a.Get("audit", "wechat_audit_id") || got == "null" {
		t.Errorf("audit id after the restart = %s, want %s", got, a.Get("audit", "wechat_audit_id"))
	}
}
