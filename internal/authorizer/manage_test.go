package authorizer

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

func TestFindMerchant(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	other, err := b.a().tenantsCreate(t, "other")
	if err != nil {
		t.Fatal(err)
	}
	id := typeid.Format(typeid.Merchant, m.ID)
	for _, ref := range []string{id, m.AppID} {
		if got, err := b.a().Merchant(t.Context(), b.tenant, ref); err != nil || got.ID != m.ID {
			t.Errorf("Merchant(%s) = %v, %v", ref, got.ID, err)
		}
		_, err := b.a().Merchant(t.Context(), other, ref)
		if got := codeOf(err); got != problem.CodeMerchantNotFound {
			t.Errorf("another tenant's Merchant(%s): %q", ref, got)
		}
	}
	for _, ref := range []string{"", "wx", "mch_", "sto_01jd7k4b2rf6z9t3n7r1s6v2zb", "wx0000000000000009", typeid.Format(typeid.Merchant, typeid.New()), "' OR 1=1 --"} {
		_, err := b.a().Merchant(t.Context(), b.tenant, ref)
		if got := codeOf(err); got != problem.CodeMerchantNotFound {
			t.Errorf("Merchant(%q): %q", ref, got)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	a := new(Authorizer)
	for _, tc := range []struct {
		m    Merchant
		e    *wechat.Endpoint
		want string
	}{
		{Merchant{Status: StatusAuthorized, PermissionSets: []int32{13}}, wechat.AddStore, ""},
		{Merchant{Status: StatusAuthorized, PermissionSets: []int32{9}}, wechat.AddStore, ""},
		{Merchant{Status: StatusAuthorized, PermissionSets: []int32{37}}, wechat.AddStore, problem.CodePermissionSetMissing},
		{Merchant{Status: StatusAuthorized, PermissionSets: []int32{37}}, wechat.SearchMapPOI, ""},
		{Merchant{Status: StatusAuthorized}, wechat.AddStore, problem.CodePermissionSetMissing},
		{Merchant{Status: StatusAuthorized, PermissionSets: []int32{13}, Disabled: true}, wechat.AddStore, problem.CodeMerchantDisabled},
		{Merchant{Status: StatusDeauthorized, PermissionSets: []int32{13}, Disabled: true}, wechat.AddStore, problem.CodeMerchantDeauthorized},
		{Merchant{Status: StatusNeedsReauthorization, PermissionSets: []int32{13}}, wechat.AddStore, problem.CodeMerchantNeedsReauthorization},
	} {
		if got := codeOf(a.Check(tc.m, tc.e)); got != tc.want {
			t.Errorf("Check(%s %v disabled %v, %s) = %q, want %q", tc.m.Status, tc.m.PermissionSets, tc.m.Disabled, tc.e.Name, got, tc.want)
		}
	}
}

func TestManage(t *testing.T) {
	t.Parallel()
	b := start(t)
	a := b.a()
	one, two := b.authorize(sandbox.DemoOfficialAccount), b.authorize(sandbox.DemoMiniProgram)
	who := tenant.Caller{TenantID: b.tenant, Actor: "key_test"}
	ref := "shop-1"
	m, err := a.Patch(t.Context(), who, one.ID, Patch{SetReference: true, ClientReference: &ref, Metadata: json.RawMessage(`{"region":"south"}`)})
	if err != nil || m.ClientReference == nil || *m.ClientReference != ref || m.RowVersion <= one.RowVersion {
		t.Fatalf("Patch = %+v, %v", m, err)
	}
	if m, err = a.Patch(t.Context(), who, one.ID, Patch{Metadata: json.RawMessage(`{}`)}); err != nil || m.ClientReference == nil {
		t.Errorf("Patch of metadata alone = %+v, %v", m, err)
	}
	_, err = a.Patch(t.Context(), who, two.ID, Patch{SetReference: true, ClientReference: &ref})
	wantCode(t, err, problem.CodeDuplicateClientReference)
	stale := one.RowVersion
	_, err = a.Patch(t.Context(), who, one.ID, Patch{SetReference: true, IfVersion: &stale})
	wantCode(t, err, problem.CodeVersionConflict)
	_, err = a.Patch(t.Context(), who, typeid.New(), Patch{SetReference: true})
	wantCode(t, err, problem.CodeMerchantNotFound)

	for range 2 {
		if err := a.Disable(t.Context(), who, two.ID, nil); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, a.Check(b.merchant(two.AppID), wechat.GetStoreList), problem.CodeMerchantDisabled)
	if got := scalar[string](b, `SELECT string_agg(action, ' ' ORDER BY id) FROM change_log WHERE action LIKE 'merchant%'`); got != "merchant.update merchant.update merchant.disable" {
		t.Errorf("change_log = %s", got)
	}

	for name, tc := range map[string]struct {
		f    Filter
		want []uuid.UUID
		more bool
	}{
		"all":         {Filter{Limit: 10}, []uuid.UUID{two.ID, one.ID}, false},
		"first page":  {Filter{Limit: 1}, []uuid.UUID{two.ID}, true},
		"second page": {Filter{Limit: 1, Before: &two.ID}, []uuid.UUID{one.ID}, false},
		"status":      {Filter{Limit: 10, Status: StatusDisabled}, []uuid.UUID{two.ID}, false},
		"authorized":  {Filter{Limit: 10, Status: StatusAuthorized}, []uuid.UUID{one.ID}, false},
		"appid":       {Filter{Limit: 10, AppID: one.AppID}, []uuid.UUID{one.ID}, false},
		"set":         {Filter{Limit: 10, PermissionSet: 52}, []uuid.UUID{two.ID}, false},
		"reference":   {Filter{Limit: 10, ClientReference: ref}, []uuid.UUID{one.ID}, false},
		"within":      {Filter{Limit: 10, Within: []uuid.UUID{one.ID}}, []uuid.UUID{one.ID}, false},
		"within none": {Filter{Limit: 10, Within: []uuid.UUID{}}, nil, false},
	} {
		views, more, err := a.List(t.Context(), b.tenant, tc.f)
		if err != nil {
			t.Fatal(err)
		}
		var got []uuid.UUID
		for _, v := range views {
			got = append(got, v.ID)
			if v.Token.State != TokenFresh || v.Token.ExpiresAt == nil {
				t.Errorf("token state = %+v", v.Token)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || more != tc.more {
			t.Errorf("%s: more %v\n%s", name, more, diff)
		}
	}

	// A link's new authorisation ends the disabling; the console's doesn't.
	b.control("POST", "accounts", obj{"appid": two.AppID, "sets": []int{30, 52, 19}}, nil)
	b.until("the update was applied", func() bool { return len(b.merchant(two.AppID).PermissionSets) == 3 })
	if !b.merchant(two.AppID).Disabled {
		t.Error("an update in the console enabled the merchant")
	}
	_, u := b.link(NewLink{ExpectedAppID: two.AppID})
	if status, page := b.consent(two.AppID, u); status != 200 {
		t.Fatal(page)
	}
	if b.merchant(two.AppID).Disabled {
		t.Error("a new authorisation by a link did not enable the merchant")
	}
}

func TestTokenState(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	for _, tc := range []struct{ sql, want string }{
		{`UPDATE authorizer_tokens SET access_expires_at = now() + interval '1 minute'`, TokenFresh},
		{`UPDATE authorizer_tokens SET access_expires_at = now()`, TokenExpired},
		{`UPDATE authorizer_tokens SET lease_until = now() + interval '1 minute'`, TokenRefreshing},
		{`UPDATE authorizer_tokens SET invalid_reason = 'x'`, TokenInvalid},
	} {
		b.sql(tc.sql)
		if got, err := b.a().TokenState(t.Context(), m); err != nil || got.State != tc.want {
			t.Errorf("after %s: %+v, %v, want %s", tc.sql, got, err, tc.want)
		}
	}
}

func TestSync(t *testing.T) {
	t.Parallel()
	b := start(t)
	known := b.authorize(sandbox.DemoOfficialAccount)
	leaving := b.authorize(sandbox.LeavingAccount)
	lost := b.authorize(sandbox.NoStoreSetsAccount)
	b.otherTenant("wx5ab0d1c0ffee0b99")
	b.hold(true)
	b.control("POST", "accounts", obj{"appid": "wx5ab0d1c0ffee0b99"}, nil)
	b.control("POST", "accounts/wx5ab0d1c0ffee0b99/authorize", nil, nil)               // another tenant's
	b.control("POST", "accounts/"+sandbox.DemoMiniProgram+"/authorize", nil, nil)      // unknown to us, never exchanged
	b.control("POST", "accounts/"+leaving.AppID+"/unauthorize", nil, nil)              // gone
	b.control("POST", "credentials", obj{"invalidate_refresh_token": lost.AppID}, nil) // its refresh token is another one now
	b.control("POST", "accounts", obj{"appid": known.AppID, "sets": []int{13}}, nil)
	b.control("POST", "accounts", obj{"appid": "wx570bc396a51b8ff8"}, nil)
	b.control("POST", "accounts/wx570bc396a51b8ff8/authorize", nil, nil) // WeChat's own, which tries the platform
	b.sql(`UPDATE merchants SET status = 'needs_reauthorization' WHERE id = $1`, lost.ID)
	b.sql(`UPDATE authorizer_tokens SET invalid_reason = 'refresh_token' WHERE merchant_id = $1`, lost.ID)

	var seen []string
	if err := b.a().Sync(t.Context(), b.tenant, func(done, total int) { seen = append(seen, fmt.Sprintf("%d/%d", done, total)) }); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 6 || seen[5] != "5/5" {
		t.Errorf("progress = %q", seen)
	}
	got := map[string]string{}
	for _, appid := range []string{known.AppID, leaving.AppID, lost.AppID, sandbox.DemoMiniProgram} {
		m := b.merchant(appid)
		got[appid] = fmt.Sprint(m.Status, " ", m.AccountType, " ", m.PermissionSets)
	}
	want := map[string]string{
		known.AppID:             "authorized official_account [13]",
		leaving.AppID:           "deauthorized official_account [8 11 13]",
		lost.AppID:              "authorized official_account [1 11]",
		sandbox.DemoMiniProgram: "needs_reauthorization mini_program [30 52]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, appid := range []string{"wx5ab0d1c0ffee0b99", "wx570bc396a51b8ff8"} {
		if _, err := b.a().Merchant(t.Context(), b.tenant, appid); codeOf(err) != problem.CodeMerchantNotFound {
			t.Errorf("%s, which is another's: %v", appid, err)
		}
	}
	if _, err := b.a().RefreshToken(t.Context(), b.merchant(lost.AppID)); err != nil {
		t.Errorf("with the restored refresh token: %v", err)
	}
}

// The list is read in pages of 500.
func TestListPages(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.hold(true)
	const n = wechat.MaxAuthorizerPage + 2
	for i := range n {
		appid := fmt.Sprintf("wx5ab0d1c0ffe%05d", i)
		b.control("POST", "accounts", obj{"appid": appid}, nil)
		b.control("POST", "accounts/"+appid+"/authorize", nil, nil)
	}
	seen := map[string]bool{}
	err := b.a().eachListed(t.Context(), b.tenant, nil, func(l wechat.ListedAuthorizer) bool {
		seen[l.AuthorizerAppID] = true
		return true
	})
	if err != nil || len(seen) != n {
		t.Errorf("%d accounts, %v, want %d", len(seen), err, n)
	}
	if calls := len(b.calls(componentPath + "api_get_authorizer_list")); calls != 2 {
		t.Errorf("%d pages, want 2", calls)
	}
}
