package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

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
