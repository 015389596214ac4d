package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// A temporary file of ours that has expired is refused, by the field that names
// it, wherever one is named, and WeChat isn't asked. One that was uploaded
// elsewhere only WeChat knows.
func TestMediaExpired(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	m := s.Client(s.gateway, s.Authorize(s.gateway, sandbox.DemoMiniProgram))
	upload := func(c *world.Client, purpose string, n int) string {
		return c.Do("POST", "/v1/media/temporary", fileOf(picture(t, "png", 100, 100, n), "purpose", purpose)).Want(201).Get("media_id")
	}
	old, alive := upload(s.client, "certificate", 1), upload(s.client, "certificate", 2)
	oldCover, cover := upload(m, "goods_cover", 3), upload(m, "goods_cover", 4)
	waiting := m.Do("POST", "/v1/goods", map[string]any{"name": "Tea", "cover_media_id": cover, "pricing": fixed("1.00"), "path": "pages/index"}).Want(202).Get("id")
	s.Exec(`UPDATE resources SET status = 'unreviewed' WHERE type = 'goods' AND wechat_id IS NOT NULL AND origin = 'api'`)
	used := s.fresh("company_name", "Longdi", "qualification_media_ids", []string{alive, old})
	s.client.Do("POST", "/v1/stores", used, "Idempotency-Key", "used").Want(202)

	// Three days pass, for two of them.
	s.Exec(`UPDATE media_files SET expires_at = now() - interval '1 second' WHERE wechat_id = ANY ($1)`, []string{old, oldCover})
	calls := func() int {
		return len(s.Journal("wxa/add_store")) + len(s.Journal("wxa/apply_merchant")) + len(s.Journal("wxa/modify_merchant")) +
			len(s.Journal("wxaapi/broadcast/goods/add")) + len(s.Journal("wxaapi/broadcast/goods/update"))
	}
	before := calls()
	program := "/v1/merchants/" + s.client.Merchant + "/store-program"
	s.Exec(`UPDATE resources SET status = 'rejected' WHERE type = 'store_program'`) // else one may not apply
	apply := func(changes ...any) map[string]any { return documentsProgram(changes...) }
	for name, tc := range map[string]struct {
		client       *world.Client
		method, path string
		body         map[string]any
		pointers     []string
	}{
		"store":        {s.client, "POST", "/v1/stores", s.fresh("company_name", "Longdi", "qualification_media_ids", []string{alive, old, old}), []string{"/qualification_media_ids/1", "/qualification_media_ids/2"}},
		"goods":        {m, "POST", "/v1/goods", map[string]any{"name": "Tea 2", "cover_media_id": oldCover, "pricing": fixed("1.00"), "path": "pages/index"}, []string{"/cover_media_id"}},
		"change":       {m, "PATCH", "/v1/goods/" + waiting, map[string]any{"cover_media_id": oldCover}, []string{"/cover_media_id"}},
		"head image":   {s.client, "POST", program, apply("head_image_media_id", old), []string{"/head_image_media_id"}},
		"documents":    {s.client, "POST", program, apply("qualification_media_ids", []string{old}), []string{"/qualification_media_ids/0"}},
		"organization": {s.client, "POST", program, apply("organization_code_media_id", old, "other_file_media_ids", []string{alive, old}), []string{"/organization_code_media_id", "/other_file_media_ids/1"}},
	} {
		for _, query := range []string{"?validate_only=true", ""} {
			a := tc.client.Do(tc.method, tc.path+query, tc.body)
			var pointers []string
			for i := 0; a.Get("errors", fmt.Sprint(i)) != ""; i++ {
				pointers = append(pointers, a.Get("errors", fmt.Sprint(i), "pointer"))
			}
			if a.Status != 422 || a.Code() != "media_expired" || strings.Join(pointers, " ") != strings.Join(tc.pointers, " ") || a.Get("errors", "0", "code") != "media_expired" {
				t.Errorf("%s%s: %d %s, want %v", name, query, a.Status, a.Body, tc.pointers)
			}
		}
	}
	s.Exec(`UPDATE resources SET status = 'approved' WHERE type = 'store_program'`)
	if a := s.client.Do("PATCH", program, map[string]string{"head_image_media_id": old}); a.Code() != "media_expired" || a.Get("errors", "0", "pointer") != "/head_image_media_id" {
		t.Errorf("modify: %d %s", a.Status, a.Body)
	}
	if n := calls(); n != before {
		t.Errorf("%d calls were made", n-before)
	}
	// What was done before they expired is answered as it was.
	if a := s.client.Do("POST", "/v1/stores", used, "Idempotency-Key", "used").Want(202); a.Header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the same key: %v %s", a.Header, a.Body)
	}
	// The file itself is uploaded anew.
	if again := upload(s.client, "certificate", 1); again == old {
		t.Error("the expired media id was given out again")
	}
	// By WeChat's word, where we know nothing.
	if a := m.Do("POST", "/v1/goods", map[string]any{"name": "Tea 3", "cover_media_id": "unknown", "pricing": fixed("1.00"), "path": "pages/index"}).WantProblem(422, "media_id_invalid"); a.Get("errors", "0", "pointer") != "/cover_media_id" {
		t.Errorf("unknown: %s", a.Body)
	}
}
