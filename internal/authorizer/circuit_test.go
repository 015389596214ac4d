package authorizer

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// A recorded circuit, and how it moved.
func recorded() (*circuit, *[]circuitState) {
	moves := new([]circuitState)
	return newCircuit(1, func(to circuitState, _ time.Duration) { *moves = append(*moves, to) }), moves
}

// call asks for leave, and uses it.
func (c *circuit) call(outage bool) (wait time.Duration) {
	p, wait := c.enter()
	if wait == 0 {
		p.heard(outage)
	}
	return wait
}

func calls(c *circuit, n int, outage bool) {
	for range n {
		c.call(outage)
	}
}

func TestCircuit(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T, c *circuit, want bool) {
		t.Helper()
		if got := c.paused() > 0; got != want {
			t.Fatalf("paused = %t, want %t", got, want)
		}
	}
	for name, test := range map[string]func(t *testing.T, c *circuit){
		"19 calls prove nothing": func(t *testing.T, c *circuit) {
			calls(c, circuitCalls-1, true)
			open(t, c, false)
			calls(c, 1, true)
			open(t, c, true)
		},
		"answers never open it": func(t *testing.T, c *circuit) {
			calls(c, 1000, false)
			open(t, c, false)
		},
		"a half is enough, less is not": func(t *testing.T, c *circuit) {
			calls(c, 11, false)
			calls(c, 10, true)
			open(t, c, false)
			calls(c, 1, true)
			open(t, c, true)
		},
		"what is older than the window doesn't count": func(t *testing.T, c *circuit) {
			calls(c, circuitCalls-1, true)
			time.Sleep(circuitWindow)
			calls(c, 1, true)
			open(t, c, false)
		},
		"what is younger counts": func(t *testing.T, c *circuit) {
			calls(c, circuitCalls-1, true)
			time.Sleep(circuitWindow - 2*circuitWindow/circuitSlots)
			calls(c, 1, true)
			open(t, c, true)
		},
		"one probe after the pause": func(t *testing.T, c *circuit) {
			calls(c, circuitCalls, true)
			if wait := c.call(false); wait != firstPause {
				t.Fatalf("wait = %s", wait)
			}
			time.Sleep(firstPause)
			probe, wait := c.enter()
			if _, other := c.enter(); wait != 0 || other != probeWait {
				t.Fatalf("waits = %s, %s", wait, other)
			}
			probe.heard(false)
			open(t, c, false)
			calls(c, circuitCalls-1, true) // nothing of the time before is left
			open(t, c, false)
		},
		"pauses double up to a minute": func(t *testing.T, c *circuit) {
			calls(c, circuitCalls, true)
			for _, pause := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute} {
				if wait := c.paused(); wait != pause {
					t.Fatalf("pause = %s, want %s", wait, pause)
				}
				time.Sleep(pause)
				calls(c, 1, true)
			}
			time.Sleep(longestPause)
			calls(c, 1, false)
			calls(c, circuitCalls, true)
			if wait := c.paused(); wait != firstPause {
				t.Fatalf("pause = %s after a recovery", wait)
			}
		},
		"an unused probe leaves the next one": func(t *testing.T, c *circuit) {
			calls(c, circuitCalls, true)
			time.Sleep(firstPause)
			probe, _ := c.enter()
			probe.leave()
			if next, wait := c.enter(); wait != 0 {
				t.Fatalf("wait = %s", wait)
			} else {
				next.heard(false)
				next.leave() // as every caller does
			}
			open(t, c, false)
		},
		"what was sent before doesn't judge the probe": func(t *testing.T, c *circuit) {
			late, _ := c.enter()
			calls(c, circuitCalls, true)
			late.heard(false)
			open(t, c, true)
			time.Sleep(firstPause)
			probe, _ := c.enter()
			late.heard(true)
			late.leave()
			probe.heard(false)
			open(t, c, false)
			probe.heard(true) // the same call, made once more
			calls(c, circuitCalls-1, true)
			open(t, c, false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, _ := recorded()
				test(t, c)
			})
		})
	}
}

func TestCircuitTellsItsMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, moves := recorded()
		calls(c, 2*circuitCalls, true)
		time.Sleep(firstPause)
		calls(c, 1, true)
		time.Sleep(2 * firstPause)
		calls(c, 2, false)
		want := []circuitState{circuitOpen, circuitHalfOpen, circuitOpen, circuitHalfOpen, circuitClosed}
		if !slices.Equal(*moves, want) {
			t.Errorf("moves = %v, want %v", *moves, want)
		}
	})
}

// Whatever comes in whatever order: at most one call is under way while the
// circuit is half open, none begins while it is open, and it never stays
// refusing once everybody has left and the longest pause is over.
func TestCircuitNeverSticks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			c, _ := recorded()
			var under []permit
			for range rapid.IntRange(1, 200).Draw(rt, "steps") {
				switch rapid.IntRange(0, 3).Draw(rt, "step") {
				case 0, 1:
					was := c.state
					p, wait := c.enter()
					if refused := was == circuitHalfOpen || was == circuitOpen && time.Now().Before(c.until); refused != (wait > 0) {
						rt.Fatalf("%s, and wait = %s", was, wait)
					}
					if wait == 0 {
						under = append(under, p)
					}
				case 2:
					if len(under) > 0 {
						i := rapid.IntRange(0, len(under)-1).Draw(rt, "which")
						if rapid.IntRange(0, 4).Draw(rt, "used") > 0 {
							under[i].heard(rapid.IntRange(0, 3).Draw(rt, "outage") > 0)
						}
						under[i].leave()
						under = slices.Delete(under, i, i+1)
					}
				case 3:
					time.Sleep(time.Duration(rapid.IntRange(0, 10).Draw(rt, "seconds")) * time.Second)
				}
			}
			for _, p := range under {
				p.leave()
			}
			time.Sleep(longestPause)
			if wait := c.call(false); wait > 0 {
				rt.Fatalf("still refuses for %s", wait)
			}
			if c.state != circuitClosed {
				rt.Fatalf("%s after an answer", c.state)
			}
		})
	})
}

// The platform's own token has a circuit of its own: while WeChat gives one
// tenant none, nothing is sent for it, and its other calls and all of another
// tenant's go on. The first answer ends it.
func TestComponentTokenCircuit(t *testing.T) {
	t.Parallel()
	b := start(t)
	a := b.a()
	a.Config.Pace = 0.5
	other, err := a.tenants.Create(t.Context(), operator, tenant.NewTenant{Name: "other", ComponentAppID: "wx00000000000000b2", Credentials: &tenant.NewCredentials{
		Secret: secret.NewText("secret"), MessageToken: secret.NewText("token"), EncodingAESKey: secret.NewText(sandbox.DefaultEncodingAESKey),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.keepTicket(t.Context(), other.ID, secret.NewText("ticket@@@other"), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	const path = componentPath + "api_component_token"
	ask := func(tenantID uuid.UUID) (code string, calls int) {
		t.Helper()
		before := len(b.calls(path))
		b.sql(`UPDATE component_tokens SET lease_until = NULL`) // the pause after a failure
		_, err := a.componentToken(t.Context(), tenantID, noGen)
		return codeOf(err), len(b.calls(path)) - before
	}
	b.control("POST", "faults", obj{"path": path, "n": circuitCalls, "http_status": 502}, nil)
	for i := range circuitCalls {
		if code, calls := ask(b.tenant); code != problem.CodeWeChatUnreachable || calls != 1 {
			t.Fatalf("call %d: %q, %d calls", i, code, calls)
		}
	}
	if code, calls := ask(b.tenant); code != problem.CodeUpstreamCircuitOpen || calls != 0 {
		t.Errorf("WeChat gives no token: %q, %d calls", code, calls)
	}
	if wait := a.circuit(b.tenant, wechat.GetAuthorizerToken).paused(); wait != 0 {
		t.Errorf("calls that have a token are paused for %s", wait)
	}
	// WeChat doesn't know the other platform, which is an answer.
	if code, calls := ask(other.ID); code == problem.CodeUpstreamCircuitOpen || calls != 1 {
		t.Errorf("another tenant: %q, %d calls", code, calls)
	}
	b.until("the pause is over and a token is given", func() bool { code, _ := ask(b.tenant); return code == "" })
	if wait := a.circuit(b.tenant, wechat.GetComponentToken).paused(); wait != 0 {
		t.Errorf("paused for %s after an answer", wait)
	}
}
