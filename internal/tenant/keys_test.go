package tenant

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

func mch(id uuid.UUID) string { return typeid.Format(typeid.Merchant, id) }

func pointers(err error) (out []string) {
	if p, ok := problem.As(err); ok {
		for _, f := range p.Fields {
			out = append(out, f.Pointer+" "+f.Code)
		}
	}
	return out
}

// The token is exactly what security.md §2 says.
func TestTokenFormat(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	m := b.merchant(t, ten, "wx00000000000000a1")
	key, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"stores:write", "stores:read", "stores:read"}, Merchants: []string{"wx00000000000000a1", mch(m)}})
	kid, _ := b.signer(t)
	decode := func(part int) (out map[string]any) {
		raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[part])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if d := cmp.Diff(map[string]any{"alg": "EdDSA", "typ": "gwk+jwt", "kid": kid}, decode(0)); d != "" {
		t.Errorf("header (-want +got):\n%s", d)
	}
	got := decode(1)
	iat := got["iat"].(float64)
	want := map[string]any{
		"iss": "mendian", "aud": "gateway-api", "sub": typeid.Format(typeid.Key, key.ID), "tid": typeid.Format(typeid.Tenant, ten), "jti": key.ID.String(),
		"iat": iat, "nbf": iat, "exp": float64(key.ExpiresAt.Unix()), "scope": "stores:read stores:write", "mch": []any{mch(m)}, "v": 1.0,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("claims (-want +got):\n%s", d)
	}
}

