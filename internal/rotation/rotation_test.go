package rotation

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
)

// An installation is a database with one tenant, and the keyset's file where
// commands are run.
type installation struct {
	t      *testing.T
	db     *postgres.DB
	file   string
	tenant uuid.UUID
	log    bytes.Buffer // of all processes
}

func install(t *testing.T) *installation {
	t.Helper()
	in := &installation{t: t, db: pgtest.New(t), file: filepath.Join(t.TempDir(), "keyset.json")}
	in.must(secret.CreateKeyset(in.file))
	keyset, err := secret.OpenKeyset(in.file)
	in.must(err)
	quiet := slog.New(slog.DiscardHandler)
	tenants := tenant.New(tenant.Deps{DB: in.db, Keyset: keyset, Changes: in.db.NewChanges(quiet), Log: quiet})
	made, err := tenants.Create(t.Context(), tenant.Caller{Actor: "cli"}, tenant.NewTenant{Name: "One", ComponentAppID: "wx0000000000000001", Credentials: &tenant.NewCredentials{
		Secret: secret.NewText("secret"), MessageToken: secret.NewText("token"), EncodingAESKey: secret.NewText("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")}})
	in.must(err)
	in.tenant = made.ID
	return in
}

func (in *installation) must(err error) {
	in.t.Helper()
	if err != nil {
		in.t.Fatal(err)
	}
}

// process is one that has its own spool and reads this file.
func (in *installation) process(file string) *Holder {
	in.t.Helper()
	keyset, err := secret.OpenKeyset(file)
	in.must(err)
	s, err := spool.Open(in.t.TempDir(), keyset)
	in.must(err)
	in.t.Cleanup(func() { _ = s.Close() })
	return &Holder{DB: in.db, Keyset: keyset, Spool: s, Log: slog.New(slog.NewTextHandler(&in.log, nil))}
}

// bring copies the file to a process of its own host.
func (in *installation) bring(to string) {
	in.t.Helper()
	b, err := os.ReadFile(in.file)
	in.must(err)
	in.must(os.WriteFile(to, b, 0o600))
}

func (in *installation) steps(cursors time.Duration) Steps {
	return Steps{DB: in.db, Path: in.file, Who: tenant.Caller{Actor: "cli"}, CursorLife: cursors}
}

// rotate is Rotate of an operator who doesn't wait.
func (in *installation) rotate() error {
	return in.steps(0).Rotate(in.t.Context(), 0, func(string, ...any) {})
}

func (in *installation) exec(sql string, args ...any) {
	in.t.Helper()
	in.must(in.db.InTenant(in.t.Context(), in.tenant, func(tx postgres.DBTX) error {
		_, err := tx.Exec(in.t.Context(), sql, args...)
		return err
	}))
}

// sealed is how many values each role's key has sealed.
func (in *installation) sealed() map[secret.Role]int64 {
	in.t.Helper()
	st, err := in.steps(0).Status(in.t.Context())
	in.must(err)
	n := map[secret.Role]int64{}
	for _, k := range st.Keys {
		n[k.Role] = k.Values
	}
	return n
}

func (in *installation) wants(err error, texts ...string) {
	in.t.Helper()
	if err == nil {
		in.t.Fatalf("no error, want %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			in.t.Errorf("the error is %q, want %q in it", err, text)
		}
	}
}

// Where processes have copies of the file, each step waits for the copy of the
// last one, and until then nobody seals what that one can't open, nor takes away
// what it seals with.
func TestCopies(t *testing.T) {
	t.Parallel()
	in := install(t)
	far := filepath.Join(t.TempDir(), "copy.json")
	in.bring(far)
	a, b := in.process(in.file), in.process(far)
	both := []*Holder{a, b}
	hold := func() {
		t.Helper()
		for _, h := range both {
			in.must(h.Check(t.Context()))
			in.must(h.Hold(t.Context()))
		}
	}
	reseal := func() {
		t.Helper()
		for _, h := range both {
			in.must(h.Reseal(t.Context()))
		}
	}
	place := secret.Place{Table: "t", Column: "c_ct", Row: "1"}
	understand := func() {
		t.Helper()
		for i, h := range both {
			v, err := h.Keyset.Seal(place, []byte("v"))
			in.must(err)
			if _, err := both[1-i].Keyset.Open(place, v); err != nil {
				t.Errorf("process %d can't open what %d sealed: %v", 1-i, i, err)
			}
		}
	}
	hold()
	first := a.Keyset.SealsWith()

	in.wants(in.rotate(), a.Spool.Instance(), b.Spool.Instance(), "bring "+in.file+" there")
	hold()
	err := in.rotate() // goes on with the same key
	in.wants(err, b.Spool.Instance(), "isn't known yet", "run this again")
	if strings.Contains(err.Error(), a.Spool.Instance()) {
		t.Errorf("it waits for a process that has the file: %v", err)
	}
	hold()
	understand()
	if a.Keyset.SealsWith() != first || len(a.Keyset.Keys()) != 2 || len(b.Keyset.Keys()) != 1 {
		t.Errorf("before the copy: %v, %v", a.Keyset.Keys(), b.Keyset.Keys())
	}

	in.bring(far)
	hold()
	in.wants(in.rotate(), a.Spool.Instance(), b.Spool.Instance(), "but not yet in")
	hold() // one seals with the new key, one with the old one
	understand()
	if a.Keyset.SealsWith() == first || b.Keyset.SealsWith() != first {
		t.Errorf("after the promotion: %v, %v", a.Keyset.Keys(), b.Keyset.Keys())
	}
	reseal()
	if n := in.sealed(); n[secret.RoleSeals] != 0 || n[secret.RoleOld] < 3 {
		t.Errorf("sealed anew, while one seals with the old key: %v", n)
	}
	_, err = in.steps(0).Retire(t.Context(), first)
	in.wants(err, fmt.Sprintf("%s seals with key %d", b.Spool.Instance(), first), "component_credentials.component_secret_ct")
	if err := in.rotate(); err == nil || !strings.Contains(err.Error(), b.Spool.Instance()) || strings.Contains(err.Error(), a.Spool.Instance()) {
		t.Errorf("the rotation that isn't over: %v", err)
	}

	in.bring(far)
	hold()
	understand()
	reseal()
	if n := in.sealed(); n[secret.RoleOld] != 0 || n[secret.RoleSeals] < 3 {
		t.Errorf("after the rotation: %v", n)
	}
	if n := strings.Count(in.log.String(), "sealed anew"); n != 1 {
		t.Errorf("%d processes sealed anew, want one:\n%s", n, &in.log)
	}
	in.wants(in.rotate(), fmt.Sprintf("gateway keyset retire %d", first))
	if _, err = in.steps(0).Retire(t.Context(), first); err != nil {
		t.Errorf("nothing needs it, and: %v", err)
	}
	hold()
	understand() // the copy still has the old key
	in.bring(far)
	hold()
	understand()
}

