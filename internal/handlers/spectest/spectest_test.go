package spectest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// serve answers every request the same way.
func serve(t *testing.T, status int, contentType, body string) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Request-Id", "req_1")
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	return srv
}

func problemBody(status int, code string) string {
	return fmt.Sprintf(`{"type":"t","title":"t","status":%d,"code":%q,"detail":"d","errors":[],"request_id":"req_1","operation_id":null,`+
		`"retryable":false,"retry_after_seconds":null,"upstream":null,"doc_url":"u","required":"x"}`, status, code)
}

const me = `{"tenant":{"id":"ten_01jd7jx5p0f3e4d5c6b7a8n9mp","name":"x"},"key":{"id":"key_01jd7jz0m1f2c3d4e5f6g7h8jk","name":"k","expires_at":"2026-11-21T08:00:00Z"},"scopes":[],"merchants":null}`

func TestTransport(t *testing.T) {
	t.Parallel()
	const jsonType, problemType = "application/json; charset=utf-8", "application/problem+json"
	for _, tc := range []struct {
		name, method, path string
		status             int
		contentType, body  string
		operation, code    string
		violation          string // contained in one; empty: none
	}{
		{"as promised", "GET", "/v1/me", 200, jsonType, me, "getMe", "", ""},
		{"no body", "DELETE", "/v1/stores/1", 204, "", "", "deleteStore", "", ""},
		{"a listed error", "GET", "/v1/me", 401, problemType, problemBody(401, "token_missing"), "getMe", "token_missing", ""},
		{"an unlisted error", "GET", "/v1/me", 403, problemType, problemBody(403, "scope_missing"), "getMe", "scope_missing", "not in x-error-codes"},
		{"a wrong status", "GET", "/v1/me", 201, jsonType, me, "getMe", "", "status"},
		{"a member too few", "GET", "/v1/me", 200, jsonType, strings.Replace(me, `,"merchants":null`, "", 1), "getMe", "", "merchants"},
		{"a member too many", "GET", "/v1/me", 200, jsonType, strings.Replace(me, `"name":"k"`, `"name":"k","secret":1`, 1), "getMe", "", "/key/secret"},
		{"a wrong type", "GET", "/v1/me", 200, jsonType, strings.Replace(me, `"scopes":[]`, `"scopes":null`, 1), "getMe", "", "scopes"},
		{"a wrong media type", "GET", "/v1/me", 200, "text/plain", me, "getMe", "", "ontent"},
		{"an error that is no problem", "GET", "/v1/me", 500, jsonType, "{}", "getMe", "", "application/problem+json"},
		{"two statuses", "GET", "/v1/me", 401, problemType, problemBody(400, "token_missing"), "getMe", "token_missing", "the problem says status 400"},
		{"unknown path", "GET", "/v1/nothing", 404, problemType, problemBody(404, "not_found"), "", "not_found", ""},
		{"a route outside the contract", "GET", "/v1/nothing", 200, jsonType, "{}", "", "", "not in the contract"},
		{"a missing method", "GET", "/v1/me", 405, problemType, problemBody(405, "method_not_allowed"), "getMe", "method_not_allowed", "has this method"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := serve(t, tc.status, tc.contentType, tc.body)
			r := Transport(nil)
			r.file = "" // a stub's answers prove nothing about the gateway
			req, _ := http.NewRequestWithContext(t.Context(), tc.method, srv.URL+tc.path, nil)
			res, err := (&http.Client{Transport: r}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			seen := r.Seen()
			if !slices.Contains(seen, Sighting{Operation: tc.operation, Status: tc.status, Code: tc.code}) {
				t.Errorf("seen %v", seen)
			}
			var violations []string
			for _, s := range seen {
				if s.Violation != "" {
					violations = append(violations, s.Violation)
				}
			}
			if all := strings.Join(violations, "\n"); (tc.violation == "") != (all == "") || !strings.Contains(all, tc.violation) {
				t.Errorf("violations %q, want %q", violations, tc.violation)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "seen")
	srv := serve(t, 200, "application/json", me)
	r := Transport(nil)
	r.file = file
	for _, path := range []string{"/v1/me", "/v1/me", "/v1/stores", "/docs/"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		res, err := (&http.Client{Transport: r}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	data, err := os.ReadFile(file)
	if err != nil || strings.Count(string(data), "\n") < 2 || strings.Count(string(data), `"getMe"`) != 1 {
		t.Fatalf("record: %s, %v", data, err)
	}
	wrong, err := Check([]string{file}, map[string]string{"listMerchants": "a reason", "overloaded": "a reason", "nothing": "x", "getStore": ""})
	if err != nil {
		t.Fatal(err)
	}
	has := func(start string) bool {
		return slices.ContainsFunc(wrong, func(w string) bool { return strings.HasPrefix(w, start) })
	}
	for start, want := range map[string]bool{
		"getMe: no test": false, "createStore: no test": true, "listMerchants: no test": false,
		"overloaded: ": false, "token_missing: listed": true,
		"listStores: 200": true, "nothing: an exception for": true, "getStore: an exception without": true,
	} {
		if has(start) != want {
			t.Errorf("Check says %q: %t, want %t", start, has(start), want)
		}
	}
	if _, err := Check([]string{file + "x"}, nil); err == nil {
		t.Error("Check takes a file that isn't there")
	}
}
