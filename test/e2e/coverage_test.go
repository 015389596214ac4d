package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/mendian/mendian/api"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// What no other test has a reason to call: every operation and every code of
// the contract is produced by some test, and `make test` says which were not
// (internal/handlers/spectest/speccheck).

// listedCodes are the x-error-codes of each operation.
func listedCodes(t *testing.T) map[string][]string {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			codes, _ := op.Extensions["x-error-codes"].([]any)
			for _, c := range codes {
				out[op.OperationID] = append(out[op.OperationID], fmt.Sprint(c))
			}
		}
	}
	return out
}

// A catalogue is api/errors.yaml, from which the gateway's own tables are
// generated: what each errcode of WeChat means.
type catalogue struct {
	WeChat []errcodeRow `yaml:"wechat"`
}

type errcodeRow struct {
	Errcode  int
	Families []string
	Endpoint string
	Code     string
	Class    string
	Pointers []string
}

func readCatalogue(t *testing.T) (c catalogue) {
	t.Helper()
	text, err := os.ReadFile("../../api/errors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &c); err != nil || len(c.WeChat) < 50 {
		t.Fatalf("%d rows, %v", len(c.WeChat), err)
	}
	return c
}

// meant are the rows that count for an endpoint: its own before those of its
// family, these before those of all.
func (c catalogue) meant(endpoint string) []errcodeRow {
	family, _, _ := strings.Cut(endpoint, ".")
	rank := func(r errcodeRow) int {
		switch {
		case r.Endpoint != "" && r.Endpoint != endpoint:
			return 0
		case r.Endpoint != "":
			return 3
		case slices.Contains(r.Families, family):
			return 2
		case len(r.Families) == 0:
			return 1
		}
		return 0
	}
	best := map[int]errcodeRow{}
	for _, r := range c.WeChat {
		if old, ok := best[r.Errcode]; rank(r) > 0 && (!ok || rank(r) > rank(old)) {
			best[r.Errcode] = r
		}
	}
	var out []errcodeRow
	for _, r := range c.WeChat {
		if b, ok := best[r.Errcode]; ok && cmp.Equal(b, r) {
			out = append(out, r)
		}
	}
	return out
}

func (catalogue) status(code string) int { return problem.KindOf(code).Status() }

// An errcodeCall is an operation and the call of WeChat behind it.
type errcodeCall struct {
	operation, endpoint, path string
	write                     bool
	except                    []int // errcodes that mean something of their own here
	do                        func(c *world.Client) *world.Answer
}

// answersEveryErrcode lets WeChat answer each errcode whose code the operation
// lists: the answer has that code, and the field at fault.
func answersEveryErrcode(t *testing.T, w *world.World, c *world.Client, call errcodeCall) {
	t.Helper()
	catalogue, listed := readCatalogue(t), listedCodes(t)
	for _, row := range catalogue.meant(call.endpoint) {
		// What ends the merchant's authorisation, or its token, is for other tests.
		if !slices.Contains(listed[call.operation], row.Code) || row.Class == "token_rejected" || row.Errcode == 42007 ||
			slices.Contains(call.except, row.Errcode) {
			continue
		}
		w.Fault(call.path, 1, map[string]any{"errcode": row.Errcode, "errmsg": "said so rid: 6543abcd-12345678-0a0b0c0d"})
		a := call.do(c)
		// An upload whose end nobody knows has failed: the second one does no harm.
		if upload := strings.HasPrefix(call.endpoint, "media."); row.Class == "ambiguous" && call.write && !upload {
			a.Want(202)
			if a.Get("operation", "status") != "reconciling" || a.Header.Get("Operation-Id") == "" || !strings.Contains(a.Header.Get("Link"), "/v1/operations/op_") {
				a.Fail("an unproven outcome is not told")
			}
			continue
		}
		a.WantProblem(catalogue.status(row.Code), row.Code)
		if a.Get("upstream", "errcode") != strconv.Itoa(row.Errcode) || a.Get("upstream", "endpoint") != call.endpoint ||
			a.Get("upstream", "errmsg") != "said so" || a.Get("upstream", "rid") != "6543abcd-12345678-0a0b0c0d" {
			a.Fail("WeChat's words")
		}
		if (a.Get("operation_id") != "null") != call.write {
			a.Fail("operation_id")
		}
		for i, pointer := range row.Pointers {
			if a.Get("errors", strconv.Itoa(i), "pointer") != pointer {
				a.Fail("the field at fault is not " + pointer)
			}
		}
		if waits := a.Header.Get("Retry-After"); (waits != "") != (a.Status == 429 || a.Status == 503) {
			a.Fail("Retry-After is " + waits)
		}
		if call.write {
			op := c.Do("GET", "/v1/operations/"+a.Get("operation_id"), nil).Want(200)
			if op.Get("status") != "failed" || op.Get("error", "code") != row.Code || op.Get("attempts", "0", "errcode") != strconv.Itoa(row.Errcode) {
				op.Fail("the operation of errcode " + strconv.Itoa(row.Errcode))
			}
		}
	}
}

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

