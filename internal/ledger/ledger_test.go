package ledger

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// A bundle is a merchant and the ledgers of two processes on one database.
type bundle struct {
	db       *postgres.DB
	merchant authorizer.Merchant
	ledgers  [2]*Ledger
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
	b := (&bundle{db: pgtest.New(t)}).another(t)
	log := slog.New(slog.DiscardHandler)
	background := observe.NewBackground(log, observe.NewMetrics())
	for i := range b.ledgers {
		s, err := spool.Open(t.TempDir(), keyset)
		if err != nil {
			t.Fatal(err)
		}
		changes := b.db.NewChanges(log)
		tenants := tenant.New(tenant.Deps{DB: b.db, Keyset: keyset, Changes: changes, Log: log})
		auth := authorizer.New(authorizer.Deps{DB: b.db, Keyset: keyset, Tenants: tenants, Changes: changes, Log: log, Background: background})
		l := New(Deps{DB: b.db, Keyset: keyset, Authorizer: auth, Spool: s, Changes: changes, Schedule: DefaultSchedule, Log: log, Background: background})
		b.ledgers[i] = l
		t.Cleanup(func() {
			l.Close(context.Background())
			auth.Close()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return b
}

// another is the same with a merchant of one more tenant.
func (b *bundle) another(t testing.TB) *bundle {
	t.Helper()
	other := *b
	m := &other.merchant
	m.TenantID, m.ID = typeid.New(), typeid.New()
	m.AppID = m.ID.String()
	err := b.db.InTenant(t.Context(), m.TenantID, func(tx postgres.DBTX) error {
		if _, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, $2, $2, $2)`, m.TenantID, m.TenantID.String()); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO merchants (tenant_id, id, appid, status) VALUES ($1, $2, $3, 'authorized')`, m.TenantID, m.ID, m.AppID)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return &other
}

// write is the creation of a store as Do is given it.
func (b *bundle) write(place string) Write {
	row := dbsqlc.ResourceInsertParams{TenantID: b.merchant.TenantID, ID: typeid.New(), MerchantID: b.merchant.ID, Type: "store", MapPoiID: &place, Fields: []byte(`{}`)}
	return Write{Kind: storeCreate, Request: Request{Caller: tenant.Caller{Actor: "test"}, Merchant: b.merchant}, Subject: row.ID, Body: []byte(`{}`), Natural: place,
		Begin: func(batch *postgres.Batch, op *Operation) error {
			row.AuditID, row.OperationID = op.AuditID, &op.ID
			batch.Queue(dbsqlc.ResourceInsert, row)
			return nil
		}}
}

// began is an operation after T1.
func (b *bundle) began(t testing.TB, place string) *Operation {
	t.Helper()
	op, err := b.ledgers[0].begin(t.Context(), b.write(place))
	if err != nil {
		t.Fatal(err)
	}
	return op
}

func (b *bundle) texts(t *testing.T, sql string, args ...any) string {
	t.Helper()
	var out []string
	err := b.db.InTenant(t.Context(), b.merchant.TenantID, func(tx postgres.DBTX) error {
		rows, err := tx.Query(t.Context(), sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return err
			}
			out = append(out, s)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, ",")
}

func executed(source, audit string) Outcome {
	return Outcome{Class: wechat.Executed, Source: source, IDs: []ID{{AuditID, audit}}}
}

// T1 was lost on its way, and nobody knows: settling it says so each time, and
// keeps the ids that there may be.
func TestSettleWhatT1NeverMade(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	for _, out := range []Outcome{{Class: wechat.NotSent, Source: FromResponse}, executed(FromSpool, "4711")} {
		op := &Operation{Kind: storeCreate, Merchant: b.merchant, Body: []byte(`{}`)}
		op.TenantID, op.ID, op.Attempt = b.merchant.TenantID, typeid.New(), 1
		op.SubjectID, op.AuditID = new(typeid.New()), new(typeid.New())
		before := op.Operation
		for range 3 {
			if err := l.settle(t.Context(), op, out, nil); !postgres.IsNotFound(err) {
				t.Fatalf("settle(%s) = %v, want not found", out.Class, err)
			}
			if diff := cmp.Diff(before, op.Operation); diff != "" {
				t.Fatalf("the operation was forgotten: %s", diff)
			}
		}
	}
	if got := b.texts(t, `SELECT wechat_id FROM wechat_id_ledger WHERE id_type = 'audit_id'`); got != "4711" {
		t.Errorf("ids kept: %q", got)
	}
}

// What is heard of an operation may come twice, late, and after something else
// was concluded. WeChat's own word wins over a conclusion, nothing wins over
// it, an attempt settles itself only, and ids are kept whatever becomes of it.
func TestOutcomesInAnyOrder(t *testing.T) {
	t.Parallel()
	refused := Outcome{Class: wechat.Refused, Source: FromReconciler}
	told := Outcome{Class: wechat.Refused, Source: FromSpool, Errno: 85066}
	present := func(poi string) Outcome {
		return Outcome{Class: wechat.Executed, Source: FromReconciler, IDs: []ID{{PoiID, poi}}}
	}
	unknown := Outcome{Class: wechat.Ambiguous, Source: FromResponse}
	notSent := Outcome{Class: wechat.NotSent, Source: FromReconciler}
	b := setup(t)
	l := b.ledgers[0]
	for name, tc := range map[string]struct {
		outcomes []Outcome
		state    string
		store    string
		ids      string
	}{
		"once":                              {[]Outcome{executed(FromResponse, "1")}, "succeeded", "in_review", "1"},
		"the same from the spool":           {[]Outcome{executed(FromResponse, "2"), executed(FromSpool, "2")}, "succeeded", "in_review", "2,2"},
		"unknown, then from the spool":      {[]Outcome{unknown, executed(FromSpool, "3")}, "succeeded", "in_review", "3"},
		"given up, then WeChat's word":      {[]Outcome{unknown, notSent, executed(FromSpool, "4")}, "succeeded", "in_review", "4"},
		"refused, then WeChat's word":       {[]Outcome{refused, executed(FromEvent, "5")}, "succeeded", "in_review", "5"},
		"a late conclusion":                 {[]Outcome{executed(FromResponse, "6"), refused}, "succeeded", "in_review", "6"},
		"a late doubt":                      {[]Outcome{executed(FromResponse, "7"), unknown}, "succeeded", "in_review", "7"},
		"a doubt after a refusal":           {[]Outcome{refused, unknown}, "failed", "failed", ""},
		"present, then WeChat's refusal":    {[]Outcome{unknown, present("75"), told}, "failed", "failed", "75"},
		"WeChat's refusal twice":            {[]Outcome{present("76"), told, told}, "failed", "failed", "76"},
		"WeChat's refusal, then a look":     {[]Outcome{told, present("77")}, "failed", "failed", "77"},
		"WeChat's refusal, then an event":   {[]Outcome{told, executed(FromEvent, "78")}, "failed", "failed", "78"},
		"WeChat's yes, then a refusal":      {[]Outcome{executed(FromResponse, "79"), told}, "succeeded", "in_review", "79"},
		"WeChat's yes, then a person's no":  {[]Outcome{executed(FromEvent, "80"), {Class: wechat.Refused, Source: FromPerson}}, "succeeded", "in_review", "80"},
		"a conclusion, then a person's yes": {[]Outcome{refused, executed(FromPerson, "81")}, "failed", "failed", "81"},
		"a refusal with an id":              {[]Outcome{{Class: wechat.Refused, Source: FromResponse, IDs: []ID{{AuditID, "8"}}}}, "failed", "failed", "8"},
	} {
		op := b.began(t, name)
		for _, out := range tc.outcomes {
			again := *op
			if err := l.settle(t.Context(), &again, out, nil); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		state := b.texts(t, `SELECT state FROM operations WHERE id = $1`, op.ID)
		store := b.texts(t, `SELECT status FROM resources WHERE id = $1`, *op.SubjectID)
		ids := b.texts(t, `SELECT wechat_id FROM wechat_id_ledger WHERE operation_id = $1 ORDER BY seen_at`, op.ID)
		if state != tc.state || store != tc.store || ids != tc.ids {
			t.Errorf("%s: operation %s, store %s, ids %q, want %s, %s, %q", name, state, store, ids, tc.state, tc.store, tc.ids)
		}
	}

	if got := b.texts(t, `SELECT status FROM audits WHERE wechat_audit_id IS NULL`); got != "submit_failed,submit_failed" {
		t.Errorf("audits that were inferred only: %s", got)
	}

	// The answer to the first attempt, found while the second one runs.
	op := b.began(t, "twice")
	first := *op
	if err := l.settle(t.Context(), op, unknown, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.restart(t.Context(), op, "reconciling"); err != nil {
		t.Fatal(err)
	}
	if err := l.settle(t.Context(), &first, executed(FromSpool, "9"), nil); err != nil {
		t.Fatal(err)
	}
	if got := b.texts(t, `SELECT state || ' ' || attempt FROM operations WHERE id = $1`, op.ID); got != "executing 2" {
		t.Errorf("the second attempt was settled by the first one's answer: %s", got)
	}
	if got := b.texts(t, `SELECT wechat_audit_id FROM audits WHERE operation_id = $1`, op.ID); got != "9" {
		t.Errorf("the first attempt's audit: %q", got)
	}
}

// Of all that look, in two processes, one takes an operation; and only once
// its time has come.
func TestOneLooks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	op := b.began(t, "one")
	due := postgres.Due{Tenant: op.TenantID, ID: op.ID}
	if early, err := b.ledgers[1].take(t.Context(), due, nil); early != nil || err != nil {
		t.Fatalf("another process took what is being executed: %v, %v", early, err)
	}
	b.texts(t, `UPDATE operations SET next_check_at = now() - interval '1 second' RETURNING state`)
	for round := range 5 {
		var taken atomic.Int64
		var lookers sync.WaitGroup
		for i := range 20 {
			lookers.Go(func() {
				got, err := b.ledgers[i%2].take(t.Context(), due, nil)
				if err != nil {
					t.Error(err)
				}
				if got != nil {
					taken.Add(1)
				}
			})
		}
		lookers.Wait()
		if n := taken.Load(); n != 1 {
			t.Errorf("round %d: %d took it", round, n)
		}
		b.texts(t, `UPDATE operations SET next_check_at = now() - interval '1 second' RETURNING state`)
	}
	// Both want to send it again: one does.
	if _, err := b.ledgers[0].take(t.Context(), due, nil); err != nil {
		t.Fatal(err)
	}
	mine, theirs := *op, *op
	if err := b.ledgers[0].restart(t.Context(), &mine, "reconciling"); err != nil || mine.Attempt != 2 {
		t.Fatalf("attempt %d, %v", mine.Attempt, err)
	}
	if err := b.ledgers[1].restart(t.Context(), &theirs, "reconciling"); !postgres.IsCode(err, postgres.RefusedState) || theirs.Attempt != 1 {
		t.Errorf("the second one sends too: attempt %d, %v", theirs.Attempt, err)
	}
}

// What a dead process on the same spool directory was executing, or looking at,
// is its successor's at once, though no lease has ended; nobody else's, and not
// what the successor itself has taken up meanwhile.
func TestSuccessorTakesOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dead, other := b.ledgers[0], b.ledgers[1]
	executing, looked := b.beganOf(t, sound, "executing"), b.beganOf(t, sound, "looked at")
	b.texts(t, `UPDATE operations SET next_check_at = now() - interval '1 second' WHERE id = $1 RETURNING state`, looked.ID)
	if op, err := dead.take(t.Context(), postgres.Due{Tenant: looked.TenantID, ID: looked.ID}, nil); op == nil || err != nil {
		t.Fatalf("no look began: %v", err)
	}
	if err := other.Replay(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	other.work.Wait()
	if got := b.texts(t, `SELECT state FROM operations ORDER BY state`); got != "executing,reconciling" {
		t.Errorf("a stranger took over: %s", got)
	}

	successor := New(dead.Deps)
	left, err := successor.left(t.Context())
	if err != nil || len(left) != 2 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
	for d, at := range left {
		var taken atomic.Int64
		var lookers sync.WaitGroup
		for range 8 {
			lookers.Go(func() {
				if op, err := successor.take(t.Context(), d, &at); err != nil {
					t.Error(err)
				} else if op != nil {
					taken.Add(1)
				}
			})
		}
		lookers.Wait()
		if n := taken.Load(); n != 1 {
			t.Errorf("%d took it over", n)
		}
	}

	// The successor died too, in those looks.
	last := New(dead.Deps)
	if err := last.Replay(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	last.work.Wait()
	for _, op := range []*Operation{executing, looked} {
		if got := b.texts(t, `SELECT state FROM operations WHERE id = $1`, op.ID); got != "succeeded" {
			t.Errorf("%s: %s", *op.SubjectID, got)
		}
	}
}

// At most one creation at a place is open, whoever asks; afterwards there may
// be another.
func TestOneOpenWriteOfAKind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var begun, refused atomic.Int64
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			_, err := b.ledgers[i%2].begin(t.Context(), b.write("there"))
			switch {
			case err == nil:
				begun.Add(1)
			case postgres.IsUnique(err, "operations_one_active"):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if begun.Load() != 1 || refused.Load() != 19 {
		t.Errorf("%d began, %d were refused", begun.Load(), refused.Load())
	}
	if got := b.texts(t, `SELECT count(*)::text FROM resources`); got != "1" {
		t.Errorf("%s stores", got)
	}
	b.texts(t, `UPDATE operations SET state = 'failed', finished_at = now() RETURNING state`)
	if _, err := b.ledgers[0].begin(t.Context(), b.write("there")); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

// A look that found nothing is repeated when it can decide something, not
// before, however late the first one came.
func TestNextLookCanDecide(t *testing.T) {
	t.Parallel()
	sent := time.Unix(1_800_000_000, 0)
	late := sent.Add(43500 * time.Millisecond) // due at 42 s
	_, since := DefaultSchedule.Absence(sent, late, nil)
	next := DefaultSchedule.Next(sent, late, since)
	if certain, _ := DefaultSchedule.Absence(sent, next, since); !certain || next.Sub(sent) > 104*time.Second {
		t.Errorf("the next look, %s after the send, decides nothing", next.Sub(sent))
	}
	// Also where WeChat couldn't be asked before the looks became rare.
	first := sent.Add(31 * time.Minute)
	_, since = DefaultSchedule.Absence(sent, first, nil)
	next = DefaultSchedule.Next(sent, first, since)
	if certain, _ := DefaultSchedule.Absence(sent, next, since); !certain || next.Sub(first) > 2*time.Minute {
		t.Errorf("the next look comes %s after the first that found nothing", next.Sub(first))
	}
	if again := DefaultSchedule.Again(sent, first, nil); again.Sub(first) != time.Minute {
		t.Errorf("WeChat is asked again %s after it couldn't be", again.Sub(first))
	}
	if again := DefaultSchedule.Again(sent, sent.Add(time.Second), nil); again.Sub(sent) != 2*time.Second {
		t.Errorf("WeChat is asked again %s after the send", again.Sub(sent))
	}
}

// A look may show a rejection before its event tells why: the reason is kept,
// and neither replaced nor given to another end.
func TestReasonToldLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	op := b.beganOf(t, storeCreate, "place")
	if err := l.settle(t.Context(), op, executed(FromResponse, "4711"), nil); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		news News
		want string
	}{
		{News{Source: FromPoll, Status: Rejected}, "rejected: "},
		{News{Source: FromEvent, Status: Approved, Reason: "fine"}, "rejected: "},
		{News{Source: FromEvent, Status: Rejected, Reason: "blurred"}, "rejected: blurred"},
		{News{Source: FromEvent, Status: Rejected, Reason: "again"}, "rejected: blurred"},
	} {
		tc.news.Kind, tc.news.AuditID, tc.news.At = "store_create", "4711", time.Now()
		if _, err := l.ApplyNews(t.Context(), op.Merchant, tc.news); err != nil {
			t.Fatal(err)
		}
		if got := b.texts(t, `SELECT status || ': ' || coalesce(reason, '') FROM audits WHERE wechat_audit_id = '4711'`); got != tc.want {
			t.Errorf("after %s %q: %q, want %q", tc.news.Status, tc.news.Reason, got, tc.want)
		}
	}
}

// A write's answer isn't read back: what it tells is what stands in its record,
// to the last digit, or its ETag would be of nothing that is ever shown again.
func TestNextCheckIsTheRecords(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	for _, k := range []*Kind{storeCreate, mapPOICreate} {
		op := b.beganOf(t, k, "place")
		if err := l.settle(t.Context(), op, Outcome{Class: wechat.Ambiguous, Source: FromResponse}, nil); err != nil {
			t.Fatal(err)
		}
		kept, err := l.load(t.Context(), op.TenantID, op.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if kept.NextCheckAt == nil || op.NextCheckAt == nil || !kept.NextCheckAt.Equal(*op.NextCheckAt) {
			t.Errorf("%s: told %v, kept %v", k.Name, op.NextCheckAt, kept.NextCheckAt)
		}
	}
}
