package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/api"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/observe"
)

func TestAccepted(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	// The contract's own example, then what the contract leaves to WeChat.
	for _, change := range []string{
		"",
		`{"business_hours":{"open":"22:00","close":"2:00"}}`,
		`{"business_hours":{"open":"0:00","close":"24:00"}}`,
		`{"company_name":"龙地便民超市 <&>","card_id":"pbcd"}`,
		`{"contact_phone":"123456"}`,
	} {
		a := b.do(t, "POST", "/v1/stores", storeBody(change), "Content-Type: application/json; charset=UTF-8",
			"Merchant-Id: wx570bc396a51b8ff8", "Idempotency-Key: !~", "Accept: application/*;q=0.5")
		if a.StatusCode != 409 || a.problem.Code != "store_duplicate" {
			t.Fatalf("%s: %d %s", change, a.StatusCode, a.body)
		}
		var want oapi.StoreCreate
		if err := json.Unmarshal([]byte(storeBody(change)), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, <-b.stub.bodies); diff != "" {
			t.Errorf("the handler got something else (-sent +got):\n%s", diff)
		}
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a := b.do(t, "GET", "/v1/me", "", "Traceparent: "+parent)
	for name, want := range map[string]string{
		"Content-Type":                 "application/json; charset=utf-8",
		"Cache-Control":                "no-store",
		"X-Content-Type-Options":       "nosniff",
		"Strict-Transport-Security":    "max-age=31536000",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Access-Control-Allow-Origin":  "",
	} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if id := a.Header.Get("Request-Id"); !regexp.MustCompile(`^req_[0-7][0-9a-z]{25}$`).MatchString(id) {
		t.Errorf("Request-Id = %q", id)
	}
	if got := a.Header.Get("Traceparent"); !strings.HasPrefix(got, parent[:36]) || got == parent || !strings.HasSuffix(got, "-01") {
		t.Errorf("Traceparent = %q does not continue %q", got, parent)
	}
	for _, broken := range []string{"x", parent + "0", strings.ToUpper(parent), "00-" + strings.Repeat("0", 32) + parent[35:]} {
		if got := b.do(t, "GET", "/v1/me", "", "Traceparent: "+broken).Header.Get("Traceparent"); !validTraceparent(got) || len(broken) > 35 && got[3:35] == broken[3:35] && broken != parent+"0" {
			t.Errorf("Traceparent = %q after %q", got, broken)
		}
	}
	a = b.do(t, "GET", "/v1/categories?scheme=store_program", "")
	if a.Header.Get("Cache-Control") != "private, max-age=86400" || a.Header.Get("Vary") != "Authorization, Merchant-Id" {
		t.Errorf("reference data: Cache-Control %q, Vary %q", a.Header.Get("Cache-Control"), a.Header.Get("Vary"))
	}
	a = b.do(t, "GET", "/v1/stores?limit=3&status=active", "")
	if want := `</v1/stores?cursor=abc&limit=3&status=active>; rel="next"`; a.Header.Get("Link") != want {
		t.Errorf("Link = %s, want %s", a.Header.Get("Link"), want)
	}
	plain := newBundle(t, func(c *Config) { c.PublicURL = "http://localhost:8080/" })
	if a := plain.do(t, "GET", "/v1/me", ""); a.Header.Get("Strict-Transport-Security") != "" {
		t.Error("HSTS without https")
	}
}

func TestProblemDocument(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const target = "/v1/stores/sto_01jd7k4b2rf6z9t3n7r1s6v2zb"
	a := b.do(t, "GET", target, "")
	want := `{"type":"https://gateway.example/docs/problems/wechat_system_error","title":"WeChat is busy","status":502,` +
		`"code":"wechat_system_error","detail":"WeChat is busy; try again in a moment.","errors":[],"request_id":"` + a.Header.Get("Request-Id") +
		`","operation_id":"op_1","retryable":true,"retry_after_seconds":null,"upstream":{"system":"wechat","endpoint":"store.get","errcode":-1,` +
		`"errmsg":"system error","rid":"5f28"},"doc_url":"https://gateway.example/docs/problems/wechat_system_error","granted":[13]}`
	if a.body != want {
		t.Errorf("problem\n got %s\nwant %s", a.body, want)
	}
	if a.Header.Get("Content-Language") != "en" || a.Header.Get("Vary") != "Accept-Language" || a.Header.Get("Operation-Id") != "op_1" {
		t.Errorf("headers: %v", a.Header)
	}
	a = b.do(t, "GET", target, "", "Accept-Language: zh-CN")
	if a.Header.Get("Content-Language") != "zh" || a.problem.Title != "微信系统繁忙" {
		t.Errorf("in Chinese: %s", a.body)
	}
	a = b.do(t, "POST", "/v1/stores", storeBody(`{"photos":[]}`), "Accept-Language: zh")
	if a.problem.Errors[0].Detail != "至少 1 项" {
		t.Errorf("field in Chinese: %s", a.body)
	}
	a = b.do(t, "POST", "/v1/stores", storeBody(""), "Authorization: Bearer reader")
	if a.problem.Required != "stores:write" {
		t.Errorf("scope_missing: %s", a.body)
	}
	// An error that is no problem, and a panic, show nothing of themselves.
	a = b.do(t, "POST", "/v1/api-keys", `{"name":"x","scopes":["*"]}`)
	if a.StatusCode != 500 || a.problem.Code != "internal" {
		t.Errorf("an unexpected error: %d %s", a.StatusCode, a.body)
	}
	a = b.do(t, "GET", "/v1/audits", "")
	if a.StatusCode != 500 || a.problem.Code != "internal" {
		t.Errorf("a panic: %d %s", a.StatusCode, a.body)
	}
	many := make([]string, 60)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	names, _ := json.Marshal(many)
	body := strings.NewReplacer("[", "{", "]", ":1}", ",", ":1,").Replace(string(names))
	if a = b.do(t, "POST", "/v1/stores", body); len(a.problem.Errors) != 50 {
		t.Errorf("%d errors are named, want 50", len(a.problem.Errors))
	}
	for _, line := range b.lines(t) {
		if text, _ := json.Marshal(line); strings.Contains(string(text), "CANARY") {
			t.Errorf("the log shows a secret: %s", text)
		}
	}
}

func TestOneLogLineARequest(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.do(t, "GET", "/v1/me?token=all", "", "Authorization: ")
	b.do(t, "GET", "/v1/me", "")
	b.do(t, "GET", "/v1/audits", "")
	b.do(t, "GET", "/v1/nothing/CANARY?x=CANARY", "")
	b.do(t, "POST", "/v1/api-keys", `{"name":"CANARY","scopes":["*"]}`)
	lines := b.lines(t)
	if len(lines) != 5 {
		t.Fatalf("%d lines for 5 requests: %v", len(lines), lines)
	}
	for i, want := range []map[string]any{
		{"route": "/v1/me", "status": 400.0, "code": "invalid_parameter", "leaked_key_id": lines[1]["key_id"]},
		{"route": "/v1/me", "status": 200.0, "merchant_id": "mch_01jd7k3v9wf4x8s2m6q0r5t1ya", "level": "INFO", "msg": "request", "method": "GET"},
		{"route": "/v1/audits", "status": 500.0, "code": "internal", "level": "ERROR"},
		{"route": "other", "status": 404.0, "code": "not_found"},
		{"route": "/v1/api-keys", "status": 500.0, "err": "password=[REDACTED] is wrong"},
	} {
		for name, value := range want {
			if lines[i][name] != value {
				t.Errorf("line %d: %s = %v, want %v", i, name, lines[i][name], value)
			}
		}
	}
	if k, _ := lines[1]["key_id"].(string); !strings.HasPrefix(k, "key_") || !strings.HasPrefix(lines[1]["tenant_id"].(string), "ten_") {
		t.Errorf("key %v, tenant %v", lines[1]["key_id"], lines[1]["tenant_id"])
	}
	if stack, _ := lines[2]["stack"].(string); !strings.Contains(stack, "ListAudits") {
		t.Errorf("a panic is logged without its stack: %v", lines[2])
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	ask := []string{"Access-Control-Request-Method: POST", "Authorization: "}
	b := newBundle(t)
	a := b.do(t, "OPTIONS", "/v1/stores", "", append(ask, "Origin: https://shop.example")...)
	if a.StatusCode != 204 || a.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" || a.Header.Get("Vary") != "Origin" ||
		!strings.Contains(a.Header.Get("Access-Control-Allow-Headers"), "Idempotency-Key") || a.Header.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("preflight: %d %v", a.StatusCode, a.Header)
	}
	for _, origin := range []string{"https://evil.example", "https://shop.example.evil", "null", "http://localhost:3000"} {
		if a := b.do(t, "OPTIONS", "/v1/stores", "", append(ask, "Origin: "+origin)...); a.StatusCode != 405 || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("preflight of %s: %d %v", origin, a.StatusCode, a.Header)
		}
		if a := b.do(t, "GET", "/v1/me", "", "Origin: "+origin); a.StatusCode != 200 || a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("request of %s: %d %v", origin, a.StatusCode, a.Header)
		}
	}
	if a := b.do(t, "OPTIONS", "/v1/admin/tenants", "", append(ask, "Origin: https://shop.example")...); a.StatusCode != 405 {
		t.Errorf("preflight of the admin surface: %d", a.StatusCode)
	}
	for _, key := range []string{"all", "nobody", "reader"} {
		a := b.do(t, "GET", "/v1/audits/x", "", "Origin: https://shop.example", "Authorization: Bearer "+key)
		if a.StatusCode < 400 || a.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" ||
			!strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "Request-Id") {
			t.Errorf("a page can't read why %s got %d: %v", key, a.StatusCode, a.Header)
		}
	}
	dev := newBundle(t, func(c *Config) { c.LocalhostOrigins = true })
	for origin, want := range map[string]int{
		"http://localhost:5173": 204, "https://127.0.0.1": 204, "http://[::1]:3000": 204,
		"http://localhost.evil.example": 405, "http://localhost:1@evil.example": 405, "file://localhost": 405,
	} {
		if a := dev.do(t, "OPTIONS", "/v1/stores", "", append(ask, "Origin: "+origin)...); a.StatusCode != want {
			t.Errorf("%s while developing: %d, want %d", origin, a.StatusCode, want)
		}
	}
}

