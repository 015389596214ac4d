package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// given are the writes whose replies give ids, each with the members that hold
// them, and the documents' own replies.
var given = map[*Kind]struct {
	examples []string
	members  map[string][]string // by name: the types
	nested   string              // the member around them
}{
	storeCreate:  {[]string{"add_store", "add_store_002"}, map[string][]string{"audit_id": {AuditID}}, "data"},
	storeUpdate:  {[]string{"update_store", "update_store_003"}, map[string][]string{"audit_id": {AuditID}}, "data"},
	mapPOICreate: {[]string{"create_map_poi"}, map[string][]string{"base_id": {BaseID, AuditID}, "rich_id": {RichID}}, "data"},
	legacyCreate: {[]string{"addpoi"}, map[string][]string{"poi_id": {LegacyPoiID}}, ""},
	goodsCreate:  {[]string{"goods_add"}, map[string][]string{"goodsId": {GoodsID}, "auditId": {AuditID}}, ""},
	goodsAudit:   {[]string{"goods_audit"}, map[string][]string{"auditId": {AuditID}}, ""},
}

// What an upload gives is no number, and a second upload does no harm.
func TestEveryKindThatGivesIDsIsTried(t *testing.T) {
	t.Parallel()
	for name, k := range kinds {
		gives := k.IDs != nil && k.Endpoint.Risk != wechat.Harmless && !strings.HasPrefix(name, "test.")
		if _, ok := given[k]; ok != gives {
			t.Errorf("%s: gives ids %v, tried %v", name, gives, ok)
		}
	}
}

func ofKind(k *Kind) *Operation {
	op := &Operation{Kind: k}
	op.Attempt = 1
	return op
}

// A document's reply that is cut anywhere proves nothing, nor does one with a
// broken byte anywhere prove that nothing was done; an id whose digits are there
// whole is kept.
func TestCutReplies(t *testing.T) {
	t.Parallel()
	for kind, g := range given {
		for _, file := range g.examples {
			b, err := os.ReadFile(filepath.Join("..", "wechat", "testdata", "documents", file+".reply"))
			if err != nil {
				t.Fatal(err)
			}
			type end struct {
				id ID
				at int // behind the byte that ends it
			}
			var ends []end
			for name, types := range g.members {
				_, after, found := strings.Cut(string(b), `"`+name+`"`)
				if !found {
					continue
				}
				digits := strings.TrimLeft(after, `: "`)
				at := len(b) - len(digits)
				digits = digits[:len(digits)-len(strings.TrimLeft(digits, "0123456789"))]
				for _, typ := range types {
					ends = append(ends, end{ID{typ, digits}, at + len(digits) + 1})
				}
			}
			if len(ends) == 0 {
				t.Fatalf("%s has no id", file)
			}
			whole := len(strings.TrimSpace(string(b)))
			for n := range whole {
				out := judge(ofKind(kind), wechat.Reply{Status: 200, Body: b[:n]}, nil, FromResponse)
				if out.Class != wechat.Ambiguous {
					t.Fatalf("%s, %d bytes of it: %s", file, n, out.Class)
				}
				for _, e := range ends {
					if slices.Contains(out.IDs, e.id) != (n >= e.at) {
						t.Fatalf("%s, %d bytes of it: ids %v, %s ends at %d", file, n, out.IDs, e.id.Value, e.at)
					}
				}
				if cut := judge(ofKind(kind), wechat.Reply{Body: b[:n]}, &wechat.Error{Class: wechat.Ambiguous, Err: io.ErrUnexpectedEOF}, FromResponse); cut.Class != wechat.Ambiguous || !cmp.Equal(cut.IDs, out.IDs) {
					t.Fatalf("%s, %d bytes of it before the connection ended: %s, ids %v, want %v", file, n, cut.Class, cut.IDs, out.IDs)
				}
				broken := slices.Concat(b[:n], []byte{0x01}, b[n+1:])
				if out := judge(ofKind(kind), wechat.Reply{Status: 200, Body: broken}, nil, FromResponse); out.Class == wechat.Refused || out.Class == wechat.NotSent {
					t.Fatalf("%s, broken at %d: %s", file, n, out.Class)
				}
			}
		}
	}
}

