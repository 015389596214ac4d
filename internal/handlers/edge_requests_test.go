package handlers

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
)

// The rows of design security.md §12 that the edge answers, by number.
func TestRefusals(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	long := strings.Repeat("a", 5000)
	for _, tc := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code, fields               string
	}{
		{"1 no key", "GET", "/v1/me", "", []string{"Authorization: "}, 401, "token_missing", ""},
		{"1 no key, malformed body", "POST", "/v1/stores", "{", []string{"Authorization: "}, 401, "token_missing", ""},
		{"1 no key, unknown path", "GET", "/v1/nothing", "", []string{"Authorization: "}, 401, "token_missing", ""},
		{"2 unknown key", "GET", "/v1/me", "", []string{"Authorization: Bearer nobody"}, 401, "token_invalid", ""},
		{"5 too long a key", "GET", "/v1/me", "", []string{"Authorization: Bearer " + long}, 401, "token_invalid", ""},
		{"7 expired", "GET", "/v1/me", "", []string{"Authorization: Bearer expired"}, 401, "token_expired", ""},
		{"another scheme", "GET", "/v1/me", "", []string{"Authorization: Basic YTpi"}, 401, "token_invalid", "Authorization scheme"},
		{"no scheme", "GET", "/v1/me", "", []string{"Authorization: all"}, 401, "token_invalid", "Authorization scheme"},
		{"a scheme and no key", "GET", "/v1/me", "", []string{"Authorization: Bearer "}, 401, "token_invalid", "Authorization scheme"},
		{"two keys in one header", "GET", "/v1/me", "", []string{"Authorization: Bearer all, Bearer all"}, 401, "token_invalid", ""},
		{"keys can't be checked", "GET", "/v1/me", "", []string{"Authorization: Bearer database-down"}, 503, "storage_unavailable", ""},
		{"11 admin key on tenant routes", "GET", "/v1/me", "", []string{"Authorization: Bearer operator"}, 401, "token_invalid", ""},
		{"11 tenant key on admin routes", "GET", "/v1/admin/tenants", "", nil, 404, "not_found", ""},
		{"78 tenant key on an unknown admin route", "GET", "/v1/admin/nothing", "", nil, 404, "not_found", ""},
		{"15 two Authorization headers", "GET", "/v1/me", "", []string{"Authorization: Bearer all", "Authorization: Bearer all"}, 400, "invalid_parameter", "Authorization repeated"},
		{"15 key in the query", "GET", "/v1/me?access_token=all", "", []string{"Authorization: "}, 400, "invalid_parameter", "access_token key_in_query"},
		{"15 key in the query beside the header", "GET", "/v1/me?api_key=x", "", nil, 400, "invalid_parameter", "api_key key_in_query"},
		{"15 key in a cookie", "GET", "/v1/me", "", []string{"Authorization: ", "Cookie: token=all"}, 401, "token_missing", ""},
		{"20 Merchant-Id twice", "GET", "/v1/stores", "", []string{"Merchant-Id: wx570bc396a51b8ff8", "Merchant-Id: wx570bc396a51b8ff8"}, 400, "invalid_parameter", "Merchant-Id repeated"},
		{"Merchant-Id malformed", "GET", "/v1/stores", "", []string{"Merchant-Id: mch_1"}, 400, "invalid_parameter", "Merchant-Id pattern"},
		{"23 Idempotency-Key of 256", "POST", "/v1/stores", storeBody(""), []string{"Idempotency-Key: " + strings.Repeat("k", 256)}, 400, "invalid_parameter", "Idempotency-Key too_long"},
		{"23 Idempotency-Key not ASCII", "POST", "/v1/stores", storeBody(""), []string{"Idempotency-Key: schlüssel"}, 400, "invalid_parameter", "Idempotency-Key pattern"},
		{"23 Idempotency-Key twice", "POST", "/v1/stores", storeBody(""), []string{"Idempotency-Key: a", "Idempotency-Key: b"}, 400, "invalid_parameter", "Idempotency-Key repeated"},
		{"29 limit 0", "GET", "/v1/stores?limit=0", "", nil, 400, "invalid_parameter", "limit too_small"},
		{"29 limit -1", "GET", "/v1/stores?limit=-1", "", nil, 400, "invalid_parameter", "limit too_small"},
		{"29 limit 101", "GET", "/v1/stores?limit=101", "", nil, 400, "invalid_parameter", "limit too_large"},
		{"29 limit 1e9", "GET", "/v1/stores?limit=1e9", "", nil, 400, "invalid_parameter", "limit wrong_type"},
		{"29 limit abc", "GET", "/v1/stores?limit=abc", "", nil, 400, "invalid_parameter", "limit wrong_type"},
		{"29 limit empty", "GET", "/v1/stores?limit=", "", nil, 400, "invalid_parameter", "limit required"},
		{"29 limit of 30 digits", "GET", "/v1/stores?limit=" + strings.Repeat("9", 30), "", nil, 400, "invalid_parameter", "limit wrong_type"},
		{"unknown source", "GET", "/v1/stores?source=cache", "", nil, 400, "invalid_parameter", "source not_allowed"},
		{"time", "GET", "/v1/stores?updated_after=yesterday", "", nil, 400, "invalid_parameter", "updated_after format"},
		{"a day that no month has", "GET", "/v1/stores?updated_after=2026-02-30T00:00:00Z", "", nil, 400, "invalid_parameter", "updated_after format"},
		{"a day that no month has, in a body", "POST", "/v1/api-keys", `{"name":"x","scopes":["stores:read"],"expires_at":"2026-02-30T00:00:00Z"}`, nil, 422, "validation_failed", "/expires_at format"},
		{"two parameters", "GET", "/v1/stores?limit=0&source=x", "", nil, 400, "invalid_parameter", "source not_allowed, limit too_small"},
		{"missing parameter", "GET", "/v1/categories", "", nil, 400, "invalid_parameter", "scheme required"},
		{"30 half an object", "POST", "/v1/stores", "{", nil, 400, "malformed_json", " syntax"},
		{"30 null", "POST", "/v1/stores", "null", nil, 400, "malformed_json", " syntax"},
		{"30 array", "POST", "/v1/stores", "[]", nil, 400, "malformed_json", " syntax"},
		{"30 string", "POST", "/v1/stores", `"x"`, nil, 400, "malformed_json", " syntax"},
		{"30 empty", "POST", "/v1/stores", "", []string{"Content-Type: application/json"}, 400, "malformed_json", " syntax"},
		{"30 byte order mark", "POST", "/v1/stores", "\ufeff{}", nil, 400, "malformed_json", " syntax"},
		{"30 UTF-16", "POST", "/v1/stores", "{\x00}\x00", nil, 400, "malformed_json", " syntax"},
		{"30 invalid UTF-8", "POST", "/v1/stores", "{\"a\":\"\xff\"}", nil, 400, "malformed_json", " syntax"},
		{"30 lone surrogate", "POST", "/v1/stores", `{"company_name":"\ud800"}`, nil, 400, "malformed_json", " syntax"},
		{"30 two values", "POST", "/v1/stores", storeBody("") + ` {"x":1}`, nil, 400, "malformed_json", " syntax"},
		{"31 depth 17", "POST", "/v1/stores", strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17), nil, 400, "malformed_json", " syntax"},
		{"31 depth 10,000", "POST", "/v1/stores", strings.Repeat("[", 10_000), nil, 400, "malformed_json", " syntax"},
		{"32 repeated member", "POST", "/v1/stores", `{"photos":1,"photos":2}`, nil, 400, "duplicate_field", "/photos repeated"},
		{"33 unknown member tenant_id", "POST", "/v1/stores", storeBody(`{"tenant_id":"x"}`), nil, 400, "unknown_field", "/tenant_id unknown_field"},
		{"33 unknown member inside", "POST", "/v1/stores", storeBody(`{"business_hours":{"open":"10:00","close":"11:00","x/y":1}}`), nil, 400, "unknown_field", "/business_hours/x~1y unknown_field"},
		{"33 another case", "POST", "/v1/stores", storeBody(`{"Photos":[]}`), nil, 400, "unknown_field", "/Photos unknown_field"},
		{"33 unknown parameter", "GET", "/v1/stores?colour=red", "", nil, 400, "invalid_parameter", "colour unknown_parameter"},
		{"34 257 KiB", "POST", "/v1/stores", storeBody(`{"company_name":"` + strings.Repeat("x", 257<<10) + `"}`), nil, 413, "body_too_large", ""},
		{"35 gzip", "POST", "/v1/stores", storeBody(""), []string{"Content-Encoding: gzip"}, 415, "unsupported_media_type", ""},
		{"35 text", "POST", "/v1/stores", storeBody(""), []string{"Content-Type: text/plain"}, 415, "unsupported_media_type", ""},
		{"35 no type", "POST", "/v1/stores", storeBody(""), []string{"Content-Type: "}, 415, "unsupported_media_type", ""},
		{"35 charset", "POST", "/v1/stores", storeBody(""), []string{"Content-Type: application/json; charset=gbk"}, 415, "unsupported_media_type", ""},
		{"two types", "POST", "/v1/stores", storeBody(""), []string{"Content-Type: application/json", "Content-Type: text/plain"}, 400, "invalid_parameter", "Content-Type repeated"},
		{"Accept", "GET", "/v1/me", "", []string{"Accept: text/html"}, 406, "not_acceptable", ""},
		{"41 open 24:00", "POST", "/v1/stores", storeBody(`{"business_hours":{"open":"24:00","close":"24:00"}}`), nil, 422, "validation_failed", "/business_hours/open pattern"},
		{"41 line break", "POST", "/v1/stores", storeBody(`{"business_hours":{"open":"10:00\n","close":"9:0"}}`), nil, 422, "validation_failed", "/business_hours/close pattern, /business_hours/open pattern"},
		{"43 six files", "POST", "/v1/stores", storeBody(`{"qualification_media_ids":["a","b","c","d","e","f"]}`), nil, 422, "validation_failed", "/qualification_media_ids too_many"},
		{"43 comma, empty", "POST", "/v1/stores", storeBody(`{"qualification_media_ids":["a,b",""]}`), nil, 422, "validation_failed", "/qualification_media_ids/0 pattern, /qualification_media_ids/1 pattern"},
		{"44 another host", "POST", "/v1/stores", storeBody(`{"photos":["http://mmbiz.qpic.cn.evil.com/x"]}`), nil, 422, "validation_failed", "/photos/0 pattern"},
		{"44 fragment", "POST", "/v1/stores", storeBody(`{"photos":["http://evil.com#mmbiz.qpic.cn"]}`), nil, 422, "validation_failed", "/photos/0 pattern"},
		{"44 user", "POST", "/v1/stores", storeBody(`{"photos":["http://mmbiz.qpic.cn@evil/x"]}`), nil, 422, "validation_failed", "/photos/0 pattern"},
		{"44 script", "POST", "/v1/stores", storeBody(`{"photos":["javascript:alert(1)"]}`), nil, 422, "validation_failed", "/photos/0 pattern"},
		{"44 breaking out", "POST", "/v1/stores", storeBody(`{"photos":["http://mmbiz.qpic.cn/x\"]}"]}`), nil, 422, "validation_failed", "/photos/0 pattern"},
		{"37 NUL", "POST", "/v1/stores", storeBody(`{"business_hours":{"open":"10:00\u0000","close":"11:00"}}`), nil, 422, "validation_failed", "/business_hours/open pattern"},
		{"37 NUL in a name", "POST", "/v1/stores", storeBody(`{"business_hours":{"a\u0000":1}}`), nil, 422, "validation_failed", "/business_hours pattern"},
		{"no photos", "POST", "/v1/stores", storeBody(`{"photos":[]}`), nil, 422, "validation_failed", "/photos too_few"},
		{"wrong types", "POST", "/v1/stores", storeBody(`{"map_poi_id":2880741500279549033,"photos":"x","contact_phone":null}`), nil, 422, "validation_failed", "/contact_phone wrong_type, /map_poi_id wrong_type, /photos wrong_type"},
		{"all missing", "POST", "/v1/stores", `{}`, nil, 422, "validation_failed", "/map_poi_id required, /photos required, /contact_phone required, /business_hours required, /credential_number required"},
		{"unknown and invalid", "POST", "/v1/stores", storeBody(`{"x":1,"contact_phone":"no"}`), nil, 400, "unknown_field", "/x unknown_field, /contact_phone pattern"},
		{"nothing to change", "PATCH", "/v1/stores/sto_01jd7k4b2rf6z9t3n7r1s6v2zb", `{}`, nil, 422, "validation_failed", " too_few"},
		{"repeated scope", "POST", "/v1/api-keys", `{"name":"x","scopes":["stores:read","stores:read"]}`, nil, 422, "validation_failed", "/scopes repeated"},
		{"unknown scope", "POST", "/v1/api-keys", `{"name":"x","scopes":["admin"]}`, nil, 422, "validation_failed", "/scopes/0 pattern"},
		{"79 scope", "POST", "/v1/stores", storeBody(""), []string{"Authorization: Bearer reader"}, 403, "scope_missing", ""},
		{"scope before validation", "POST", "/v1/stores", "{", []string{"Authorization: Bearer reader"}, 403, "scope_missing", ""},
		{"76 TRACE", "TRACE", "/v1/me", "", nil, 405, "method_not_allowed", ""},
		{"76 OPTIONS", "OPTIONS", "/v1/me", "", []string{"Origin: https://evil.example", "Access-Control-Request-Method: GET"}, 405, "method_not_allowed", ""},
		{"another method", "PUT", "/v1/stores", "{}", nil, 405, "method_not_allowed", ""},
		{"77 two slashes", "GET", "/v1//stores", "", nil, 404, "not_found", ""},
		{"77 encoded slash", "GET", "/v1/stores/..%2fadmin", "", nil, 400, "invalid_parameter", "id pattern"},
		{"77 NUL", "GET", "/v1/stores/%00", "", nil, 400, "invalid_parameter", "id pattern"},
		{"77 semicolon", "GET", "/v1/stores;x=y", "", nil, 404, "not_found", ""},
		{"77 trailing slash", "GET", "/v1/stores/", "", nil, 404, "not_found", ""},
		{"77 unicode slash", "GET", "/v1%E2%88%95stores", "", nil, 404, "not_found", ""},
		{"77 twice encoded", "GET", "/v1/stores/%252e%252e%252fadmin", "", nil, 400, "invalid_parameter", "id pattern"},
		{"91 unknown parameters", "GET", "/v1/stores?fields=secret&__proto__=1", "", nil, 400, "invalid_parameter", "__proto__ unknown_parameter, fields unknown_parameter"},
		{"an unknown parameter among wrong ones", "GET", "/v1/stores?limit=abc&foo=1&source=x&status=active", "", []string{"Merchant-Id: mch_1"}, 400, "invalid_parameter",
			"Merchant-Id pattern, foo unknown_parameter, limit wrong_type, source not_allowed"},
		{"an unknown parameter and a bad path", "GET", "/v1/stores/x!?foo=1", "", nil, 400, "invalid_parameter", "foo unknown_parameter, id pattern"},
		{"91 status many times", "GET", "/v1/stores?status=active" + strings.Repeat("&status=active", 200), "", nil, 400, "invalid_parameter", "status repeated"},
		{"91 query encoding", "GET", "/v1/stores?status=%zz", "", nil, 400, "invalid_parameter", "query encoding"},
		{"91 semicolon in the query", "GET", "/v1/stores?limit=1;limit=2", "", nil, 400, "invalid_parameter", "query encoding"},
		{"long query", "GET", "/v1/stores?cursor=" + long, "", nil, 400, "invalid_parameter", "query too_long"},
		{"long path", "GET", "/v1/stores/" + long, "", nil, 400, "invalid_parameter", "path too_long"},
		{"a body where none is taken", "GET", "/v1/me", `{"x":1}`, nil, 400, "invalid_parameter", "body not_allowed"},
		{"a long body where none is taken", "GET", "/v1/me", strings.Repeat(" ", 300<<10), nil, 400, "invalid_parameter", "body not_allowed"},
		{"92 pprof", "GET", "/debug/pprof/", "", nil, 404, "not_found", ""},
		{"92 metrics", "GET", "/metrics", "", nil, 404, "not_found", ""},
		{"74 method override", "POST", "/v1/me", "{}", []string{"X-HTTP-Method-Override: GET"}, 405, "method_not_allowed", ""},
		{"74 original URL", "GET", "/v1/nothing", "", []string{"X-Original-URL: /v1/me", "X-Rewrite-URL: /v1/me"}, 404, "not_found", ""},
		{"an id of another kind", "GET", "/v1/audits/sto_01jd7k4b2rf6z9t3n7r1s6v2zb", "", nil, 400, "invalid_parameter", "id pattern"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := b.do(t, tc.method, tc.target, tc.body, tc.headers...)
			if a.StatusCode != tc.status || a.problem.Code != tc.code || a.fields() != tc.fields {
				t.Errorf("got %d %s [%s], want %d %s [%s]", a.StatusCode, a.problem.Code, a.fields(), tc.status, tc.code, tc.fields)
			}
			if got := a.Header.Get("WWW-Authenticate"); (got != "") != (tc.status == 401) {
				t.Errorf("WWW-Authenticate = %q with status %d", got, tc.status)
			}
			if got := a.Header.Get("Allow"); (got != "") != (tc.status == 405 && tc.method != "OPTIONS") {
				t.Errorf("Allow = %q with status %d", got, tc.status)
			}
			for _, s := range []string{"tenant_id\":\"x", "evil.com", "javascript:", long, "nobody"} {
				if strings.Contains(a.body, s) {
					t.Errorf("the answer holds what was sent: %s", a.body)
				}
			}
		})
	}
	select {
	case body := <-b.stub.bodies:
		t.Errorf("a refused request reached the handler: %+v", body)
	default:
	}
}

