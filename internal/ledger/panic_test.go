package ledger

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/wechat"
)

// faulty is a kind with a bug in whatever it does.
var faulty = register(&Kind{
	Name: "test.faulty", Subject: "store", Endpoint: wechat.AddStore,
	Settle: func(*postgres.Batch, *Operation, Outcome) error { panic("settled wrongly") },
	Prove:  func(context.Context, *Ledger, *Operation) (Proof, error) { panic("looked wrongly") },
})

var sound = register(&Kind{
	Name: "test.sound", Subject: "store", Endpoint: wechat.AddStore,
	Prove: func(context.Context, *Ledger, *Operation) (Proof, error) { return Proof{Verdict: Present}, nil },
})

func (b *bundle) beganOf(t *testing.T, k *Kind, place string) *Operation {
	t.Helper()
	w := b.write(place)
	w.Kind = k
	op, err := b.ledgers[0].begin(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// A bug in what is done for one operation ends neither the process nor the
// looks at others, and costs no id.
func TestPanic(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	bad := b.beganOf(t, faulty, "bad")
	b.beganOf(t, sound, "good")
	b.texts(t, `UPDATE operations SET next_check_at = now() - interval '1 second' RETURNING state`)
	if err := l.ReconcileDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.texts(t, `SELECT state FROM operations ORDER BY id = $1`, bad.ID); got != "succeeded,reconciling" {
		t.Errorf("the operations are %s, want the good one succeeded and the bad one open", got)
	}
	if got := b.texts(t, `SELECT (next_check_at > now())::text FROM operations WHERE id = $1`, bad.ID); got != "true" {
		t.Error("the bad one is looked at again at once")
	}

	out := executed(FromResponse, "4711")
	select {
	case c := <-l.settleInBackground(t.Context(), bad, out, nil):
		if _, ok := errors.AsType[*observe.Panic](c.err); !ok || !strings.Contains(c.err.Error(), "settled wrongly") {
			t.Errorf("settled with %v, want the panic", c.err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("whoever waits for the outcome waits for ever")
	}
	if got := b.texts(t, `SELECT wechat_id FROM wechat_id_ledger`); got != "4711" {
		t.Errorf("ids kept: %q", got)
	}
}