// A key makes only keys no wider than itself.
func TestIssueRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten, stranger := b.tenant(t, "a", "wx0000000000000001"), b.tenant(t, "b", "wx0000000000000002")
	m1, m2 := b.merchant(t, ten, "wx00000000000000a1"), b.merchant(t, ten, "wx00000000000000a2")
	foreign := b.merchant(t, stranger, "wx00000000000000b1")
	now := b.clock.now()
	all := b.caller(t, ten, NewKey{Scopes: []string{"*"}, ExpiresAt: now.Add(300 * 24 * time.Hour)})
	narrow := b.caller(t, ten, NewKey{
		Scopes: []string{"keys:write", "stores:read"}, Merchants: []string{mch(m1)}, ExpiresAt: now.Add(24 * time.Hour), RateLimit: &RateLimit{PerSecond: 5, Burst: 5},
	})
	in := func(d time.Duration) time.Time { return now.Add(d) }
	stores := []string{"stores:read"}
	many := make([]string, maxMerchants+1)
	for i := range many {
		many[i] = mch(uuid.New())
	}
	for _, tc := range []struct {
		name string
		who  Caller
		new  NewKey
		code string
		at   []string
	}{
		{"all of the tenant", all, NewKey{Scopes: []string{"*"}, ExpiresAt: in(time.Hour)}, "", nil},
		{"a browser's key", all, NewKey{Scopes: stores, Merchants: []string{"wx00000000000000a1"}, ExpiresAt: in(5 * time.Minute)}, "", nil},
		{"as narrow as its maker", narrow, NewKey{Scopes: []string{"keys:write", "stores:read"}, Merchants: []string{mch(m1)}, ExpiresAt: in(23 * time.Hour)}, "", nil},
		{"inherits all it doesn't name", narrow, NewKey{Scopes: stores}, "", nil},
		{"a slower one", narrow, NewKey{Scopes: stores, RateLimit: &RateLimit{PerSecond: 1, Burst: 5}}, "", nil},
		{"the CLI is bound by nothing", CLI(ten), NewKey{Scopes: []string{"*"}, ExpiresAt: in(365 * 24 * time.Hour), RateLimit: &RateLimit{PerSecond: 1e4, Burst: 1e4}}, "", nil},
		{"a scope its maker lacks", narrow, NewKey{Scopes: []string{"stores:write"}}, "key_exceeds_own_rights", []string{"/scopes exceeds_own_rights"}},
		{"* from less", narrow, NewKey{Scopes: []string{"*"}}, "key_exceeds_own_rights", []string{"/scopes exceeds_own_rights"}},
		{"another merchant of the tenant", narrow, NewKey{Scopes: stores, Merchants: []string{mch(m1), mch(m2)}}, "key_exceeds_own_rights", []string{"/merchant_ids exceeds_own_rights"}},
		{"longer than its maker", narrow, NewKey{Scopes: stores, ExpiresAt: in(25 * time.Hour)}, "key_exceeds_own_rights", []string{"/expires_at exceeds_own_rights"}},
		{"faster than its maker", narrow, NewKey{Scopes: stores, RateLimit: &RateLimit{PerSecond: 6, Burst: 5}}, "key_exceeds_own_rights", []string{"/rate_limit exceeds_own_rights"}},
		{"faster than the default", all, NewKey{Scopes: stores, RateLimit: &RateLimit{PerSecond: 101, Burst: 200}}, "key_exceeds_own_rights", []string{"/rate_limit exceeds_own_rights"}},
		{"another tenant's merchant", all, NewKey{Scopes: stores, Merchants: []string{mch(foreign)}}, "merchant_not_found", []string{"/merchant_ids/0 not_found"}},
		{"another tenant's merchant by appid", all, NewKey{Scopes: stores, Merchants: []string{mch(m1), "wx00000000000000b1"}}, "merchant_not_found", []string{"/merchant_ids/1 not_found"}},
		{"no merchant", all, NewKey{Scopes: stores, Merchants: []string{}}, "validation_failed", []string{"/merchant_ids invalid_length"}},
		{"too many merchants", all, NewKey{Scopes: stores, Merchants: many}, "validation_failed", []string{"/merchant_ids invalid_length"}},
		{"no scope", all, NewKey{}, "validation_failed", []string{"/scopes required"}},
		{"unknown scopes", all, NewKey{Scopes: []string{"stores:read", "stores", "admin", "stores:admin"}}, "validation_failed", []string{"/scopes/1 unknown_scope", "/scopes/2 unknown_scope", "/scopes/3 unknown_scope"}},
		{"over too soon", all, NewKey{Scopes: stores, ExpiresAt: in(4 * time.Minute)}, "validation_failed", []string{"/expires_at too_soon"}},
		{"over already", all, NewKey{Scopes: stores, ExpiresAt: in(-time.Hour)}, "validation_failed", []string{"/expires_at too_soon"}},
		{"over a year", CLI(ten), NewKey{Scopes: stores, ExpiresAt: in(366 * 24 * time.Hour)}, "validation_failed", []string{"/expires_at too_late"}},
		{"no rate", all, NewKey{Scopes: stores, RateLimit: &RateLimit{}}, "validation_failed", []string{"/rate_limit invalid"}},
		{"a name of control characters", all, NewKey{Name: "a\x00", Scopes: stores}, "validation_failed", []string{"/name invalid"}},
		{"a name too long", all, NewKey{Name: strings.Repeat("门", 101), Scopes: stores}, "validation_failed", []string{"/name too_long"}},
		{"no such tenant", CLI(uuid.New()), NewKey{Scopes: stores}, "not_found", nil},
		{"an admin has no tenant", Caller{Admin: true, Actor: "key_x", KeyID: uuid.New()}, NewKey{Scopes: stores}, "key_revoked", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.new.Name == "" {
				tc.new.Name = "x"
			}
			key, token, err := b.keys.Issue(t.Context(), tc.who, tc.new)
			wantCode(t, "Issue", err, tc.code)
			if d := cmp.Diff(tc.at, pointers(err)); d != "" {
				t.Errorf("fields (-want +got):\n%s", d)
			}
			if err != nil {
				if !token.IsZero() {
					t.Error("a refused key has a token")
				}
				return
			}
			got, err := b.keys.Authenticate(t.Context(), token.Reveal(), false)
			if err != nil {
				t.Fatal(err)
			}
			// Whatever was asked, the new key holds nothing that its maker lacks.
			if !tc.who.CoversScopes(got.Scopes) || !tc.who.reaches(key) || (tc.who.ExpiresAt != 0 && got.ExpiresAt > tc.who.ExpiresAt) {
				t.Errorf("made %+v from %+v", got, tc.who)
			}
		})
	}
}

