package wechat

import (
	"strconv"
	"strings"
	"testing"
)

// The same number means different things (design api.md §6).
func TestErrcodesDifferByFamily(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		family Family
		code   int64
		want   string // "" when not listed
		class  Class
	}{
		{FamilyStore, -1, "wechat_system_error", Ambiguous},
		{FamilyGoods, 3001, "wechat_system_error", Ambiguous},
		{FamilyStore, 40001, "merchant_token_unavailable", TokenRejected},
		{FamilyComponent, 61005, "component_ticket_stale", TicketRefused},
		{FamilyComponent, 61023, "merchant_needs_reauthorization", Refused},
		{FamilyStore, 65115, "store_not_found", Refused},
		{FamilyGoods, 65115, "", 0},
		{FamilyStore, 85041, "credential_already_used", Refused},
		{FamilyGoods, 300008, "goods_add_failed", Ambiguous},
		{FamilyGoods, 300021, "audit_submit_failed", Executed},
		{FamilyStore, 300021, "", 0},
		{FamilyStore, 999999, "", 0},
	} {
		row, ok := LookupErrcode(tc.family, tc.code)
		if ok != (tc.want != "") || row.Code != tc.want || row.Class != tc.class {
			t.Errorf("LookupErrcode(%s, %d) = %+v, %t, want %q %s", tc.family, tc.code, row, ok, tc.want, tc.class)
		}
	}
	if row, _ := DelStore.Errcode(-1); row.Class != Refused || row.Code != "store_delete_failed" {
		t.Errorf("DelStore.Errcode(-1) = %+v, want refused: it means that nothing was deleted (documents 000 §4.12)", row)
	}
	if row, _ := AddStore.Errcode(-1); row.Class != Ambiguous {
		t.Errorf("AddStore.Errcode(-1) = %+v, want ambiguous", row)
	}
}

// Rows name calls that are declared here.
func TestErrcodeEndpointsExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, d := range declared {
		known[d.endpoint.Name] = true
	}
	for _, rows := range errcodes {
		for _, row := range rows {
			if row.Endpoint != "" && !known[row.Endpoint] {
				t.Errorf("errcode %d names the call %s, which is not declared", row.Errcode, row.Endpoint)
			}
		}
	}
}

// Every error code that a document lists for a call is in the catalogue, with
// a sentence for people (testdata/documents/errcodes.txt).
func TestDocumentsErrcodes(t *testing.T) {
	t.Parallel()
	checked := 0
	for line := range strings.Lines(example(t, "errcodes.txt")) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, " | ")
		if len(parts) != 3 {
			t.Fatalf("can't be read: %s", line)
		}
		for _, call := range strings.Fields(parts[1]) {
			e := declared[call].endpoint
			if e == nil {
				t.Fatalf("%s is no call: %s", call, line)
			}
			for _, field := range strings.Fields(parts[2]) {
				code, err := strconv.ParseInt(field, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				row, ok := e.Errcode(code)
				if !ok {
					t.Errorf("%s lists %d for %s, and api/errors.yaml doesn't", parts[0], code, call)
					continue
				}
				if row.Retry == "fix" && len(row.Pointers) == 0 && row.Code != "invalid_argument" {
					t.Errorf("%d of %s wants another value, and names no field", code, call)
				}
				checked++
			}
		}
	}
	if checked < 300 {
		t.Errorf("checked %d codes only", checked)
	}
}

func TestErrcodesAreAllListed(t *testing.T) {
	t.Parallel()
	rows := Errcodes()
	want := len(codelessRows)
	for _, some := range errcodes {
		want += len(some)
	}
	if len(rows) != want || rows[0].Errcode != 0 || rows[len(rows)-1].Errcode != 300021 {
		t.Errorf("%d rows from %d to %d, want %d", len(rows), rows[0].Errcode, rows[len(rows)-1].Errcode, want)
	}
}
