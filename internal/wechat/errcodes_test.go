package wechat

import "testing"

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
