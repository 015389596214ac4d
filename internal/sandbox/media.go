package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image"
	_ "image/gif"  // media/upload takes GIF
	_ "image/jpeg" // and JPEG
	_ "image/png"  // and PNG
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Files that a merchant gives WeChat (wechat/001 §3.1, platform.md §10).
func mediaEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodPost, path: "/cgi-bin/media/upload", token: tokenAuthorizer, sets: uploadSets, upload: true, serve: uploadMedia},
		{method: http.MethodPost, path: "/cgi-bin/media/uploadimg", token: tokenAuthorizer, sets: uploadImageSets, upload: true, serve: uploadImage},
	}
}

const (
	maxUpload = 12 << 20           // a request; larger ones are cut off with HTTP 413
	maxMedia  = 2 << 20            // a temporary image; the page says 10 MB too (platform.md §11.3)
	maxImage  = 1 << 20            // an image of uploadimg
	mediaLife = 3 * 24 * time.Hour // virtual
)

// media is a temporary image that was uploaded.
type media struct {
	ID            string
	AppID         string // only this account may use it
	Expires       time.Time
	Width, Height int
	URL           string // where WeChat shows it once it is used
}

// file is the one of a multipart form under any of these part names. A part without a file name or a
// content type is no file at WeChat (platform.md §10): 41005, as for none.
func (c *call) file(names ...string) ([]byte, error) {
	kind, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return nil, refuse(41005)
	}
	form := multipart.NewReader(bytes.NewReader(c.body), params["boundary"])
	for {
		part, err := form.NextPart()
		if err != nil {
			return nil, refuse(41005)
		}
		if slices.Contains(names, part.FormName()) && part.FileName() != "" && part.Header.Get("Content-Type") != "" {
			data, err := io.ReadAll(part)
			if err != nil {
				return nil, refuse(41005)
			}
			return data, nil
		}
	}
}

// uploadMedia is media/upload of an image; the other types, which none of the documents asks for, are
// refused as unknown ones are. created_at is wall time: a caller counts its three days from it.
func uploadMedia(c *call) (any, error) {
	if c.r.URL.Query().Get("type") != "image" {
		return nil, refuse(40004)
	}
	data, err := c.file("media")
	switch {
	case err != nil:
		return nil, err
	case len(data) == 0:
		return nil, refuse(44001)
	case len(data) > maxMedia:
		return nil, refuse(45001)
	}
	dim, format, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, refuse(40005)
	}
	for id, m := range c.st.media.rows {
		if !c.at.Before(m.Expires) {
			c.st.media.del(id)
		}
	}
	m := &media{
		ID: c.letters(64), AppID: c.acc.AppID, Expires: c.at.Add(mediaLife), Width: dim.Width, Height: dim.Height,
		URL: c.imageURL(format),
	}
	c.st.media.put(m.ID, m)
	c.told("media_id", m.ID, c.acc.AppID, digest(data), "media/upload")
	c.executed("media_upload", c.acc.AppID, m.ID, digest(data))
	return struct {
		Type      string `json:"type"`
		MediaID   string `json:"media_id"`
		CreatedAt int64  `json:"created_at"`
	}{"image", m.ID, time.Now().Unix()}, nil
}

// uploadImage is wechat/001 §3.1. The document calls the part buffer, WeChat's own page calls it media.
func uploadImage(c *call) (any, error) {
	data, err := c.file("media", "buffer")
	switch {
	case err != nil:
		return nil, err
	case len(data) == 0 || len(data) > maxImage:
		return nil, refuse(40009)
	}
	if _, format, err := image.DecodeConfig(bytes.NewReader(data)); err != nil || format != "jpeg" {
		return nil, refuse(40005)
	}
	u := c.imageURL("jpeg")
	c.told("image_url", u, c.acc.AppID, digest(data), "media/uploadimg")
	c.executed("media_uploadimg", c.acc.AppID, u, digest(data))
	return struct {
		URL string `json:"url"`
	}{u}, nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (s *Server) imageURL(format string) string {
	return "http://mmbiz.qpic.cn/mmbiz_" + strings.Replace(format, "jpeg", "jpg", 1) + "/" + s.letters(86) + "/0?wx_fmt=" + format
}

// letters is n characters of an id; like all ids they repeat with the seed.
func (s *Server) letters(n int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[s.rng.IntN(len(alphabet))]
	}
	return string(b)
}

// Temporary media of the documents' examples; they belong to everybody and never expire here.
const (
	sampleMediaID = "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P" // wechat/000
	sampleCoverID = "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR" // wechat/004
)

// media is a media id that this account may use now, or nil: unknown, another account's, or expired.
func (c *call) media(id string) *media {
	if id == sampleMediaID || id == sampleCoverID {
		return &media{ID: id, Width: 300, Height: 300, URL: "http://mmbiz.qpic.cn/mmbiz_png/" + id + "/0?wx_fmt=png"}
	}
	m := c.st.media.get(id)
	if m == nil || m.AppID != c.acc.AppID || !c.at.Before(m.Expires) {
		return nil
	}
	return m
}