// An origin of another tenant may ask before the key is known, and may not
// read once it is.
func TestCORSIsTheTenants(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) {
		c.AllowedOrigin = func(ctx context.Context, _ string) bool { return CallerFrom(ctx).TenantID != tenantA }
	})
	if a := b.do(t, "OPTIONS", "/v1/me", "", "Origin: https://b.example", "Access-Control-Request-Method: GET"); a.StatusCode != 204 {
		t.Errorf("preflight: %d", a.StatusCode)
	}
	if a := b.do(t, "GET", "/v1/me", "", "Origin: https://b.example"); a.StatusCode != 200 || a.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another tenant's page may read: %d %v", a.StatusCode, a.Header)
	}
}

func TestDocs(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	noKey := "Authorization: "
	for _, path := range []string{"/", "/docs", "/docs/"} {
		if a := b.do(t, "GET", path, "", noKey); a.StatusCode != 302 || a.Header.Get("Location") != "/docs/index.html" {
			t.Errorf("%s: %d to %q", path, a.StatusCode, a.Header.Get("Location"))
		}
	}
	a := b.do(t, "GET", "/docs/index.html", "", noKey)
	policy := a.Header.Get("Content-Security-Policy")
	if a.StatusCode != 200 || !strings.Contains(a.body, `openapi.yaml"`) || strings.Contains(a.body, "doc.json") ||
		!regexp.MustCompile(`script-src 'self' 'sha256-[A-Za-z0-9+/]{43}='`).MatchString(policy) {
		t.Errorf("index.html: %d, policy %q", a.StatusCode, policy)
	}
	for _, asset := range []string{"swagger-ui-bundle.js", "swagger-ui.css", "swagger-ui-standalone-preset.js"} {
		if a := b.do(t, "GET", "/docs/"+asset, "", noKey); a.StatusCode != 200 || len(a.body) < 1000 {
			t.Errorf("%s: %d", asset, a.StatusCode)
		}
	}
	if a := b.do(t, "GET", "/openapi.yaml", "", noKey); a.StatusCode != 200 || a.body != string(api.Spec) || a.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("openapi.yaml: %d, %d bytes", a.StatusCode, len(a.body))
	}
	if a := b.do(t, "GET", "/docs/doc.json", "", noKey); a.StatusCode != 404 {
		t.Errorf("doc.json: %d", a.StatusCode)
	}
	a = b.do(t, "GET", "/docs/problems/permission_set_missing", "", noKey, "Accept-Language: zh")
	if a.StatusCode != 200 || !strings.Contains(a.body, "缺少权限集") || !strings.Contains(a.body, "HTTP 403") {
		t.Errorf("page of a code: %d %s", a.StatusCode, a.body)
	}
	if a := b.do(t, "GET", "/docs/problems/<script>", "", noKey); a.StatusCode != 404 || strings.Contains(a.body, "<script>") {
		t.Errorf("page of no code: %d %s", a.StatusCode, a.body)
	}
	off := newBundle(t, func(c *Config) { c.Docs = false })
	for _, path := range []string{"/", "/docs/index.html"} {
		if a := off.do(t, "GET", path, "", noKey); a.StatusCode != 404 {
			t.Errorf("%s, docs switched off: %d", path, a.StatusCode)
		}
	}
	if a := off.do(t, "GET", "/docs/problems/not_found", "", noKey); a.StatusCode != 200 {
		t.Errorf("page of a code with docs switched off: %d", a.StatusCode)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var reason error
	b := newBundle(t, func(c *Config) { c.Ready = func(context.Context) error { return reason } })
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200} {
		if a := b.do(t, "GET", path, "", "Authorization: "); a.StatusCode != want {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	reason = errors.New("postgres at secret.host is gone")
	if a := b.do(t, "GET", "/readyz", "", "Authorization: "); a.StatusCode != 503 || strings.Contains(a.body, "host") {
		t.Errorf("readyz: %d %s", a.StatusCode, a.body)
	}
}

func TestNewRefusesHalfAConfig(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil {
		t.Error("New takes an empty Config")
	}
}

// Routes outside the contract are few, and each is known.
func TestRoutes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	known := map[string]bool{
		"GET /": true, "GET /openapi.yaml": true, "GET /docs": true, "GET /docs/": true, "GET /docs/*": true, "GET /docs/doc.json": true, "GET /docs/doc.yaml": true,
		"GET /docs/problems/:code": true, "GET /healthz": true, "GET /readyz": true,
		"POST /wechat/:ref/component": true, // of this test's bundle
	}
	for _, r := range b.Routes() {
		key := r.Method + " " + r.Path
		if r.Method == "echo_route_not_found" {
			continue // Echo's own, which makes the group's middleware see unknown paths
		}
		if b.operations[key] == nil && !known[key] {
			t.Errorf("route %s is not in the contract", key)
		}
	}
}

