package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// The whole path over HTTP only: ticket → authorisation → key → district → map
// POI → store (the documents' example) → audit → active store. Nothing of
// tickets, tokens, XML or errcodes is seen by the caller.
func TestMainJob(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Demo(g)

	if got := c.Do("GET", "/v1/me", nil).Want(200).Get("tenant", "id"); got != w.Tenant.ID {
		t.Errorf("tenant of /me = %s, want %s", got, w.Tenant.ID)
	}
	provinces := c.Do("GET", "/v1/districts?level=province", nil).Want(200)
	guangdong := find(t, provinces, "full_name", "Guangdong Province")
	cities := c.Do("GET", "/v1/districts?level=city&parent_id="+guangdong["id"].(string), nil).Want(200)
	guangzhou := find(t, cities, "full_name", "Guangzhou City")
	districts := c.Do("GET", "/v1/districts?level=district&parent_id="+guangzhou["id"].(string), nil).Want(200)
	haizhu := find(t, districts, "full_name", "Haizhu District")
	if haizhu["id"] != "440105" || haizhu["name"] != nil || haizhu["parent_id"] != "440100" {
		t.Errorf("Haizhu = %v", haizhu)
	}
	places := c.Do("GET", "/v1/map-pois?keyword=x&district_id=440105", nil).Want(200)
	if places.Get("data", "0", "map_poi_id") == "" {
		t.Fatalf("no places: %s", places.Body)
	}
	if a := c.Do("GET", "/v1/categories?scheme=store_program&level=1", nil).Want(200); a.Get("data", "0", "id") == "0" || a.Get("data", "0", "parent_id") != "null" {
		t.Errorf("categories: %s", a.Body)
	}

	created := c.Do("POST", "/v1/stores", world.DocumentsStore(), "Idempotency-Key", "first").Want(202)
	id := created.Get("id")
	if created.Get("status") != "in_review" || created.Get("audit", "kind") != "store_create" || created.Get("audit", "status") != "in_review" ||
		created.Get("poi_id") != "null" || created.Header.Get("Location") != "/v1/stores/"+id ||
		created.Header.Get("Link") != "</v1/audits/"+created.Get("audit", "id")+`>; rel="status"` || !strings.HasPrefix(created.Header.Get("Operation-Id"), "op_") {
		t.Errorf("created: %v %s", created.Header, created.Body)
	}
	if strings.Contains(string(created.Body), "errcode") || strings.Contains(string(created.Body), "access_token") {
		t.Errorf("WeChat shows through: %s", created.Body)
	}
	issued := created.Get("audit", "wechat_audit_id")

	var active *world.Answer
	w.Eventually("the store turns active", func() error {
		active = c.Do("GET", "/v1/stores/"+id, nil).Want(200)
		if active.Get("status") != "active" || active.Get("name") == "null" {
			return fmt.Errorf("%s", active.Body)
		}
		return nil
	})
	if active.Get("poi_id") == "null" || active.Get("audit", "status") != "approved" || active.Get("audit", "wechat_audit_id") != issued || active.Get("synced_at") == "null" {
		t.Errorf("active: %s", active.Body)
	}
	audit := c.Do("GET", "/v1/audits/"+active.Get("audit", "id"), nil).Want(200)
	if audit.Get("source") != "event" || audit.Get("history", "1", "status") != "approved" || audit.Get("subject", "id") != id {
		t.Errorf("audit: %s", audit.Body)
	}
	byNumber := c.Do("GET", "/v1/stores/"+active.Get("poi_id")+"?source=live", nil).Want(200)
	if byNumber.Get("id") != id || byNumber.Get("name") != active.Get("name") || byNumber.Get("upstream_status") != "1" {
		t.Errorf("by WeChat's number: %s", byNumber.Body)
	}
	list := c.Do("GET", "/v1/stores?source=live&limit=50", nil).Want(200)
	if s := find(t, list, "poi_id", active.Get("poi_id")); s["id"] != id {
		t.Errorf("live list: %v", s)
	}
	op := c.Do("GET", "/v1/operations/"+created.Header.Get("Operation-Id"), nil).Want(200)
	if op.Get("status") != "succeeded" || op.Get("attempts", "0", "outcome") != "executed" || op.Get("subject", "id") != id {
		t.Errorf("operation: %s", op.Body)
	}

	checkWire(t, w)

	// Change, with audited pictures and without; then delete.
	hours := c.Do("PATCH", "/v1/stores/"+id, map[string]any{"business_hours": map[string]string{"open": "09:00", "close": "22:00"}}).Want(200)
	if hours.Get("business_hours", "open") != "09:00" || hours.Get("contact_phone") != "1111222222" {
		t.Errorf("after PATCH of hours: %s", hours.Body)
	}
	photos := c.Do("PATCH", "/v1/stores/"+id, map[string]any{"photos": []string{"http://mmbiz.qpic.cn/mmbiz_png/new/0?wx_fmt=png"}}).Want(202)
	if photos.Get("audit", "kind") != "store_update" || photos.Get("status") != "active" {
		t.Errorf("after PATCH of photos: %s", photos.Body)
	}
	w.Eventually("the new picture is approved", func() error {
		a := c.Do("GET", "/v1/stores/"+id, nil).Want(200)
		if a.Get("audit", "status") != "approved" || a.Get("photos", "0") != "http://mmbiz.qpic.cn/mmbiz_png/new/0?wx_fmt=png" {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	c.Do("DELETE", "/v1/stores/"+id, nil, "If-Match", hours.Header.Get("ETag")).WantProblem(http.StatusPreconditionFailed, "version_conflict")
	c.Do("DELETE", "/v1/stores/"+id, nil, "Idempotency-Key", "bye").Want(204)
	again := c.Do("DELETE", "/v1/stores/"+id, nil, "Idempotency-Key", "bye").Want(204)
	if again.Header.Get("Idempotency-Replayed") != "true" || len(w.Journal("wxa/del_store")) != 1 {
		t.Errorf("a repeated DELETE: %v, %d calls", again.Header, len(w.Journal("wxa/del_store")))
	}
	if got := c.Do("GET", "/v1/stores/"+id, nil).Want(200).Get("status"); got != "deleted" {
		t.Errorf("status after DELETE = %s", got)
	}
	c.Do("PATCH", "/v1/stores/"+id, map[string]any{"contact_phone": "020-1234567"}).WantProblem(409, "store_not_updatable")
	c.Do("DELETE", "/v1/stores/"+id, nil).WantProblem(404, "store_not_found")

	// A merchant that did not grant the sets: nothing is written or sent.
	before := len(w.Journal("wxa/add_store"))
	poor := w.Client(g, w.Authorize(g, sandbox.NoStoreSetsAccount))
	p := poor.Do("POST", "/v1/stores", world.DocumentsStore()).WantProblem(403, "permission_set_missing")
	if p.Get("required_any_of", "0") != "8" || p.Get("granted", "0") != "1" {
		t.Errorf("permission problem: %s", p.Body)
	}
	if n := len(w.Journal("wxa/add_store")); n != before {
		t.Errorf("%d calls of add_store were made without the permission set", n-before)
	}
	if a := poor.Do("GET", "/v1/operations", nil).Want(200); a.Get("data") != "[]" {
		t.Errorf("an operation was written: %s", a.Body)
	}
	g.Stop()
}

// checkWire compares, byte for byte, what reached WeChat for the documents'
// example (000 §4.8): pic_list is a JSON string, hour, contract_phone,
// credential and card_id are there, and nothing is escaped that needn't be.
func checkWire(t *testing.T, w *world.World) {
	t.Helper()
	calls := w.Journal("wxa/add_store")
	if len(calls) != 1 {
		t.Fatalf("%d calls of add_store, want 1", len(calls))
	}
	const want = `{"poi_id":"","map_poi_id":"2880741500279549033",` +
		`"pic_list":"{\"list\":[\"http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg\"]}",` +
		`"contract_phone":"1111222222","hour":"10:00-21:00","credential":"22883878-0","card_id":""}`
	if diff := cmp.Diff(want, calls[0].Body); diff != "" {
		t.Errorf("add_store's body: %s", diff)
	}
	if calls[0].Method != http.MethodPost || !strings.HasPrefix(calls[0].Query, "access_token=") {
		t.Errorf("add_store was called with %s ?%.20s", calls[0].Method, calls[0].Query)
	}
	for name := range calls[0].Headers {
		if strings.EqualFold(name, "Idempotency-Key") {
			t.Error("WeChat was sent an Idempotency-Key")
		}
	}
}

// UTF-8 arrives unescaped.
func TestChineseArrivesUnescaped(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	c := w.Demo(w.Start(nil))
	s := w.NewStore(1)
	s["company_name"], s["qualification_media_ids"] = "广州茶杯有限公司 <A&B>", []string{"RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P"}
	c.Do("POST", "/v1/stores", s).Want(202)
	if body := w.Journal("wxa/add_store")[0].Body; !strings.Contains(body, `"company_name":"广州茶杯有限公司 <A&B>"`) {
		t.Errorf("body: %s", body)
	}
}

// find returns the row of a list whose member is value.
func find(t *testing.T, a *world.Answer, member, value string) map[string]any {
	t.Helper()
	var list struct{ Data []map[string]any }
	if err := json.Unmarshal(a.Body, &list); err != nil {
		t.Fatal(err)
	}
	for _, row := range list.Data {
		if row[member] == value {
			return row
		}
	}
	t.Fatalf("no row with %s = %s in %s", member, value, a.Body)
	return nil
}
