package tenant

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
)

// A clock is time that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// A bundle is one process on a database of the test's own.
type bundle struct {
	db      *postgres.DB
	changes *postgres.Changes
	keyset  *secret.Keyset
	clock   *clock
	tenants *Tenants
	keys    *Keys
}

func setup(t testing.TB) *bundle {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := secret.CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	keyset, err := secret.OpenKeyset(path)
	if err != nil {
		t.Fatal(err)
	}
	b := process(t, pgtest.New(t), keyset)
	if err := b.keys.EnsureSigningKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// process starts what one gateway process has, and waits until it hears changes.
func process(t testing.TB, db *postgres.DB, keyset *secret.Keyset) *bundle {
	t.Helper()
	b := deafProcess(db, keyset)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.changes.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, "the listener hears", b.changes.Hearing)
	return b
}

// deafProcess is a process whose listener has no connection.
func deafProcess(db *postgres.DB, keyset *secret.Keyset) *bundle {
	b := &bundle{db: db, keyset: keyset, clock: &clock{}, changes: db.NewChanges(slog.New(slog.DiscardHandler))}
	b.tenants = New(Deps{DB: db, Keyset: keyset, Changes: b.changes, Log: slog.New(slog.DiscardHandler), Now: b.clock.now})
	b.keys = NewKeys(b.tenants)
	return b
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s in vain: %s", what)
		}
	}
}

const aesKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"

var cli = Caller{Actor: "cli"}

func text(s string) secret.Text { return secret.NewText(s) }

// tenant makes a tenant with credentials.
func (b *bundle) tenant(t testing.TB, name, appid string) uuid.UUID {
	t.Helper()
	d, err := b.tenants.Create(t.Context(), cli, NewTenant{
		Name: name, ComponentAppID: appid,
		Credentials: &NewCredentials{Secret: text("CANARY-secret"), MessageToken: text("CANARYtoken"), EncodingAESKey: text(aesKey)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return d.ID
}

func (b *bundle) merchant(t testing.TB, tenant uuid.UUID, appid string) uuid.UUID {
	t.Helper()
	id := typeid.New()
	err := b.db.InTenant(t.Context(), tenant, func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO merchants (tenant_id, id, appid, status) VALUES ($1, $2, $3, 'authorized')`, tenant, id, appid)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// key issues a key on behalf of who and returns it with its token.
func (b *bundle) key(t testing.TB, who Caller, n NewKey) (Key, string) {
	t.Helper()
	if n.Name == "" {
		n.Name = "test"
	}
	k, token, err := b.keys.Issue(t.Context(), who, n)
	if err != nil {
		t.Fatal(err)
	}
	return k, token.Reveal()
}

// caller issues a key and authenticates with it.
func (b *bundle) caller(t testing.TB, tenant uuid.UUID, n NewKey) Caller {
	t.Helper()
	_, token := b.key(t, CLI(tenant), n)
	c, err := b.keys.Authenticate(t.Context(), token, false)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// code is what an error tells a caller: "" for none.
func code(err error) string {
	if err == nil {
		return ""
	}
	if p, ok := problem.As(err); ok {
		return p.Code
	}
	return "internal: " + err.Error()
}

func wantCode(t testing.TB, what string, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s = %q (%v), want %q", what, got, err, want)
	}
}

// signer reads the key that signs now, as somebody who stole it would.
func (b *bundle) signer(t testing.TB) (kid string, key ed25519.PrivateKey) {
	t.Helper()
	err := b.db.InSystem(t.Context(), func(tx postgres.DBTX) (err error) {
		kid, key, err = b.keys.signer(t.Context(), tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return kid, key
}

// forge signs any header and payload with key.
func forge(t testing.TB, key ed25519.PrivateKey, header, payload string) string {
	t.Helper()
	s := enc(header) + "." + enc(payload)
	return s + "." + enc(string(ed25519.Sign(key, []byte(s))))
}

func enc(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func randomKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encodeJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func changesOf(t testing.TB, b *bundle, tenant uuid.UUID) []Change {
	t.Helper()
	list, _, err := b.tenants.ListChanges(t.Context(), ChangeFilter{TenantID: &tenant}, Page{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