// shop shows a page of two stores live, as the server does once WeChat has answered.
type shop struct {
	stub
	merchant uuid.UUID
	stores   []ledger.Live[ledger.StoreFields]
}

func (s *shop) ListStores(ctx context.Context, req oapi.ListStoresRequestObject) (oapi.ListStoresResponseObject, error) {
	NoteMerchant(ctx, *req.Params.MerchantID)
	return oapi.ListStores200JSONResponse{Body: oapi.StoreList{Data: liveStores(s.merchant, s.stores), Total: new(int64(2))}}, nil
}

func newShop() *shop {
	store := func(number string) ledger.Live[ledger.StoreFields] {
		return ledger.Live[ledger.StoreFields]{ID: new(uuid.New()), Shown: ledger.Shown{Number: number, Upstream: 1, Status: "active"}, Known: ledger.StoreFields{
			ContactPhone: "0769-22222222", BusinessHoursText: "10:00-21:00", Photos: []string{"http://mmbiz.qpic.cn/mmbiz_jpg/a/0", "http://mmbiz.qpic.cn/mmbiz_jpg/b/0"},
			CardID: new("pb7TGjkc3TPyV7rsnPF3BQDE34GA"), CredentialNumber: "22222222-1", CompanyName: "龙地便民超市", QualificationMediaIDs: []string{"m1", "m2"},
			Name: new("龙地便民超市"), Address: new("龙地路 88 号"), Province: new("广东省"), City: new("东莞市"), District: new("虎门镇"),
			Location: &ledger.Location{Latitude: "22.8138", Longitude: "113.6723"}, Categories: []string{"购物", "便利店"}, Upgraded: new(int64(1)),
		}}
	}
	return &shop{merchant: uuid.New(), stores: []ledger.Live[ledger.StoreFields]{store("123456"), store("123457")}}
}