// Requests that net/http's client would not send.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, tc := range []struct{ name, request, want string }{
		{"14 a million dots", "GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat(".", 1_000_000) + "\r\n\r\n", "HTTP/1.1 431 "},
		{"23 line break in a header", "POST /v1/stores HTTP/1.1\r\nHost: x\r\nIdempotency-Key: a\rb\r\n\r\n", "HTTP/1.1 400 "},
		{"75 absolute target", "GET http://evil.example/v1/me HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer all\r\n\r\n", "HTTP/1.1 400 "},
		{"75 HTTP/0.9", "GET /v1/me\r\n\r\n", "HTTP/1.1 400 "},
		{"75 no host", "GET /v1/me HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		{"75 two lengths", "POST /v1/stores HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "HTTP/1.1 400 "},
		{"75 a coding that is not chunked", "POST /v1/stores HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", "HTTP/1.1 501 "},
		{"75 space before the colon", "GET /v1/me HTTP/1.1\r\nHost : x\r\n\r\n", "HTTP/1.1 400 "},
		{"76 CONNECT", "CONNECT /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer all\r\n\r\n", "HTTP/1.1 405 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			go func() { _, _ = conn.Write([]byte(tc.request)) }() // the server may hang up before the end
			buf := make([]byte, 64)
			n, _ := conn.Read(buf)
			if got := string(buf[:n]); !strings.HasPrefix(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestServerLimits(t *testing.T) {
	t.Parallel()
	s := NewHTTPServer(":0", nil)
	if s.ReadHeaderTimeout != 5*time.Second || s.ReadTimeout != 30*time.Second || s.WriteTimeout != time.Minute ||
		s.IdleTimeout != time.Minute || s.MaxHeaderBytes != 16<<10 || s.HTTP2.MaxConcurrentStreams != 100 {
		t.Errorf("limits of the server: %+v", s)
	}
}

func TestEndlessBody(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "POST /v1/stores HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer all\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
	answer := make(chan string, 1)
	go func() {
		buf := make([]byte, 64)
		n, _ := conn.Read(buf)
		answer <- string(buf[:n])
	}()
	chunk := "1000\r\n" + strings.Repeat(" ", 0x1000) + "\r\n"
	for range 10_000 { // 40 MB, unless the server hangs up
		if _, err := fmt.Fprint(conn, chunk); err != nil {
			break
		}
	}
	if got := <-answer; !strings.HasPrefix(got, "HTTP/1.1 413 ") {
		t.Errorf("an endless body got %q, want 413", got)
	}
}

// Attack 74: the client's address is the one that the nearest proxy of ours saw.
// What anybody else says of it counts for nothing.
func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	believing := func(trusted ...string) *bundle {
		return newBundle(t, func(c *Config) {
			for _, p := range trusted {
				c.TrustedProxies = append(c.TrustedProxies, netip.MustParsePrefix(p))
			}
		})
	}
	nobody, others, ours := believing(), believing("10.0.0.0/8", "2001:db8::/32"), believing("127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32")
	for _, tc := range []struct {
		name string
		b    *bundle
		sent []string
		want string
	}{
		{"no proxy is trusted", nobody, []string{"X-Forwarded-For: 203.0.113.9"}, "127.0.0.1"},
		{"other headers, no proxy is trusted", nobody, []string{"X-Real-Ip: 203.0.113.9", "Forwarded: for=203.0.113.9", "True-Client-Ip: 203.0.113.9"}, "127.0.0.1"},
		{"the peer is none of ours", others, []string{"X-Forwarded-For: 203.0.113.9"}, "127.0.0.1"},
		{"a proxy that says nothing", ours, nil, "127.0.0.1"},
		{"one proxy", ours, []string{"X-Forwarded-For: 203.0.113.9"}, "203.0.113.9"},
		{"two proxies", ours, []string{"X-Forwarded-For: 203.0.113.9, 10.1.2.3"}, "203.0.113.9"},
		{"in two headers", ours, []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 10.1.2.3"}, "203.0.113.9"},
		{"what the caller wrote before", ours, []string{"X-Forwarded-For: 198.51.100.1, 203.0.113.9"}, "203.0.113.9"},
		{"the caller names a proxy of ours", ours, []string{"X-Forwarded-For: 10.9.9.9, 203.0.113.9"}, "203.0.113.9"},
		{"a private address that is no proxy", ours, []string{"X-Forwarded-For: 203.0.113.9, 192.168.1.1"}, "192.168.1.1"},
		{"IPv6", ours, []string{"X-Forwarded-For: 2a00::1, 2001:db8::7"}, "2a00::1"},
		{"no address", ours, []string{"X-Forwarded-For: 203.0.113.9, unknown"}, "127.0.0.1"},
		{"other headers", ours, []string{"X-Real-Ip: 203.0.113.9", "Forwarded: for=203.0.113.9"}, "127.0.0.1"},
	} {
		if a := tc.b.do(t, "GET", "/v1/me", "", tc.sent...); a.StatusCode != 200 {
			t.Errorf("%s: %d %s", tc.name, a.StatusCode, a.body)
		}
		lines := tc.b.lines(t)
		if got := lines[len(lines)-1]["client_ip"]; got != tc.want {
			t.Errorf("%s: the client is %v, want %s", tc.name, got, tc.want)
		}
	}
}

func TestFailureLimit(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	limited := 0
	for range 60 {
		a := b.do(t, "GET", "/v1/me", "", "Authorization: Bearer nobody", "X-Forwarded-For: 6.6.6.6, 203.0.113.9")
		switch a.StatusCode {
		case 429:
			limited++
			if a.Header.Get("Retry-After") != "3" || a.problem.Code != problem.CodeRateLimited {
				t.Fatalf("429 %s, Retry-After %q", a.body, a.Header.Get("Retry-After"))
			}
		case 401:
		default:
			t.Fatalf("status %d", a.StatusCode)
		}
	}
	if limited < 35 || limited > 40 {
		t.Errorf("%d of 60 failures were limited, want 40 or a few less", limited)
	}
	for _, from := range []string{"198.51.100.7", "203.0.113.9"} {
		if a := b.do(t, "GET", "/v1/me", "", "X-Forwarded-For: "+from); a.StatusCode != 200 {
			t.Errorf("a valid key from %s gets %d", from, a.StatusCode)
		}
	}
	// 74: a forged address left of the one that the trusted proxy saw counts for nothing.
	if a := b.do(t, "GET", "/v1/me", "", "Authorization: Bearer nobody", "X-Forwarded-For: 1.2.3.4, 203.0.113.9"); a.StatusCode != 429 {
		t.Errorf("a forged address helped: %d", a.StatusCode)
	}
	if a := b.do(t, "GET", "/v1/me", "", "Authorization: Bearer nobody", "X-Forwarded-For: 203.0.113.9, 1.2.3.4"); a.StatusCode != 401 {
		t.Errorf("another address is limited: %d", a.StatusCode)
	}
}

func TestKeyAndTenantLimits(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	if a := b.do(t, "GET", "/v1/me", "", "Authorization: Bearer slow"); a.StatusCode != 200 ||
		a.Header.Get("RateLimit-Policy") != `"key";q=0.1;w=1, "tenant";q=1000000;w=1` || a.Header.Get("RateLimit") != `"key";r=0;t=1` {
		t.Errorf("%d, RateLimit-Policy %s, RateLimit %s", a.StatusCode, a.Header.Get("RateLimit-Policy"), a.Header.Get("RateLimit"))
	}
	if a := b.do(t, "GET", "/v1/me", "", "Authorization: Bearer slow"); a.StatusCode != 429 || a.Header.Get("Retry-After") != "10" ||
		*a.problem.RetryAfter != 10 {
		t.Errorf("the second request in ten seconds: %d %s", a.StatusCode, a.body)
	}
	if a := b.do(t, "GET", "/v1/me", ""); a.StatusCode != 200 {
		t.Errorf("another key is limited too: %d", a.StatusCode)
	}
	b.do(t, "GET", "/v1/me", "", "Authorization: Bearer of-a-slow-tenant")
	if a := b.do(t, "GET", "/v1/me", "", "Authorization: Bearer of-a-slow-tenant"); a.StatusCode != 429 || !strings.HasSuffix(a.Header.Get("RateLimit-Policy"), `"tenant";q=0.1;w=1`) {
		t.Errorf("the second request in ten seconds of a tenant: %d %s", a.StatusCode, a.Header.Get("RateLimit-Policy"))
	}
	small := newBundle(t, func(c *Config) { c.TenantRate, c.KeyRate = 2, tenant.RateLimit{PerSecond: 50, Burst: 50} })
	codes := map[int]int{}
	for range 5 {
		codes[small.do(t, "GET", "/v1/me", "").StatusCode]++
	}
	if codes[429] < 2 || codes[200] < 2 {
		t.Errorf("a tenant of 2 a second: %v", codes)
	}
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	b := newBundle(t, func(c *Config) { c.MaxInFlight = 2 })
	b.stub.block = make(chan struct{})
	done := make(chan int, 2)
	for range 2 {
		go func() { done <- b.do(t, "GET", "/v1/me", "").StatusCode }()
	}
	for deadline := time.Now().Add(5 * time.Second); len(b.admission.places) < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	a := b.do(t, "GET", "/v1/stores", "")
	if a.StatusCode != 503 || a.problem.Code != problem.CodeOverloaded || !slices.Contains([]string{"1", "2", "3"}, a.Header.Get("Retry-After")) {
		t.Errorf("the third of two: %d %s", a.StatusCode, a.body)
	}
	if a := b.do(t, "GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("healthz while full: %d", a.StatusCode)
	}
	if a := b.do(t, "POST", "/wechat/ref/component", "<xml/>"); a.StatusCode != 200 {
		t.Errorf("a push while full: %d", a.StatusCode)
	}
	close(b.stub.block)
	if one, two := <-done, <-done; one != 200 || two != 200 {
		t.Errorf("the two in flight got %d and %d", one, two)
	}
	b.Stop()
	if a := b.do(t, "GET", "/v1/me", ""); a.StatusCode != 503 || a.problem.Code != problem.CodeShuttingDown {
		t.Errorf("after Stop: %d %s", a.StatusCode, a.body)
	}
	if a := b.do(t, "GET", "/readyz", ""); a.StatusCode != 503 {
		t.Errorf("readyz after Stop: %d", a.StatusCode)
	}
}

func TestClientLeft(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.stub.block = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/v1/me", nil)
	req.Header.Set("Authorization", "Bearer all")
	left := make(chan struct{})
	go func() {
		defer close(left)
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	for deadline := time.Now().Add(5 * time.Second); len(b.admission.places) < 1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-left
	var lines []map[string]any
	for deadline := time.Now().Add(5 * time.Second); len(lines) == 0 && time.Now().Before(deadline); lines = b.lines(t) {
		time.Sleep(time.Millisecond)
	}
	if len(lines) != 1 || lines[0]["status"] != 499.0 || lines[0]["level"] != "INFO" {
		t.Errorf("log of a client that left: %v", lines)
	}
}
