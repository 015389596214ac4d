package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// picture is a picture like no other of this number.
func picture(t *testing.T, format string, width, height, n int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	all := color.RGBA{R: uint8(n << 4), G: uint8(n >> 4 << 4), B: uint8(n >> 8 << 4), A: 255}
	draw.Draw(img, img.Bounds(), image.NewUniform(all), image.Point{}, draw.Src)
	var b bytes.Buffer
	var err error
	switch format {
	case "jpeg":
		err = jpeg.Encode(&b, img, &jpeg.Options{Quality: 100})
	case "png":
		err = png.Encode(&b, img)
	case "gif":
		err = gif.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fileOf(b []byte, texts ...string) world.Form {
	f := world.Form{File: b, Texts: map[string]string{}}
	for i := 0; i+1 < len(texts); i += 2 {
		f.Texts[texts[i]] = texts[i+1]
	}
	return f
}

// uploaded is the one part of the newest upload that reached WeChat.
func uploaded(t *testing.T, w *world.World, call string) (query string, part *multipart.Part, file []byte) {
	t.Helper()
	calls := w.Journal("cgi-bin/media/" + call)
	newest := calls[len(calls)-1]
	_, params, err := mime.ParseMediaType(strings.Trim(fmt.Sprint(newest.Headers["Content-Type"]), "[]"))
	if err != nil {
		t.Fatal(err)
	}
	part, err = multipart.NewReader(bytes.NewReader(newest.Bytes), params["boundary"]).NextPart()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(part); err != nil {
		t.Fatal(err)
	}
	return newest.Query, part, b.Bytes()
}

// A photo gets its URL, a cover its media id, which goods take: document 001
// §3.1 and platform.md §10, through a form of ours.
func TestMedia(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{Env: map[string]string{"GATEWAY_KEY_RATE": "900", "GATEWAY_KEY_BURST": "900"}})
	g := w.Start(nil)
	c := w.Client(g, w.Authorize(g, sandbox.DemoOfficialAccount))
	const images, temporary = "/v1/media/images", "/v1/media/temporary"
	calls := func() int { return len(w.Journal("cgi-bin/media/uploadimg")) + len(w.Journal("cgi-bin/media/upload")) }

	photo := picture(t, "jpeg", 40, 30, 1)
	sum := sha256.Sum256(photo)
	if a := c.Do("POST", images+"?validate_only=true", fileOf(photo), "Idempotency-Key", "photo-1").Want(200); a.Get("valid") != "true" || calls() != 0 {
		t.Errorf("validated with %d calls: %s", calls(), a.Body)
	}
	first := c.Do("POST", images, fileOf(photo), "Idempotency-Key", "photo-1").Want(201)
	if !strings.HasPrefix(first.Get("url"), "http://mmbiz.qpic.cn/") || first.Get("sha256") != hex.EncodeToString(sum[:]) || first.Header.Get("Operation-Id") == "" {
		t.Errorf("uploaded: %v %s", first.Header, first.Body)
	}
	if query, part, file := uploaded(t, w, "uploadimg"); !strings.HasPrefix(query, "access_token=") || strings.Contains(query, "type=") || part.FormName() != "media" || part.FileName() == "" ||
		part.Header.Get("Content-Type") != "image/jpeg" || !bytes.Equal(file, photo) {
		t.Errorf("on the wire: ?%s %v, %d bytes", query, part.Header, len(file))
	}
	op := c.Do("GET", "/v1/operations/"+first.Header.Get("Operation-Id"), nil).Want(200)
	if op.Get("kind") != "media.upload_image" || op.Get("status") != "succeeded" || op.Get("subject") != "null" {
		t.Errorf("its operation: %s", op.Body)
	}
	if n := len(w.Query(`SELECT 1 AS one FROM wechat_id_ledger WHERE id_type = 'image_url' AND wechat_id = $1`, first.Get("url"))); n != 1 {
		t.Errorf("the URL is %d times in the ledger of ids", n)
	}
	if rows := w.Query(`SELECT octet_length(request_ct) AS n FROM operations WHERE kind = 'media.upload_image' AND octet_length(request_ct) > 300`); len(rows) != 0 {
		t.Errorf("files are kept: %v", rows)
	}

	// The same file again is the same image: with the same key, another, or none.
	for _, key := range []string{"photo-1", "photo-2", ""} {
		headers := []string{"Idempotency-Key", key}
		if key == "" {
			headers = nil
		}
		again := c.Do("POST", images, fileOf(photo), headers...).Want(201)
		if again.Get("url") != first.Get("url") || again.Header.Get("Operation-Id") != first.Header.Get("Operation-Id") || (again.Header.Get("Idempotency-Replayed") == "true") != (key == "photo-1") {
			t.Errorf("again with %q: %v %s", key, again.Header, again.Body)
		}
	}
	if n := calls(); n != 1 {
		t.Errorf("%d calls for one file", n)
	}
	c.Do("POST", images, fileOf(picture(t, "jpeg", 40, 30, 2)), "Idempotency-Key", "photo-1").WantProblem(422, "idempotency_key_reused")

	// Another merchant's is its own.
	other := w.Client(g, w.Authorize(g, sandbox.DemoMiniProgram))
	cover := picture(t, "png", 300, 300, 3)
	before := time.Now().Add(-5 * time.Second)
	media := other.Do("POST", temporary, fileOf(cover, "purpose", "goods_cover")).Want(201)
	created, err1 := time.Parse(time.RFC3339, media.Get("created_at"))
	expires, err2 := time.Parse(time.RFC3339, media.Get("expires_at"))
	if err1 != nil || err2 != nil || expires.Sub(created) != 72*time.Hour || created.Before(before) || media.Get("media_id") == "" {
		t.Errorf("temporary: %s", media.Body)
	}
	if query, part, file := uploaded(t, w, "upload"); !strings.Contains(query, "type=image") || part.FormName() != "media" || part.Header.Get("Content-Type") != "image/png" || !bytes.Equal(file, cover) {
		t.Errorf("on the wire: ?%s %v, %d bytes", query, part.Header, len(file))
	}
	if a := other.Do("POST", temporary, fileOf(cover, "purpose", "goods_cover")).Want(201); a.Get("media_id") != media.Get("media_id") {
		t.Errorf("again: %s", a.Body)
	}
	for name, a := range map[string]*world.Answer{
		"purpose":  other.Do("POST", temporary, fileOf(cover, "purpose", "certificate")),
		"merchant": c.Do("POST", temporary, fileOf(cover, "purpose", "goods_cover")),
	} {
		if a.Want(201).Get("media_id") == media.Get("media_id") {
			t.Errorf("another %s has the same media id", name)
		}
	}
	item := map[string]any{"name": "Tea", "cover_media_id": media.Get("media_id"), "pricing": fixed("1.00"), "path": "pages/index"}
	if a := other.Do("POST", "/v1/goods", item).Want(202); a.Get("status") != "in_review" {
		t.Errorf("goods with the cover: %s", a.Body)
	}

	t.Run("what is no picture for WeChat is refused here", func(t *testing.T) { mediaRules(t, w.On(t), g, c) })

	t.Run("a lost answer is sent again", func(t *testing.T) {
		w := w.On(t)
		c := w.Client(g, c.Merchant)
		for i, fault := range []map[string]any{{"drop_reply": true}, {"drop_reply": true, "before": true}, {"errcode": -1}, {"http_status": 502}, {"truncate_to": 5}, {"body": `{"errcode":87654321}`}} {
			file, key := fileOf(picture(t, "jpeg", 10, 10, 100+i)), fmt.Sprint("lost-", i)
			w.Fault("cgi-bin/media/uploadimg", 1, fault)
			lost := c.Do("POST", images, file, "Idempotency-Key", key)
			if lost.Status != 502 || (lost.Get("retryable") != "true") != (lost.Code() == "wechat_unknown_error") {
				t.Errorf("%v: %d %s", fault, lost.Status, lost.Body)
			}
			if op := c.Do("GET", "/v1/operations/"+lost.Get("operation_id"), nil).Want(200); op.Get("status") != "failed" || op.Get("attempts", "0", "outcome") != "ambiguous" || op.Get("next_check_at") != "null" {
				t.Errorf("%v: %s", fault, op.Body)
			}
			again := c.Do("POST", images, file, "Idempotency-Key", key).Want(201)
			if again.Header.Get("Operation-Id") != lost.Get("operation_id") {
				t.Errorf("%v: %v %s", fault, again.Header, again.Body)
			}
		}
	})

	t.Run("WeChat's errcodes", func(t *testing.T) {
		w := w.On(t)
		n := 1000
		fresh := func() []byte { n++; return picture(t, "jpeg", 10, 10, n) }
		c := w.Client(g, c.Merchant)
		answersEveryErrcode(t, w, c, errcodeCall{operation: "uploadImage", endpoint: "media.upload_image", path: "cgi-bin/media/uploadimg", write: true,
			do: func(c *world.Client) *world.Answer { return c.Do("POST", images, fileOf(fresh())) }})
		answersEveryErrcode(t, w, c, errcodeCall{operation: "uploadTemporaryMedia", endpoint: "media.upload", path: "cgi-bin/media/upload", write: true,
			do: func(c *world.Client) *world.Answer {
				return c.Do("POST", temporary, fileOf(fresh(), "purpose", "certificate"))
			}})
	})
}

// mediaRules tries what must never reach WeChat (design security.md §12 no. 58).
func mediaRules(t *testing.T, w *world.World, g *world.Gateway, c *world.Client) {
	c = w.Client(g, c.Merchant)
	const images, temporary = "/v1/media/images", "/v1/media/temporary"
	poor := w.Client(g, sandbox.DemoMiniProgram) // grants {30, 52}
	before := len(w.Journal("cgi-bin/media/uploadimg")) + len(w.Journal("cgi-bin/media/upload"))

	good, drawn := picture(t, "jpeg", 20, 20, 7), picture(t, "png", 20, 20, 7)
	padded := func(n int) []byte { return append(slices.Clone(good), bytes.Repeat([]byte{0}, n-len(good))...) }
	huge := slices.Clone(good) // a header that promises 50,000 by 50,000 pixels
	sof := bytes.Index(huge, []byte{0xff, 0xc0})
	binary.BigEndian.PutUint16(huge[sof+5:], 50000)
	binary.BigEndian.PutUint16(huge[sof+7:], 50000)
	svg := []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>`)
	for _, tc := range []struct {
		name, path string
		form       world.Form
		status     int
		code, rule string
	}{
		{"nothing", images, fileOf(nil), 422, "validation_failed", "/file required"},
		{"empty", images, fileOf([]byte{}), 422, "image_size_invalid", "/file too_small"},
		{"a byte too many", images, fileOf(padded(1<<20 + 1)), 413, "body_too_large", "/file too_large"},
		{"far too many", images, fileOf(padded(2 << 20)), 413, "body_too_large", "/file too_large"},
		{"a byte too many", temporary, fileOf(padded(1<<20+1), "purpose", "certificate"), 413, "body_too_large", "/file too_large"},
		{"PNG", images, fileOf(drawn), 422, "image_format_invalid", "/file format"},
		{"GIF", temporary, fileOf(picture(t, "gif", 9, 9, 1), "purpose", "head_image"), 422, "image_format_invalid", "/file format"},
		{"SVG", temporary, fileOf(svg, "purpose", "head_image"), 422, "image_format_invalid", "/file format"},
		{"text", images, fileOf([]byte("hello")), 422, "image_format_invalid", "/file format"},
		{"JPEG cut short", images, fileOf(good[:len(good)-2]), 422, "image_format_invalid", "/file format"},
		{"JPEG cut in the middle", images, fileOf(good[:len(good)/2]), 422, "image_format_invalid", "/file format"},
		{"PNG cut short", temporary, fileOf(drawn[:len(drawn)-1], "purpose", "certificate"), 422, "image_format_invalid", "/file format"},
		{"huge", images, fileOf(huge), 422, "validation_failed", "/file too_large"},
		{"a wide cover", temporary, fileOf(picture(t, "png", 301, 300, 1), "purpose", "goods_cover"), 422, "validation_failed", "/file too_large"},
		{"no purpose", temporary, fileOf(drawn), 422, "validation_failed", "/purpose required"},
		{"an unknown purpose", temporary, fileOf(drawn, "purpose", "cover"), 422, "validation_failed", "/purpose not_allowed"},
		{"a purpose for an image", images, fileOf(good, "purpose", "head_image"), 400, "unknown_field", "/purpose unknown_field"},
		{"a long text", temporary, fileOf(drawn, "purpose", strings.Repeat("x", 2000)), 422, "validation_failed", "/purpose too_long"},
	} {
		for _, query := range []string{"", "?validate_only=true"} {
			a := c.Do("POST", tc.path+query, tc.form)
			if a.Status != tc.status || a.Code() != tc.code || a.Get("errors", "0", "pointer")+" "+a.Get("errors", "0", "code") != tc.rule {
				t.Errorf("%s%s: %d %s, want %d %s %s", tc.name, query, a.Status, a.Body, tc.status, tc.code, tc.rule)
			}
		}
	}
	form := func(parts ...string) string { return "--x\r\n" + strings.Join(parts, "\r\n--x\r\n") + "\r\n--x--\r\n" }
	text := func(name, value string) string {
		return `Content-Disposition: form-data; name="` + name + "\"\r\n\r\n" + value
	}
	for name, tc := range map[string]struct {
		kind, body string
		status     int
		code       string
	}{
		"JSON":              {"application/json", `{"file":"x"}`, 415, "unsupported_media_type"},
		"no boundary":       {"multipart/form-data", form(text("file", "x")), 415, "unsupported_media_type"},
		"another form":      {"multipart/mixed; boundary=x", form(text("file", "x")), 415, "unsupported_media_type"},
		"no end":            {"multipart/form-data; boundary=x", "--x\r\n" + text("file", "x"), 400, "malformed_form"},
		"no form":           {"multipart/form-data; boundary=x", "hello", 400, "malformed_form"},
		"nothing":           {"multipart/form-data; boundary=x", "", 400, "malformed_form"},
		"a part of no name": {"multipart/form-data; boundary=x", form("Content-Type: text/plain\r\n\r\nx"), 400, "malformed_form"},
		"no UTF-8":          {"multipart/form-data; boundary=x", form(text("purpose", "\xff"), text("file", "x")), 400, "malformed_form"},
		"a file twice":      {"multipart/form-data; boundary=x", form(text("file", "x"), text("file", "x")), 400, "duplicate_field"},
		"an unknown part":   {"multipart/form-data; boundary=x", form(text("file", "x"), text("colour", "red")), 400, "unknown_field"},
	} {
		if a := c.Do("POST", temporary, tc.body, "Content-Type", tc.kind); a.Status != tc.status || a.Code() != tc.code {
			t.Errorf("%s: %d %s, want %d %s", name, a.Status, a.Body, tc.status, tc.code)
		}
	}
	if a := c.Do("POST", images, fileOf(drawn), "Accept-Language", "zh").WantProblem(422, "image_format_invalid"); !strings.Contains(a.Get("errors", "0", "detail"), "图片") {
		t.Errorf("in Chinese: %s", a.Body)
	}
	poor.Do("POST", images, fileOf(good)).WantProblem(http.StatusForbidden, "permission_set_missing")
	c.For("").Do("POST", images, fileOf(good)).WantProblem(400, "merchant_required")
	if n := len(w.Journal("cgi-bin/media/uploadimg")) + len(w.Journal("cgi-bin/media/upload")); n != before {
		t.Errorf("%d calls were made", n-before)
	}

	// What is odd and allowed: a whole megabyte, bytes behind the picture's end.
	c.Do("POST", images, fileOf(padded(1<<20))).Want(201)
	c.Do("POST", images, fileOf(append(slices.Clone(good), "<script>alert(1)</script>"...))).Want(201)
}
