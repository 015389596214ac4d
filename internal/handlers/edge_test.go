package handlers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/handlers/spectest"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
)

// stub answers a few operations, so that the edge before it can be seen. An
// operation that it doesn't have panics, which the edge must survive.
type stub struct {
	oapi.StrictServerInterface
	block  chan struct{} // getMe waits for it, when set
	bodies chan oapi.StoreCreate
}

func (s *stub) GetMe(ctx context.Context, _ oapi.GetMeRequestObject) (oapi.GetMeResponseObject, error) {
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	NoteMerchant(ctx, "mch_01jd7k3v9wf4x8s2m6q0r5t1ya")
	return oapi.GetMe200JSONResponse{Body: oapi.Me{
		Tenant: oapi.MeTenant{ID: "ten_01jd7jx5p0f3e4d5c6b7a8n9mp", Name: "t"},
		Key:    oapi.MeKey{ID: "key_01jd7jz0m1f2c3d4e5f6g7h8jk", Name: "k", ExpiresAt: time.Unix(1, 0).UTC()},
		Scopes: CallerFrom(ctx).Scopes,
	}}, nil
}

func (s *stub) CreateStore(_ context.Context, req oapi.CreateStoreRequestObject) (oapi.CreateStoreResponseObject, error) {
	s.bodies <- *req.Body
	return nil, problem.Of(problem.CodeStoreDuplicate)
}

func (s *stub) ListStores(ctx context.Context, req oapi.ListStoresRequestObject) (oapi.ListStoresResponseObject, error) {
	next := "abc"
	return oapi.ListStores200JSONResponse{
		Body:    oapi.StoreList{Data: []oapi.Store{}, HasMore: true, NextCursor: &next},
		Headers: oapi.ListStores200ResponseHeaders{Link: NextLink(ctx, &next)},
	}, nil
}

func (s *stub) GetStore(context.Context, oapi.GetStoreRequestObject) (oapi.GetStoreResponseObject, error) {
	return nil, (&problem.Error{Kind: problem.Upstream, Code: problem.CodeWeChatSystemError, Retryable: true, OperationID: "op_1",
		Upstream: &problem.UpstreamError{Endpoint: "store.get", Errcode: -1, Errmsg: "system error", RID: "5f28"}}).
		With("granted", []int{13}).WithErr(errors.New("read access_token=CANARY: reset"))
}

func (s *stub) ListCategories(context.Context, oapi.ListCategoriesRequestObject) (oapi.ListCategoriesResponseObject, error) {
	kept := "private, max-age=86400"
	return oapi.ListCategories200JSONResponse{
		Body:    oapi.CategoryList{Data: []oapi.Category{}, SyncedAt: time.Unix(1, 0).UTC()},
		Headers: oapi.ListCategories200ResponseHeaders{CacheControl: &kept},
	}, nil
}

func (s *stub) CreateAPIKey(context.Context, oapi.CreateAPIKeyRequestObject) (oapi.CreateAPIKeyResponseObject, error) {
	return nil, errors.New("password=CANARY is wrong")
}

func (s *stub) ListTenants(context.Context, oapi.ListTenantsRequestObject) (oapi.ListTenantsResponseObject, error) {
	return oapi.ListTenants200JSONResponse{Body: oapi.TenantList{Data: []oapi.Tenant{}}}, nil
}

// A bundle is an edge on a real listener, with its log.
type bundle struct {
	*Edge
	stub *stub
	url  string
	mu   sync.Mutex
	log  bytes.Buffer
}

func (b *bundle) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

