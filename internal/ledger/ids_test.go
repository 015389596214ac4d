package ledger

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
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

// Any bytes give ids that stand in them, digits and nothing else, and the more of
// a reply has come, the more ids: none turns out to be another.
func FuzzIDs(f *testing.F) {
	for _, g := range given {
		for _, file := range g.examples {
			b, err := os.ReadFile(filepath.Join("..", "wechat", "testdata", "documents", file+".reply"))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
			f.Add(b[:len(b)*3/4])
		}
	}
	for _, s := range []string{`{"errcode":300021,"goodsId":51}`, `{"goods_id":"9007199254740993","auditId" : 7 }`, `{"data":{"audit_id":0}}`, `{"audit_id":1e5}`, `"audit_id":"12`,
		`{"errmsg":"\"audit_id\":5,","audit_id":6}`, `{"poi_id":99999999999999999999999}`, `{"base_id" :" 3 ","rich_id":-4}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for k := range given {
			ids := k.IDs(wechat.Reply{Body: b})
			for i, id := range ids {
				if !anID.MatchString(id.Value) || !bytes.Contains(b, []byte(id.Value)) || slices.Contains(ids[:i], id) {
					t.Fatalf("%s: %v of %q", k.Name, ids, b)
				}
			}
			for _, id := range k.IDs(wechat.Reply{Body: b[:len(b)/2]}) {
				if !slices.Contains(ids, id) {
					t.Fatalf("%s: half of %q gives %v, all of it %v", k.Name, b, id, ids)
				}
			}
		}
	})
}
