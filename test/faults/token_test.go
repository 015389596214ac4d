package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

const (
	refreshCall  = "cgi-bin/component/api_authorizer_token"
	exchangeCall = "cgi-bin/component/api_query_auth"
	listCall     = "cgi-bin/component/api_get_authorizer_list"
)

// A tokenRow is what the database holds of a merchant's token.
type tokenRow struct {
	Token              string // opened
	Gen, LeaseGen      int32
	Expires            time.Time
	Refresh, LeaseHeld string
}

func (p *place) tokenRow(merchant, appid string) tokenRow {
	p.t.Helper()
	id := p.UUID(typeid.Merchant, merchant)
	row := p.Row(`SELECT access_ct, access_gen, lease_gen, access_expires_at, encode(refresh_token_ct, 'hex') AS refresh, coalesce(lease_owner, '') AS owner
		FROM authorizer_tokens WHERE merchant_id = $1`, id)
	return tokenRow{p.Open("authorizer_tokens", "access_ct", appid, id.String(), row["access_ct"]), row["access_gen"].(int32), row["lease_gen"].(int32),
		row["access_expires_at"].(time.Time), row["refresh"].(string), row["owner"].(string)}
}

// newestToken is the last one that the simulator gave to an account.
func (p *place) newestToken(appid string) (token string, calls int) {
	p.t.Helper()
	for _, r := range p.Journal(refreshCall) {
		var asked, told map[string]any
		if json.Unmarshal([]byte(r.Body), &asked) != nil || json.Unmarshal([]byte(r.Reply), &told) != nil || asked["authorizer_appid"] != appid {
			continue
		}
		calls++
		token = fmt.Sprint(told["authorizer_access_token"])
	}
	return token, calls
}

// 60 callers over two processes meet a token that is over: WeChat is asked for
// one new token, once, and no caller sees a failure.
func TestOneRefreshForTwoProcesses(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	callers := []*world.Client{p.c, p.c.At(p.Start(nil))}
	for _, way := range []string{"rejected by WeChat", "over by our clock"} {
		for _, c := range callers {
			c.Do("GET", "/v1/stores?source=live", nil).Want(200)
		}
		before, asked := p.tokenRow(p.c.Merchant, sandbox.DemoOfficialAccount), len(p.Journal(refreshCall))
		p.Control("DELETE", "faults", nil, nil)
		p.Fault(refreshCall, 10, map[string]any{"delay_ms": 900})
		stores := []map[string]any{p.newStore(), p.newStore(), p.newStore(), p.newStore()}
		if way == "rejected by WeChat" {
			p.Control("POST", "credentials", map[string]string{"expire_access_tokens": sandbox.DemoOfficialAccount}, nil)
		} else {
			for _, g := range p.Gateways { // what they have in memory is good
				g.Kill()
			}
			p.Exec(`UPDATE authorizer_tokens SET access_expires_at = now() - interval '1 second'`)
			p.start("")
			callers = []*world.Client{p.c, p.c.At(p.Start(nil))}
		}
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				method, path, body, want := "GET", "/v1/stores?source=live", any(nil), 200
				if i < len(stores) {
					method, path, body, want = "POST", "/v1/stores", stores[i], 202
				}
				a, err := callers[i%2].Try(method, path, body)
				if err != nil || a.Status != want {
					t.Errorf("%s: caller %d: %v %+v", way, i, err, a)
				}
			})
		}
		wg.Wait()
		if n := len(p.Journal(refreshCall)) - asked; n != 1 {
			t.Errorf("%s: WeChat was asked for %d tokens", way, n)
		}
		newest, _ := p.newestToken(sandbox.DemoOfficialAccount)
		if now := p.tokenRow(p.c.Merchant, sandbox.DemoOfficialAccount); now.Gen != before.Gen+1 || now.Token != newest || now.LeaseHeld != "" {
			t.Errorf("%s: the row went from %+v to %+v, newest %s", way, before, now, newest)
		}
		for _, s := range stores {
			if n := effects(p.World, "add_store", s["map_poi_id"].(string)); n != 1 {
				t.Errorf("%s: a creation has %d effects", way, n)
			}
		}
	}
}

