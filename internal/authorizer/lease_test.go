package authorizer

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

func counting(ctx context.Context) (context.Context, *atomic.Int64) {
	n := new(atomic.Int64)
	return postgres.WithTripCounter(ctx, n), n
}

func message(t *testing.T, xml string) msgcrypt.Message {
	t.Helper()
	m, err := msgcrypt.ParseMessage([]byte(xml))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// often tries a property of a pure function on a hundred times as many cases as
// those that ask the database.
func often(t *testing.T, property func(*rapid.T)) {
	t.Helper()
	for range 100 {
		rapid.Check(t, property)
	}
}

// What a caller does with a token that it read.
func TestDecide(t *testing.T) {
	t.Parallel()
	often(t, func(t *rapid.T) {
		now := time.Now()
		h := held{
			gen:    rapid.Int32Range(0, 3).Draw(t, "gen"),
			until:  now.Add(time.Duration(rapid.IntRange(-20, 20).Draw(t, "minutes")) * time.Minute),
			leased: rapid.Bool().Draw(t, "leased"),
		}
		if rapid.Bool().Draw(t, "is invalid") {
			h.invalid = "x"
		}
		rejected := rapid.Int32Range(noGen, 3).Draw(t, "rejected")
		switch got := decide(h, rejected, now); got {
		case use, useAndRefresh:
			if h.gen == rejected || !h.until.After(now) || h.invalid != "" {
				t.Fatalf("used a token that is over, rejected or invalid: %+v", h)
			}
			if got == use && h.until.Sub(now) < ahead {
				t.Fatalf("not refreshed ahead: %+v", h)
			}
		case refresh:
			if h.invalid != "" || h.gen != rejected && h.until.After(now) {
				t.Fatalf("refreshed without need or hope: %+v", h)
			}
		case cannotRefresh:
			if h.invalid == "" {
				t.Fatalf("gave up: %+v", h)
			}
		}
	})
}

func TestLifetime(t *testing.T) {
	t.Parallel()
	often(t, func(t *rapid.T) {
		ttl := rapid.Int64Range(-10, 100_000).Draw(t, "ttl")
		got := lifetime(ttl)
		if got <= 0 || ttl > 0 && got > float64(ttl) || ttl >= 600 && got != float64(ttl-300) {
			t.Fatalf("lifetime(%d) = %v", ttl, got)
		}
	})
}

// The lease itself is SQL, judged by the database's clock. Its statements are
// run here against a model of what they are to guarantee; time is moved by
// moving the row's own times.
func TestLeaseStateMachine(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	c := m.account()
	ctx := context.WithoutCancel(t.Context())
	r := b.a().merchantRow(c)
	rapid.Check(t, func(t *rapid.T) {
		b.sql(`UPDATE authorizer_tokens SET access_gen = 1, lease_gen = 0, lease_until = NULL, access_expires_at = now() + interval '100 minutes', invalid_reason = NULL`)
		var (
			gen, leaseGen int32         = 1, 0
			left                        = 100 * time.Minute // of the token
			lease         time.Duration                     // of the lease
			holders       []grant                           // everybody who was ever granted one
		)
		actions := map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				rejected := rapid.Int32Range(noGen, gen).Draw(t, "rejected")
				g, seen, err := r.take(ctx, rejected)
				if err != nil {
					t.Fatal(err)
				}
				want := lease <= 0 && (left < ahead || rejected == gen)
				if (g != nil) != want {
					t.Fatalf("granted %v, want %v: left %s, lease %s, rejected %d of %d", g != nil, want, left, lease, rejected, gen)
				}
				if seen.gen != gen {
					t.Fatalf("saw generation %d, want %d", seen.gen, gen)
				}
				if g != nil {
					leaseGen++
					if g.leaseGen != leaseGen || g.gen != gen {
						t.Fatalf("grant %+v, want lease %d of token %d", *g, leaseGen, gen)
					}
					lease = 15 * time.Second
					holders = append(holders, *g)
				}
			},
			"store": func(t *rapid.T) {
				if len(holders) == 0 {
					return
				}
				g := rapid.SampledFrom(holders).Draw(t, "holder")
				ct, err := b.a().Keyset.SealText(c.place("access_ct"), secret.NewText("token"))
				if err != nil {
					t.Fatal(err)
				}
				err = b.a().fence(ctx, c.tenant, dbsqlc.AuthorizerTokenStore, dbsqlc.AuthorizerTokenStoreParams{
					AccessCt: ct, AccessGen: g.gen + 1, Seconds: 6900, RefreshHistory: [][]byte{}, TenantID: c.tenant, MerchantID: c.id, LeaseGen: g.leaseGen,
				})
				if newest := g.leaseGen == leaseGen; newest != (err == nil) {
					t.Fatalf("store of lease %d while %d is the newest: %v", g.leaseGen, leaseGen, err)
				}
				if err == nil {
					gen, left, lease = g.gen+1, 6900*time.Second, 0
				}
			},
			"release": func(t *rapid.T) {
				if len(holders) == 0 {
					return
				}
				g := rapid.SampledFrom(holders).Draw(t, "holder")
				b.a().releaseMerchant(ctx, c, g)
				if g.leaseGen == leaseGen {
					lease = coolDown
				}
			},
			"wait": func(t *rapid.T) {
				d := time.Duration(rapid.SampledFrom([]int{20, 700, 7000}).Draw(t, "seconds")) * time.Second
				b.sql(`UPDATE authorizer_tokens SET lease_until = lease_until - $1::interval, access_expires_at = access_expires_at - $1::interval`, d)
				left, lease = left-d, lease-d
			},
			"": func(t *rapid.T) {
				if got := scalar[bool](b, `SELECT refresh_token_ct IS NOT NULL FROM authorizer_tokens`); !got {
					t.Fatal("the refresh token was lost")
				}
			},
		}
		t.Repeat(actions)
	})
}

// replace keeps what it replaces, and never replaces by nothing.
func TestReplaceRefreshTokens(t *testing.T) {
	t.Parallel()
	b := start(t)
	a := b.a()
	c := account{b.tenant, uuid.New(), "wx5ab0d1c0ffee0a01"}
	rapid.Check(t, func(t *rapid.T) {
		var current []byte
		var history [][]byte
		var model []string // newest first
		for _, next := range rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e"}), 1, 12).Draw(t, "tokens") {
			known, err := a.openRefreshTokens(c, current, history)
			if err != nil {
				t.Fatal(err)
			}
			ct, kept, err := a.replace(c, known, secret.NewText(next))
			if err != nil {
				t.Fatal(err)
			}
			if ct != nil {
				current = ct
			}
			history = kept
			if next != "" && (len(model) == 0 || model[0] != next) {
				old := model
				model = []string{next}
				for _, o := range old {
					if o != next {
						model = append(model, o)
					}
				}
				model = model[:min(len(model), keptBefore+1)]
			}
			got, err := a.openRefreshTokens(c, current, history)
			if err != nil {
				t.Fatal(err)
			}
			var have []string
			if !got.current.IsZero() {
				have = append(have, got.current.Reveal())
			}
			for _, h := range got.history {
				have = append(have, h.Reveal())
			}
			if len(have) != len(model) {
				t.Fatalf("have %q, want %q", have, model)
			}
			for i := range have {
				if have[i] != model[i] {
					t.Fatalf("have %q, want %q", have, model)
				}
			}
		}
	})
}
