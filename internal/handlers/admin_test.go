package handlers

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

func TestAdminTenants(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	admin := s.admin(t)
	made := s.do(t, "POST", "/v1/admin/tenants", `{"name":"Demo","component_appid":"wx0000000000000001","cors_origins":["https://shop.example"],"return_url_allow_list":["https://shop.example/done"],"release_check":true,"limits":{"key_burst":7}}`, admin).want(t, 201, "")
	ten := decode[oapi.Tenant](t, made)
	at := "/v1/admin/tenants/" + ten.ID
	if made.Header.Get("Location") != at || ten.Status != "active" || !ten.ReleaseCheck || *ten.Limits.KeyBurst != 7 || ten.ComponentCredentials.MessageToken != nil ||
		ten.PushUrls.Component != "https://gateway.example/wechat/"+ten.Ref+"/component" || ten.PushUrls.Messages != "https://gateway.example/wechat/"+ten.Ref+"/messages/$APPID$" {
		t.Errorf("POST = %s", made.body)
	}
	for _, tc := range []struct {
		body, code, fields string
		status             int
	}{
		{`{"name":"Demo","component_appid":"wx0000000000000002"}`, "name_taken", "", 409},
		{`{"name":"Other","component_appid":"wx0000000000000001"}`, "component_appid_taken", "", 409},
		{`{"name":"Other","component_appid":"wx000000000000000Z"}`, "validation_failed", "/component_appid invalid", 422},
		{`{"name":"Other","component_appid":"wx0000000000000002","cors_origins":["http://shop.example"]}`, "validation_failed", "/cors_origins/0 invalid", 422},
		{`{"name":"Other","component_appid":"wx0000000000000002","status":"closed"}`, "unknown_field", "/status unknown_field", 400},
	} {
		if a := s.do(t, "POST", "/v1/admin/tenants", tc.body, admin).want(t, tc.status, tc.code); a.fields() != tc.fields {
			t.Errorf("%s: fields %q, want %q", tc.body, a.fields(), tc.fields)
		}
	}

	shown := s.do(t, "GET", at, "", admin).want(t, 200, "")
	etag := shown.Header.Get("ETag")
	if etag != made.Header.Get("ETag") {
		t.Errorf("ETag %s, and %s after POST", etag, made.Header.Get("ETag"))
	}
	s.do(t, "GET", at, "", admin, "If-None-Match: "+etag).want(t, 304, "")
	changed := s.do(t, "PATCH", at, `{"name":"Renamed","status":"suspended","limits":{}}`, admin, "If-Match: "+etag).want(t, 200, "")
	if now := decode[oapi.Tenant](t, changed); now.Name != "Renamed" || now.Status != "suspended" || now.Limits.KeyBurst != nil || !now.ReleaseCheck {
		t.Errorf("PATCH = %s", changed.body)
	}
	s.do(t, "PATCH", at, `{"name":"Lost"}`, admin, "If-Match: "+etag).want(t, 412, "version_conflict")
	s.do(t, "PATCH", at, `{"name":"Lost"}`, admin, `If-Match: "nonsense"`).want(t, 412, "version_conflict")
	s.do(t, "DELETE", at, "", admin, "If-Match: "+etag).want(t, 412, "version_conflict")

	// Write-only: fingerprints come back, by PUT and by GET, and no secret.
	set := s.do(t, "PUT", at+"/component-credentials", `{"component_secret":"CANARYsecret","message_token":"CANARYtoken","encoding_aes_key":"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}`, admin).want(t, 200, "")
	again := s.do(t, "GET", at, "", admin).want(t, 200, "")
	if c := decode[oapi.Tenant](t, again).ComponentCredentials; c.ComponentSecret == nil || len(c.ComponentSecret.Sha256Prefix) != 8 {
		t.Errorf("GET shows credentials %+v", c)
	}
	if again.Header.Get("ETag") == changed.Header.Get("ETag") {
		t.Error("the ETag is the same after new credentials")
	}
	refused := s.do(t, "PUT", at+"/component-credentials", `{"component_secret":"CANARYsecret","message_token":"ab","encoding_aes_key":"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}`, admin).want(t, 422, "validation_failed")
	for _, a := range []answer{set, again, refused} {
		if strings.Contains(a.body, "CANARY") || strings.Contains(a.body, "abcdefghijklm") {
			t.Errorf("a secret came back: %s", a.body)
		}
	}

	s.do(t, "DELETE", at, "", admin).want(t, 204, "")
	s.do(t, "DELETE", at, "", admin).want(t, 204, "")
	if gone := decode[oapi.Tenant](t, s.do(t, "GET", at, "", admin).want(t, 200, "")); gone.Status != "closed" {
		t.Errorf("after DELETE the tenant is %s", gone.Status)
	}
	s.do(t, "PATCH", at, `{"name":"x"}`, admin).want(t, 404, "not_found")
	none := "/v1/admin/tenants/" + typeid.Format(typeid.Tenant, uuid.New())
	s.do(t, "GET", none, "", admin).want(t, 404, "not_found")
	s.do(t, "DELETE", none, "", admin).want(t, 404, "not_found")
	s.do(t, "PUT", none+"/component-credentials", `{"component_secret":"s","message_token":"abc","encoding_aes_key":"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}`, admin).want(t, 404, "not_found")
}

