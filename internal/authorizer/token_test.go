package authorizer

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/wechat"
)

const tokenCall = componentPath + "api_authorizer_token"

// refreshWith is the refresh token of a call in the journal.
func refreshWith(t *testing.T, c journalled) string {
	t.Helper()
	var body struct {
		Token string `json:"authorizer_refresh_token"`
	}
	if err := json.Unmarshal([]byte(c.Body), &body); err != nil {
		t.Fatal(err)
	}
	return body.Token
}

// The rows of the recovery table that end at this layer.

func TestRecoverRefreshTokenFromList(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.control("POST", "credentials", obj{"expire_access_tokens": m.AppID, "invalidate_refresh_token": m.AppID}, nil)
	b.expire(false)
	if err := b.read(b.a(), m); err != nil {
		t.Fatal(err)
	}
	if n := len(b.calls(componentPath + "api_get_authorizer_list")); n != 1 {
		t.Errorf("the list was read %d times, want once", n)
	}
	// The recovered one is stored: the next refresh uses it and needs no list.
	if _, err := b.a().RefreshToken(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	calls := b.calls(tokenCall)
	if a, z := refreshWith(t, calls[len(calls)-2]), refreshWith(t, calls[len(calls)-1]); a != z || a == refreshWith(t, calls[0]) {
		t.Error("the refresh token of the list was not kept")
	}
	if n := len(b.calls(componentPath + "api_get_authorizer_list")); n != 1 {
		t.Errorf("the list was read %d times, want once", n)
	}
	if got := scalar[int](b, `SELECT cardinality(refresh_history) FROM authorizer_tokens`); got != 1 {
		t.Errorf("%d refresh tokens in the history, want 1", got)
	}
}

func TestRefreshTokenNotInList(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.control("POST", "settings", obj{"omit_refresh_token_in_list": true}, nil)
	b.control("POST", "credentials", obj{"expire_access_tokens": m.AppID, "invalidate_refresh_token": m.AppID}, nil)
	b.expire(false)
	wantCode(t, b.read(b.a(), m), problem.CodeMerchantNeedsReauthorization)
	after := b.merchant(m.AppID)
	if after.Status != StatusNeedsReauthorization || after.ID != m.ID {
		t.Errorf("status %s, id kept %v", after.Status, after.ID == m.ID)
	}
	wantCode(t, b.a().Check(after, wechat.AddStore), problem.CodeMerchantNeedsReauthorization)
	n := len(b.calls(tokenCall))
	wantCode(t, b.read(b.a(), m), problem.CodeMerchantNeedsReauthorization)
	if again := len(b.calls(tokenCall)); again != n {
		t.Errorf("%d more refreshes of a token that is known to be dead", again-n)
	}
	if got := scalar[string](b, `SELECT string_agg(type, ' ' ORDER BY id) FROM outbox`); got != "merchant.authorized merchant.needs_reauthorization" {
		t.Errorf("events = %s", got)
	}
	// Authorised anew, it works again, with the same id.
	b.control("POST", "settings", obj{"omit_refresh_token_in_list": false}, nil)
	b.control("POST", "accounts/"+m.AppID+"/unauthorize", nil, nil)
	again := b.authorize(m.AppID)
	if again.ID != m.ID || again.Status != StatusAuthorized {
		t.Errorf("after re-authorisation: same id %v, status %s", again.ID == m.ID, again.Status)
	}
	if err := b.read(b.a(), again); err != nil {
		t.Fatal(err)
	}
}

func TestReplyWithoutRefreshToken(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.control("POST", "settings", obj{"omit_refresh_token_in_reply": true}, nil)
	before := scalar[[]byte](b, `SELECT refresh_token_ct FROM authorizer_tokens`)
	for range 2 {
		if _, err := b.a().RefreshToken(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if after := scalar[[]byte](b, `SELECT refresh_token_ct FROM authorizer_tokens`); !cmp.Equal(before, after) {
		t.Error("the refresh token changed")
	}
	if err := b.read(b.a(), m); err != nil {
		t.Fatal(err)
	}
}

func TestRotatedRefreshTokens(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.control("POST", "settings", obj{"rotate_refresh_tokens": true}, nil)
	for range 5 {
		if _, err := b.a().RefreshToken(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for _, c := range b.calls(tokenCall) {
		seen[refreshWith(t, c)] = true
	}
	if len(seen) != 5 {
		t.Errorf("%d different refresh tokens were sent in 5 refreshes", len(seen))
	}
	if got := scalar[int](b, `SELECT cardinality(refresh_history) FROM authorizer_tokens`); got != 3 {
		t.Errorf("%d in the history, want 3", got)
	}
	// The current one is lost, the one before it still works within its grace.
	b.control("POST", "settings", obj{"rotate_refresh_tokens": false}, nil)
	b.control("POST", "faults", obj{"path": tokenCall, "n": 1, "errcode": 61023}, nil)
	if _, err := b.a().RefreshToken(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if n := len(b.calls(componentPath + "api_get_authorizer_list")); n != 0 {
		t.Errorf("the list was read %d times though the history had a good one", n)
	}
}

func TestTicketLoss(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.control("POST", "settings", obj{"tickets_stopped": true}, nil)
	if err := b.read(b.a(), m); err != nil { // the tokens live on
		t.Fatal(err)
	}
	// For thirteen hours: every kept ticket is over, so is the component's token.
	b.control("POST", "clock", obj{"advance": "13h"}, nil)
	b.sql(`UPDATE component_tickets SET received_at = now() - interval '13 hours', issued_at = now() - interval '13 hours'`)
	b.expire(true)
	err := b.read(b.a(), m)
	wantCode(t, err, problem.CodeComponentTicketStale)
	if p, _ := problem.As(err); p.RetryAfter == 0 || p.Kind != problem.Unavailable {
		t.Errorf("problem = %+v, want 503 with Retry-After", p)
	}
	before := b.heard("component_verify_ticket", "")
	if err := b.a().TicketWatch(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.until("a ticket came after the restart", func() bool { return b.heard("component_verify_ticket", "") > before })
	if err := b.a().TicketWatch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(b.calls(componentPath + "api_start_push_ticket")); n != 1 {
		t.Errorf("api_start_push_ticket was called %d times, want once an hour", n)
	}
	b.until("calls succeed again", func() bool { return b.read(b.a(), m) == nil })
}

func TestOlderTicketServes(t *testing.T) {
	t.Parallel()
	b := start(t)
	for i := range 4 {
		b.control("POST", "clock", obj{"advance": "10m"}, nil)
		b.until("another ticket came", func() bool { return b.heard("component_verify_ticket", "") > i+1 })
	}
	if n := scalar[int](b, `SELECT count(*) FROM component_tickets`); n != 3 {
		t.Fatalf("%d tickets are kept, want 3", n)
	}
	b.control("POST", "credentials", obj{"reject_ticket": "newest"}, nil)
	m := b.authorize(sandbox.DemoOfficialAccount)
	if err := b.read(b.a(), m); err != nil {
		t.Fatal(err)
	}
	if n := scalar[int](b, `SELECT count(*) FROM component_tickets WHERE rejected_at IS NOT NULL`); n > 1 {
		t.Errorf("%d tickets are marked as refused, want one at most", n)
	}
	if n := len(b.calls(componentPath + "api_component_token")); n < 1 || n > 2 {
		t.Errorf("%d calls for a component token, want one or two", n)
	}
}

func TestComponentTokenRejected(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	for _, code := range []int{42006, 40001} {
		b.control("POST", "faults", obj{"path": tokenCall, "n": 1, "errcode": code}, nil)
		before := len(b.calls(componentPath + "api_component_token"))
		if _, err := b.a().RefreshToken(t.Context(), m); err != nil {
			t.Fatalf("%d: %v", code, err)
		}
		if n := len(b.calls(componentPath + "api_component_token")); n != before+1 {
			t.Errorf("%d: %d refreshes of the component's token, want one", code, n-before)
		}
	}
}

func TestRejectedTokenCostsOneRefresh(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	if err := b.read(b.a(), m); err != nil {
		t.Fatal(err)
	}
	const path = "/wxa/get_store_list"
	b.control("POST", "faults", obj{"path": path, "n": 1, "errcode": 42001}, nil)
	before := len(b.calls(path))
	if err := b.read(b.a(), m); err != nil {
		t.Fatal(err)
	}
	if got := len(b.calls(path)) - before; got != 2 {
		t.Errorf("%d calls, want the rejected one and one more", got)
	}
	if got := len(b.calls(tokenCall)); got != 1 {
		t.Errorf("%d refreshes, want 1", got)
	}
	// The fresh one is rejected too: no loop, and a minute of quiet.
	b.control("POST", "faults", obj{"path": path, "n": 10, "errcode": 40001}, nil)
	before = len(b.calls(path))
	err := b.read(b.a(), m)
	wantCode(t, err, problem.CodeMerchantTokenUnavailable)
	if p, _ := problem.As(err); p.RetryAfter != time.Minute || p.Upstream == nil || p.Upstream.Errcode != 40001 {
		t.Errorf("problem = %+v", p)
	}
	if got := len(b.calls(path)) - before; got != 2 {
		t.Errorf("%d calls, want 2", got)
	}
	before = len(b.calls(path))
	wantCode(t, b.read(b.a(), m), problem.CodeMerchantTokenUnavailable)
	if got := len(b.calls(path)) - before; got != 0 {
		t.Errorf("%d calls with the breaker open, want 0", got)
	}
	// Another token closes it.
	b.control("DELETE", "faults", nil, nil)
	if _, err := b.a().RefreshToken(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := b.read(b.a(), m); err != nil {
		t.Fatal(err)
	}
}

// 60 callers on an expired token, over two processes, with a slow refresh.
func TestOneRefreshOverProcesses(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.addNode(b.sim)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.control("POST", "credentials", obj{"expire_access_tokens": m.AppID}, nil)
	b.expire(true)
	b.control("POST", "faults", obj{"path": tokenCall, "n": 1, "delay_ms": 900}, nil)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			if err := b.read(b.node[i%2], m); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := len(b.calls(tokenCall)); n != 1 {
		t.Errorf("%d calls of api_authorizer_token, want 1", n)
	}
	if n := len(b.calls(componentPath + "api_component_token")); n != 2 { // one before, one since
		t.Errorf("%d calls of api_component_token, want 2", n)
	}
}

// 100 callers meet a rejected token at once.
func TestOneRefreshForManyRejections(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.addNode(b.sim)
	m := b.authorize(sandbox.DemoOfficialAccount)
	for _, n := range b.node {
		if err := b.read(n, m); err != nil {
			t.Fatal(err)
		}
	}
	b.control("POST", "credentials", obj{"expire_access_tokens": m.AppID}, nil)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if err := b.read(b.node[i%2], m); err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := len(b.calls(tokenCall)); n != 1 {
		t.Errorf("%d calls of api_authorizer_token, want 1", n)
	}
}

// A holder that is stopped for longer than its lease comes back with an answer
// that is no longer wanted.
func TestLateHolderChangesNothing(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	// The first node speaks through a proxy that can hold the answer back.
	u, err := url.Parse(b.sim)
	if err != nil {
		t.Fatal(err)
	}
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	proxy := httputil.NewSingleHostReverseProxy(u)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == tokenCall {
			rec := httptest.NewRecorder()
			proxy.ServeHTTP(rec, r)
			arrived <- struct{}{}
			<-release
			_, _ = w.Write(rec.Body.Bytes())
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer slow.Close()
	late := b.addNode(slow.URL)
	b.expire(false)
	ended := make(chan error, 1)
	go func() { ended <- b.read(late, m) }()
	<-arrived
	b.sql(`UPDATE authorizer_tokens SET lease_until = now() - interval '1 second'`) // as if 15 s had passed
	if err := b.read(b.node[0], m); err != nil {
		t.Fatal(err)
	}
	type row struct {
		Gen       int
		Lease     int
		Token, RT string
	}
	state := func() (r row) {
		r.Gen = scalar[int](b, `SELECT access_gen FROM authorizer_tokens`)
		r.Lease = scalar[int](b, `SELECT lease_gen FROM authorizer_tokens`)
		r.Token = scalar[string](b, `SELECT encode(access_ct, 'hex') FROM authorizer_tokens`)
		r.RT = scalar[string](b, `SELECT encode(refresh_token_ct, 'hex') FROM authorizer_tokens`)
		return r
	}
	before := state()
	close(release)
	if err := <-ended; err != nil {
		t.Errorf("the late holder's own caller: %v", err)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("a late write changed the row:\n%s", diff)
	}
	if n := len(b.calls(tokenCall)); n != 2 {
		t.Errorf("%d refreshes, want 2", n)
	}
}

// While a refresh is under way the old token serves as long as it lives.
func TestOldTokenServesMeanwhile(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.sql(`UPDATE authorizer_tokens SET access_expires_at = now() + interval '5 minutes'`)
	b.a().tokens.DropAll()
	b.control("POST", "faults", obj{"path": tokenCall, "n": 1, "delay_ms": 600}, nil)
	begun := time.Now()
	for range 5 {
		if err := b.read(b.a(), m); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took > 500*time.Millisecond {
		t.Errorf("callers waited %s for a refresh that was not needed yet", took)
	}
	b.until("the token was refreshed beside", func() bool {
		return scalar[bool](b, `SELECT access_expires_at > now() + interval '1 hour' FROM authorizer_tokens`)
	})
	if n := len(b.calls(tokenCall)); n != 1 {
		t.Errorf("%d refreshes, want 1", n)
	}
}

func TestRefreshDue(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.addNode(b.sim)
	used := b.authorize(sandbox.DemoOfficialAccount)
	idle := b.authorize(sandbox.DemoMiniProgram)
	b.sql(`UPDATE authorizer_tokens SET access_expires_at = now() + interval '9 minutes', used_at = now()`)
	b.sql(`UPDATE authorizer_tokens SET used_at = now() - interval '2 days' WHERE merchant_id = $1`, idle.ID)
	var wg sync.WaitGroup
	total := make(chan int, 2)
	for _, n := range b.node {
		wg.Go(func() {
			k, err := n.RefreshDue(context.WithoutCancel(t.Context()))
			if err != nil {
				t.Error(err)
			}
			total <- k
		})
	}
	wg.Wait()
	calls := b.calls(tokenCall)
	if len(calls) != 1 || !strings.Contains(calls[0].Body, used.AppID) {
		t.Errorf("%d refreshes, want one, of the merchant in use", len(calls))
	}
	if n, err := b.a().RefreshDue(t.Context()); n != 0 || err != nil {
		t.Errorf("RefreshDue() = %d, %v when nothing is due", n, err)
	}
}

func TestRefreshFails(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	for _, tc := range []struct {
		fault obj
		want  string
	}{
		{obj{"errcode": -1}, problem.CodeWeChatSystemError},
		{obj{"errcode": 45009}, problem.CodeWeChatQuotaExhausted},
		{obj{"errcode": 99999}, problem.CodeWeChatUnknownError},
		{obj{"http_status": 502}, problem.CodeWeChatUnreachable},
		{obj{"drop_reply": true}, problem.CodeWeChatUnreachable},
		{obj{"errcode": 42007}, problem.CodeMerchantNeedsReauthorization},
	} {
		b.expire(false)
		b.sql(`UPDATE authorizer_tokens SET lease_until = NULL`)
		tc.fault["path"], tc.fault["n"] = tokenCall, 1
		b.control("POST", "faults", tc.fault, nil)
		if got := codeOf(b.read(b.a(), m)); got != tc.want {
			t.Errorf("%v: code = %q, want %q", tc.fault, got, tc.want)
		}
	}
	if got := b.merchant(m.AppID).Status; got != StatusNeedsReauthorization {
		t.Errorf("status = %s after 42007", got)
	}
}

func TestComponentSecretWrong(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.control("POST", "component", obj{"secret": "another"}, nil)
	b.control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/authorize", nil, nil)
	_, err := b.a().componentToken(t.Context(), b.tenant, noGen)
	wantCode(t, err, problem.CodePlatformMisconfigured)
}

func TestWarmReadsTouchNoDatabase(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	n := b.a()
	b.until("the listener hears", n.Changes.Hearing)
	if err := b.read(n, m); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Merchant(t.Context(), b.tenant, m.AppID); err != nil {
		t.Fatal(err)
	}
	ctx, trips := counting(t.Context())
	for range 200 {
		warm, err := n.Merchant(ctx, b.tenant, m.AppID)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Check(warm, wechat.GetStoreList); err != nil {
			t.Fatal(err)
		}
		if _, err := Call[wechat.GetStoreListReply](ctx, n.Authorizer, warm, wechat.GetStoreList, nil, wechat.GetStoreListRequest{Limit: 10}); err != nil {
			t.Fatal(err)
		}
	}
	if got := trips.Load(); got != 0 {
		t.Errorf("%d queries in 200 warm reads", got)
	}
}

// No token, secret or code in what is logged or returned, whatever goes wrong.
func TestCanary(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	var texts []string
	note := func(err error) {
		if err == nil {
			t.Error("no error where one was provoked")
			return
		}
		texts = append(texts, err.Error())
		if p, ok := problem.As(err); ok {
			j, _ := json.Marshal(p)
			texts = append(texts, string(j))
		}
	}
	// Nobody listens where WeChat should be; a connection that never answers.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := gone.Addr().String()
	gone.Close()
	refused := b.addNode("http://" + address)
	note(b.read(refused, m))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	b.control("POST", "faults", obj{"path": "/wxa/get_store_list", "n": 1, "delay_ms": 1000}, nil)
	_, err = Call[wechat.GetStoreListReply](ctx, b.a().Authorizer, m, wechat.GetStoreList, nil, wechat.GetStoreListRequest{})
	note(err)
	b.expire(true)
	note(b.read(refused, m))
	for _, path := range []string{"api_component_token", "api_authorizer_token", "api_query_auth"} {
		b.expire(true)
		b.sql(`UPDATE authorizer_tokens SET lease_until = NULL`)
		b.sql(`UPDATE component_tokens SET lease_until = NULL`)
		b.control("POST", "faults", obj{"path": componentPath + path, "n": 4, "body": `{"errcode":47001,"errmsg":"bad refresh_token=refreshtoken@@@abc access_token=xyz"}`}, nil)
		if path == "api_query_auth" {
			created := time.Unix(1, 0)
			note(b.a().applyAuthorized(t.Context(), b.tenant, message(t, `<xml><AuthorizerAppid>wx5ab0d1c0ffee0a02</AuthorizerAppid><AuthorizationCode>queryauthcode@@@canary</AuthorizationCode></xml>`), created, created))
		} else {
			note(b.read(b.a(), m))
		}
		b.control("DELETE", "faults", nil, nil)
	}
	secrets := []string{sandbox.DefaultComponentSecret, sandbox.DefaultEncodingAESKey, sandbox.DefaultMessageToken, "queryauthcode@@@", "refreshtoken@@@", "ticket@@@", "preauthcode@@@", "access_token=xyz"}
	for _, c := range b.calls("") {
		q, _ := url.ParseQuery(c.Query)
		for _, name := range []string{"access_token", "component_access_token"} {
			if v := q.Get(name); v != "" {
				secrets = append(secrets, v)
			}
		}
	}
	if len(secrets) < 10 {
		t.Fatal("no tokens in the journal: this test looks at nothing")
	}
	texts = append(texts, b.log.String())
	for _, text := range texts {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%q in %q", s, text)
			}
		}
	}
}
