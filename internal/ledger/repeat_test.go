package ledger

import (
	"context"
	"io"
	"testing"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/wechat"
)

// What WeChat shows nowhere: a change, and a submission whose audit is told of.
var (
	hidden = register(&Kind{
		Name: "test.hidden", Subject: "store", Endpoint: wechat.ModifyMerchant,
		Prove: func(context.Context, *Ledger, *Operation) (Proof, error) { return Proof{Verdict: Unshown}, nil },
	})
	hiddenUntilAudited = register(&Kind{
		Name: "test.hidden_until_audited", Subject: "store", Endpoint: wechat.ApplyMerchant, AuditKind: "store_program",
		Prove: hidden.Prove,
	})
)

// The fate of the first attempt is unknown, and of what follows it nothing is
// sent: no token is to be had. That proves nothing of the first one, which is
// never called failed: it is a person's in the end, or its audit's.
func TestNothingSentAfterAnUnknownAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := New(b.ledgers[0].Deps)
	l.Schedule.Settled, l.Schedule.Apart = 0, 0 // every look counts
	for name, tc := range map[string]struct {
		kind     *Kind
		age      string
		looks    int
		attempts string
		state    string
	}{
		"sent again, and not sent":           {hidden, "0", 2, "2", "reconciling"},
		"a change, all attempts used up":     {hidden, "0", 5, "3", "needs_attention"},
		"a submission, all attempts used up": {hiddenUntilAudited, "0", 6, "3", "reconciling"},
		"a change, too late to be repeated":  {hidden, "2 hours", 1, "1", "needs_attention"},
		"a submission, too late for that":    {hiddenUntilAudited, "2 hours", 3, "1", "reconciling"},
		"a submission, after a day":          {hiddenUntilAudited, "2 days", 1, "1", "needs_attention"},
	} {
		op := b.beganOf(t, tc.kind, name)
		if err := l.settle(t.Context(), op, Outcome{Class: wechat.Ambiguous, Source: FromResponse}, nil); err != nil {
			t.Fatal(err)
		}
		b.texts(t, `UPDATE operations SET created_at = now() - $2::text::interval, sent_at = now() - $2::text::interval WHERE id = $1 RETURNING ''`, op.ID, tc.age)
		for range tc.looks {
			b.texts(t, `UPDATE operations SET next_check_at = now() WHERE id = $1 AND state = 'reconciling' RETURNING ''`, op.ID)
			if err := l.ReconcileDue(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.texts(t, `SELECT attempt || ' ' || state FROM operations WHERE id = $1`, op.ID); got != tc.attempts+" "+tc.state {
			t.Errorf("%s: after %d looks attempt %s, want %s %s", name, tc.looks, got, tc.attempts, tc.state)
		}
	}
}

// Nor does an answer of WeChat's to such an attempt, unless it refuses a change
// for good: it would have refused the first one too.
func TestRefusedAfterAnUnknownAttempt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind *Kind
		body string
		want wechat.Class
	}{
		{storeProgramModify, `{"errcode":0,"errmsg":"ok"}`, wechat.Executed},
		{storeProgramModify, `{"errcode":85049}`, wechat.Ambiguous}, // the month's changes are used up, by the first one perhaps
		{storeProgramModify, `{"errcode":40001}`, wechat.Ambiguous},
		{storeProgramModify, `{"errcode":-1}`, wechat.Ambiguous},
		{storeProgramModify, `{"errcode":85036}`, wechat.Refused},  // what it says violates the rules
		{storeProgramApply, `{"errcode":85029}`, wechat.Ambiguous}, // the name is taken, by the first one perhaps
		{storeProgramApply, `{"errcode":85050}`, wechat.Executed},  // the first one is under audit
	} {
		op := &Operation{Kind: tc.kind, unproven: true}
		op.Attempt, op.Baseline = 2, []byte(`{"audit_id":"","status":0}`)
		if got := judge(op, wechat.Reply{Status: 200, Body: []byte(tc.body)}, nil, FromSpool); got.Class != tc.want {
			t.Errorf("%s: %s: %s, want %s", tc.kind.Name, tc.body, got.Class, tc.want)
		}
	}
}

// A caller may leave as a further attempt begins, or the connection break on
// T1's way: the attempt goes on, or is known not to have been sent. Otherwise it
// would be "executing" with nobody who executes, and a place for the map would
// wait a week for the event of what was never sent.
func TestFurtherAttemptCutShort(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := New(b.ledgers[0].Deps)
	op := b.beganOf(t, mapPOICreate, "place")
	if err := l.settle(t.Context(), op, Outcome{Class: wechat.NotSent, Source: FromResponse}, nil); err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := l.restart(gone, op, "failed"); err != nil {
		t.Fatalf("the caller left, and %v", err)
	}
	const now = `SELECT attempt || ' ' || state FROM operations WHERE id = $1`
	if got := b.texts(t, now, op.ID); got != "2 executing" {
		t.Fatalf("begun again: %s", got)
	}
	_ = l.neverSent(gone, op, io.ErrUnexpectedEOF)
	l.Close(t.Context())
	if got := b.texts(t, now, op.ID); got != "2 failed" {
		t.Errorf("after a T1 of which nobody knows: %s", got)
	}
}

// A repeated request is answered with the resource as it stands, which shows
// what was begun since and is open.
func TestRepeatShowsWhatIsOpenNow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	first := b.write("place")
	first.IdempotencyKey, first.Fingerprint = "first", []byte("same")
	created, err := l.begin(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.settle(t.Context(), created, executed(FromResponse, "1"), nil); err != nil {
		t.Fatal(err)
	}
	b.texts(t, `UPDATE resources SET wechat_id = '5', status = 'active' RETURNING status`)
	second := b.write("5")
	second.Kind, second.Subject = storeUpdate, first.Subject
	second.Begin = func(batch *postgres.Batch, op *Operation) error {
		batch.Queue(dbsqlc.ResourceClaimForWrite, dbsqlc.ResourceClaimForWriteParams{TenantID: op.TenantID, ID: first.Subject, OperationID: &op.ID, States: []string{"active"}})
		return nil
	}
	updating, err := l.begin(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.settle(t.Context(), updating, Outcome{Class: wechat.Ambiguous, Source: FromResponse}, nil); err != nil {
		t.Fatal(err)
	}
	store, done, err := l.Stores.create(t.Context(), first.Request, creation{Kind: storeCreate, Natural: "place", Fields: StoreFields{}})
	if err != nil || !done.Replayed || done.Operation.ID != created.ID {
		t.Fatalf("%+v, %v", done, err)
	}
	if store.ID != first.Subject || store.Operation == nil || store.Operation.ID != updating.ID || store.Operation.State != "reconciling" {
		t.Errorf("store %s shows %+v, want %s", store.ID, store.Operation, updating.ID)
	}
}