// Keys over REST: made, listed, replaced, ended, never wider than their maker.
func TestAPIKeysOverREST(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	merchant := w.Authorize(g, sandbox.DemoOfficialAccount)
	c := w.Client(g, "")
	soon := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }

	made := c.Do("POST", "/v1/api-keys", map[string]any{"name": "shop page", "scopes": []string{"stores:read", "keys:read", "keys:write"},
		"merchant_ids": []string{sandbox.DemoOfficialAccount}, "expires_at": soon(6 * time.Minute), "rate_limit": map[string]any{"per_second": 50, "burst": 100}}).Want(201)
	id, token := made.Get("id"), made.Get("token")
	if made.Header.Get("Location") != "/v1/api-keys/"+id || made.Get("key", "merchant_ids", "0") != merchant || made.Get("key", "status") != "active" ||
		!strings.HasPrefix(made.Get("key", "created_by"), "key_") {
		t.Errorf("made: %v %s", made.Header, made.Body)
	}
	bound := c.As(token)
	if a := bound.Do("GET", "/v1/me", nil).Want(200); a.Get("merchants", "0", "id") != merchant || a.Get("scopes") != "[keys:read keys:write stores:read]" {
		t.Errorf("me: %s", a.Body)
	}
	bound.Do("GET", "/v1/stores?source=live&limit=1", nil).Want(200)
	notModified(t, c, "/v1/api-keys/"+id)
	if strings.Contains(string(c.Do("GET", "/v1/api-keys/"+id, nil).Want(200).Body), token[:20]) {
		t.Error("a key's token can be read again")
	}

	for name, tc := range map[string]struct {
		body   map[string]any
		status int
		code   string
	}{
		"a scope more":       {map[string]any{"name": "x", "scopes": []string{"stores:write"}}, 403, "key_exceeds_own_rights"},
		"all scopes":         {map[string]any{"name": "x", "scopes": []string{"*"}}, 403, "key_exceeds_own_rights"},
		"more time":          {map[string]any{"name": "x", "scopes": []string{"stores:read"}, "expires_at": soon(time.Hour)}, 403, "key_exceeds_own_rights"},
		"a higher limit":     {map[string]any{"name": "x", "scopes": []string{"stores:read"}, "rate_limit": map[string]any{"per_second": 51, "burst": 100}}, 403, "key_exceeds_own_rights"},
		"no such merchant":   {map[string]any{"name": "x", "scopes": []string{"stores:read"}, "merchant_ids": []string{"wx00000000000000ff"}}, 404, "merchant_not_found"},
		"no scope":           {map[string]any{"name": "x", "scopes": []string{}}, 422, "validation_failed"},
		"an unknown scope":   {map[string]any{"name": "x", "scopes": []string{"stores:delete"}}, 422, "validation_failed"},
		"no name":            {map[string]any{"name": "", "scopes": []string{"stores:read"}}, 422, "validation_failed"},
		"a minute only":      {map[string]any{"name": "x", "scopes": []string{"stores:read"}, "expires_at": soon(time.Minute)}, 422, "validation_failed"},
		"a year and a day":   {map[string]any{"name": "x", "scopes": []string{"stores:read"}, "expires_at": soon(366 * 24 * time.Hour)}, 422, "validation_failed"},
		"a merchant too few": {map[string]any{"name": "x", "scopes": []string{"stores:read"}, "merchant_ids": []string{}}, 422, "validation_failed"},
	} {
		if a := bound.Do("POST", "/v1/api-keys", tc.body); a.Status != tc.status || a.Code() != tc.code {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	bound.Do("POST", "/v1/api-keys", map[string]any{"name": "narrower", "scopes": []string{"stores:read"}}).Want(201)

	// A key that reaches all merchants is nobody's whom one merchant binds.
	mine := c.Do("GET", "/v1/me", nil).Want(200).Get("key", "id")
	bound.Do("GET", "/v1/api-keys/"+mine, nil).WantProblem(404, "not_found")
	bound.Do("DELETE", "/v1/api-keys/"+mine, nil).WantProblem(404, "not_found")
	wide := c.Do("POST", "/v1/api-keys", map[string]any{"name": "wider", "scopes": []string{"*"}, "merchant_ids": []string{merchant}}).Want(201)
	bound.Do("DELETE", "/v1/api-keys/"+wide.Get("id"), nil).WantProblem(403, "key_exceeds_own_rights")
	bound.Do("POST", "/v1/api-keys/"+wide.Get("id")+"/rotations", "{}").WantProblem(403, "key_exceeds_own_rights")

	next := c.Do("POST", "/v1/api-keys/"+wide.Get("id")+"/rotations", map[string]string{"overlap": "PT1H"}).Want(201)
	if next.Get("key", "rotated_from") != wide.Get("id") || next.Get("key", "scopes") != "[*]" {
		t.Errorf("rotated: %s", next.Body)
	}
	c.As(wide.Get("token")).Do("GET", "/v1/me", nil).Want(200)
	c.As(next.Get("token")).Do("GET", "/v1/me", nil).Want(200)
	c.Do("POST", "/v1/api-keys/"+wide.Get("id")+"/rotations", "{}").WantProblem(409, "key_not_active")
	for _, bad := range []string{"PT1W", "P8D", "-PT1H", "PT169H", "1h", "PT"} {
		if a := c.Do("POST", "/v1/api-keys/"+next.Get("id")+"/rotations", map[string]string{"overlap": bad}); a.Status != 422 {
			t.Errorf("overlap %s: %d %s", bad, a.Status, a.Body)
		}
	}
	c.Do("POST", "/v1/api-keys/key_01jd7jz0m1f2c3d4e5f6g7h8jk/rotations", "{}").WantProblem(404, "not_found")

	c.Do("DELETE", "/v1/api-keys/"+id, nil).Want(204)
	c.Do("DELETE", "/v1/api-keys/"+id, nil).Want(204)
	w.Eventually("the key is refused", func() error {
		if a := bound.Do("GET", "/v1/me", nil); a.Code() != "key_revoked" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	c.Do("POST", "/v1/api-keys/"+id+"/rotations", "{}").WantProblem(409, "key_not_active")

	if ids, pages := walk(c, "/v1/api-keys?limit=2", "id"); len(ids) != 5 || pages != 3 {
		t.Errorf("%d pages of keys: %v", pages, ids)
	}
	for query, want := range map[string]int{"status=active": 4, "status=revoked": 1, "status=expired": 0} {
		if ids, _ := walk(c, "/v1/api-keys?"+query, "id"); len(ids) != want {
			t.Errorf("keys with %s: %v, want %d", query, ids, want)
		}
	}
	c.Do("GET", "/v1/api-keys?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")
	c.Do("GET", "/v1/api-keys?status=lost", nil).WantProblem(400, "invalid_parameter")
}

// Tenants over REST, for the operators.
func TestAdminOverREST(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	tenantKey := w.Client(g, "")
	c := tenantKey.As(w.AdminKey())
	const appid = "wx9c3a8f2e4b6d1075"

	made := c.Do("POST", "/v1/admin/tenants", map[string]any{"name": "Second", "component_appid": appid, "return_url_allow_list": []string{"https://shop.example/back"},
		"cors_origins": []string{"https://shop.example"}, "release_check": true, "limits": map[string]any{"key_burst": 5}}).Want(201)
	path := "/v1/admin/tenants/" + made.Get("id")
	if made.Header.Get("Location") != path || made.Header.Get("ETag") == "" || made.Get("status") != "active" || made.Get("limits", "key_burst") != "5" ||
		made.Get("component_credentials", "component_secret") != "null" || made.Get("push_urls", "messages") != w.PublicURL+"/wechat/"+made.Get("ref")+"/messages/$APPID$" {
		t.Errorf("made: %v %s", made.Header, made.Body)
	}
	c.Do("POST", "/v1/admin/tenants", map[string]any{"name": "Second", "component_appid": "wx9c3a8f2e4b6d1076"}).WantProblem(409, "name_taken")
	c.Do("POST", "/v1/admin/tenants", map[string]any{"name": "Third", "component_appid": appid}).WantProblem(409, "component_appid_taken")
	c.Do("PATCH", path, map[string]string{"name": "World"}).WantProblem(409, "name_taken")
	c.Do("PATCH", path, map[string]string{"component_appid": sandbox.DefaultComponentAppID}).WantProblem(409, "component_appid_taken")
	for name, body := range map[string]map[string]any{
		"a star for an origin":     {"cors_origins": []string{"*"}},
		"an origin with a path":    {"cors_origins": []string{"https://shop.example/x"}},
		"51 origins":               {"cors_origins": slices.Repeat([]string{"https://shop.example"}, 51)},
		"a return URL with a user": {"return_url_allow_list": []string{"https://u@shop.example"}},
		"a return URL with dots":   {"return_url_allow_list": []string{"https://shop.example/../x"}},
		"plain http":               {"cors_origins": []string{"http://shop.example"}},
		"an empty name":            {"name": ""},
		"a closed state":           {"status": "closed"},
		"a limit of nothing":       {"limits": map[string]any{"key_burst": 0}},
		"nothing":                  {},
	} {
		if a := c.Do("PATCH", path, body); a.Status != 422 || a.Code() != "validation_failed" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	etag := c.Do("GET", path, nil).Want(200).Header.Get("ETag")
	notModified(t, c, path)
	changed := c.Do("PATCH", path, map[string]any{"release_check": false, "limits": map[string]any{}}, "If-Match", etag).Want(200)
	if changed.Get("release_check") != "false" || changed.Get("limits", "key_burst") == "5" || changed.Get("name") != "Second" {
		t.Errorf("changed: %s", changed.Body)
	}
	c.Do("PATCH", path, map[string]any{"release_check": true}, "If-Match", etag).WantProblem(412, "version_conflict")
	c.Do("DELETE", path, nil, "If-Match", etag).WantProblem(412, "version_conflict")

	const secret = "0c79eferferfeferf0cc0be99b20a18faeb"
	set := c.Do("PUT", path+"/component-credentials", map[string]string{"component_secret": secret, "message_token": "mendian",
		"encoding_aes_key": "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"}).Want(200)
	if len(set.Get("component_secret", "sha256_prefix")) != 8 || strings.Contains(string(set.Body), secret) {
		t.Errorf("credentials: %s", set.Body)
	}
	c.Do("PUT", path+"/component-credentials", map[string]string{"component_secret": secret}).WantProblem(422, "validation_failed")
	c.Do("PUT", path+"/component-credentials", map[string]string{"component_secret": secret, "message_token": "mendian", "encoding_aes_key": "short"}).WantProblem(422, "validation_failed")

	health := c.Do("GET", path+"/health", nil).Want(200)
	if health.Get("ticket", "kept") != "0" || health.Get("ticket", "age_seconds") != "null" || health.Get("status") == "ok" {
		t.Errorf("health without a ticket: %s", health.Body)
	}
	w.WaitTicket(g)
	if a := c.Do("GET", "/v1/admin/tenants/"+w.Tenant.ID+"/health", nil).Want(200); a.Get("status") != "ok" || a.Get("ticket", "received_at") == "null" {
		t.Errorf("health: %s", a.Body)
	}
	restart := "/v1/admin/tenants/" + w.Tenant.ID + "/ticket-restarts"
	if a := c.Do("POST", restart, nil).Want(202); a.Get("last_ticket_at") == "null" {
		t.Errorf("restart: %s", a.Body)
	}
	c.Do("POST", path+"/ticket-restarts", nil).WantProblem(500, "platform_misconfigured") // WeChat doesn't know it
	for errcode, code := range map[int]string{61004: "platform_ip_not_allowed", 45009: "wechat_quota_exhausted", -1: "wechat_system_error", 99999: "wechat_unknown_error"} {
		w.Fault("cgi-bin/component/api_start_push_ticket", 1, map[string]any{"errcode": errcode})
		if a := c.Do("POST", restart, nil); a.Code() != code {
			t.Errorf("errcode %d: %d %s, want %s", errcode, a.Status, a.Body, code)
		}
	}
	w.Fault("cgi-bin/component/api_start_push_ticket", 1, map[string]any{"drop_reply": true})
	c.Do("POST", restart, nil).WantProblem(502, "wechat_unreachable")
	const nobody = "/v1/admin/tenants/ten_01jd7jx5p0f3e4d5c6b7a8n9mp"
	for _, a := range []*world.Answer{c.Do("GET", nobody, nil), c.Do("PATCH", nobody, map[string]bool{"release_check": true}), c.Do("DELETE", nobody, nil), c.Do("GET", nobody+"/health", nil),
		c.Do("POST", nobody+"/ticket-restarts", nil), c.Do("PUT", nobody+"/component-credentials", map[string]string{"component_secret": secret, "message_token": "mendian",
			"encoding_aes_key": "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"})} {
		a.WantProblem(404, "not_found")
	}

	// A tenant's own limit, and its suspension, count everywhere within seconds.
	own := "/v1/admin/tenants/" + w.Tenant.ID
	c.Do("PATCH", own, map[string]any{"limits": map[string]any{"requests_per_second": 1}}).Want(200)
	w.Eventually("the tenant's limit counts", func() error {
		if a := tenantKey.Do("GET", "/v1/me", nil); a.Code() != "rate_limited" || !strings.Contains(a.Header.Get("RateLimit-Policy"), `"tenant";q=1;w=1`) {
			return fmt.Errorf("%d %v", a.Status, a.Header)
		}
		return nil
	})
	c.Do("PATCH", own, map[string]any{"limits": map[string]any{}, "status": "suspended"}).Want(200)
	w.Eventually("the tenant is suspended", func() error {
		if a := tenantKey.Do("GET", "/v1/me", nil); a.Code() != "tenant_suspended" || a.Status != 403 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	c.Do("PATCH", own, map[string]any{"status": "active"}).Want(200)
	w.Eventually("the tenant is active", func() error {
		if a := tenantKey.Do("GET", "/v1/me", nil); a.Status != 200 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})

	for query, want := range map[string]int{"": 2, "limit=1": 2, "status=active": 2, "status=closed": 0, "component_appid=" + appid: 1} {
		if ids, _ := walk(c, "/v1/admin/tenants?"+query, "id"); len(ids) != want {
			t.Errorf("tenants with %s: %v, want %d", query, ids, want)
		}
	}
	c.Do("DELETE", path, nil).Want(204)
	c.Do("DELETE", path, nil).Want(204)
	if ids, _ := walk(c, "/v1/admin/tenants?status=closed", "id"); !slices.Equal(ids, []string{made.Get("id")}) {
		t.Errorf("closed tenants: %v", ids)
	}
	c.Do("GET", "/v1/admin/tenants?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")

	me := c.Do("GET", "/v1/admin/changes?action=tenant.create&limit=1", nil).Want(200)
	if me.Get("data", "0", "tenant_id") != made.Get("id") || me.Get("data", "0", "before") != "null" || me.Get("data", "0", "subject", "type") != "tenant" {
		t.Errorf("change: %s", me.Body)
	}
	actor := me.Get("data", "0", "actor")
	for query, want := range map[string]int{
		"tenant_id=" + made.Get("id"):                               4, // made, changed, credentials, closed
		"actor=" + actor + "&tenant_id=" + made.Get("id"):           4,
		"actor=cli&tenant_id=" + made.Get("id"):                     0,
		"actor=cli&tenant_id=" + w.Tenant.ID + "&limit=1":           3, // made, its credentials, its key
		"action=tenant.set_credentials&tenant_id=" + made.Get("id"): 1,
		"action=api_key.create":                                     1,
		"tenant_id=ten_01jd7jx5p0f3e4d5c6b7a8n9mp":                  0,
	} {
		if ids, _ := walk(c, "/v1/admin/changes?"+query, "id"); len(ids) != want {
			t.Errorf("changes with %s: %d, want %d", query, len(ids), want)
		}
	}
	if all, _ := walk(c, "/v1/admin/changes", "after"); strings.Contains(fmt.Sprint(all), secret) {
		t.Error("a secret is in the change log")
	}
	c.Do("GET", "/v1/admin/changes?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")
}

// Districts, categories and the search on the map.
func TestReferenceData(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	poor := w.Client(g, w.Authorize(g, sandbox.DemoMiniProgram))

	// Before anything is known the map service's own words are told.
	w.Fault("wxa/get_district", 1, map[string]any{"body": `{"status":311,"message":"key format error"}`})
	if a := c.Do("GET", "/v1/districts", nil).WantProblem(502, "map_service_error"); a.Get("upstream", "errcode") != "311" || a.Get("upstream", "errmsg") != "key format error" {
		t.Errorf("%s", a.Body)
	}
	w.Fault("wxa/get_merchant_category", 1, map[string]any{"errcode": -1})
	c.Do("GET", "/v1/categories?scheme=store_program", nil).WantProblem(502, "wechat_system_error")

	count := func(path string) int { return len(rows(c.Do("GET", path, nil).Want(200))) }
	all := count("/v1/districts")
	if p, ci, d := count("/v1/districts?level=province"), count("/v1/districts?level=city"), count("/v1/districts?level=district"); p < 2 || p+ci+d != all {
		t.Errorf("%d provinces, %d cities, %d districts of %d", p, ci, d, all)
	}
	if n, m := count("/v1/districts?parent_id=440000"), count("/v1/districts?parent_id=440000&level=city"); n == 0 || n != m {
		t.Errorf("%d in Guangdong, %d of them cities", n, m)
	}
	if n := count("/v1/districts?parent_id=440000&level=district"); n != 0 {
		t.Errorf("%d districts directly in Guangdong", n)
	}
	beijing := c.Do("GET", "/v1/districts?parent_id=110000", nil).Want(200)
	if beijing.Get("data", "0", "level") != "city" || !strings.HasPrefix(beijing.Get("data", "0", "id"), "1101") {
		t.Errorf("a municipality has its districts on the second level: %s", beijing.Body)
	}
	haizhu := c.Do("GET", "/v1/districts/440105", nil).Want(200)
	if haizhu.Get("parent_id") != "440100" || haizhu.Get("name") != "null" || haizhu.Get("pinyin") != "null" || haizhu.Get("location", "latitude") == "" {
		t.Errorf("Haizhu: %s", haizhu.Body)
	}
	if a := c.Do("GET", "/v1/districts/440100", nil).Want(200); a.Get("pinyin", "0") != "guang" || a.Get("name") != "Guangzhou" {
		t.Errorf("Guangzhou: %s", a.Body)
	}
	c.Do("GET", "/v1/districts/999999", nil).WantProblem(404, "not_found")
	c.Do("GET", "/v1/districts/x", nil).WantProblem(400, "invalid_parameter")
	c.Do("GET", "/v1/districts?level=street", nil).WantProblem(400, "invalid_parameter")

	for query, want := range map[string]int{"": 14, "&level=1": 4, "&level=2": 10, "&level=3": 0, "&parent_id=278": 3, "&sensitive=true": 6, "&level=2&sensitive=false": 4, "&parent_id=278&sensitive=true": 1} {
		if n := count("/v1/categories?scheme=store_program" + query); n != want {
			t.Errorf("categories with %s: %d, want %d", query, n, want)
		}
	}
	shop := find(t, c.Do("GET", "/v1/categories?scheme=store_program&parent_id=278&sensitive=true", nil), "id", "280")
	if shop["name"] != "Convenience Store" || shop["parent_id"] != "278" || shop["sensitive"] != true || len(shop["required_certificates"].([]any)) != 1 || shop["scene"] != float64(3) {
		t.Errorf("a category: %v", shop)
	}
	c.Do("GET", "/v1/categories", nil).WantProblem(400, "invalid_parameter")
	w.Fault("cgi-bin/poi/getwxcategory", 1, map[string]any{"errcode": 48001})
	c.Do("GET", "/v1/categories?scheme=legacy_store", nil).WantProblem(403, "wechat_api_not_enabled")
	huaiyang := find(t, c.Do("GET", "/v1/categories?scheme=legacy_store&level=3", nil), "name", "Huaiyang Cuisine")
	if fmt.Sprint(huaiyang["path"]) != "[Food Jiangzhe Cuisine Huaiyang Cuisine]" || huaiyang["id"] != nil || fmt.Sprint(shop["path"]) != "[Shopping Convenience Store]" {
		t.Errorf("paths: %v, %v", huaiyang, shop["path"])
	}
	for _, query := range []string{"&parent_id=1", "&sensitive=true"} {
		c.Do("GET", "/v1/categories?scheme=legacy_store"+query, nil).WantProblem(400, "invalid_parameter")
	}
	c.Do("GET", "/v1/categories?scheme=store_program&sensitive=maybe", nil).WantProblem(400, "invalid_parameter")

	for _, path := range []string{"/v1/districts?level=province", "/v1/districts/440105", "/v1/categories?scheme=store_program&level=1"} {
		a := c.Do("GET", path, nil).Want(200)
		if a.Header.Get("Cache-Control") != "private, max-age=86400" || !strings.Contains(strings.Join(a.Header.Values("Vary"), ", "), "Authorization, Merchant-Id") {
			t.Errorf("GET %s may be kept: %v", path, a.Header)
		}
		notModified(t, c, path)
		poor.Do("GET", path, nil).WantProblem(403, "permission_set_missing")
		c.For("").Do("GET", path, nil).WantProblem(400, "merchant_required")
	}
	if n := len(w.Journal("wxa/get_district")); n != 2 {
		t.Errorf("WeChat was asked %d times for districts, want the refused one and one more", n)
	}

	place := c.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil).Want(200)
	if place.Get("data", "0", "map_poi_id") != "2708071440732747189" || place.Get("data", "0", "phones", "0") != "020-89190388" || place.Get("data", "0", "category_path", "1") != "Gym" ||
		place.Get("data", "0", "location", "latitude") != "23.1088695526" || place.Get("has_more") != "false" {
		t.Errorf("places: %s", place.Body)
	}
	if a := c.Do("GET", "/v1/map-pois?keyword=nowhere&district_id=440105", nil).Want(200); a.Get("data") != "[]" {
		t.Errorf("nothing found: %s", a.Body)
	}
	c.Do("GET", "/v1/map-pois?district_id=440105&keyword="+strings.Repeat("店", 64), nil).Want(200)
	for _, query := range []string{"district_id=440105&keyword=" + strings.Repeat("x", 65), "district_id=440105&keyword=", "district_id=440105", "keyword=x", "keyword=x&district_id=y", "keyword=%07&district_id=440105"} {
		c.Do("GET", "/v1/map-pois?"+query, nil).WantProblem(400, "invalid_parameter")
	}
	c.Do("GET", "/v1/map-pois?keyword=x&district_id=1", nil).WantProblem(422, "invalid_argument")
	poor.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil).WantProblem(403, "permission_set_missing")
}

// More at the same time than the process takes.
func TestOverload(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(map[string]string{"GATEWAY_MAX_IN_FLIGHT": "1"})
	c := w.Demo(g)
	w.Fault("wxa/get_store_list", 1, map[string]any{"delay_ms": 2000})
	var wg sync.WaitGroup
	wg.Go(func() {
		if a, err := c.Try("GET", "/v1/stores?source=live", nil); err != nil || a.Status != 200 {
			t.Errorf("%v %v", a, err)
		}
	})
	w.Eventually("the gateway is full", func() error {
		a := c.Do("GET", "/v1/me", nil)
		if a.Code() != "overloaded" || a.Status != 503 || a.Header.Get("Retry-After") == "" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	wg.Wait()
	c.Do("GET", "/v1/me", nil).Want(200)
}

// A process that is told to end says so to who is still connected, and ends.
func TestShutdown(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Client(g, "")
	c.Do("GET", "/v1/me", nil).Want(200)
	g.Signal(syscall.SIGTERM)
	w.Eventually("it says so", func() error {
		a := c.Do("GET", "/v1/me", nil)
		if a.Code() != "shutting_down" || a.Status != 503 || a.Header.Get("Retry-After") != "1" {
			return fmt.Errorf("%d %v %s", a.Status, a.Header, a.Body)
		}
		return nil
	})
	g.WaitExit(20 * time.Second)
	if g.ExitCode() != 0 {
		t.Errorf("exit code %d", g.ExitCode())
	}
}

// The database is away: 503, nothing is sent to WeChat, and it goes on when
// the database is back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)
	store := w.NewStore(1)
	allow := func(yes bool) {
		cfg, err := pgx.ParseConfig(w.DSN)
		if err != nil {
			t.Fatal(err)
		}
		name := cfg.Database
		cfg.Database = "postgres"
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(`ALTER DATABASE %s ALLOW_CONNECTIONS %t`, pgx.Identifier{name}.Sanitize(), yes)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name); err != nil {
			t.Fatal(err)
		}
	}
	allow(false)
	if a := c.Do("GET", "/v1/stores", nil).WantProblem(503, "storage_unavailable"); a.Header.Get("Retry-After") == "" || a.Get("retryable") != "true" {
		t.Errorf("%v %s", a.Header, a.Body)
	}
	c.Do("POST", "/v1/stores", store).WantProblem(503, "storage_unavailable")
	if n := len(w.Journal("wxa/add_store")); n != 0 {
		t.Errorf("WeChat was asked %d times for what could not be recorded", n)
	}
	if resp, err := http.Get(g.URL + "/readyz"); err != nil || resp.StatusCode != 503 {
		t.Errorf("readyz: %v %v", resp, err)
	}
	allow(true)
	w.Eventually("it works again", func() error {
		if a := c.Do("POST", "/v1/stores", store); a.Status != 202 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	g.WaitReady()
}
