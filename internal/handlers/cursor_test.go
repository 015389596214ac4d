package handlers

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
)

// sealer is an AEAD with a random key, as the process has one.
func sealer() Cursors {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCMWithRandomNonce(block)
	return Cursors{
		Seal: func(plain, aad []byte) ([]byte, error) { return aead.Seal(nil, nil, plain, aad), nil },
		Open: func(sealed, aad []byte) ([]byte, error) { return aead.Open(nil, nil, sealed, aad) },
		Now:  time.Now,
	}
}

type place struct {
	At time.Time `json:"at"`
	ID uuid.UUID `json:"id"`
}

// Row 28 of design security.md §12.
func TestCursor(t *testing.T) {
	t.Parallel()
	c := sealer()
	scope := ListScope{Operation: "listStores", Tenant: tenantA, Merchant: keyA, Filters: []string{"status=active", ""}}
	want := place{time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), tenantA}
	cursor, err := EncodeCursor(c, scope, want)
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := DecodeCursor[place](c, scope, &cursor)
	if err != nil || !ok || !cmp.Equal(want, got) {
		t.Fatalf("DecodeCursor = %v, %t, %v, want %v", got, ok, err, want)
	}
	if _, ok, err := DecodeCursor[place](c, scope, nil); ok || err != nil {
		t.Errorf("no cursor: %t, %v", ok, err)
	}
	flipped := []byte(cursor)
	flipped[len(flipped)/2] ^= 1
	other := func(change func(*ListScope)) ListScope {
		s := scope
		change(&s)
		return s
	}
	later := c
	later.Now = func() time.Time { return time.Now().Add(CursorLife + 2*time.Second) }
	for _, tc := range []struct {
		name    string
		cursors Cursors
		scope   ListScope
		cursor  string
	}{
		{"another tenant", c, other(func(s *ListScope) { s.Tenant = keyA }), cursor},
		{"another merchant", c, other(func(s *ListScope) { s.Merchant = uuid.Nil }), cursor},
		{"another list", c, other(func(s *ListScope) { s.Operation = "listAudits" }), cursor},
		{"another filter", c, other(func(s *ListScope) { s.Filters = []string{"status=failed", ""} }), cursor},
		{"filters joined otherwise", c, other(func(s *ListScope) { s.Filters = []string{"status=active"} }), cursor},
		{"a flipped bit", c, scope, string(flipped)},
		{"another process's key", sealer(), scope, cursor},
		{"older than a day", later, scope, cursor},
		{"no base64", c, scope, "%%%"},
		{"empty", c, scope, ""},
	} {
		if _, ok, err := DecodeCursor[place](tc.cursors, tc.scope, &tc.cursor); ok || !problem.HasCode(err, problem.CodeInvalidCursor) {
			t.Errorf("%s: %t, %v", tc.name, ok, err)
		}
	}
	if _, _, err := DecodeCursor[[]int](c, scope, &cursor); !problem.HasCode(err, problem.CodeInvalidCursor) {
		t.Errorf("a position of another shape: %v", err)
	}
}

func FuzzCursor(f *testing.F) {
	c := sealer()
	scope := ListScope{Operation: "listStores", Tenant: tenantA}
	good, _ := EncodeCursor(c, scope, place{ID: tenantA})
	f.Add(good)
	f.Add("")
	f.Add(good + "=")
	f.Add(good + good)
	f.Add(good[:len(good)/2])
	f.Add(strings.ToUpper(good))
	f.Add(strings.Repeat("A", 1000))
	f.Add("-_+/=%00\n")
	f.Fuzz(func(t *testing.T, s string) {
		_, ok, err := DecodeCursor[place](c, scope, &s)
		if ok != (err == nil) || ok && s != good {
			t.Errorf("DecodeCursor(%q) = %t, %v", s, ok, err)
		}
	})
}

func TestETag(t *testing.T) {
	t.Parallel()
	etag := ETag(12, []byte("a"))
	if etag == ETag(12, []byte("b")) || etag == ETag(13, []byte("a")) || etag != ETag(12, []byte("a")) {
		t.Errorf("ETag = %s does not tell versions apart", etag)
	}
	for header, want := range map[string]bool{etag: true, `"x", ` + etag: true, "W/" + etag: true, "*": true, `"x"`: false, "": false, etag + "x": false} {
		if got := NotModified(&header, etag); got != want {
			t.Errorf("NotModified(%s) = %t", header, got)
		}
	}
	if NotModified(nil, etag) {
		t.Error("NotModified without a header")
	}
	if v, err := IfMatch(&etag); err != nil || *v != 12 {
		t.Errorf("IfMatch(%s) = %v, %v", etag, v, err)
	}
	star := "*"
	for _, none := range []*string{nil, &star} {
		if v, err := IfMatch(none); v != nil || err != nil {
			t.Errorf("IfMatch = %v, %v, want neither", v, err)
		}
	}
	for _, bad := range []string{"12", `"12"`, `W/` + etag, `"x-00000000"`, `"12-0000"`, etag + ", " + etag} {
		if _, err := IfMatch(&bad); !problem.HasCode(err, problem.CodeVersionConflict) {
			t.Errorf("IfMatch(%s) = %v, want version_conflict", bad, err)
		}
	}
}

func benchConfig() Config {
	return Config{
		Server: &stub{bodies: make(chan oapi.StoreCreate, 1<<20)}, Authenticate: authenticate, Ready: func(context.Context) error { return nil },
		Log: slog.New(slog.DiscardHandler), Metrics: observe.NewMetrics(), PublicURL: "https://gateway.example",
		KeyRate: tenant.RateLimit{PerSecond: 1e9, Burst: 1e9}, TenantRate: 1e9,
	}
}