// Whatever a reply says, its ids are found; it is a success only with errcode 0,
// and a refusal only with an errcode that a document lists as one.
func TestJudgeAnyReply(t *testing.T) {
	t.Parallel()
	codes := []int64{0}
	for _, row := range wechat.Errcodes() {
		codes = append(codes, row.Errcode)
	}
	all := make([]*Kind, 0, len(given))
	for k := range given {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *Kind) int { return strings.Compare(a.Name, b.Name) })
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom(all).Draw(t, "kind")
		code := rapid.OneOf(rapid.SampledFrom(codes), rapid.Int64Range(-5, 400_000)).Draw(t, "errcode")
		status := rapid.SampledFrom([]int{200, 200, 200, 200, 0, 301, 400, 429, 500, 502, 503, 504}).Draw(t, "status")
		inner, members := map[string]any{}, given[kind].members
		var want []ID
		names := make([]string, 0, len(members))
		for name := range members {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if !rapid.Bool().Draw(t, "has "+name) {
				continue
			}
			id := rapid.StringMatching(`[1-9][0-9]{0,18}`).Draw(t, name)
			inner[name] = json.Number(id)
			if rapid.Bool().Draw(t, "as text") {
				inner[name] = id
			}
			for _, typ := range members[name] {
				want = append(want, ID{typ, id})
			}
		}
		reply := inner
		if nested := given[kind].nested; nested != "" {
			reply = map[string]any{nested: inner}
		}
		reply["errcode"] = code
		reply["errmsg"] = rapid.SampledFrom([]string{"ok", `"audit_id":5,`, "系统繁忙"}).Draw(t, "errmsg")
		body, err := json.Marshal(reply)
		if err != nil {
			t.Fatal(err)
		}
		whole := rapid.Bool().Draw(t, "whole")
		if !whole {
			body = body[:rapid.IntRange(0, len(body)-1).Draw(t, "length")]
		}
		op := ofKind(kind)
		op.Attempt = rapid.Int32Range(1, 3).Draw(t, "attempt")
		op.unproven = op.Attempt > 1 && rapid.Bool().Draw(t, "unproven")
		out := judge(op, wechat.Reply{Status: status, Body: body}, nil, FromResponse)
		for _, id := range out.IDs {
			if !slices.Contains(want, id) {
				t.Fatalf("%s: an id that isn't there, %v, in %s", kind.Name, id, body)
			}
		}
		for _, id := range want {
			if whole && !slices.Contains(out.IDs, id) {
				t.Fatalf("%s: ids %v, want %v, of %s", kind.Name, out.IDs, want, body)
			}
		}
		row, listed := kind.Endpoint.Errcode(code)
		var proven wechat.Class // by the table
		switch readable := status == 200 && whole; {
		case readable && code == 0:
			proven = wechat.Executed
		case readable && listed:
			proven = row.Class
		}
		if out.Class == wechat.Ambiguous {
			// A kind may doubt more than the table, and give up what does no harm.
			if proven == wechat.Executed && op.Kind.Gives == "" && kind != mapPOICreate {
				t.Fatalf("%s: a success that is doubted: %s", kind.Name, body)
			}
			if proven != wechat.Ambiguous && kind.Judge == nil && kind.Gives == "" && kind != mapPOICreate && !op.unproven {
				t.Fatalf("%s: %s is doubted, want %s", kind.Name, body, proven)
			}
			return
		}
		if out.Class != proven {
			t.Fatalf("%s, status %d: %s for %s, want %s", kind.Name, status, out.Class, body, proven)
		}
		if need := kind.Gives; out.Class == wechat.Executed && need != "" && out.ID(need) == "" {
			t.Fatalf("%s: a success without %s: %s", kind.Name, need, body)
		}
		if op.unproven && out.Class != wechat.Executed && kind.Endpoint.Risk != wechat.Overwrite {
			t.Fatalf("%s: %s after an attempt that nobody knows the fate of: %s", kind.Name, out.Class, body)
		}
		if (out.Err == nil) != (out.Class == wechat.Executed) {
			t.Fatalf("%s: %s with the problem %v", kind.Name, out.Class, out.Err)
		}
	})
}

// Without a reply nothing was executed only where that is certain.
func TestJudgeWithoutReply(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if k.Endpoint == nil {
			continue
		}
		for err, want := range map[error]wechat.Class{
			&wechat.Error{Class: wechat.NotSent, Err: errors.New("refused")}:                     wechat.NotSent,
			&wechat.Error{Class: wechat.Ambiguous, Err: io.EOF}:                                  wechat.Ambiguous,
			fmt.Errorf("wrapped: %w", &wechat.Error{Class: wechat.NotSent, Err: io.EOF}):         wechat.NotSent,
			errors.New("no word on whether it was sent"):                                         wechat.Ambiguous,
			problem.Of(problem.CodeComponentTicketStale):                                         wechat.NotSent,
			problem.Of(problem.CodeMerchantTokenUnavailable).WithErr(&wechat.Error{Err: io.EOF}): wechat.NotSent,
		} {
			op := ofKind(k)
			out := judge(op, wechat.Reply{}, err, FromResponse)
			if out.Class != want || out.GivenUp != (want == wechat.Ambiguous && k.Endpoint.Risk == wechat.Harmless) {
				t.Errorf("%s: %v: %s, given up %v, want %s", k.Name, err, out.Class, out.GivenUp, want)
			}
			op.unproven = true
			if out := judge(op, wechat.Reply{}, err, FromResponse); out.Class != wechat.Ambiguous {
				t.Errorf("%s: %v, after an attempt that nobody knows the fate of: %s", k.Name, err, out.Class)
			}
		}
	}
}
