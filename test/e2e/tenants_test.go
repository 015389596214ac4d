package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

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
