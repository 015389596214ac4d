package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/handlers/spectest"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// A connected is a surface that speaks with a simulated WeChat.
type connected struct {
	*surface
	auth   *authorizer.Authorizer
	tenant uuid.UUID
	sim    string
	key    string // header of a key that may do everything

	mu      sync.Mutex
	applied []string // InfoType and account of the pushes that were applied
}

func newConnected(t *testing.T) *connected {
	t.Helper()
	c := &connected{surface: &surface{bundle: &bundle{}, db: pgtest.New(t)}}
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := secret.CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	keyset, err := secret.OpenKeyset(path)
	if err != nil {
		t.Fatal(err)
	}
	simulated := httptest.NewUnstartedServer(nil)
	sim, err := sandbox.New(sandbox.Config{Addr: simulated.Listener.Addr().String(), TicketInterval: time.Hour, RetryInterval: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	simulated.Config.Handler = sim.Handler()
	simulated.Start()
	c.sim = simulated.URL

	log := slog.New(slog.DiscardHandler)
	changes := c.db.NewChanges(log)
	c.tenants = tenant.New(tenant.Deps{DB: c.db, Keyset: keyset, Changes: changes, Log: log})
	c.keys = tenant.NewKeys(c.tenants)
	if err := c.keys.EnsureSigningKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(nil)
	c.url = "http://" + front.Listener.Addr().String()
	client := wechat.NewClient(c.sim, nil)
	records, err := spool.Open(t.TempDir(), keyset)
	if err != nil {
		t.Fatal(err)
	}
	c.auth = authorizer.New(authorizer.Deps{DB: c.db, Keyset: keyset, Tenants: c.tenants, WeChat: client, Changes: changes, Spool: records, Log: log, Background: observe.NewBackground(log, observe.NewMetrics()),
		Config: authorizer.Config{PublicURL: c.url, MPURL: c.sim, OpenURL: c.sim, Instance: "test"}})
	server := NewServer(Deps{Tenants: c.tenants, Keys: c.keys, Authorizer: c.auth, Keyset: keyset, Log: log, PublicURL: c.url})
	edge, err := New(Config{
		Server: server, Authenticate: c.keys.Authenticate, Ready: func(context.Context) error { return nil }, Log: log, Metrics: observe.NewMetrics(),
		PublicURL: c.url, Public: func(e *echo.Echo) {
			server.connectRoutes(e)
			e.POST("/wechat/:ref/component", c.push)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	front.Config.Handler = edge
	front.Start()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { changes.Run(ctx) })
	running.Go(func() { _ = sim.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		front.Close()
		c.auth.Close()
		client.Close()
		sim.Close()
		simulated.Close()
	})
	d := c.surface.tenant(t, tenant.NewTenant{
		Name: "Demo", ComponentAppID: sandbox.DefaultComponentAppID, ReturnURLAllowList: []string{"https://shop.example"},
		Credentials: &tenant.NewCredentials{
			Secret: secret.NewText(sandbox.DefaultComponentSecret), MessageToken: secret.NewText(sandbox.DefaultMessageToken),
			EncodingAESKey: secret.NewText(sandbox.DefaultEncodingAESKey),
		},
	})
	c.tenant = d.ID
	c.key, _ = c.bearer(t, c.tenant, []string{"*"})
	c.control(t, "component", `{"push_url":"`+c.url+`/wechat/`+d.Ref+`"}`)
	c.heard(t, "component_verify_ticket ")
	return c
}

// push applies a component event at once, where the gateway keeps it first.
func (c *connected) push(e echo.Context) error {
	body, err := io.ReadAll(e.Request().Body)
	if err != nil {
		return err
	}
	envelope, err := msgcrypt.ParseEnvelope(body)
	if err != nil {
		return err
	}
	key, err := msgcrypt.ParseKey(sandbox.DefaultEncodingAESKey)
	if err != nil {
		return err
	}
	plain, err := key.Decrypt(envelope.Encrypt, sandbox.DefaultComponentAppID)
	if err != nil {
		return err
	}
	msg, err := msgcrypt.ParseMessage(plain)
	if err != nil {
		return err
	}
	err = c.auth.ApplyComponentEvent(e.Request().Context(), c.tenant, msg, time.Now())
	if err != nil && !errors.Is(err, authorizer.ErrNotOurs) {
		return err
	}
	c.mu.Lock()
	c.applied = append(c.applied, msg.Get("InfoType")+" "+msg.Get("AuthorizerAppid"))
	c.mu.Unlock()
	return e.String(http.StatusOK, "success")
}

// heard waits until a push was applied.
func (c *connected) heard(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c.mu.Lock()
		for _, a := range c.applied {
			if a == what {
				c.mu.Unlock()
				return
			}
		}
		c.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for the push %q", what)
		}
	}
}

func (c *connected) control(t *testing.T, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.sim+"/_sandbox/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, _ := io.ReadAll(res.Body)
	if res.StatusCode/100 != 2 {
		t.Fatalf("control %s: %d %s", path, res.StatusCode, out)
	}
	return string(out)
}

// authorized is the mch_… id of an account that authorised in WeChat's console.
func (c *connected) authorized(t *testing.T, appid string) string {
	t.Helper()
	c.control(t, "accounts/"+appid+"/authorize", "")
	c.heard(t, "authorized "+appid)
	m, err := c.auth.Merchant(t.Context(), c.tenant, appid)
	if err != nil {
		t.Fatal(err)
	}
	return typeid.Format(typeid.Merchant, m.ID)
}

// call sends a request and holds its answer to the contract, on the record.
func (c *connected) call(t *testing.T, method, target, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range append([]string{c.key}, headers...) {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := (&http.Client{Transport: spectest.For(t, nil)}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{Response: res, body: string(data)}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(data, &a.problem); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func TestMerchants(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	shop, live := c.authorized(t, sandbox.DemoOfficialAccount), c.authorized(t, sandbox.DemoMiniProgram)
	at := "/v1/merchants/" + shop

	got := decode[oapi.Merchant](t, c.call(t, "GET", "/v1/merchants/"+sandbox.DemoOfficialAccount, "").want(t, 200, ""))
	if got.ID != shop || got.Status != "authorized" || got.AccountType != "official_account" || got.AccountStatus != "normal" || got.Token.State != "fresh" ||
		got.Token.ExpiresAt == nil || got.Verified == nil || !*got.Verified || got.UserName == nil || !got.Capabilities.Stores || got.Capabilities.Goods || got.SyncedAt == nil {
		t.Errorf("merchant = %+v", got)
	}
	names := map[int32]string{}
	for _, s := range got.PermissionSets {
		names[s.ID] = *s.Name
	}
	if diff := cmp.Diff(map[int32]string{8: "card", 11: "material", 13: "store"}, names); diff != "" {
		t.Error(diff)
	}

	shown := c.call(t, "GET", at, "").want(t, 200, "")
	etag := shown.Header.Get("ETag")
	c.call(t, "GET", at, "", "If-None-Match: "+etag).want(t, 304, "")
	changed := c.call(t, "PATCH", at, `{"client_reference":"shop-1","metadata":{"region":"south","`+strings.Repeat("茶", 64)+`":"x"}}`, "If-Match: "+etag).want(t, 200, "")
	if m := decode[oapi.Merchant](t, changed); m.ClientReference == nil || *m.ClientReference != "shop-1" || m.Metadata["region"] != "south" {
		t.Errorf("PATCH = %s", changed.body)
	}
	c.call(t, "PATCH", at, `{"metadata":{}}`, "If-Match: "+etag).want(t, 412, "version_conflict")
	c.call(t, "PATCH", at, `{}`).want(t, 422, "validation_failed")
	for _, name := range []string{"", strings.Repeat("茶", 65), strings.Repeat("x", 100_000)} {
		a := c.call(t, "PATCH", at, `{"metadata":{"region":"north","`+name+`":"x"}}`).want(t, 422, "validation_failed")
		if e := a.problem.Errors; len(e) != 1 || !strings.HasPrefix(e[0].Pointer, "/metadata/") || len(e[0].Pointer) > 100 {
			t.Errorf("a name of %d bytes: %+v", len(name), e)
		}
	}
	c.call(t, "PATCH", at, `{"status":"disabled"}`).want(t, 400, "unknown_field")
	c.call(t, "PATCH", "/v1/merchants/"+live, `{"client_reference":"shop-1"}`).want(t, 409, "duplicate_client_reference")
	if m := decode[oapi.Merchant](t, c.call(t, "PATCH", at, `{"client_reference":null}`).want(t, 200, "")); m.ClientReference != nil || m.Metadata["region"] != "south" {
		t.Errorf("after null: %v, %v", m.ClientReference, m.Metadata)
	}

	refreshed := decode[oapi.TokenRefresh](t, c.call(t, "POST", at+"/token-refreshes", "").want(t, 200, ""))
	if left := time.Until(refreshed.ExpiresAt); left < time.Hour || left > 2*time.Hour {
		t.Errorf("the new token lives %s", left)
	}

	// Lists: pages, filters.
	first := c.call(t, "GET", "/v1/merchants?limit=1", "").want(t, 200, "")
	page := decode[oapi.MerchantList](t, first)
	if len(page.Data) != 1 || page.Data[0].ID != live || !page.HasMore || page.NextCursor == nil || !strings.Contains(first.Header.Get("Link"), `rel="next"`) {
		t.Fatalf("first page = %s", first.body)
	}
	second := decode[oapi.MerchantList](t, c.call(t, "GET", "/v1/merchants?limit=1&cursor="+*page.NextCursor, "").want(t, 200, ""))
	if len(second.Data) != 1 || second.Data[0].ID != shop || second.HasMore || second.NextCursor != nil {
		t.Errorf("second page = %+v", second)
	}
	c.call(t, "GET", "/v1/merchants?limit=1&status=disabled&cursor="+*page.NextCursor, "").want(t, 400, "invalid_cursor")
	for query, want := range map[string]string{
		"status=authorized&permission_set=52": live, "appid=" + sandbox.DemoOfficialAccount: shop, "permission_set=13": shop,
		"status=deauthorized": "", "client_reference=none": "",
	} {
		list := decode[oapi.MerchantList](t, c.call(t, "GET", "/v1/merchants?"+query, "").want(t, 200, ""))
		if len(list.Data) > 1 || (want != "") != (len(list.Data) == 1) || want != "" && list.Data[0].ID != want {
			t.Errorf("%s: %d merchants", query, len(list.Data))
		}
	}

	c.call(t, "DELETE", at, "", "If-Match: "+etag).want(t, 412, "version_conflict")
	c.call(t, "DELETE", at, "").want(t, 204, "")
	c.call(t, "DELETE", at, "").want(t, 204, "")
	if m := decode[oapi.Merchant](t, c.call(t, "GET", at, "").want(t, 200, "")); m.Status != "disabled" {
		t.Errorf("status = %s", m.Status)
	}
	c.call(t, "POST", at+"/token-refreshes", "").want(t, 409, "merchant_disabled")
}

func TestMerchantAccess(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	shop, live := c.authorized(t, sandbox.DemoOfficialAccount), c.authorized(t, sandbox.DemoMiniProgram)
	at := "/v1/merchants/" + shop
	c.call(t, "GET", at, "", "Merchant-Id: "+sandbox.DemoOfficialAccount).want(t, 200, "")
	c.call(t, "GET", at, "", "Merchant-Id: "+live).want(t, 400, "merchant_mismatch")
	c.call(t, "GET", at, "", "Merchant-Id: wx00000000000000ff").want(t, 400, "merchant_mismatch")
	c.call(t, "GET", "/v1/merchants/"+typeid.Format(typeid.Merchant, typeid.New()), "").want(t, 404, "merchant_not_found")

	partner, _ := c.bearer(t, c.tenant, []string{"merchants:read", "merchants:write"}, live)
	list := decode[oapi.MerchantList](t, c.call(t, "GET", "/v1/merchants", "", partner).want(t, 200, ""))
	if len(list.Data) != 1 || list.Data[0].ID != live {
		t.Errorf("a key for one merchant lists %d", len(list.Data))
	}
	for _, r := range []struct{ method, target, body string }{
		{"GET", at, ""}, {"PATCH", at, `{"metadata":{}}`}, {"DELETE", at, ""}, {"POST", at + "/token-refreshes", ""},
	} {
		c.call(t, r.method, r.target, r.body, partner).want(t, 403, "merchant_not_allowed")
	}

	other := c.surface.tenant(t, tenant.NewTenant{Name: "Other", ComponentAppID: "wx00000000000000b2"})
	stranger, _ := c.bearer(t, other.ID, []string{"*"})
	for _, r := range []struct{ method, target, body string }{
		{"GET", at, ""}, {"PATCH", at, `{"metadata":{}}`}, {"DELETE", at, ""}, {"POST", at + "/token-refreshes", ""},
		{"GET", "/v1/merchants/" + sandbox.DemoOfficialAccount, ""},
	} {
		c.call(t, r.method, r.target, r.body, stranger).want(t, 404, "merchant_not_found")
	}
	if list := decode[oapi.MerchantList](t, c.call(t, "GET", "/v1/merchants", "", stranger).want(t, 200, "")); len(list.Data) != 0 {
		t.Errorf("another tenant lists %d merchants", len(list.Data))
	}
}

func TestMerchantTokenProblems(t *testing.T) {
	t.Parallel()
	c := newConnected(t)
	shop := "/v1/merchants/" + c.authorized(t, sandbox.DemoOfficialAccount) + "/token-refreshes"
	release := func() {
		if err := c.db.InTenant(t.Context(), c.tenant, func(tx postgres.DBTX) error {
			_, err := tx.Exec(t.Context(), `UPDATE authorizer_tokens SET lease_until = NULL`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		fault, code string
		status      int
	}{
		{`"errcode":-1`, "wechat_system_error", 502},
		{`"errcode":45009`, "wechat_quota_exhausted", 429},
		{`"errcode":45011`, "wechat_rate_limited", 429},
		{`"errcode":47001`, "upstream_format_error", 500},
		{`"errcode":61004`, "platform_ip_not_allowed", 503},
		{`"errcode":40013`, "platform_misconfigured", 500},
		{`"errcode":987654`, "wechat_unknown_error", 502},
		{`"drop_reply":true`, "wechat_unreachable", 502},
	} {
		c.control(t, "faults", `{"path":"/cgi-bin/component/api_authorizer_token","n":1,`+tc.fault+`}`)
		a := c.call(t, "POST", shop, "").want(t, tc.status, tc.code)
		if tc.status == 429 && a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", tc.code)
		}
		release()
	}
	c.control(t, "settings", `{"omit_refresh_token_in_list":true}`)
	c.control(t, "credentials", `{"invalidate_refresh_token":"`+sandbox.DemoOfficialAccount+`"}`)
	c.call(t, "POST", shop, "").want(t, 409, "merchant_needs_reauthorization")

	leaving := "/v1/merchants/" + c.authorized(t, sandbox.LeavingAccount)
	c.control(t, "accounts/"+sandbox.LeavingAccount+"/unauthorize", "")
	c.heard(t, "unauthorized "+sandbox.LeavingAccount)
	c.call(t, "POST", leaving+"/token-refreshes", "").want(t, 403, "merchant_deauthorized")
	if m := decode[oapi.Merchant](t, c.call(t, "GET", leaving, "").want(t, 200, "")); m.Status != "deauthorized" || m.Token.State != "invalid" {
		t.Errorf("merchant = %s, token %s", m.Status, m.Token.State)
	}
	if bytes.Contains([]byte(c.call(t, "GET", "/v1/merchants", "").body), []byte("refreshtoken@@@")) {
		t.Error("a token is shown")
	}
}