// A key that has just been revoked makes no more keys, even while another
// process still believes in it.
func TestRevokedKeyMakesNoKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	who := b.caller(t, ten, NewKey{Scopes: []string{"*"}})
	other, _ := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	if err := b.keys.Revoke(t.Context(), CLI(ten), who.KeyID); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.keys.Issue(t.Context(), who, NewKey{Name: "x", Scopes: []string{"*"}})
	wantCode(t, "Issue", err, "key_revoked")
	_, _, err = b.keys.Rotate(t.Context(), who, other.ID, 0, time.Time{})
	wantCode(t, "Rotate", err, "key_revoked")
}

// The tenant's limit for its keys holds where a key has none of its own.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	plainKey, plain := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	_, own := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}, RateLimit: &RateLimit{PerSecond: 1, Burst: 2}})
	check := func(token string, want *RateLimit) (c Caller) {
		t.Helper()
		eventually(t, fmt.Sprintf("the limit is %+v", want), func() (same bool) {
			var err error
			if c, err = b.keys.Authenticate(t.Context(), token, false); err != nil {
				t.Fatal(err)
			}
			return cmp.Equal(c.RateLimit, want)
		})
		return c
	}
	check(plain, nil)
	check(own, &RateLimit{PerSecond: 1, Burst: 2})
	// Warm, with no notification under way, so that only the tenant's change can count.
	eventually(t, "the key's row stays in memory", func() bool {
		first, ok := b.keys.rows.Peek(postgres.Key{Tenant: ten, ID: plainKey.ID})
		check(plain, nil)
		second, _ := b.keys.rows.Peek(postgres.Key{Tenant: ten, ID: plainKey.ID})
		return ok && first == second
	})
	if _, err := b.tenants.Update(t.Context(), cli, ten, Update{Limits: &Limits{KeyBurst: ptr(50), RequestsPerSecond: ptr(70.0)}}); err != nil {
		t.Fatal(err)
	}
	who := check(plain, &RateLimit{PerSecond: 100, Burst: 50})
	if c := check(own, &RateLimit{PerSecond: 1, Burst: 2}); !cmp.Equal(c.TenantRate, ptr(70.0)) || !cmp.Equal(who.TenantRate, ptr(70.0)) {
		t.Errorf("a tenant of 70 a second: %v and %v", c.TenantRate, who.TenantRate)
	}
	if k, _ := b.key(t, who, NewKey{Scopes: []string{"*"}}); k.RateLimit != nil {
		t.Errorf("a key made without a limit has %+v: the tenant's may change", k.RateLimit)
	}
	_, _, err := b.keys.Issue(t.Context(), who, NewKey{Name: "x", Scopes: []string{"*"}, RateLimit: &RateLimit{PerSecond: 100, Burst: 51}})
	wantCode(t, "faster than the tenant's keys", err, "key_exceeds_own_rights")
	slow, _ := b.key(t, check(own, &RateLimit{PerSecond: 1, Burst: 2}), NewKey{Scopes: []string{"*"}})
	if !cmp.Equal(slow.RateLimit, &RateLimit{PerSecond: 1, Burst: 2}) {
		t.Errorf("made by a slow key: %+v, want as slow", slow.RateLimit)
	}
}

