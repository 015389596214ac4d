package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// How a request must look, whatever it asks for.
func TestRequests(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Client(g, "")
	const links = "/v1/authorization-links"
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + "}" }
	padded := func(n int) string { return "{" + strings.Repeat(" ", n-2) + "}" }

	t.Run("bodies", func(t *testing.T) {
		c := w.On(t).Client(g, "")
		for _, tc := range []struct {
			name, body string
			headers    []string
			status     int
			code       string
		}{
			{"an empty object", "{}", nil, 201, ""},
			{"with a charset", "{}", []string{"Content-Type", "application/json; charset=UTF-8"}, 201, ""},
			{"as long as allowed", padded(256 << 10), nil, 201, ""},
			{"one byte more", padded(256<<10 + 1), nil, 413, "body_too_large"},
			{"nothing", "", nil, 400, "malformed_json"},
			{"half an object", "{", nil, 400, "malformed_json"},
			{"a list", "[]", nil, 400, "malformed_json"},
			{"a text", `"x"`, nil, 400, "malformed_json"},
			{"null", "null", nil, 400, "malformed_json"},
			{"two objects", "{}{}", nil, 400, "malformed_json"},
			{"bytes behind it", "{} x", nil, 400, "malformed_json"},
			{"no UTF-8", "{\"client_reference\":\"\xff\"}", nil, 400, "malformed_json"},
			{"16 deep", deep(16), nil, 400, "unknown_field"},
			{"17 deep", deep(17), nil, 400, "malformed_json"},
			{"a member too many", `{"colour":"red"}`, nil, 400, "unknown_field"},
			{"a member twice", `{"client_reference":"a","client_reference":"b"}`, nil, 400, "duplicate_field"},
			{"a wrong type", `{"client_reference":7}`, nil, 422, "validation_failed"},
			{"a value that is none of them", `{"account_type":"shop"}`, nil, 422, "validation_failed"},
			{"a form", "a=b", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
			{"text", "{}", []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type"},
			{"another charset", "{}", []string{"Content-Type", "application/json; charset=gbk"}, 415, "unsupported_media_type"},
			{"compressed", "{}", []string{"Content-Encoding", "gzip"}, 415, "unsupported_media_type"},
			{"an answer in HTML", "{}", []string{"Accept", "text/html"}, 406, "not_acceptable"},
			{"an answer in anything", "{}", []string{"Accept", "text/html, */*;q=0.1"}, 201, ""},
			{"an unknown parameter", "{}", nil, 400, "invalid_parameter"},
		} {
			path := links
			if tc.name == "an unknown parameter" {
				path += "?colour=red"
			}
			a := c.Do("POST", path, tc.body, tc.headers...)
			if a.Status != tc.status || a.Code() != tc.code {
				t.Errorf("%s: %d %s, want %d %s", tc.name, a.Status, a.Body, tc.status, tc.code)
			}
		}
	})

	t.Run("paths and methods", func(t *testing.T) {
		c := w.On(t).Client(g, "")
		c.Do("GET", "/v1/shops", nil).WantProblem(404, "not_found")
		c.Do("GET", "/v1/authorization-links/lnk_1", nil).WantProblem(400, "invalid_parameter")
		c.Do("GET", "/v1/authorization-links/lnk_01jd7k1c8hf5g6h7j8k9m0n1pq", nil).WantProblem(404, "not_found")
		if a := c.Do("PUT", "/v1/stores", "{}").WantProblem(405, "method_not_allowed"); a.Header.Get("Allow") != "GET, POST" {
			t.Errorf("Allow: %q", a.Header.Get("Allow"))
		}
	})

	t.Run("answers", func(t *testing.T) {
		c := w.On(t).Client(g, "")
		const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		a := c.Do("GET", "/v1/me", nil, "Traceparent", trace).Want(200)
		if !strings.HasPrefix(a.Header.Get("Request-Id"), "req_") || !strings.HasPrefix(a.Header.Get("Traceparent"), trace[:36]) || a.Header.Get("Traceparent") == trace ||
			a.Header.Get("Content-Type") != "application/json; charset=utf-8" || a.Header.Get("RateLimit-Policy") == "" {
			t.Errorf("headers: %v", a.Header)
		}
		for accept, lang := range map[string]string{"": "en", "zh": "zh", "zh-CN,zh;q=0.9,en;q=0.8": "zh", "en-US,zh;q=0.5": "en", "fr": "en"} {
			p := c.Do("POST", links, `{"colour":"red"}`, "Accept-Language", accept).WantProblem(400, "unknown_field")
			chinese := strings.Contains(p.Get("title"), "未知字段") && strings.Contains(p.Get("detail"), "拼写") && strings.Contains(p.Get("errors", "0", "detail"), "字段")
			if p.Header.Get("Content-Language") != lang || chinese != (lang == "zh") || !slices.Contains(p.Header.Values("Vary"), "Accept-Language") {
				t.Errorf("Accept-Language %q: %v %s", accept, p.Header, p.Body)
			}
		}
	})

	t.Run("keys", func(t *testing.T) {
		w := w.On(t)
		c := w.Client(g, "")
		expired := func() string {
			var k struct{ ID, Token string }
			w.JSON(&k, "key", "create", "--tenant", w.Tenant.ID, "--scopes", "*", "-o", "json")
			// A key lives five minutes at least: time passes in the database.
			w.Exec(`UPDATE api_keys SET expires_at = now() - interval '1 hour' WHERE id = $1`, w.UUID(typeid.Key, k.ID))
			return k.Token
		}()
		admin := w.AdminKey()
		for _, tc := range []struct {
			name, path, key string
			status          int
			code            string
		}{
			{"none", "/v1/me", "", 401, "token_missing"},
			{"no key of ours", "/v1/me", "abc", 401, "token_invalid"},
			{"one with a letter changed", "/v1/me", w.Key[:len(w.Key)-3] + "AAA", 401, "token_invalid"},
			{"an expired one", "/v1/me", expired, 401, "token_expired"},
			{"an admin's on a tenant's route", "/v1/me", admin, 401, "token_invalid"},
			{"a tenant's on an admin's route", "/v1/admin/tenants", w.Key, 404, "not_found"},
			{"an admin's on an admin's route", "/v1/admin/tenants", admin, 200, ""},
		} {
			a := c.As(tc.key).Do("GET", tc.path, nil)
			if a.Status != tc.status || a.Code() != tc.code || (a.Header.Get("WWW-Authenticate") != "") != (tc.status == 401) {
				t.Errorf("%s: %d %v %s", tc.name, a.Status, a.Header, a.Body)
			}
		}
		c.As("").Do("GET", "/v1/me", nil, "Authorization", "Basic dTpw").WantProblem(401, "token_invalid")
		c.Do("GET", "/v1/me?access_token="+w.Key, nil).WantProblem(400, "invalid_parameter")
		reads := c.As(w.NewKey("--scopes", "stores:read"))
		if a := reads.Do("POST", "/v1/stores", world.DocumentsStore()).WantProblem(403, "scope_missing"); a.Get("required") != "stores:write" {
			t.Errorf("%s", a.Body)
		}
		slow := c.As(w.NewKey("--scopes", "*", "--requests-per-second", "0.1", "--burst", "2"))
		slow.Do("GET", "/v1/me", nil).Want(200)
		slow.Do("GET", "/v1/me", nil).Want(200)
		if a := slow.Do("GET", "/v1/me", nil).WantProblem(429, "rate_limited"); a.Header.Get("Retry-After") != "10" || !strings.Contains(a.Header.Get("RateLimit"), `"key";r=0`) {
			t.Errorf("%v", a.Header)
		}
	})
	c.Do("GET", "/v1/me", nil).Want(200)
}
