package wechat

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"time"
)

// UploadImage gives a picture a permanent URL at WeChat (document 001 §3.1),
// the only kind that stores and map POIs take. JPEG, at most MaxImage bytes;
// its success has no errcode.
//
// The part is called media: that is WeChat's own page, and what libraries that
// work send; the document's "buffer" is the name of the parameter in its table
// (platform.md §10).
var UploadImage = &Endpoint{
	Name: "media.upload_image", Method: http.MethodPost, Path: "/cgi-bin/media/uploadimg", Part: "media",
	Sets: imageSets, Family: FamilyMedia, Risk: Harmless, Timeout: uploadTimeout, envelope: looseEnvelope, proof: "url",
}

// uploadTimeout: a file takes longer than a few lines of JSON.
const uploadTimeout = 30 * time.Second

// MaxImage is the largest picture of UploadImage, in bytes.
const MaxImage = 1 << 20

// UploadImageReply is UploadImage's answer.
type UploadImageReply struct {
	URL string `json:"url"`
}

// UploadMedia gives a file a temporary media id (platform.md §10; document 000
// §4.2 and document 004 §1 refer to it). The id lives for three days and
// belongs to the account that made it.
var UploadMedia = &Endpoint{
	Name: "media.upload", Method: http.MethodPost, Path: "/cgi-bin/media/upload", Part: "media",
	Sets: temporaryMediaSets, Family: FamilyMedia, Risk: Harmless, Timeout: uploadTimeout, envelope: looseEnvelope, proof: "media_id",
}

// A MediaType is the type in UploadMedia's query.
type MediaType string

// ImageMedia is a PNG, JPEG or GIF.
const ImageMedia MediaType = "image"

// Query is UploadMedia's query.
func (t MediaType) Query() url.Values { return url.Values{"type": {string(t)}} }

// UploadMediaReply is UploadMedia's answer.
type UploadMediaReply struct {
	Type      string `json:"type"`
	MediaID   string `json:"media_id"`
	CreatedAt Int    `json:"created_at"` // seconds since 1970
}

// form makes file the only part, called part, of a form. WeChat wants the part
// to have a filename and a content type.
func form(part string, file []byte) (body []byte, contentType string, err error) {
	kind, name := http.DetectContentType(file), "file"
	switch kind {
	case "image/jpeg":
		name = "image.jpg"
	case "image/png":
		name = "image.png"
	case "image/gif":
		name = "image.gif"
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	p, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {multipart.FileContentDisposition(part, name)},
		"Content-Type":        {kind},
	})
	if err != nil {
		return nil, "", err
	}
	if _, err := p.Write(file); err != nil {
		return nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), w.FormDataContentType(), nil
}
