package wechat

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What an errcode proves, by the plan (design reliability.md §2, api.md §6), for
// each call: the catalogue may say nothing else. Whatever is not listed here and
// is in the catalogue is a refusal.
func TestTaxonomyOfErrcodes(t *testing.T) {
	t.Parallel()
	tokens := []int64{40001, 42001, 40014, 42006}
	tickets := []int64{61005, 61006}
	busy := []int64{-1, 3001, 200001}
	codes := []int64{-999, -2, 1, 2, 999, 12345, 65535, 87654321, 299999, 300000, 300022, 399999, codeless - 1}
	for code := range errcodes {
		codes = append(codes, code)
	}
	tried := map[Risk]int{}
	for name, d := range declared {
		e := d.endpoint
		for _, code := range codes {
			_, listed := e.Errcode(code)
			want := Ambiguous
			switch {
			case name == "DelStore" && code == -1:
				want = Refused // documents 000 §4.12: "failed to delete"
			case slices.Contains(busy, code):
			case slices.Contains(tokens, code):
				want = TokenRejected
			case slices.Contains(tickets, code), e.Family == FamilyComponent && (code == 40091 || code == 40094):
				want = TicketRefused
			case e.Family == FamilyGoods && (code == 300008 || code == 300013):
			case e.Family == FamilyGoods && code == 300021:
				want = Executed
			case listed:
				want = Refused
			}
			for _, body := range []string{
				fmt.Sprintf(`{"errcode":%d,"errmsg":"x"}`, code),
				fmt.Sprintf(`{"errcode":"%d","data":{"audit_id":1,"base_id":2},"goodsId":3,"url":"u"}`, code),
			} {
				got, err := Classify(e, Reply{Status: 200, Body: []byte(body)})
				if got != want || err == nil || err.Class != want {
					t.Errorf("%s: %s is %s (%v), want %s", name, body, got, err, want)
				}
				for _, status := range []int{0, 100, 201, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504, 520} {
					if got, _ := Classify(e, Reply{Status: status, Body: []byte(body)}); got != Ambiguous {
						t.Fatalf("%s: status %d with %s is %s", name, status, body, got)
					}
				}
			}
			tried[d.risk]++
		}
	}
	if len(tried) != int(Harmless)+1 {
		t.Errorf("tried the risks %v", tried)
	}
}

// A document's reply that ends anywhere before its end proves nothing, and a
// whole one proves nothing with another status.
func TestTaxonomyOfCutReplies(t *testing.T) {
	t.Parallel()
	tried := 0
	for name, x := range examples() {
		if x.reply == "" {
			continue
		}
		whole := strings.TrimSpace(mended(t, x.reply, x.mend...))
		if class, err := Classify(x.endpoint, Reply{Status: 200, Body: []byte(whole)}); class != Executed {
			t.Errorf("%s: the whole reply is %s, %v", name, class, err)
		}
		for n := range len(whole) {
			if class, _ := Classify(x.endpoint, Reply{Status: 200, Body: []byte(whole[:n])}); class != Ambiguous {
				t.Fatalf("%s: %d of %d bytes are %s", name, n, len(whole), class)
			}
			tried++
		}
	}
	if tried < 5000 {
		t.Errorf("tried %d cuts only", tried)
	}
}