func TestAdminLists(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	admin := s.admin(t)
	var ids []string
	for i := range 3 {
		d := s.tenant(t, tenant.NewTenant{Name: fmt.Sprint(i), ComponentAppID: fmt.Sprintf("wx%016x", i)})
		ids = append(ids, typeid.Format(typeid.Tenant, d.ID))
	}
	s.do(t, "DELETE", "/v1/admin/tenants/"+ids[0], "", admin).want(t, 204, "")
	list := func(query string) (got []string, cursor *string) {
		t.Helper()
		page := decode[oapi.TenantList](t, s.do(t, "GET", "/v1/admin/tenants"+query, "", admin).want(t, 200, ""))
		for _, ten := range page.Data {
			got = append(got, ten.ID)
		}
		return got, page.NextCursor
	}
	first, cursor := list("?limit=2")
	second, last := list("?limit=2&cursor=" + *cursor)
	if fmt.Sprint(first, second) != fmt.Sprint([]string{ids[2], ids[1]}, []string{ids[0]}) || last != nil {
		t.Errorf("pages %v %v, want the newest first", first, second)
	}
	if got, _ := list("?status=closed"); fmt.Sprint(got) != fmt.Sprint(ids[:1]) {
		t.Errorf("closed ones: %v", got)
	}
	if got, _ := list("?component_appid=wx0000000000000001"); fmt.Sprint(got) != fmt.Sprint(ids[1:2]) {
		t.Errorf("by appid: %v", got)
	}
	s.do(t, "GET", "/v1/admin/tenants?limit=2&status=active&cursor="+*cursor, "", admin).want(t, 400, "invalid_cursor")

	changes := func(query string) []oapi.Change {
		t.Helper()
		return decode[oapi.ChangeList](t, s.do(t, "GET", "/v1/admin/changes"+query, "", admin).want(t, 200, "")).Data
	}
	got := changes("?tenant_id=" + ids[0])
	if len(got) != 2 || got[0].Action != "tenant.delete" || !strings.HasPrefix(got[0].Actor, "key_") || got[1].Actor != "cli" || got[1].Before != nil ||
		*got[0].Subject != (oapi.Subject{Type: "tenant", ID: ids[0]}) || (*got[0].After)["status"] != "deleted" {
		t.Errorf("changes of a tenant = %+v", got)
	}
	if n := len(changes("?action=tenant.create")); n != 3 {
		t.Errorf("%d tenants were made, want 3", n)
	}
	if n := len(changes("?actor=" + got[0].Actor)); n != 1 {
		t.Errorf("the admin key made %d changes, want 1", n)
	}
	page := decode[oapi.ChangeList](t, s.do(t, "GET", "/v1/admin/changes?limit=1", "", admin).want(t, 200, ""))
	next := decode[oapi.ChangeList](t, s.do(t, "GET", "/v1/admin/changes?limit=1&cursor="+*page.NextCursor, "", admin).want(t, 200, ""))
	if next.Data[0].ID >= page.Data[0].ID {
		t.Errorf("change %s comes after %s", next.Data[0].ID, page.Data[0].ID)
	}
}

// Attacks 11 and 78: neither kind of key works on the other's surface.
func TestSurfacesAreApart(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	ten := s.tenant(t, tenant.NewTenant{Name: "Demo", ComponentAppID: "wx0000000000000001"})
	all, _ := s.bearer(t, ten.ID, []string{"*"})
	id := typeid.Format(typeid.Tenant, ten.ID)
	for _, r := range [][3]string{
		{"GET", "/v1/admin/tenants"}, {"POST", "/v1/admin/tenants", `{"name":"x","component_appid":"wx0000000000000002"}`}, {"GET", "/v1/admin/tenants/" + id},
		{"PATCH", "/v1/admin/tenants/" + id, `{"name":"x"}`}, {"DELETE", "/v1/admin/tenants/" + id}, {"GET", "/v1/admin/changes"}, {"GET", "/v1/admin/nothing"},
		{"PUT", "/v1/admin/tenants/" + id + "/component-credentials", `{"component_secret":"s","message_token":"abc","encoding_aes_key":"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}`},
	} {
		s.do(t, r[0], r[1], r[2], all).want(t, 404, "not_found")
		s.do(t, r[0], r[1], r[2], "Authorization: ").want(t, 401, "token_missing")
	}
	admin := s.admin(t)
	for _, r := range []string{"/v1/me", "/v1/api-keys"} {
		s.do(t, "GET", r, "", admin).want(t, 401, "token_invalid")
	}
	if got, err := s.tenants.Get(t.Context(), ten.ID); err != nil || got.Name != "Demo" || got.Status != tenant.Active {
		t.Errorf("a tenant's key changed the tenant: %+v, %v", got, err)
	}
}
