package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
)

func TestAuditsAndOperations(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	start := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
	approved := s.active()
	rejected := s.client.Do("POST", "/v1/stores", s.fresh("contact_phone", "020-88880003")).Want(202)
	s.client.Until("/v1/stores/"+rejected.Get("id"), "rejected")
	update := s.client.Do("PATCH", "/v1/stores/"+approved.Get("id"), map[string]any{"photos": []string{"http://mmbiz.qpic.cn/new"}, "contact_phone": "020-88880009"}).Want(202)
	other := s.Authorize(s.gateway, sandbox.LeavingAccount)
	elsewhere := s.client.For(other).Do("POST", "/v1/stores", s.fresh("contact_phone", "020-88880009")).Want(202)
	s.Fault("wxa/add_store", 1, map[string]any{"errcode": 85041})
	failed := s.client.Do("POST", "/v1/stores", s.fresh()).WantProblem(409, "credential_already_used")

	all, audit := s.client.For(""), "/v1/audits/"+approved.Get("audit", "id")
	mine := s.client.Merchant
	for query, want := range map[string]int{
		"":                                       4,
		"kind=store_create":                      3,
		"kind=store_update":                      1,
		"kind=goods":                             0,
		"status=in_review":                       2,
		"status=approved":                        1,
		"status=rejected":                        1,
		"merchant_id=" + mine:                    3,
		"merchant_id=" + sandbox.LeavingAccount:  1,
		"subject=" + approved.Get("id"):          2,
		"subject=mch_01jd7k3v9wf4x8s2m6q0r5t1ya": 0,
		"kind=store_create&wechat_audit_id=" + rejected.Get("audit", "wechat_audit_id"): 1,
		"submitted_after=" + start:                               4,
		"submitted_after=2120-01-01T00:00:00Z":                   0,
		"status=in_review&kind=store_update&merchant_id=" + mine: 1,
		"limit=100": 4,
	} {
		if ids, _ := walk(all, "/v1/audits?"+query, "id"); len(ids) != want {
			t.Errorf("audits with %s: %d, want %d", query, len(ids), want)
		}
	}
	if ids, pages := walk(all, "/v1/audits?limit=3", "id"); len(ids) != 4 || pages != 2 || !slices.IsSortedFunc(ids, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Errorf("%d pages of audits: %v", pages, ids)
	}
	all.Do("GET", "/v1/audits?kind=photo", nil).WantProblem(400, "invalid_parameter")
	all.Do("GET", "/v1/audits?subject=7", nil).WantProblem(400, "invalid_parameter")
	s.client.Do("GET", "/v1/audits?merchant_id="+other, nil).WantProblem(400, "merchant_mismatch")
	if n := len(rows(s.client.Do("GET", "/v1/audits?merchant_id="+s.appid, nil).Want(200))); n != 3 {
		t.Errorf("header and filter that mean the same: %d audits", n)
	}
	all.Do("GET", "/v1/audits?merchant_id=wx00000000000000ff", nil).WantProblem(404, "merchant_not_found")

	a := all.Do("GET", audit, nil).Want(200)
	if a.Get("kind") != "store_create" || a.Get("source") != "event" || a.Get("attempt") != "1" || a.Get("merchant_id") != mine || a.Get("decided_at") == "null" ||
		a.Get("history", "0", "source") != "response" || !strings.HasPrefix(a.Get("history", "1", "raw_event_id"), "evt_") {
		t.Errorf("audit: %s", a.Body)
	}
	notModified(t, all, audit)
	all.Do("GET", "/v1/audits/aud_01jd7k4b2sf1a8w4p9x2y7c3de", nil).WantProblem(404, "not_found")
	all.Do("GET", "/v1/audits/7", nil).WantProblem(400, "invalid_parameter")
	if r := all.Do("GET", "/v1/audits/"+rejected.Get("audit", "id"), nil).Want(200); r.Get("reason") == "null" || r.Get("status") != "rejected" {
		t.Errorf("rejected: %s", r.Body)
	}

	for query, want := range map[string]int{
		"":                                5,
		"kind=store.create":               4,
		"kind=store.update":               1,
		"kind=merchants.sync":             0,
		"status=succeeded":                4,
		"status=failed":                   1,
		"status=needs_attention":          0,
		"merchant_id=" + other:            1,
		"merchant_id=" + s.appid:          4,
		"updated_after=" + start:          5,
		"status=failed&kind=store.create": 1,
	} {
		if ids, _ := walk(all, "/v1/operations?"+query, "id"); len(ids) != want {
			t.Errorf("operations with %s: %d, want %d", query, len(ids), want)
		}
	}
	if ids, pages := walk(all, "/v1/operations?limit=2", "id"); len(ids) != 5 || pages != 3 {
		t.Errorf("%d pages of operations: %v", pages, ids)
	}
	s.client.Do("GET", "/v1/operations?merchant_id="+other, nil).WantProblem(400, "merchant_mismatch")
	all.Do("GET", "/v1/operations?kind=STORE", nil).WantProblem(400, "invalid_parameter")
	op := all.Do("GET", "/v1/operations/"+failed.Get("operation_id"), nil).Want(200)
	if op.Get("error", "code") != "credential_already_used" || op.Get("error", "errors", "0", "pointer") != "/credential_number" || op.Get("error", "upstream", "errcode") != "85041" ||
		op.Get("merchant_id") != mine || !strings.HasPrefix(op.Get("requested_by"), "key_") || op.Get("expires") != "null" {
		t.Errorf("operation: %s", op.Body)
	}
	if zh := all.Do("GET", "/v1/operations/"+failed.Get("operation_id"), nil, "Accept-Language", "zh-CN").Want(200); !strings.Contains(zh.Get("error", "title"), "资质编号") {
		t.Errorf("in Chinese: %s", zh.Body)
	}
	notModified(t, all, "/v1/operations/"+failed.Get("operation_id"))
	all.Do("GET", "/v1/operations/op_01jd7k4b2tf8b5x6q0y3z8d4ef", nil).WantProblem(404, "not_found")

	// A key of one merchant sees nothing of the other.
	bound := all.As(s.NewKey("--scopes", "audits:read,operations:read", "--merchants", other))
	if ids, _ := walk(bound, "/v1/audits", "id"); !slices.Equal(ids, []string{elsewhere.Get("audit", "id")}) {
		t.Errorf("audits of a bound key: %v", ids)
	}
	if ids, _ := walk(bound, "/v1/operations", "id"); !slices.Equal(ids, []string{elsewhere.Header.Get("Operation-Id")}) {
		t.Errorf("operations of a bound key: %v", ids)
	}
	bound.Do("GET", audit, nil).WantProblem(403, "merchant_not_allowed")
	bound.Do("GET", "/v1/operations/"+update.Header.Get("Operation-Id"), nil).WantProblem(403, "merchant_not_allowed")
	bound.Do("GET", "/v1/audits?merchant_id="+mine, nil).WantProblem(403, "merchant_not_allowed")

	admin := all.As(s.AdminKey())
	if n, _ := walk(admin, "/v1/admin/operations?limit=2", "tenant_id"); len(n) != 5 || n[0] != s.Tenant.ID {
		t.Errorf("operations of all tenants: %v", n)
	}
	for query, want := range map[string]int{"status=failed": 1, "kind=store.update": 1, "status=needs_attention": 0, "tenant_id=" + s.Tenant.ID: 5,
		"tenant_id=ten_01jd7jx5p0f3e4d5c6b7a8n9mp": 0} {
		if n, _ := walk(admin, "/v1/admin/operations?"+query, "tenant_id"); len(n) != want {
			t.Errorf("operations of all tenants with %s: %d, want %d", query, len(n), want)
		}
	}
	admin.Do("GET", "/v1/admin/operations?cursor=AAAA", nil).WantProblem(400, "invalid_cursor")
}
