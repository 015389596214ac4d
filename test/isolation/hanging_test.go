package isolation

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// One tenant's WeChat takes connections and answers nothing. Its calls end in
// time, are bounded, and then paused; its writes are not lost, its pushes are
// kept, and all goes on when WeChat does. Another tenant notices nothing.
func TestHangingWeChat(t *testing.T) {
	t.Parallel()
	p := newPlatforms(t)
	w := &two{World: world.New(t, world.Options{Env: map[string]string{"GATEWAY_WECHAT_API_URL": p.URL}})}
	other := world.Simulate(t, sandbox.Config{Seed: 22})
	p.add(w.Component.AppID, w.SandboxURL)
	p.add(componentB.AppID, other.SandboxURL)
	tenantB := w.NewTenant("Other", componentB)
	other.Serve(componentB, w.PublicURL+"/wechat/"+tenantB.Ref)
	other.Control("POST", "accounts", map[string]any{"appid": accountB1, "nickname": "Shops of B"}, nil)
	g := w.Start(nil)
	a := w.Demo(g)
	other.Control("POST", "accounts/"+accountB1+"/authorize", nil, nil)
	b := a.As(w.keyOf(tenantB, "--scopes", "*")).For(accountB1)
	const live = "/v1/stores?source=live"
	w.Eventually("the other tenant can work", func() error {
		if got := b.Do("GET", live, nil); got.Status != http.StatusOK {
			return fmt.Errorf("%s", got.Body)
		}
		return nil
	})
	a.Do("GET", live, nil).Want(http.StatusOK)

	const deadline, merchantPlaces = 10 * time.Second, 64
	w.Fault("*", 100_000, map[string]any{"delay_ms": (deadline + 2*time.Second).Milliseconds()})
	began := time.Now()
	write := a.Begin("POST", "/v1/stores", w.NewStore(1), "Idempotency-Key", "first")
	w.WaitCalls("wxa/add_store", 1)
	before := len(w.Journal("wxa/get_store_list"))
	var reads []func() *world.Answer
	for range merchantPlaces - 1 {
		reads = append(reads, a.Begin("GET", live, nil))
	}
	w.WaitCalls("wxa/get_store_list", before+len(reads))

	// Meanwhile.
	a.Do("GET", live, nil).WantProblem(http.StatusTooManyRequests, "rate_limited")
	a.Do("GET", "/v1/stores", nil).Want(http.StatusOK)
	b.Do("GET", live, nil).Want(http.StatusOK)
	b.Do("POST", "/v1/stores", other.NewStore(1)).Want(http.StatusAccepted)
	if got := sealPush(t, w.Component, componentEvent(w.Component.AppID, "some_news", "")).to(a, w.Tenant.Ref+"/component"); got.Status != http.StatusOK || string(got.Body) != "success" {
		t.Errorf("a push: %d %s", got.Status, got.Body)
	}
	ready := func() {
		t.Helper()
		if resp, err := http.Get(g.URL + "/readyz"); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("readyz: %v %v", resp, err)
		}
	}
	ready()
	if early := time.Since(began); early > deadline {
		t.Fatalf("that took %s: nothing hung any more", early)
	}

	for _, read := range reads {
		read().WantProblem(http.StatusBadGateway, "wechat_unreachable")
	}
	unknown := write().Want(http.StatusAccepted)
	if unknown.Get("operation", "status") != "reconciling" {
		t.Errorf("a write that hung: %s", unknown.Body)
	}
	if took := time.Since(began); took > deadline+5*time.Second {
		t.Errorf("calls that hung ended after %s", took)
	}

	// Now calls are paused, which is told at once.
	quickest := time.Minute
	for range 5 {
		asked := time.Now()
		a.Do("GET", live, nil).WantProblem(http.StatusServiceUnavailable, "upstream_circuit_open")
		quickest = min(quickest, time.Since(asked))
	}
	if quickest > 100*time.Millisecond {
		t.Errorf("the quickest refusal took %s", quickest)
	}
	a.Do("POST", "/v1/stores", w.NewStore(2), "Idempotency-Key", "second").WantProblem(http.StatusServiceUnavailable, "upstream_circuit_open")
	b.Do("GET", live, nil).Want(http.StatusOK)
	ready()

	w.Control("DELETE", "faults", nil, nil)
	w.Eventually("it goes on", func() error {
		if got := a.Do("GET", live, nil); got.Status != http.StatusOK {
			return fmt.Errorf("%s", got.Body)
		}
		return nil
	})
	a.Do("POST", "/v1/stores", w.NewStore(2), "Idempotency-Key", "third").Want(http.StatusAccepted)
	w.Exec(`UPDATE operations SET next_check_at = now() WHERE state = 'reconciling'`) // which would be half a minute later
	a.Until("/v1/operations/"+unknown.Get("operation", "id"), "succeeded")
}
