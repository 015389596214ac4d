package ledger

import (
	"context"
	"testing"

	"github.com/mendian/mendian/internal/wechat"
)

var told = register(&Kind{
	Name: "test.told", Subject: "store", Endpoint: wechat.AddStore, AuditKind: "store_create", IDs: idsNamed(auditIDs),
	Prove: func(context.Context, *Ledger, *Operation) (Proof, error) {
		return Proof{Verdict: Present, IDs: []ID{{PoiID, "12"}}}, nil
	},
})

// No read tells the number of an audit. A reply that proved nothing may have: it
// is the audit's, once a look has proven that there is one.
func TestIDsOfAReplyThatProvedNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := b.ledgers[0]
	for place, tc := range map[string]struct {
		reply wechat.Reply
		err   error
		want  string
	}{
		"bad gateway":    {wechat.Reply{Status: 502, Body: []byte(`{"errcode":0,"data":{"audit_id":4711}}`)}, nil, "4711"},
		"cut short":      {wechat.Reply{Status: 200, Body: []byte(`{"errcode":0,"data":{"audit_id":4712}`)}, nil, "4712"},
		"cut off":        {wechat.Reply{Body: []byte(`{"data":{"audit_id":"4713"`)}, &wechat.Error{Class: wechat.Ambiguous}, "4713"},
		"cut in the id":  {wechat.Reply{Body: []byte(`{"data":{"audit_id":471`)}, &wechat.Error{Class: wechat.Ambiguous}, "none"},
		"nothing at all": {wechat.Reply{}, &wechat.Error{Class: wechat.Ambiguous}, "none"},
	} {
		op := b.beganOf(t, told, place)
		if err := l.settle(t.Context(), op, judge(op, tc.reply, tc.err, FromResponse), nil); err != nil {
			t.Fatal(err)
		}
		b.texts(t, `UPDATE operations SET next_check_at = now() - interval '1 second' WHERE id = $1 RETURNING state`, op.ID)
		if err := l.ReconcileDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.texts(t, `SELECT coalesce(wechat_audit_id, 'none') FROM audits WHERE operation_id = $1`, op.ID); got != tc.want {
			t.Errorf("%s: the audit has the number %q, want %q", place, got, tc.want)
		}
	}
}