// Two processes are stopped for 20 s with a lease: one with WeChat's answer in
// its hands, one that has not asked yet. Meanwhile others refresh. What the two
// write when they go on changes nothing, and nobody is left with a dead token.
func TestStoppedWithTheLease(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	second := p.c.At(p.Start(nil))
	const otherAccount = "wx00000000000000aa"
	type holder struct {
		failpoint, appid, id string
		asked                int // times that WeChat is asked for a token at most, in the end
		calls                int // before
		stopped              *world.Gateway
		resume               <-chan time.Time
		row                  tokenRow
	}
	holders := []*holder{
		{failpoint: "token_answered:stop", appid: sandbox.DemoOfficialAccount, id: p.c.Merchant, asked: 2},
		{failpoint: "token_leased:stop", appid: otherAccount, id: p.Authorize(p.g, otherAccount), asked: 3},
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	// The token before the newest one ends at once.
	p.Control("POST", "settings", map[string]any{"token_grace_off": true}, nil)
	const path = "/v1/stores?source=live"
	for _, h := range holders {
		for _, c := range []*world.Client{p.c, second} {
			c.For(h.id).Do("GET", path, nil).Want(200)
		}
		_, h.calls = p.newestToken(h.appid)
		h.stopped = p.Start(map[string]string{"GATEWAY_FAILPOINT": h.failpoint})
		p.Eventually("the whole of it has started", func() error {
			if len(h.stopped.Logged("ready")) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		p.Control("POST", "credentials", map[string]string{"expire_access_tokens": h.appid}, nil)
		caller := p.c.At(h.stopped).For(h.id)
		wg.Go(func() { _, _ = caller.Try("GET", path, nil) }) // what it is told doesn't matter
		h.stopped.WaitStopped()
		h.resume = time.After(20 * time.Second)
	}
	for _, h := range holders {
		c := p.c.For(h.id)
		world.Eventually(t, 40*time.Second, h.failpoint+": another process refreshes", func() error {
			a := c.Do("GET", path, nil)
			if a.Status != 200 && a.Code() != "merchant_token_unavailable" {
				t.Errorf("%s: while the lease is held: %d %s", h.failpoint, a.Status, a.Body)
			}
			if a.Status != 200 {
				return fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return nil
		})
		h.row = p.tokenRow(h.id, h.appid)
		if newest, _ := p.newestToken(h.appid); h.row.Token != newest {
			t.Errorf("%s: the refreshed token is not the newest", h.failpoint)
		}
	}
	for _, h := range holders {
		<-h.resume
		h.stopped.Signal(syscall.SIGCONT)
		// Fenced, or its call met a connection that had died meanwhile.
		p.Eventually(h.failpoint+": the late refresh comes to nothing", func() error {
			all, ok := h.stopped.Metric("mendian_token_refreshes_total"), h.stopped.Metric("mendian_token_refreshes_total", `outcome="ok"`)
			if all != 1 || ok != 0 {
				return fmt.Errorf("%v refreshes, %v of them ok", all, ok)
			}
			return nil
		})
		if diff := cmp.Diff(h.row, p.tokenRow(h.id, h.appid)); diff != "" {
			t.Errorf("%s: the late write changed the row: %s", h.failpoint, diff)
		}
		for _, c := range []*world.Client{p.c, second, p.c.At(h.stopped)} {
			c.For(h.id).Do("GET", path, nil).Want(200)
		}
		// Whoever hadn't asked yet asked late: the token that it got and could
		// not keep ended the kept one, which cost one refresh more.
		newest, calls := p.newestToken(h.appid)
		if calls -= h.calls; p.tokenRow(h.id, h.appid).Token != newest || calls > h.asked {
			t.Errorf("%s: WeChat was asked %d times, want at most %d", h.failpoint, calls, h.asked)
		}
	}
}

// A process dies with WeChat's answer to a refresh, which brought another
// refresh token and, in time, ends the old one. The next process on its spool
// directory has both new tokens and asks WeChat for nothing; where the answer
// was lost with the spool, WeChat's list of authorised accounts brings the
// refresh token.
func TestKilledInARefresh(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Control("POST", "settings", map[string]any{"rotate_refresh_tokens": true}, nil)
	const path = "/v1/stores?source=live"
	expire := func() {
		p.Control("POST", "credentials", map[string]string{"expire_access_tokens": sandbox.DemoOfficialAccount}, nil)
	}
	for _, d := range []death{
		{failpoint: "token_spooled:power"},
		{failpoint: "token_spooled:kill", second: "token_stored:kill"},
		{failpoint: "token_spooled:kill", noSpool: true, forgotten: true},
	} {
		before := p.tokenRow(p.c.Merchant, sandbox.DemoOfficialAccount)
		listed, asked := len(p.Journal(listCall)), len(p.Journal(refreshCall))
		p.restart(d.failpoint)
		expire()
		p.dying("GET", path, nil, "")
		if n := len(p.Journal(refreshCall)) - asked; n != 1 {
			t.Fatalf("%s: WeChat was asked for %d tokens", d.name(), n)
		}
		if d.noSpool {
			p.loseSpool()
		}
		if d.second != "" {
			p.Launch(p.environ(d.second)).WaitExit(20 * time.Second)
		}
		p.start("")
		p.Control("POST", "clock", map[string]string{"advance": "10m"}, nil) // the old refresh token is over
		p.Exec(`UPDATE authorizer_tokens SET lease_until = now()`)           // so is the dead one's lease
		newest, _ := p.newestToken(sandbox.DemoOfficialAccount)
		now := p.tokenRow(p.c.Merchant, sandbox.DemoOfficialAccount)
		if kept := now.Token == newest && now.Gen == before.Gen+1; kept == d.forgotten {
			t.Errorf("%s: the row went from %+v to %+v, newest %s", d.name(), before, now, newest)
		}
		p.c.Do("GET", path, nil).Want(200)
		if n := len(p.Journal(refreshCall)) - asked; !d.forgotten && n != 1 {
			t.Errorf("%s: WeChat was asked for %d tokens after all", d.name(), n-1)
		}
		expire()
		p.c.Do("GET", path, nil).Want(200) // with the newest refresh token
		if got := len(p.Journal(listCall)) - listed; got != map[bool]int{false: 0, true: 1}[d.forgotten] {
			t.Errorf("%s: WeChat's list was read %d times", d.name(), got)
		}
	}
}

// A process dies with WeChat's answer to an authorization code, which can be
// exchanged once, while the push that tells of the authorisation is kept back:
// the next one on its spool directory has the merchant, its tokens and its
// link. Without the spool a comparison with WeChat's list brings it.
func TestKilledInAnExchange(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	for i, d := range []death{
		{failpoint: "code_spooled:power"},
		{failpoint: "code_spooled:kill", second: "code_bound:kill"},
		{failpoint: "code_spooled:kill", noSpool: true, forgotten: true},
	} {
		appid := fmt.Sprintf("wx00000000000000b%d", i)
		exchanged, listed := len(p.Journal(exchangeCall)), len(p.Journal(listCall))
		p.restart(d.failpoint)
		c := p.c.For("")
		link := c.Do("POST", "/v1/authorization-links", map[string]string{"expected_appid": appid}).Want(201)
		// The browser ends where the gateway does.
		answer, err := http.Post(p.SandboxURL+"/_sandbox/authorizations", "application/json", strings.NewReader(fmt.Sprintf(`{"appid":%q,"url":%q}`, appid, link.Get("url"))))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		p.g.WaitExit(20 * time.Second)
		if d.noSpool {
			p.loseSpool()
		}
		if d.second != "" {
			p.Launch(p.environ(d.second)).WaitExit(20 * time.Second)
		}
		p.start("")
		c = c.At(p.g)
		merchant := "/v1/merchants/" + appid
		if d.forgotten {
			c.Do("GET", merchant, nil).WantProblem(404, "merchant_not_found")
			c.Until("/v1/operations/"+c.Do("POST", "/v1/merchants/sync", nil).Want(202).Get("id"), "succeeded")
		}
		m := c.Do("GET", merchant, nil).Want(200)
		if m.Get("status") != "authorized" {
			t.Fatalf("%s: %s", d.name(), m.Body)
		}
		c.For(m.Get("id")).Do("GET", "/v1/stores?source=live", nil).Want(200)
		if n := len(p.Journal(exchangeCall)) - exchanged; n != 1 {
			t.Errorf("%s: the code was exchanged %d times", d.name(), n)
		}
		if d.forgotten {
			continue
		}
		if n := len(p.Journal(listCall)) - listed; n != 0 {
			t.Errorf("%s: WeChat's list was read %d times", d.name(), n)
		}
		c.Until("/v1/authorization-links/"+link.Get("id"), "authorized")
		p.Eventually(d.name()+": the tenant is told", func() error {
			if a := c.Do("GET", "/v1/events?type=merchant.authorized&merchant_id="+m.Get("id"), nil).Want(200); a.Get("data", "0", "type") != "merchant.authorized" {
				return fmt.Errorf("%s", a.Body)
			}
			return nil
		})
	}
}
