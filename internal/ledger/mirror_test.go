package ledger

import (
	"context"
	"testing"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/wechat"
)

// What a creation that hasn't ended may have made is not discovered, and no day
// goes by before WeChat is asked for it again: a merchant that creates a store as
// soon as it has authorised us has those that were there before, too.
func TestComparedWhileCreating(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	l.Stores.Each = func(_ context.Context, _ *Ledger, _ authorizer.Merchant, yield func(Shown)) (bool, error) {
		yield(Shown{Number: "501", Status: "active", Fields: StoreFields{}, Hash: func() []byte { return hashOf(1) }})
		return true, nil
	}
	compare := func() string {
		t.Helper()
		b.texts(t, `UPDATE merchants SET inventory_due_at = now() WHERE id = $1 RETURNING ''`, b.merchant.ID)
		if err := l.inventory(t.Context(), postgres.Due{Tenant: b.merchant.TenantID, ID: b.merchant.ID}); err != nil {
			t.Fatal(err)
		}
		return b.texts(t, `SELECT CASE WHEN inventory_due_at < now() + interval '20 minutes' THEN 'soon' ELSE 'tomorrow' END ||
			(SELECT count(*) FROM resources WHERE wechat_id = '501') FROM merchants WHERE id = $1`, b.merchant.ID)
	}
	op := b.began(t, "here")
	if got := compare(); got != "soon0" {
		t.Errorf("with an open creation: %s", got)
	}
	if err := l.settle(t.Context(), op, Outcome{Class: wechat.Refused, Source: FromResponse}, nil); err != nil {
		t.Fatal(err)
	}
	if got := compare(); got != "tomorrow1" {
		t.Errorf("after it: %s", got)
	}
}

// A comparison that is asked for while one runs comes after it.
func TestComparisonAskedForMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	l.Stores.Each = func(context.Context, *Ledger, authorizer.Merchant, func(Shown)) (bool, error) {
		b.texts(t, `UPDATE merchants SET inventory_due_at = now() WHERE id = $1 RETURNING ''`, b.merchant.ID) // as a new authorisation does
		return true, nil
	}
	b.texts(t, `UPDATE merchants SET inventory_due_at = now() WHERE id = $1 RETURNING ''`, b.merchant.ID)
	if err := l.inventory(t.Context(), postgres.Due{Tenant: b.merchant.TenantID, ID: b.merchant.ID}); err != nil {
		t.Fatal(err)
	}
	if got := b.texts(t, `SELECT (inventory_due_at <= now())::text FROM merchants WHERE id = $1`, b.merchant.ID); got != "true" {
		t.Errorf("due at once: %s", got)
	}
}

// Only a reply that is the same as one that was compared needs no look.
func TestIsShown(t *testing.T) {
	t.Parallel()
	same, other := Shown{Hash: func() []byte { return hashOf("same") }}, Shown{Hash: func() []byte { return hashOf("other") }}
	unread := Shown{Hash: func() []byte { t.Error("looked again"); return nil }}
	k := &knownNumber{hash: hashOf("same")}
	for i, x := range []struct {
		shown Shown
		mark  wechat.Mark
		want  bool
	}{{other, 7, false}, {other, 7, false}, {same, 8, true}, {unread, 8, true}, {other, 9, false}, {other, 0, false}, {same, 0, true}, {other, 0, false}, {same, 9, true}} {
		if got := k.isShown(x.shown, x.mark); got != x.want {
			t.Errorf("%d: %t", i, got)
		}
	}
	if (*knownNumber)(nil).isShown(same, 8) {
		t.Error("what we don't know")
	}
}