func TestIssueDefaults(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	k, _ := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	if got := k.ExpiresAt.Sub(k.CreatedAt).Round(time.Minute); got != 90*24*time.Hour {
		t.Errorf("lives %s, want 90 days", got)
	}
	if k.Merchants != nil || k.RateLimit != nil || k.CreatedBy != "cli" || k.LastUsedAt != nil || k.Status(b.clock.now()) != "active" {
		t.Errorf("Issue = %+v", k)
	}
	who := b.caller(t, ten, NewKey{Scopes: []string{"*"}, ExpiresAt: b.clock.now().Add(time.Hour)})
	k, _ = b.key(t, who, NewKey{Scopes: []string{"*"}})
	if k.ExpiresAt.Unix() != who.ExpiresAt || k.CreatedBy != who.Actor {
		t.Errorf("ends %s by %s, want its maker's own end %d by %s", k.ExpiresAt, k.CreatedBy, who.ExpiresAt, who.Actor)
	}
}

// The longest token that can be asked for still fits.
func TestLongestToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	refs := make([]string, maxMerchants)
	for i := range refs {
		refs[i] = fmt.Sprintf("wx%016x", i)
		b.merchant(t, ten, refs[i])
	}
	_, token := b.key(t, CLI(ten), NewKey{Scopes: Scopes, Merchants: refs})
	if _, err := b.keys.Authenticate(t.Context(), token, false); err != nil {
		t.Error(err)
	}
	t.Logf("%d bytes", len(token))
}

