package rotation

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	all    *tenant.Tenants
	log    bytes.Buffer // of all processes
}

func install(t *testing.T) *installation {
	t.Helper()
	in := &installation{t: t, db: pgtest.New(t), file: filepath.Join(t.TempDir(), "keyset.json")}
	in.must(secret.CreateKeyset(in.file))
	keyset, err := secret.OpenKeyset(in.file)
	in.must(err)
	quiet := slog.New(slog.DiscardHandler)
	in.all = tenant.New(tenant.Deps{DB: in.db, Keyset: keyset, Changes: in.db.NewChanges(quiet), Log: quiet})
	in.tenant = in.newTenant("wx0000000000000001")
	return in
}

// newTenant makes one with credentials, which are three sealed values.
func (in *installation) newTenant(component string) uuid.UUID {
	in.t.Helper()
	made, err := in.all.Create(in.t.Context(), tenant.Caller{Actor: "cli"}, tenant.NewTenant{Name: component, ComponentAppID: component, Credentials: &tenant.NewCredentials{
		Secret: secret.NewText("secret"), MessageToken: secret.NewText("token"), EncodingAESKey: secret.NewText("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")}})
	in.must(err)
	return made.ID
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
	for b.Spool.Instance() < a.Spool.Instance() { // or b, which holds no new key, would be the one that seals anew
		a, b = in.process(in.file), in.process(far)
	}
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
	in.rotateAll(a)
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
	a, _ := in.rotated()
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

// tickets gives a tenant n of them.
func (in *installation) tickets(h *Holder, of uuid.UUID, n int) {
	in.t.Helper()
	in.must(in.db.InTenant(in.t.Context(), of, func(tx postgres.DBTX) error {
		for i := range n {
			sum := sha256.Sum256(fmt.Append(nil, i))
			ct, err := h.Keyset.Seal(ticketPlace(of, sum[:]), fmt.Append(nil, i))
			if err == nil {
				_, err = tx.Exec(in.t.Context(), `INSERT INTO component_tickets (tenant_id, ticket_sha256, ticket_ct, issued_at) VALUES ($1, $2, $3, now())`, of, sum[:], ct)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

func ticketPlace(of uuid.UUID, sum []byte) secret.Place {
	return secret.Place{Table: "component_tickets", Column: "ticket_ct", Tenant: of, Row: hex.EncodeToString(sum)}
}

var tickets = postgres.SealedTables[slices.IndexFunc(postgres.SealedTables, func(t postgres.SealedTable) bool { return t.Name == "component_tickets" })]

// rotated is a process after a whole rotation, and the key that sealed before.
func (in *installation) rotated() (h *Holder, first uint32) {
	in.t.Helper()
	h = in.process(in.file)
	first = h.Keyset.SealsWith()
	in.rotateAll(h)
	return h, first
}

// rotateAll is a whole rotation of one process up to the sealing anew.
func (in *installation) rotateAll(h *Holder) {
	in.t.Helper()
	in.must(h.Hold(in.t.Context()))
	for range 2 {
		in.wants(in.rotate())
		in.must(h.Hold(in.t.Context()))
	}
}

// More rows than one transaction takes, of several tenants, are all sealed anew
// and still what they were; the second look finds nothing to do.
func TestManyRows(t *testing.T) {
	t.Parallel()
	in := install(t)
	h := in.process(in.file)
	first, many, other := h.Keyset.SealsWith(), 2*batch+1, in.newTenant("wx0000000000000002")
	in.tickets(h, in.tenant, many)
	in.tickets(h, other, batch) // as many as one look
	in.rotateAll(h)
	in.must(h.Reseal(t.Context()))
	if diff := cmp.Diff(map[secret.Role]int64{secret.RoleOld: 0, secret.RoleSeals: int64(many + batch + 6)}, in.sealed()); diff != "" {
		t.Errorf("sealed (-want +got):\n%s", diff)
	}
	said := in.log.String()
	in.must(h.Reseal(t.Context()))
	if in.log.String() != said {
		t.Errorf("it sealed twice: %s", &in.log)
	}
	if _, err := in.steps(0).Retire(t.Context(), first); err != nil {
		t.Error(err)
	}
	in.must(h.Hold(t.Context()))
	for of, n := range map[uuid.UUID]int{in.tenant: many, other: batch} {
		if _, err := in.all.Credentials(t.Context(), of); err == nil {
			t.Error("the keyset from before opens the credentials")
		}
		rows, err := in.db.SealedRows(t.Context(), of, tickets, []uint32{h.Keyset.SealsWith()}, nil, n+1)
		in.must(err)
		got := map[string]bool{}
		for _, r := range rows {
			plain, err := h.Keyset.Open(secret.Place{Table: tickets.Name, Column: "ticket_ct", Tenant: of, Row: r.Row}, r.Values[0][0])
			in.must(err)
			if sum := sha256.Sum256(plain); r.Row != hex.EncodeToString(sum[:]) {
				t.Errorf("%s is another row's", plain)
			}
			got[string(plain)] = true
		}
		if len(got) != n {
			t.Errorf("%d tickets are there, want %d", len(got), n)
		}
	}
}

// What somebody has written since a row was read stays.
func TestNoChangeIsOverwritten(t *testing.T) {
	t.Parallel()
	in := install(t)
	h := in.process(in.file)
	in.tickets(h, in.tenant, 1)
	rows, err := in.db.SealedRows(t.Context(), in.tenant, tickets, []uint32{h.Keyset.SealsWith()}, nil, 2)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	in.exec(`UPDATE component_tickets SET ticket_ct = 'newer'`)
	in.must(in.db.Reseal(t.Context(), in.tenant, tickets, []postgres.Resealed{{Key: rows[0].Key, Was: rows[0].Values[0], Now: [][]byte{[]byte("anew")}}}))
	in.must(in.db.InTenant(t.Context(), in.tenant, func(tx postgres.DBTX) error {
		var got []byte
		err := tx.QueryRow(t.Context(), `SELECT ticket_ct FROM component_tickets`).Scan(&got)
		if string(got) != "newer" {
			t.Errorf("the ticket is %q", got)
		}
		return err
	}))
}

// A process whose spool can't be sealed anew serves all the same: the others
// hear what it holds, and that its spool needs the old key.
func TestHoldWithoutSpool(t *testing.T) {
	t.Parallel()
	in := install(t)
	h, first := in.rotated()
	broken := in.process(in.file) // started amid the rotation
	in.must(broken.Spool.Close())
	for range 2 { // it is tried again
		in.wants(broken.Hold(t.Context()), "seal the spool anew")
	}
	st, err := in.steps(0).Status(t.Context())
	in.must(err)
	i := slices.IndexFunc(st.Processes, func(p Process) bool { return p.Instance == broken.Spool.Instance() })
	if i < 0 {
		t.Fatalf("nobody was told of it: %+v", st.Processes)
	}
	if p := st.Processes[i]; !p.Serving || p.SealsWith != h.Keyset.SealsWith() || !p.has(first) || !slices.Contains(p.SpoolKeys, first) {
		t.Errorf("the others were told %+v", p)
	}
	in.must(h.Reseal(t.Context()))
	_, err = in.steps(0).Retire(t.Context(), first)
	in.wants(err, "the spool of process "+broken.Spool.Instance())
}

// Whoever takes long to begin, and finds then that the others seal with a key
// that came meanwhile, doesn't begin; and says so where it serves already.
func TestHoldLacksAKey(t *testing.T) {
	t.Parallel()
	in := install(t)
	stale := filepath.Join(t.TempDir(), "stale.json")
	in.bring(stale)
	late := in.process(stale)
	in.must(late.Check(t.Context()))
	h, _ := in.rotated()
	lacks := fmt.Sprintf("lacks key %d, with which process %s seals", h.Keyset.SealsWith(), h.Spool.Instance())
	in.wants(late.Hold(t.Context()), lacks)
	in.bring(stale)
	in.must(late.Hold(t.Context()))
}

// A process that began when the new key had long sealed made no cursor with the
// old one, and keeps nobody waiting for a day.
func TestRetireDespiteANewProcess(t *testing.T) {
	t.Parallel()
	in := install(t)
	a, first := in.rotated()
	in.must(a.Reseal(t.Context()))
	in.exec(`UPDATE keyset_holders SET seals_since = seals_since - interval '25 hours'`)
	b := in.process(in.file)
	in.must(b.Check(t.Context()))
	in.must(b.Hold(t.Context()))
	if _, err := in.steps(24*time.Hour).Retire(t.Context(), first); err != nil {
		t.Error(err)
	}
}

// Counting takes long. Whoever begins meanwhile, with a copy of the file by which
// the old key seals, is seen all the same.
func TestRetireSeesWhoBegan(t *testing.T) {
	t.Parallel()
	in := install(t)
	copied := filepath.Join(t.TempDir(), "copy.json")
	a := in.process(in.file)
	first := a.Keyset.SealsWith()
	in.must(a.Hold(t.Context()))
	in.wants(in.rotate(), "isn't known yet")
	in.must(a.Hold(t.Context()))
	in.bring(copied)
	in.wants(in.rotate(), "not yet in process")
	in.must(a.Hold(t.Context()))
	in.must(a.Reseal(t.Context()))

	late := in.process(copied)
	locked, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- in.db.InTenant(t.Context(), in.tenant, func(tx postgres.DBTX) error {
			_, err := tx.Exec(t.Context(), `LOCK TABLE component_credentials IN ACCESS EXCLUSIVE MODE`)
			close(locked)
			for n := 0; n == 0 && err == nil; { // until it is counted
				err = tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'component_credentials'::regclass`).Scan(&n)
			}
			return errors.Join(err, late.Hold(t.Context()))
		})
	}()
	<-locked
	_, err := in.steps(0).Retire(t.Context(), first)
	in.wants(err, fmt.Sprintf("process %s seals with key %d", late.Spool.Instance(), first))
	in.must(<-done)
}
