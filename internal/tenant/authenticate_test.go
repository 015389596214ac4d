package tenant

import (
	"context"
	"crypto/sha256"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

func TestCallerIsTokenAndRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	m1, m2 := b.merchant(t, ten, "wx00000000000000a1"), b.merchant(t, ten, "wx00000000000000a2")
	end := b.clock.now().Add(time.Hour).Truncate(time.Second)
	key, token := b.key(t, CLI(ten), NewKey{
		Scopes: []string{"stores:read", "audits:read"}, Merchants: []string{typeid.Format(typeid.Merchant, m1), "wx00000000000000a2"},
		ExpiresAt: end, RateLimit: &RateLimit{PerSecond: 5, Burst: 10},
	})
	got, err := b.keys.Authenticate(t.Context(), token, false)
	if err != nil {
		t.Fatal(err)
	}
	want := Caller{
		TenantID: ten, KeyID: key.ID, Scopes: []string{"audits:read", "stores:read"}, Merchants: []uuid.UUID{m1, m2}, ExpiresAt: end.Unix(),
		Actor: typeid.Format(typeid.Key, key.ID), RateLimit: &RateLimit{PerSecond: 5, Burst: 10},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Authenticate (-want +got):\n%s", d)
	}
}

// Attack 17: whatever the token says, the row can only take away.
func TestRightsAreTheIntersection(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	m1, m2 := b.merchant(t, ten, "wx00000000000000a1"), b.merchant(t, ten, "wx00000000000000a2")
	ref := func(ids ...uuid.UUID) (out []string) {
		for _, id := range ids {
			out = append(out, typeid.Format(typeid.Merchant, id))
		}
		return out
	}
	for _, tc := range []struct {
		name          string
		tokenScopes   []string
		rowScopes     []string
		wantScopes    []string
		tokenM        []string
		rowM, wantM   []uuid.UUID
		mayActForM1   bool
		mayReadStores bool
	}{
		{"both all", []string{"*"}, []string{"*"}, []string{"*"}, nil, nil, nil, true, true},
		{"row narrower", []string{"*"}, []string{"stores:read"}, []string{"stores:read"}, nil, []uuid.UUID{m1}, []uuid.UUID{m1}, true, true},
		{"token narrower", []string{"stores:read"}, []string{"*"}, []string{"stores:read"}, ref(m1), nil, []uuid.UUID{m1}, true, true},
		{"overlap", []string{"audits:read", "stores:read"}, []string{"stores:read", "keys:read"}, []string{"stores:read"}, ref(m1, m2), []uuid.UUID{m2}, []uuid.UUID{m2}, false, true},
		{"nothing in common", []string{"audits:read"}, []string{"stores:read"}, []string{}, ref(m1), []uuid.UUID{m2}, []uuid.UUID{}, false, false},
		{"row lost all", []string{"stores:read"}, []string{}, []string{}, ref(m1), []uuid.UUID{}, []uuid.UUID{}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			key, token := b.key(t, CLI(ten), NewKey{Scopes: tc.tokenScopes, Merchants: tc.tokenM})
			// Warm, so that the change has to reach what is remembered.
			if _, err := b.keys.Authenticate(t.Context(), token, false); err != nil {
				t.Fatal(err)
			}
			err := b.db.InTenant(t.Context(), ten, func(tx postgres.DBTX) error {
				_, err := tx.Exec(t.Context(), `UPDATE api_keys SET scopes = $3, merchant_ids = $4, name = 'changed' WHERE tenant_id = $1 AND id = $2`, ten, key.ID, tc.rowScopes, tc.rowM)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			var c Caller
			eventually(t, "the changed row counts", func() bool {
				if c, err = b.keys.Authenticate(t.Context(), token, false); err != nil {
					t.Fatal(err)
				}
				return cmp.Equal(c.Scopes, tc.wantScopes) && cmp.Equal(c.Merchants, tc.wantM)
			})
			if got := c.MayActFor(m1); got != tc.mayActForM1 {
				t.Errorf("MayActFor(m1) = %v, want %v", got, tc.mayActForM1)
			}
			if got := c.Can("stores:read"); got != tc.mayReadStores {
				t.Errorf("Can(stores:read) = %v, want %v", got, tc.mayReadStores)
			}
		})
	}
}

// A row may shorten a key's life too.
func TestRowEndsBeforeToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	old, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	if _, _, err := b.keys.Rotate(t.Context(), CLI(ten), old.ID, time.Hour, time.Time{}); err != nil {
		t.Fatal(err)
	}
	c, err := b.keys.Authenticate(t.Context(), token, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := b.clock.now().Add(time.Hour).Unix(); c.ExpiresAt > want {
		t.Errorf("ExpiresAt = %d, want at most %d", c.ExpiresAt, want)
	}
	b.clock.advance(time.Hour + 31*time.Second)
	_, err = b.keys.Authenticate(t.Context(), token, false)
	wantCode(t, "after the overlap", err, "token_expired")
}

// Attacks 11 and 78.
func TestAudiences(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	_, tenantToken := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	admin, secretToken, err := b.keys.IssueAdmin(t.Context(), cli, "ops", b.clock.now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	adminToken := secretToken.Reveal()
	for range 2 { // cold, warm
		_, err = b.keys.Authenticate(t.Context(), adminToken, false)
		wantCode(t, "admin key on a tenant's route", err, "token_invalid")
		_, err = b.keys.Authenticate(t.Context(), tenantToken, true)
		wantCode(t, "tenant's key on an admin route", err, "not_found")
		_, err = b.keys.Authenticate(t.Context(), "x", true)
		wantCode(t, "nonsense on an admin route", err, "token_invalid")
		c, err := b.keys.Authenticate(t.Context(), adminToken, true)
		if err != nil {
			t.Fatal(err)
		}
		want := Caller{KeyID: admin.ID, Admin: true, Actor: typeid.Format(typeid.Key, admin.ID), ExpiresAt: admin.ExpiresAt.Unix()}
		if d := cmp.Diff(want, c); d != "" {
			t.Errorf("admin caller (-want +got):\n%s", d)
		}
	}
	if err := b.keys.RevokeAdmin(t.Context(), cli, admin.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the admin key is refused", func() bool {
		_, err := b.keys.Authenticate(t.Context(), adminToken, true)
		return code(err) == "key_revoked"
	})
	if err := b.keys.RevokeAdmin(t.Context(), cli, admin.ID); err != nil {
		t.Errorf("revoking twice: %v", err)
	}
	wantCode(t, "revoke of no key", b.keys.RevokeAdmin(t.Context(), cli, uuid.New()), "not_found")
}

// Attack 12, over two processes, one of which can't hear.
func TestRevocationCountsEverywhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	hearing := process(t, b.db, b.keyset)
	deaf := deafProcess(b.db, b.keyset)
	ten := b.tenant(t, "a", "wx0000000000000001")
	key, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	other, otherToken := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	for _, p := range []*bundle{b, hearing, deaf} {
		for _, tok := range []string{token, otherToken} {
			if _, err := p.keys.Authenticate(t.Context(), tok, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.keys.Revoke(t.Context(), CLI(ten), key.ID); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	for name, p := range map[string]*bundle{"same process": b, "another that hears": hearing, "another that is deaf": deaf} {
		eventually(t, name, func() bool {
			_, err := p.keys.Authenticate(t.Context(), token, false)
			return code(err) == "key_revoked"
		})
		if d := time.Since(revoked); d > 5*time.Second+500*time.Millisecond {
			t.Errorf("%s: refused after %s, want within 5 s", name, d)
		}
		if _, err := p.keys.Authenticate(t.Context(), otherToken, false); err != nil {
			t.Errorf("%s: key %s: %v", name, other.ID, err)
		}
	}
}

func TestSuspendedAndDeletedTenants(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	_, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	become := func(s Status, want string) {
		t.Helper()
		if s == Deleted {
			if err := b.tenants.Delete(t.Context(), cli, ten, nil); err != nil {
				t.Fatal(err)
			}
		} else if _, err := b.tenants.Update(t.Context(), cli, ten, Update{Status: &s}); err != nil {
			t.Fatal(err)
		}
		eventually(t, string(s), func() bool {
			_, err := b.keys.Authenticate(t.Context(), token, false)
			return code(err) == want
		})
	}
	become(Suspended, "tenant_suspended")
	become(Active, "")
	become(Deleted, "key_revoked")
}

// A stolen signing key is worth nothing once it is retired, here and in other processes.
func TestRetiredSigningKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	far, deaf := process(t, b.db, b.keyset), deafProcess(b.db, b.keyset)
	ten := b.tenant(t, "a", "wx0000000000000001")
	_, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	stolen, _ := b.signer(t)
	all := map[string]*bundle{"here": b, "far": far, "deaf": deaf}
	authenticate := func(p *bundle, tok string) string {
		_, err := p.keys.Authenticate(t.Context(), tok, false)
		return code(err)
	}
	for name, p := range all {
		if got := authenticate(p, token); got != "" {
			t.Fatalf("%s: %s", name, got)
		}
	}
	// Rotation alone ends nothing.
	active, err := b.keys.RotateSigning(t.Context(), CLI(uuid.Nil))
	if err != nil {
		t.Fatal(err)
	}
	_, second := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	for name, p := range all {
		for _, tok := range []string{token, second} {
			if got := authenticate(p, tok); got != "" {
				t.Errorf("%s: after rotation: %s", name, got)
			}
		}
	}
	if err := b.keys.RetireSigning(t.Context(), CLI(uuid.Nil), stolen); err != nil {
		t.Fatal(err)
	}
	for name, p := range all {
		eventually(t, name, func() bool { return authenticate(p, token) == "token_invalid" })
		if got := authenticate(p, second); got != "" {
			t.Errorf("%s: the token of the active key: %s", name, got)
		}
	}
	jwks, err := b.keys.JWKS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(jwks) != 2 || jwks[0].ID != active {
		t.Errorf("JWKS = %+v, want the active %s and the next one", jwks, active)
	}
}

// With the database away what was good stays good for a while, and nobody new gets in.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := deafProcess(b.db, b.keyset)
	ten := b.tenant(t, "a", "wx0000000000000001")
	_, known := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	_, unknown := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	if _, err := p.keys.Authenticate(t.Context(), known, false); err != nil {
		t.Fatal(err)
	}
	b.db.Close()
	_, err := p.keys.Authenticate(t.Context(), unknown, false)
	wantCode(t, "a key that was never seen", err, "storage_unavailable")
	_, err = deafProcess(b.db, b.keyset).keys.Authenticate(t.Context(), known, false)
	wantCode(t, "a process that has just started", err, "storage_unavailable")
	_, err = p.tenants.Get(t.Context(), ten)
	wantCode(t, "Get", err, "storage_unavailable")
	_, _, err = p.keys.Issue(t.Context(), CLI(ten), NewKey{Name: "x", Scopes: []string{"*"}})
	wantCode(t, "Issue", err, "storage_unavailable")
	_, err = p.tenants.Credentials(t.Context(), ten)
	wantCode(t, "Credentials", err, "storage_unavailable")
	// Until the entry is older than what a deaf process believes without asking.
	for start := time.Now(); time.Since(start) < 5500*time.Millisecond; time.Sleep(100 * time.Millisecond) {
		if _, err := p.keys.Authenticate(t.Context(), known, false); err != nil {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
	}
}

func TestLastUsedIsWrittenBehind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	key, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	if _, err := b.keys.Authenticate(t.Context(), token, false); err != nil {
		t.Fatal(err)
	}
	b.keys.FlushUsed(t.Context())
	read := func() *time.Time {
		k, err := b.keys.Get(t.Context(), CLI(ten), key.ID)
		if err != nil {
			t.Fatal(err)
		}
		return k.LastUsedAt
	}
	first := read()
	if first == nil || time.Since(*first) > time.Minute {
		t.Fatalf("last used %v, want now", first)
	}
	b.clock.advance(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := b.keys.Authenticate(t.Context(), token, false); err != nil {
		t.Fatal(err)
	}
	cancel()
	b.keys.Run(ctx) // a process that ends writes what it still has
	if second := read(); second.Sub(*first) < 59*time.Second {
		t.Errorf("last used %v, want a minute after %v", second, first)
	}
	list, _, err := b.keys.List(t.Context(), CLI(ten), "", Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if list[0].LastUsedAt != nil {
		t.Errorf("a key that nobody used was used %v", list[0].LastUsedAt)
	}
}

func TestWarmAsksNoDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	_, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	_, admin, err := b.keys.IssueAdmin(t.Context(), cli, "ops", b.clock.now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var trips atomic.Int64
	ctx := postgres.WithTripCounter(t.Context(), &trips)
	use := func() {
		if _, err := b.keys.Authenticate(ctx, token, false); err != nil {
			t.Fatal(err)
		}
		if _, err := b.keys.Authenticate(ctx, admin.Reveal(), true); err != nil {
			t.Fatal(err)
		}
	}
	// Notifications come in the order of their commits: when this change is
	// heard, those of the rows above have been.
	last, lastToken := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	if _, err := b.keys.Authenticate(t.Context(), lastToken, false); err != nil {
		t.Fatal(err)
	}
	err = b.db.InTenant(t.Context(), ten, func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1 AND id = $2`, ten, last.ID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the change is heard", func() bool {
		_, err := b.keys.Authenticate(t.Context(), lastToken, false)
		return problem.HasCode(err, problem.CodeKeyRevoked)
	})
	use()
	cold := trips.Load()
	for range 1000 {
		use()
	}
	if n := trips.Load() - cold; n != 0 {
		t.Errorf("1000 warm requests made %d queries, want 0", n)
	}
}

func BenchmarkAuthenticate(bm *testing.B) {
	b := setup(bm)
	ten := b.tenant(bm, "a", "wx0000000000000001")
	_, token := b.key(bm, CLI(ten), NewKey{Scopes: []string{"stores:read", "stores:write"}})
	ctx := bm.Context()
	run := func(bm *testing.B, before func()) {
		bm.ReportAllocs()
		for bm.Loop() {
			before()
			if _, err := b.keys.Authenticate(ctx, token, false); err != nil {
				bm.Fatal(err)
			}
		}
	}
	bm.Run("warm", func(bm *testing.B) { run(bm, func() {}) })
	bm.Run("cold token, warm row", func(bm *testing.B) {
		run(bm, func() { b.keys.verified.Remove(sha256.Sum256([]byte(token))) })
	})
	bm.Run("cold token and row", func(bm *testing.B) {
		run(bm, func() { b.keys.verified.Purge(); b.keys.rows.DropAll() })
	})
	bm.Run("warm parallel", func(bm *testing.B) {
		bm.ReportAllocs()
		bm.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := b.keys.Authenticate(ctx, token, false); err != nil {
					bm.Fatal(err)
				}
			}
		})
	})
}
