package wechat

import (
	"bytes"
	"context"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A sent is a request as it reached the wire.
type sent struct {
	method, path, query, contentType string
	body                             []byte
}

// wire is a server that answers reply and keeps what it was sent.
func wire(t *testing.T, reply string) (*Client, func() sent) {
	t.Helper()
	arrived := make(chan sent, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- sent{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Content-Type"), body}
		w.Header().Set("Content-Type", "text/plain") // as WeChat does (platform.md §11.1 no. 2)
		_, _ = io.WriteString(w, reply)
	}))
	t.Cleanup(srv.Close)
	c := NewClient(srv.URL, nil)
	t.Cleanup(c.Close)
	return c, func() sent { return <-arrived }
}

var (
	jpeg = []byte("\xff\xd8\xff\xe0\x00\x10JFIF\x00\r\n--x\r\nnot a boundary")
	png  = []byte("\x89PNG\r\n\x1a\n0123")
)

// A file goes out as one part of a form, byte for byte, with a name and a
// content type (document 001 §3.1, platform.md §10).
func TestFilesGoOutAsForms(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name           string
		e              *Endpoint
		typ            MediaType
		file           []byte
		filename, kind string
		reply          string
		wantQuery      string
	}{
		{"image", UploadImage, "", jpeg, "image.jpg", "image/jpeg", `{"url":"http://mmbiz.qpic.cn/XXXXX"}`, "access_token=TOKEN"},
		{"temporary", UploadMedia, ImageMedia, png, "image.png", "image/png", `{"type":"image","media_id":"MEDIA","created_at":1234567890}`, "access_token=TOKEN&type=image"},
		{"no image", UploadMedia, ImageMedia, []byte("text"), "file", "text/plain; charset=utf-8", `{"type":"image","media_id":"MEDIA","created_at":"1234567890"}`, "access_token=TOKEN&type=image"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, arrived := wire(t, tc.reply)
			var query = tc.typ.Query()
			if tc.typ == "" {
				query = nil
			}
			reply, err := c.Do(context.Background(), tc.e, AuthorizerToken("TOKEN"), query, tc.file)
			if err != nil {
				t.Fatal(err)
			}
			if class, err := Classify(tc.e, reply); class != Executed {
				t.Errorf("class %s, %v", class, err)
			}
			got := arrived()
			if got.method != http.MethodPost || got.path != tc.e.Path || got.query != tc.wantQuery {
				t.Errorf("sent %s %s?%s, want POST %s?%s", got.method, got.path, got.query, tc.e.Path, tc.wantQuery)
			}
			kind, params, err := mime.ParseMediaType(got.contentType)
			if err != nil || kind != "multipart/form-data" {
				t.Fatalf("content type %q, %v", got.contentType, err)
			}
			r := multipart.NewReader(bytes.NewReader(got.body), params["boundary"])
			part, err := r.NextRawPart()
			if err != nil {
				t.Fatal(err)
			}
			file, err := io.ReadAll(part)
			if err != nil {
				t.Fatal(err)
			}
			if part.FormName() != "media" || part.FileName() != tc.filename || part.Header.Get("Content-Type") != tc.kind || !bytes.Equal(file, tc.file) {
				t.Errorf("part %q, file %q, %s, %d bytes", part.FormName(), part.FileName(), part.Header.Get("Content-Type"), len(file))
			}
			if _, err := r.NextRawPart(); err != io.EOF {
				t.Errorf("a second part, %v", err)
			}
		})
	}
}