// A sink takes an answer as net/http's writer does, and forgets it.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkWarmRead is what the edge itself costs a read of two stores live, its log line included.
func BenchmarkWarmRead(b *testing.B) {
	cfg := benchConfig()
	cfg.Server = newShop()
	log, err := observe.NewLogger(io.Discard, "info")
	if err != nil {
		b.Fatal(err)
	}
	cfg.Log = log
	edge, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/v1/stores?source=live", nil)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Authorization", "Bearer all")
	r.Header.Set("Merchant-Id", "mch_01jd7k3v9wf4x8s2m6q0r5t1ya")
	b.ReportAllocs()
	for b.Loop() {
		w := &sink{header: http.Header{}}
		edge.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

func BenchmarkEdge(b *testing.B) {
	edge, err := New(benchConfig())
	if err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct{ name, method, target, body string }{
		{"ReadAndValidate", "GET", "/v1/stores?limit=20", ""},
		{"ScanAndValidate", "POST", "/v1/stores", string(exampleBody)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest(bm.method, bm.target, strings.NewReader(bm.body))
				r.Header.Set("Authorization", "Bearer all")
				r.Header.Set("Merchant-Id", "mch_01jd7k3v9wf4x8s2m6q0r5t1ya")
				if bm.body != "" {
					r.Header.Set("Content-Type", "application/json")
				}
				w := httptest.NewRecorder()
				edge.ServeHTTP(w, r)
				if w.Code != http.StatusOK && w.Code != http.StatusConflict {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