func TestRotate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	m := b.merchant(t, ten, "wx00000000000000a1")
	ctx := t.Context()

	old, oldToken := b.key(t, CLI(ten), NewKey{Name: "shop", Scopes: []string{"stores:read"}, Merchants: []string{mch(m)}, ExpiresAt: b.clock.now().Add(48 * time.Hour), RateLimit: &RateLimit{PerSecond: 1, Burst: 1}})
	fresh, secretToken, err := b.keys.Rotate(ctx, CLI(ten), old.ID, time.Hour, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if fresh.ID == old.ID || *fresh.RotatedFrom != old.ID || fresh.Name != old.Name || !cmp.Equal(fresh.Scopes, old.Scopes) ||
		!cmp.Equal(fresh.Merchants, old.Merchants) || !cmp.Equal(fresh.RateLimit, old.RateLimit) {
		t.Errorf("Rotate = %+v, want the rights of %+v", fresh, old)
	}
	if life := fresh.ExpiresAt.Sub(fresh.CreatedAt).Round(time.Minute); life != 48*time.Hour {
		t.Errorf("the new key lives %s, want as long as the old one was given", life)
	}
	for _, token := range []string{oldToken, secretToken.Reveal()} {
		if _, err := b.keys.Authenticate(ctx, token, false); err != nil {
			t.Errorf("during the overlap: %v", err)
		}
	}
	_, _, err = b.keys.Rotate(ctx, CLI(ten), old.ID, time.Hour, time.Time{})
	wantCode(t, "rotating the old key again", err, "key_not_active")

	last, secretToken2, err := b.keys.Rotate(ctx, CLI(ten), fresh.ID, 0, b.clock.now().Add(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "no overlap: the old key is revoked", func() bool {
		_, err := b.keys.Authenticate(ctx, secretToken.Reveal(), false)
		return code(err) == "key_revoked"
	})
	if _, err := b.keys.Authenticate(ctx, secretToken2.Reveal(), false); err != nil {
		t.Error(err)
	}
	_, _, err = b.keys.Rotate(ctx, CLI(ten), fresh.ID, 0, time.Time{})
	wantCode(t, "rotating a revoked key", err, "key_not_active")
	for _, overlap := range []time.Duration{-1, MaxOverlap + 1} {
		_, _, err = b.keys.Rotate(ctx, CLI(ten), last.ID, overlap, time.Time{})
		wantCode(t, overlap.String(), err, "validation_failed")
	}
	_, _, err = b.keys.Rotate(ctx, CLI(ten), uuid.New(), 0, time.Time{})
	wantCode(t, "no such key", err, "not_found")

	// Rotation hands out a token, so it must not hand out more than the caller has.
	wide, _ := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	bound, _ := b.key(t, CLI(ten), NewKey{Scopes: []string{"stores:read"}, Merchants: []string{mch(m)}})
	writer := b.caller(t, ten, NewKey{Scopes: []string{"keys:write", "stores:read"}, ExpiresAt: b.clock.now().Add(time.Hour)})
	_, _, err = b.keys.Rotate(ctx, writer, wide.ID, time.Hour, time.Time{})
	wantCode(t, "rotating a wider key", err, "key_exceeds_own_rights")
	cutShort, _, err := b.keys.Rotate(ctx, writer, bound.ID, time.Hour, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if cutShort.ExpiresAt.Unix() != writer.ExpiresAt {
		t.Errorf("ends %s, want the caller's own end", cutShort.ExpiresAt)
	}
	_, _, err = b.keys.Rotate(ctx, writer, cutShort.ID, time.Hour, b.clock.now().Add(2*time.Hour))
	wantCode(t, "rotating into a longer key", err, "key_exceeds_own_rights")
	if self, _, err := b.keys.Rotate(ctx, writer, writer.KeyID, time.Hour, time.Time{}); err != nil || self.ExpiresAt.Unix() > writer.ExpiresAt {
		t.Errorf("rotating itself = %+v, %v", self, err)
	}
}

// Many rotations of one key at once leave one successor.
func TestRotateConcurrently(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	old, _ := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	codes := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, _, err := b.keys.Rotate(t.Context(), CLI(ten), old.ID, time.Hour, time.Time{})
			mu.Lock()
			codes[code(err)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if d := cmp.Diff(map[string]int{"": 1, "key_not_active": 7}, codes); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
	list, _, err := b.keys.List(t.Context(), CLI(ten), "", Page{Limit: 10})
	if err != nil || len(list) != 2 {
		t.Errorf("%d keys, %v, want the old one and its successor", len(list), err)
	}
}

// Attack 18 for keys: tenant B neither sees nor moves tenant A's keys, and a key
// bound to merchants none of the others'.
//
// Each guard alone must hold it: the queries' predicates for a role that
// bypasses row-level security, and row-level security with the predicates off.
func TestKeysAreIsolated(t *testing.T) {
	t.Parallel()
	predicate := regexp.MustCompile(`(?:\w+\.)?tenant_id = (\$\d+)`)
	for name, mode := range map[string]struct {
		sabotage func(c *postgres.Config, owner string)
		// proof counts keys as tenant z, and finds some only where the sabotage
		// works; $1 is no tenant's id.
		proof string
		leaks bool
	}{
		"both guards":           {func(*postgres.Config, string) {}, `SELECT count(*) FROM api_keys WHERE tenant_id = $1`, false},
		"no row-level security": {func(c *postgres.Config, owner string) { c.Role = owner }, `SELECT count(*) FROM api_keys WHERE $1::uuid <> tenant_id AND current_tenant() <> tenant_id`, true},
		"no predicates": {func(c *postgres.Config, _ string) {
			c.Rewrite = func(sql string) string { return predicate.ReplaceAllString(sql, "($1::uuid IS NOT NULL)") }
		}, `SELECT count(*) FROM api_keys WHERE tenant_id = $1`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			dsn := pgtest.DSN(t)
			owner, err := pgx.ParseConfig(dsn)
			if err != nil {
				t.Fatal(err)
			}
			cfg := postgres.Config{DSN: dsn}
			mode.sabotage(&cfg, owner.User)
			db, err := postgres.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(db.Close)
			b = process(t, db, b.keyset)
			if err := b.keys.EnsureSigningKey(t.Context()); err != nil {
				t.Fatal(err)
			}
			testIsolation(t, b, func(z uuid.UUID) {
				var n int
				if err := b.db.InTenant(t.Context(), z, func(tx postgres.DBTX) error { return tx.QueryRow(t.Context(), mode.proof, uuid.New()).Scan(&n) }); err != nil {
					t.Fatal(err)
				}
				if (n > 0) != mode.leaks {
					t.Errorf("the query that leaks on purpose found %d keys, want some: %v", n, mode.leaks)
				}
			})
		})
	}
}

func testIsolation(t *testing.T, b *bundle, prove func(uuid.UUID)) {
	a, z := b.tenant(t, "a", "wx0000000000000001"), b.tenant(t, "z", "wx0000000000000002")
	m1, m2 := b.merchant(t, a, "wx00000000000000a1"), b.merchant(t, a, "wx00000000000000a2")
	key, token := b.key(t, CLI(a), NewKey{Scopes: []string{"stores:read"}})
	of2, _ := b.key(t, CLI(a), NewKey{Scopes: []string{"stores:read"}, Merchants: []string{mch(m2)}})
	of1, _ := b.key(t, CLI(a), NewKey{Scopes: []string{"stores:read"}, Merchants: []string{mch(m1)}})
	both, _ := b.key(t, CLI(a), NewKey{Scopes: []string{"stores:read"}, Merchants: []string{mch(m1), mch(m2)}})
	partner := b.caller(t, a, NewKey{Scopes: []string{"*"}, Merchants: []string{mch(m1)}})
	for name, tc := range map[string]struct {
		who Caller
		id  uuid.UUID
	}{
		"another tenant's key":                 {b.caller(t, z, NewKey{Scopes: []string{"*"}}), key.ID},
		"the CLI for another tenant":           {CLI(z), key.ID},
		"a partner, a key of the whole tenant": {partner, key.ID},
		"a partner, another's key":             {partner, of2.ID},
		"a partner, a key of both":             {partner, both.ID},
	} {
		_, err := b.keys.Get(t.Context(), tc.who, tc.id)
		wantCode(t, name+": Get", err, "not_found")
		_, _, err = b.keys.Rotate(t.Context(), tc.who, tc.id, 0, time.Time{})
		wantCode(t, name+": Rotate", err, "not_found")
		wantCode(t, name+": Revoke", b.keys.Revoke(t.Context(), tc.who, tc.id), "not_found")
	}
	if _, err := b.keys.Authenticate(t.Context(), token, false); err != nil {
		t.Errorf("after all that: %v", err)
	}
	prove(z)
	list, _, err := b.keys.List(t.Context(), partner, "", Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var got []uuid.UUID
	for _, k := range list {
		got = append(got, k.ID)
	}
	if d := cmp.Diff([]uuid.UUID{partner.KeyID, of1.ID}, got); d != "" {
		t.Errorf("a partner lists (-want +got):\n%s", d)
	}
	if list, _, _ := b.keys.List(t.Context(), CLI(z), "", Page{Limit: 10}); len(list) != 1 {
		t.Errorf("tenant z lists %d keys, want its own", len(list))
	}
	// Its own it may end, and a wider one of the same merchants not.
	wide, _ := b.key(t, CLI(a), NewKey{Scopes: []string{"*"}, Merchants: []string{mch(m1)}})
	writer := b.caller(t, a, NewKey{Scopes: []string{"keys:write"}, Merchants: []string{mch(m1)}})
	wantCode(t, "revoking a wider key", b.keys.Revoke(t.Context(), writer, wide.ID), "key_exceeds_own_rights")
	for range 2 {
		wantCode(t, "revoking itself", b.keys.Revoke(t.Context(), writer, writer.KeyID), "")
	}
}

func TestListPagesAndStatus(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	var want []uuid.UUID
	for i := range 5 {
		k, _ := b.key(t, CLI(ten), NewKey{Name: fmt.Sprint(i), Scopes: []string{"*"}})
		want = append([]uuid.UUID{k.ID}, want...)
	}
	var got []uuid.UUID
	page := Page{Limit: 2}
	for pages := 1; ; pages++ {
		list, more, err := b.keys.List(t.Context(), CLI(ten), "", page)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			got = append(got, k.ID)
		}
		if !more {
			if pages != 3 {
				t.Errorf("%d pages, want 3", pages)
			}
			break
		}
		page.Before = &list[len(list)-1].ID
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("all pages (-want +got):\n%s", d)
	}
	if err := b.keys.Revoke(t.Context(), CLI(ten), want[0]); err != nil {
		t.Fatal(err)
	}
	for status, n := range map[string]int{"": 5, "active": 4, "revoked": 1, "expired": 0} {
		list, _, err := b.keys.List(t.Context(), CLI(ten), status, Page{Limit: 10})
		if err != nil || len(list) != n {
			t.Errorf("List(%q) = %d keys, %v, want %d", status, len(list), err, n)
		}
		for _, k := range list {
			if status != "" && k.Status(b.clock.now()) != status {
				t.Errorf("List(%q) holds one that is %s", status, k.Status(b.clock.now()))
			}
		}
	}
}

func TestAdminKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for life, want := range map[time.Duration]string{12 * time.Hour: "", 12*time.Hour + time.Minute: "validation_failed", time.Minute: "validation_failed"} {
		_, _, err := b.keys.IssueAdmin(t.Context(), cli, "ops", b.clock.now().Add(life))
		wantCode(t, life.String(), err, want)
	}
	list, more, err := b.keys.ListAdmin(t.Context(), Page{Limit: 1})
	if err != nil || len(list) != 1 || more || list[0].Name != "ops" || list[0].CreatedBy != "cli" {
		t.Errorf("ListAdmin = %+v, %v, %v", list, more, err)
	}
}

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	states := func() (out []SigningKeyState) {
		list, err := b.keys.SigningKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		count := map[SigningKeyState]int{}
		for _, k := range list {
			count[k.State]++
		}
		for _, s := range []SigningKeyState{SigningActive, SigningNext, SigningRetiring, SigningRetired} {
			for range count[s] {
				out = append(out, s)
			}
		}
		return out
	}
	check := func(what string, want ...SigningKeyState) {
		t.Helper()
		if d := cmp.Diff(want, states()); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	ctx, who := t.Context(), CLI(uuid.Nil)
	check("at first", SigningActive, SigningNext)
	parallel := func(fn func(context.Context) error) {
		t.Helper()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := fn(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	parallel(b.keys.EnsureSigningKey)
	check("made sure of four times at once", SigningActive, SigningNext)
	next := nextKid(t, b)
	if active, err := b.keys.RotateSigning(ctx, who); err != nil || active != next {
		t.Errorf("RotateSigning = %s, %v, want %s, which was next", active, err, next)
	}
	check("rotated", SigningActive, SigningNext, SigningRetiring)
	parallel(func(ctx context.Context) error { _, err := b.keys.RotateSigning(ctx, who); return err })
	check("rotated four times at once", SigningActive, SigningNext, SigningRetiring, SigningRetiring, SigningRetiring, SigningRetiring, SigningRetiring)
	kid, _ := b.signer(t)
	for range 2 { // the second time it is over already
		if err := b.keys.RetireSigning(ctx, who, kid); err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := b.signer(t); now == kid {
		t.Error("a retired key still signs")
	}
	if err := b.keys.RetireSigning(ctx, who, nextKid(t, b)); err != nil {
		t.Fatal(err)
	}
	check("the active and the next retired", SigningActive, SigningNext, SigningRetiring, SigningRetiring, SigningRetiring, SigningRetiring, SigningRetiring, SigningRetired, SigningRetired)
	wantCode(t, "retiring no key", b.keys.RetireSigning(ctx, who, "sig_none"), "not_found")
	eventually(t, "JWKS follows", func() bool {
		jwks, err := b.keys.JWKS(ctx)
		return err == nil && len(jwks) == 7 && jwks[0].KeyType == "OKP" && jwks[0].Curve == "Ed25519" && len(jwks[0].X) == 43
	})
}
