package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// upload is a request with one file.
type upload struct {
	query       string // behind the token
	part        string
	name        string
	contentType string
	data        []byte
}

// upload sends it as multipart/form-data.
func (b *bundle) upload(method, path string, u upload) reply {
	b.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	disposition := fmt.Sprintf(`form-data; name=%q`, u.part)
	if u.name != "" {
		disposition += fmt.Sprintf(`; filename=%q`, u.name)
	}
	head := textproto.MIMEHeader{"Content-Disposition": {disposition}}
	if u.contentType != "" {
		head.Set("Content-Type", u.contentType)
	}
	part, err := form.CreatePart(head)
	if err != nil {
		b.t.Fatal(err)
	}
	_, _ = part.Write(u.data)
	if err := form.Close(); err != nil {
		b.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path+u.query, &body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind != "text/plain" {
		b.t.Errorf("%s = HTTP %d %s", path, resp.StatusCode, kind)
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(resp.Body); err != nil {
		b.t.Fatal(err)
	}
	r := reply{raw: raw.String()}
	if err := json.Unmarshal(raw.Bytes(), &r); err != nil {
		b.t.Fatalf("%s: %v in %s", path, err, raw.String())
	}
	return r
}

func picture(format string, side int) []byte {
	var b bytes.Buffer
	img := image.NewGray(image.Rect(0, 0, side, side))
	var err error
	switch format {
	case "jpeg":
		err = jpeg.Encode(&b, img, nil)
	case "png":
		err = png.Encode(&b, img)
	case "gif":
		err = gif.Encode(&b, img, nil)
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// padded is data with zeros behind it up to a size; a decoder does not mind.
func padded(data []byte, size int) []byte { return append(data, make([]byte, size-len(data))...) }

func jpegUpload(size int) upload {
	return upload{part: "media", name: "a.jpg", contentType: "image/jpeg", data: padded(picture("jpeg", 8), size)}
}

func temporary(format string, side int) upload {
	return upload{query: "&type=image", part: "media", name: "a." + format, contentType: "image/" + format, data: picture(format, side)}
}

func mediaExamples() map[string]any {
	return map[string]any{
		"/cgi-bin/media/upload":    temporary("png", 300),
		"/cgi-bin/media/uploadimg": jpegUpload(maxImage),
	}
}

func mediaRefusals() map[string][]refusal {
	with := func(u upload, alter func(*upload)) upload { alter(&u); return u }
	temp, img := temporary("png", 300), jpegUpload(1000)
	const official, doc = "platform.md §9.2, §10", "wechat/001 §3.1, platform.md §10"
	return map[string][]refusal{
		"/cgi-bin/media/upload": {
			{"no type", official, 40004, with(temp, func(u *upload) { u.query = "" }), nil},
			{"unknown type", official, 40004, with(temp, func(u *upload) { u.query = "&type=picture" }), nil},
			{"no form", official, 41005, "", func(s *scene) { s.token += "&type=image" }},
			{"another part", official, 41005, with(temp, func(u *upload) { u.part = "file" }), nil},
			{"no file name", official, 41005, with(temp, func(u *upload) { u.name = "" }), nil},
			{"no content type", official, 41005, with(temp, func(u *upload) { u.contentType = "" }), nil},
			{"empty file", official, 44001, with(temp, func(u *upload) { u.data = nil }), nil},
			{"no picture", official, 40005, with(temp, func(u *upload) { u.data = []byte("GIF, says its author") }), nil},
			{"over 2 MB", official + ", §11.3", 45001, with(temp, func(u *upload) { u.data = padded(u.data, maxMedia+1) }), nil},
		},
		"/cgi-bin/media/uploadimg": {
			{"no form", official, 41005, "{}", nil},
			{"another part", official, 41005, with(img, func(u *upload) { u.part = "file" }), nil},
			{"no file name", official, 41005, with(img, func(u *upload) { u.name = "" }), nil},
			{"empty file", official, 40009, with(img, func(u *upload) { u.data = nil }), nil},
			{"over 1 MB", doc, 40009, jpegUpload(maxImage + 1), nil},
			{"a PNG named .jpg", doc, 40005, with(img, func(u *upload) { u.data = picture("png", 8) }), nil},
			{"first bytes of a JPEG alone", doc, 40005, with(img, func(u *upload) { u.data = []byte("\xff\xd8\xff\xe0\x00\x10JFIF") }), nil},
		},
	}
}

func TestUploadImage(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	u := jpegUpload(1000)
	got := b.upload(http.MethodPost, "/cgi-bin/media/uploadimg?access_token="+token, u)
	var out struct{ URL string }
	if err := json.Unmarshal([]byte(got.raw), &out); err != nil {
		t.Fatal(err)
	}
	// The sample of wechat/001 §3.1 has this one member.
	if got.raw != `{"url":"`+out.URL+`"}` || !strings.HasPrefix(out.URL, "http://mmbiz.qpic.cn/") || !hostedByWeChat(out.URL) {
		t.Errorf("uploadimg = %s", got.raw)
	}
	u.part = "buffer" // the document's name for the part
	if again := b.upload(http.MethodPost, "/cgi-bin/media/uploadimg?access_token="+token, u); again.ErrCode != 0 || again.raw == got.raw {
		t.Errorf("uploadimg again = %s", again.raw)
	}
	truth := b.truth()
	if len(truth.IDs) != 2 || truth.IDs[0].ID != out.URL || truth.IDs[0].Type != "image_url" || truth.IDs[0].Key != digest(u.data) ||
		len(truth.Effects) != 2 || truth.Effects[0].Kind != "media_uploadimg" || truth.Effects[0].ID != out.URL {
		t.Errorf("truth = %+v", truth)
	}
	var j struct{ Requests []journalEntry }
	b.control("GET", "journal?path=cgi-bin/media/uploadimg", "", &j)
	if len(j.Requests) != 2 || !bytes.Contains(j.Requests[0].BodyBase64, u.data) || j.Requests[0].Body != "" {
		t.Errorf("the journal has not the bytes that were sent")
	}
}

// A temporary media id is good for three virtual days and for its own account.
func TestTemporaryMedia(t *testing.T) {
	t.Parallel()
	b, token := authorized(t)
	live := b.accessToken(DemoMiniProgram)
	media := func(token, format string, side int) string {
		t.Helper()
		got := b.upload(http.MethodPost, "/cgi-bin/media/upload?access_token="+token, temporary(format, side))
		var out struct {
			Type      string
			MediaID   string `json:"media_id"`
			CreatedAt int64  `json:"created_at"`
		}
		if err := json.Unmarshal([]byte(got.raw), &out); err != nil || out.Type != "image" || len(out.MediaID) != 64 ||
			time.Since(time.Unix(out.CreatedAt, 0)).Abs() > time.Minute {
			t.Fatalf("upload = %s", got.raw)
		}
		return out.MediaID
	}
	mine, foreign, cover := media(token, "jpeg", 400), media(live, "gif", 300), media(live, "png", 301)
	store := func(ids string) int {
		t.Helper()
		return b.post("/wxa/add_store?access_token="+token, addStoreExample().with(obj{"qualification_list": ids}), nil).ErrCode
	}
	add := func(id string) reply {
		return b.post("/wxaapi/broadcast/goods/add?access_token="+live, addGoodsExample(obj{"coverImgUrl": id}), nil)
	}
	if got := store(foreign); got != 85056 {
		t.Errorf("another account's media = %d", got)
	}
	if got := store(mine + ", " + sampleMediaID); got != 0 {
		t.Errorf("my own media = %d", got)
	}
	if got := add(cover); got.ErrCode != 300006 {
		t.Errorf("a cover of 301 pixels = %s", got.raw)
	}
	if got := add(mine); got.ErrCode != 300006 {
		t.Errorf("another account's cover = %s", got.raw)
	}
	if got := add(foreign); got.ErrCode != 0 {
		t.Errorf("a cover of 300 pixels = %s", got.raw)
	}
	b.control("POST", "clock", `{"advance":"71h59m"}`, nil)
	live = b.accessTokenOf(DemoMiniProgram)
	if got := add(foreign); got.ErrCode != 0 {
		t.Errorf("a cover just under three days old = %s", got.raw)
	}
	b.control("POST", "clock", `{"advance":"1m"}`, nil)
	if got := add(foreign); got.ErrCode != 300006 {
		t.Errorf("a cover three days old = %s", got.raw)
	}
}