// A key stays as long as one row needs it that nobody can open, or a cursor.
func TestRetireRefuses(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := in.process(in.file)
	in.must(a.Hold(t.Context()))
	first := a.Keyset.SealsWith()
	_, err := in.steps(0).Retire(t.Context(), first)
	in.wants(err, "it is the one that seals")
	_, err = in.steps(0).Retire(t.Context(), first+1)
	in.wants(err, fmt.Sprintf("no key %d", first+1))

	flip := `UPDATE component_credentials SET message_token_ct = set_byte(message_token_ct, 20, get_byte(message_token_ct, 20) # 1)`
	in.exec(flip)
	in.wants(in.rotate())
	in.must(a.Hold(t.Context()))
	in.wants(in.rotate())
	in.must(a.Hold(t.Context()))
	in.must(a.Reseal(t.Context()))
	if diff := cmp.Diff(map[secret.Role]int64{secret.RoleOld: 1, secret.RoleSeals: 2}, in.sealed()); diff != "" {
		t.Errorf("sealed (-want +got):\n%s", diff)
	}
	if said := in.log.String(); !strings.Contains(said, "a value isn't sealed anew") || !strings.Contains(said, "table=component_credentials") || !strings.Contains(said, in.tenant.String()) {
		t.Errorf("the log says nothing of the value: %s", said)
	}
	_, err = in.steps(0).Retire(t.Context(), first)
	in.wants(err, "1 values in component_credentials.message_token_ct")
	if !errors.Is(err, ErrNeeded) || strings.Contains(err.Error(), "component_secret_ct") {
		t.Errorf("the error is %v", err)
	}

	in.exec(flip)
	in.must(a.Reseal(t.Context()))
	_, err = in.steps(24*time.Hour).Retire(t.Context(), first)
	in.wants(err, "cursors", a.Spool.Instance())
	kept, err := in.steps(0).Retire(t.Context(), first)
	in.must(err)
	if kept != fmt.Sprintf("%s.with-%d", in.file, first) {
		t.Errorf("kept as %s", kept)
	}
	in.must(a.Hold(t.Context()))
	if keys := a.Keyset.Keys(); len(keys) != 1 || keys[0].ID == first {
		t.Errorf("afterwards: %v", keys)
	}
}

// A keyset from before a rotation, or of another installation, is refused
// before anything is opened with it, also when nobody serves.
func TestCheck(t *testing.T) {
	t.Parallel()
	in := install(t)
	stale, foreign := filepath.Join(t.TempDir(), "stale.json"), filepath.Join(t.TempDir(), "foreign.json")
	in.bring(stale)
	in.must(secret.CreateKeyset(foreign))
	a := in.process(in.file)
	in.must(a.Hold(t.Context()))
	for range 2 {
		in.wants(in.rotate())
		in.must(a.Hold(t.Context()))
	}
	seals := fmt.Sprintf("lacks key %d", a.Keyset.SealsWith())
	refused := func(file string) {
		t.Helper()
		in.wants(in.process(file).Check(t.Context()), seals, a.Spool.Instance())
	}
	refused(stale)
	refused(foreign)
	in.must(in.process(in.file).Check(t.Context()))
	in.wants(in.steps(0).Forget(t.Context(), a.Spool.Instance()), "serves")

	in.exec(`UPDATE keyset_holders SET seen_at = seen_at - interval '1 minute'`)
	refused(stale)
	refused(foreign)
	in.must(in.process(in.file).Check(t.Context()))

	// One that serves and lacks what would be sealed here.
	b := in.process(stale)
	in.must(b.Hold(t.Context()))
	in.wants(in.process(in.file).Check(t.Context()), b.Spool.Instance(), "lacks, and it serves")

	in.must(in.steps(0).Forget(t.Context(), a.Spool.Instance()))
	in.wants(in.steps(0).Forget(t.Context(), a.Spool.Instance()), "or there is none")
}