// lines are the log's lines, decoded.
func (b *bundle) lines(t *testing.T) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []map[string]any
	for line := range bytes.Lines(b.log.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

var (
	tenantA = uuid.MustParse("0193a7e0-0000-7000-8000-00000000000a")
	keyA    = uuid.MustParse("0193a7e0-0000-7000-8000-0000000000aa")
)

// authenticate knows some keys by their names.
func authenticate(_ context.Context, bearer string, _ bool) (tenant.Caller, error) {
	who := tenant.Caller{TenantID: tenantA, KeyID: keyA, Scopes: []string{"*"}}
	switch bearer {
	case "all":
	case "reader":
		who.Scopes = []string{"stores:read"}
	case "slow":
		who.KeyID, who.RateLimit = uuid.New(), &tenant.RateLimit{PerSecond: 0.1, Burst: 1}
		who.KeyID = uuid.MustParse("0193a7e0-0000-7000-8000-0000000000bb")
	case "of-a-slow-tenant":
		who.TenantID, who.TenantRate = uuid.MustParse("0193a7e0-0000-7000-8000-00000000000b"), new(0.1)
	case "operator":
		who = tenant.Caller{KeyID: uuid.MustParse("0193a7e0-0000-7000-8000-0000000000cc"), Admin: true}
	case "expired":
		return tenant.Caller{}, problem.Of(problem.CodeTokenExpired)
	case "database-down":
		return tenant.Caller{}, problem.Of(problem.CodeStorageUnavailable)
	default:
		return tenant.Caller{}, problem.Of(problem.CodeTokenInvalid)
	}
	return who, nil
}

func newBundle(t *testing.T, change ...func(*Config)) *bundle {
	t.Helper()
	b := &bundle{stub: &stub{bodies: make(chan oapi.StoreCreate, 100)}}
	log, err := observe.NewLogger(b, "debug")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Server: b.stub, Authenticate: authenticate, Ready: func(context.Context) error { return nil },
		Log: log, Metrics: observe.NewMetrics(), PublicURL: "https://gateway.example", Docs: true,
		AllowedOrigin: func(_ context.Context, origin string) bool { return origin == "https://shop.example" },
		KeyRate:       tenant.RateLimit{PerSecond: 1e6, Burst: 1e6}, TenantRate: 1e6,
		Public: func(e *echo.Echo) {
			e.POST("/wechat/:ref/component", func(c echo.Context) error { return c.String(200, "success") })
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	if b.Edge, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = NewHTTPServer("", b.Edge)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	srv.Start()
	t.Cleanup(srv.Close)
	b.url = srv.URL
	return b
}

// An answer is what came back, with the problem where there is one.
type answer struct {
	*http.Response
	body    string
	problem struct {
		Type, Code, Detail, Title string
		Status                    int
		RequestID                 string `json:"request_id"`
		Errors                    []struct{ Pointer, Code, Detail string }
		RetryAfter                *int `json:"retry_after_seconds"`
		Required                  string
	}
}

// fields are pointer and code of each error, joined.
func (a answer) fields() string {
	var out []string
	for _, e := range a.problem.Errors {
		out = append(out, e.Pointer+" "+e.Code)
	}
	return strings.Join(out, ", ")
}

// do sends a request. headers are "Name: value"; a repeated name is sent
// twice. The key "all" is sent unless they name Authorization.
func (b *bundle) do(t *testing.T, method, target, body string, headers ...string) answer {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+target, r)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer all")
	seen := map[string]bool{}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		name = http.CanonicalHeaderKey(name)
		if !seen[name] {
			req.Header.Del(name)
		}
		seen[name] = true
		if value != "" {
			req.Header.Add(name, value)
		}
	}
	return b.send(t, req)
}

func (b *bundle) send(t *testing.T, req *http.Request) answer {
	t.Helper()
	client := &http.Client{Transport: spectest.Strict(t, nil), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{Response: res, body: string(data)}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(data, &a.problem); err != nil {
			t.Fatalf("problem %s: %v", data, err)
		}
		if a.problem.Status != res.StatusCode || a.problem.RequestID != res.Header.Get("Request-Id") || a.problem.Title == "" || a.problem.Detail == "" {
			t.Errorf("problem %s does not fit status %d and request %s", data, res.StatusCode, res.Header.Get("Request-Id"))
		}
	} else if res.StatusCode >= 400 && res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s %s: status %d is no problem document: %s", req.Method, req.URL, res.StatusCode, data)
	}
	return a
}

func storeBody(change string) string {
	if change == "" {
		return string(exampleBody)
	}
	var m map[string]any
	if err := json.Unmarshal(exampleBody, &m); err != nil {
		panic(err)
	}
	var c map[string]any
	if err := json.Unmarshal([]byte(change), &c); err != nil {
		panic(fmt.Sprint(change, err))
	}
	for k, v := range c {
		m[k] = v
	}
	out, _ := json.Marshal(m)
	return string(out)
}
