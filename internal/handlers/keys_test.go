package handlers

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// A surface is the edge with real tenants and keys behind it, on a database of
// the test's own.
type surface struct {
	*bundle
	db      *postgres.DB
	tenants *tenant.Tenants
	keys    *tenant.Keys
}

func newSurface(t *testing.T) *surface {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := secret.CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	keyset, err := secret.OpenKeyset(path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := &surface{bundle: &bundle{}, db: pgtest.New(t)}
	changes := s.db.NewChanges(log)
	s.tenants = tenant.New(tenant.Deps{DB: s.db, Keyset: keyset, Changes: changes, Log: log})
	s.keys = tenant.NewKeys(s.tenants)
	if err := s.keys.EnsureSigningKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	auth := authorizer.New(authorizer.Deps{DB: s.db, Keyset: keyset, Tenants: s.tenants, Changes: changes, Log: log})
	server := NewServer(Deps{Tenants: s.tenants, Keys: s.keys, Authorizer: auth, Keyset: keyset, Log: log, PublicURL: "https://gateway.example"})
	edge, err := New(Config{
		Server: server, Authenticate: s.keys.Authenticate, Ready: func(context.Context) error { return nil }, Log: log, Metrics: observe.NewMetrics(),
		PublicURL: "https://gateway.example", AllowedOrigin: server.AllowedOrigin, Public: func(e *echo.Echo) { server.jwksRoute(e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(edge)
	s.url = srv.URL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); changes.Run(ctx) }()
	t.Cleanup(func() { srv.Close(); auth.Close(); cancel(); <-done })
	return s
}

func (s *surface) tenant(t *testing.T, n tenant.NewTenant) tenant.Details {
	t.Helper()
	d, err := s.tenants.Create(t.Context(), tenant.CLI(uuid.Nil), n)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (s *surface) merchant(t *testing.T, ten uuid.UUID, appid string) string {
	t.Helper()
	id := typeid.New()
	if err := s.db.InTenant(t.Context(), ten, func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO merchants (tenant_id, id, appid, status, nickname) VALUES ($1, $2, $3, 'authorized', 'Longdi')`, ten, id, appid)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return typeid.Format(typeid.Merchant, id)
}

// bearer makes a key by the command line and returns its header and its id.
func (s *surface) bearer(t *testing.T, ten uuid.UUID, scopes []string, merchants ...string) (header, id string) {
	t.Helper()
	k, token, err := s.keys.Issue(t.Context(), tenant.CLI(ten), tenant.NewKey{Name: "test", Scopes: scopes, Merchants: merchants})
	if err != nil {
		t.Fatal(err)
	}
	return "Authorization: Bearer " + token.Reveal(), typeid.Format(typeid.Key, k.ID)
}

func (s *surface) admin(t *testing.T) string {
	t.Helper()
	_, token, err := s.keys.IssueAdmin(t.Context(), tenant.CLI(uuid.Nil), "ops", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return "Authorization: Bearer " + token.Reveal()
}

func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%d %s: %v", a.StatusCode, a.body, err)
	}
	return v
}

func (a answer) want(t *testing.T, status int, code string) answer {
	t.Helper()
	if a.StatusCode != status || a.problem.Code != code {
		t.Errorf("%s %s = %d %s, want %d %s: %s", a.Request.Method, a.Request.URL.Path, a.StatusCode, a.problem.Code, status, code, a.body)
	}
	return a
}

func TestMe(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	ten := s.tenant(t, tenant.NewTenant{Name: "Demo", ComponentAppID: "wx0000000000000001"})
	m := s.merchant(t, ten.ID, "wx00000000000000a1")
	s.merchant(t, ten.ID, "wx00000000000000a2")
	key, id := s.bearer(t, ten.ID, []string{"stores:read"}, "wx00000000000000a1")
	got := decode[oapi.Me](t, s.do(t, "GET", "/v1/me", "", key).want(t, 200, ""))
	want := oapi.Me{
		Tenant: oapi.MeTenant{ID: typeid.Format(typeid.Tenant, ten.ID), Name: "Demo"}, Key: oapi.MeKey{ID: id, Name: "test", ExpiresAt: got.Key.ExpiresAt},
		Scopes: []string{"stores:read"}, Merchants: &[]oapi.MeMerchant{{ID: m, Appid: "wx00000000000000a1", Nickname: new("Longdi"), Status: "authorized"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("GET /me (-want +got):\n%s", d)
	}
	all, _ := s.bearer(t, ten.ID, []string{"*"})
	if got := decode[oapi.Me](t, s.do(t, "GET", "/v1/me", "", all).want(t, 200, "")); got.Merchants != nil {
		t.Errorf("merchants of a key for all = %v, want null", got.Merchants)
	}
}

// What a tenant's back end does for a browser, and everything else about keys.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	ten := s.tenant(t, tenant.NewTenant{Name: "Demo", ComponentAppID: "wx0000000000000001"})
	other := s.tenant(t, tenant.NewTenant{Name: "Other", ComponentAppID: "wx0000000000000002"})
	m1, m2 := s.merchant(t, ten.ID, "wx00000000000000a1"), s.merchant(t, ten.ID, "wx00000000000000a2")
	server, serverID := s.bearer(t, ten.ID, []string{"keys:read", "keys:write", "stores:read"})
	partner, _ := s.bearer(t, ten.ID, []string{"keys:read", "keys:write", "stores:read"}, m1)
	stranger, _ := s.bearer(t, other.ID, []string{"*"})

	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	body := fmt.Sprintf(`{"name":"browser","scopes":["stores:read"],"merchant_ids":["wx00000000000000a1"],"expires_at":%q,"rate_limit":{"per_second":2,"burst":4}}`, in(15*time.Minute))
	made := s.do(t, "POST", "/v1/api-keys", body, server).want(t, 201, "")
	key := decode[oapi.APIKeyCreated](t, made)
	if made.Header.Get("Location") != "/v1/api-keys/"+key.ID || key.Key.ID != key.ID || key.Key.CreatedBy != serverID ||
		!cmp.Equal(key.Key.MerchantIds, &[]string{m1}) || !cmp.Equal(key.Key.RateLimit, &oapi.RateLimit{PerSecond: 2, Burst: 4}) {
		t.Errorf("POST = %+v", key)
	}
	browser := "Authorization: Bearer " + key.Token
	s.do(t, "GET", "/v1/me", "", browser).want(t, 200, "")
	s.do(t, "GET", "/v1/api-keys", "", browser).want(t, 403, "scope_missing")

	for name, tc := range map[string]struct {
		who, body, code, fields string
		status                  int
	}{
		"wider scopes":         {server, `{"name":"x","scopes":["stores:write"]}`, "key_exceeds_own_rights", "/scopes exceeds_own_rights", 403},
		"another merchant":     {partner, `{"name":"x","scopes":["stores:read"],"merchant_ids":["` + m2 + `"]}`, "key_exceeds_own_rights", "/merchant_ids exceeds_own_rights", 403},
		"no merchant of ours":  {stranger, `{"name":"x","scopes":["stores:read"],"merchant_ids":["` + m1 + `"]}`, "merchant_not_found", "/merchant_ids/0 not_found", 404},
		"over too soon":        {server, `{"name":"x","scopes":["stores:read"],"expires_at":"` + in(time.Minute) + `"}`, "validation_failed", "/expires_at too_soon", 422},
		"a property of ours":   {server, `{"name":"x","scopes":["stores:read"],"tenant_id":"x"}`, "unknown_field", "/tenant_id unknown_field", 400},
		"a scope nobody knows": {server, `{"name":"x","scopes":["admin"]}`, "validation_failed", "", 422},
	} {
		a := s.do(t, "POST", "/v1/api-keys", tc.body, tc.who).want(t, tc.status, tc.code)
		if tc.fields != "" && a.fields() != tc.fields {
			t.Errorf("%s: fields %s, want %s", name, a.fields(), tc.fields)
		}
	}

	// Seen by its tenant, and by a partner with the same merchant; by nobody else.
	at := "/v1/api-keys/" + key.ID
	shown := s.do(t, "GET", at, "", partner).want(t, 200, "")
	s.do(t, "GET", at, "", server, "If-None-Match: "+shown.Header.Get("ETag")).want(t, 304, "")
	s.do(t, "GET", at, "", server, `If-None-Match: "0-00000000"`, "If-None-Match: "+shown.Header.Get("ETag"), "Accept: text/html", "Accept: application/json").want(t, 304, "")
	s.do(t, "GET", at, "", stranger).want(t, 404, "not_found")
	s.do(t, "DELETE", at, "", stranger).want(t, 404, "not_found")
	s.do(t, "POST", at+"/rotations", `{}`, stranger).want(t, 404, "not_found")
	s.do(t, "GET", "/v1/api-keys/"+serverID, "", partner).want(t, 404, "not_found")

	// Pages, and what a partner's page shows.
	first := decode[oapi.APIKeyList](t, s.do(t, "GET", "/v1/api-keys?limit=2", "", server).want(t, 200, ""))
	second := decode[oapi.APIKeyList](t, s.do(t, "GET", "/v1/api-keys?limit=2&cursor="+*first.NextCursor, "", server).want(t, 200, ""))
	if len(first.Data) != 2 || !first.HasMore || len(second.Data) != 1 || second.HasMore || second.NextCursor != nil {
		t.Errorf("pages of %d and %d keys, want 2 and 1", len(first.Data), len(second.Data))
	}
	s.do(t, "GET", "/v1/api-keys?limit=2&cursor="+*first.NextCursor, "", stranger).want(t, 400, "invalid_cursor")
	if list := decode[oapi.APIKeyList](t, s.do(t, "GET", "/v1/api-keys?status=active", "", partner).want(t, 200, "")); len(list.Data) != 2 {
		t.Errorf("a partner sees %d keys, want its own and the browser's", len(list.Data))
	}

	// Replaced with an overlap, then ended.
	rotated := decode[oapi.APIKeyCreated](t, s.do(t, "POST", at+"/rotations", `{"overlap":"PT10M"}`, server).want(t, 201, ""))
	if *rotated.Key.RotatedFrom != key.ID {
		t.Errorf("rotated_from = %v", rotated.Key.RotatedFrom)
	}
	s.do(t, "GET", "/v1/me", "", browser).want(t, 200, "")
	s.do(t, "POST", at+"/rotations", `{}`, server).want(t, 409, "key_not_active")
	for _, overlap := range []string{"PT", "PT999H", "P7DT1S"} {
		if a := s.do(t, "POST", "/v1/api-keys/"+rotated.ID+"/rotations", `{"overlap":"`+overlap+`"}`, server); a.StatusCode != 422 {
			t.Errorf("overlap %s = %d, want 422", overlap, a.StatusCode)
		}
	}
	s.do(t, "DELETE", at, "", server).want(t, 204, "")
	s.do(t, "DELETE", at, "", server).want(t, 204, "")
	all, allID := s.bearer(t, ten.ID, []string{"*"})
	s.do(t, "DELETE", "/v1/api-keys/"+allID, "", server).want(t, 403, "key_exceeds_own_rights")
	s.do(t, "DELETE", "/v1/api-keys/"+allID, "", all).want(t, 204, "")
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if a := s.do(t, "GET", "/v1/me", "", browser); a.problem.Code == "key_revoked" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("a revoked key is still good after 5 s: %d", a.StatusCode)
		}
	}
}

func TestISODurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"PT0S": 0, "PT24H": 24 * time.Hour, "P7D": 7 * 24 * time.Hour, "PT1H30M5S": time.Hour + 30*time.Minute + 5*time.Second,
		"": -1, "P": -1, "PT": -1, "24h": -1, "P1DT1H": -1, "P1M": -1, "PT1.5H": -1, "-PT1H": -1, "PT1S1H": -1,
	} {
		if got, err := isoDuration(text); (err == nil) != (want >= 0) || err == nil && got != want {
			t.Errorf("isoDuration(%q) = %s, %v, want %s", text, got, err, want)
		}
	}
}

// Whoever has a token can check its signature with what is published.
func TestJWKS(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	ten := s.tenant(t, tenant.NewTenant{Name: "Demo", ComponentAppID: "wx0000000000000001"})
	header, _ := s.bearer(t, ten.ID, []string{"*"})
	a := s.do(t, "GET", "/.well-known/jwks.json", "", "Authorization: ")
	set := decode[struct{ Keys []tenant.JWK }](t, a)
	if a.StatusCode != 200 || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") || len(set.Keys) != 2 {
		t.Fatalf("GET jwks.json = %d %s: %s", a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
	parts := strings.Split(strings.TrimPrefix(header, "Authorization: Bearer "), ".")
	decode64 := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var h struct{ Kid string }
	if err := json.Unmarshal(decode64(parts[0]), &h); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(set.Keys, func(k tenant.JWK) bool { return k.ID == h.Kid })
	if i < 0 || !ed25519.Verify(decode64(set.Keys[i].X), []byte(parts[0]+"."+parts[1]), decode64(parts[2])) {
		t.Errorf("the token isn't signed by key %s of %+v", h.Kid, set.Keys)
	}
}

// A page may read answers only for its own tenant's keys.
func TestOriginsOfTenants(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	a := s.tenant(t, tenant.NewTenant{Name: "a", ComponentAppID: "wx0000000000000001", CORSOrigins: []string{"https://a.example"}})
	s.tenant(t, tenant.NewTenant{Name: "b", ComponentAppID: "wx0000000000000002", CORSOrigins: []string{"https://b.example"}})
	key, _ := s.bearer(t, a.ID, []string{"*"})
	for _, tc := range []struct{ method, key, origin, want string }{
		{"GET", key, "https://a.example", "https://a.example"},
		{"GET", key, "https://b.example", ""},
		{"GET", key, "https://evil.example", ""},
		{"OPTIONS", "Authorization: ", "https://b.example", "https://b.example"},
		{"OPTIONS", "Authorization: ", "https://evil.example", ""},
		{"GET", "Authorization: Bearer x", "https://b.example", "https://b.example"},
	} {
		got := s.do(t, tc.method, "/v1/me", "", tc.key, "Origin: "+tc.origin, "Access-Control-Request-Method: GET").Header.Get("Access-Control-Allow-Origin")
		if got != tc.want {
			t.Errorf("%s as %.20s from %s: allowed %q, want %q", tc.method, tc.key, tc.origin, got, tc.want)
		}
	}
}
