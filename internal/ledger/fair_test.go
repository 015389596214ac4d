package ledger

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/wechat"
)

var (
	hung = make(chan uuid.UUID, 2*looksAtOnce)
	seen = make(chan uuid.UUID)

	hanging = register(&Kind{
		Name: "test.hanging", Subject: "store", Endpoint: wechat.AddStore,
		Prove: func(ctx context.Context, _ *Ledger, op *Operation) (Proof, error) {
			hung <- op.ID
			<-ctx.Done()
			return Proof{}, ctx.Err()
		},
	})
	passing = register(&Kind{
		Name: "test.passing", Subject: "store", Endpoint: wechat.AddStore,
		Prove: func(_ context.Context, _ *Ledger, op *Operation) (Proof, error) {
			seen <- op.ID
			return Proof{Verdict: Present}, nil
		},
	})
)

// One tenant has two thousand operations to be looked at, and each look hangs:
// they take up half of those who look, and another tenant's are looked at at
// once, what waits with them and what comes due later.
func TestBacklogOfAnotherTenant(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var one *Operation
	for range looksAtOnce + 1 {
		one = b.beganOf(t, hanging, uuid.NewString())
	}
	b.texts(t, `UPDATE operations SET next_check_at = now() - interval '2 hours' RETURNING ''`)
	for n := range 10 { // each within the time that a statement may take on a busy machine
		b.texts(t, `INSERT INTO operations SELECT (jsonb_populate_record(o, jsonb_build_object('id', gen_random_uuid(),
				'match_key', jsonb_build_object('natural', n), 'next_check_at', now() - interval '1 hour'))).*
			FROM operations o, generate_series($2::int + 1, $2::int + 200) n WHERE o.id = $1 RETURNING ''`, one.ID, 200*n)
	}
	other := b.another(t)
	due := func() *Operation {
		op := other.beganOf(t, passing, uuid.NewString())
		other.texts(t, `UPDATE operations SET next_check_at = now() WHERE id = $1 RETURNING ''`, op.ID)
		return op
	}
	first := due()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.ledgers[0].ReconcileDue(ctx) }()
	lookedAt := func(op *Operation) {
		t.Helper()
		select {
		case id := <-seen:
			if id != op.ID {
				t.Errorf("operation %s is looked at, want %s", id, op.ID)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("nobody looks at the other tenant's operation")
		}
	}
	lookedAt(first)
	for range looksAtOnce / 2 {
		<-hung
	}
	lookedAt(due())
	lookedAt(due())
	select {
	case <-hung:
		t.Error("more than half of the looks hang")
	default:
	}
	cancel()
	<-ended
}
