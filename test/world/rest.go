package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/handlers/spectest"
	"github.com/mendian/mendian/internal/sandbox"
)

// patience is how long a test waits for any answer: one that waited for ever
// could not say for what.
const patience = time.Minute

func init() { http.DefaultClient.Timeout = patience }

// A Client calls a gateway's REST API as one key and, mostly, one merchant.
// Every answer is validated against the contract.
type Client struct {
	t        testing.TB
	http     *http.Client
	URL      string
	Key      string
	Merchant string // Merchant-Id, if not ""
}

// Client is a client of g with the world's own key.
func (w *World) Client(g *Gateway, merchant string) *Client {
	return NewClient(w.t, g.URL, w.Key, http.DefaultTransport.(*http.Transport).Clone()).For(merchant)
}

// NewClient is a client of whatever answers behind a transport.
func NewClient(t testing.TB, url, key string, over http.RoundTripper) *Client {
	return &Client{t: t, URL: url, Key: key, http: &http.Client{
		Timeout:       patience,
		Transport:     spectest.For(t, over),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// As is the same client with another key.
func (c *Client) As(key string) *Client {
	n := *c
	n.Key = key
	return &n
}

// For is the same client acting for another merchant.
func (c *Client) For(merchant string) *Client {
	n := *c
	n.Merchant = merchant
	return &n
}

// At is the same client of another gateway.
func (c *Client) At(g *Gateway) *Client {
	n := *c
	n.URL = g.URL
	return &n
}

// An Answer is what came back.
type Answer struct {
	t      testing.TB
	Method string
	Path   string
	Status int
	Header http.Header
	Body   []byte
}

// A Form is the body of an upload: a file, and what is said of it.
type Form struct {
	File  []byte
	Texts map[string]string
}

// encode writes the form, and says of what type it is.
func (f Form) encode() ([]byte, string, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for name, text := range f.Texts {
		if err := w.WriteField(name, text); err != nil {
			return nil, "", err
		}
	}
	if f.File != nil {
		part, err := w.CreateFormFile("file", "picture")
		if err != nil {
			return nil, "", err
		}
		if _, err := part.Write(f.File); err != nil {
			return nil, "", err
		}
	}
	err := w.Close()
	return b.Bytes(), w.FormDataContentType(), err
}

// Do sends a request; body is marshalled unless it is nil, a string, bytes or a
// Form.
// headers are name, value, name, value.
func (c *Client) Do(method, path string, body any, headers ...string) *Answer {
	c.t.Helper()
	a, err := c.Try(method, path, body, headers...)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// Until reads a path until the status there is this one.
func (c *Client) Until(path, status string) (a *Answer) {
	c.t.Helper()
	Eventually(c.t, usual, path+" is "+status, func() error {
		if a = c.Do("GET", path, nil).Want(http.StatusOK); a.Get("status") != status {
			return fmt.Errorf("%s", a.Body)
		}
		return nil
	})
	return a
}

// Begin is Do that doesn't wait: the answer is what it returns, once it is there.
func (c *Client) Begin(method, path string, body any, headers ...string) (answer func() *Answer) {
	type reply struct {
		*Answer
		err error
	}
	came := make(chan reply, 1)
	go func() {
		a, err := c.Try(method, path, body, headers...)
		came <- reply{a, err}
	}()
	return func() *Answer {
		c.t.Helper()
		r := <-came
		if r.err != nil {
			c.t.Fatal(r.err)
		}
		return r.Answer
	}
}

// Try is Do where no answer is part of the test. It may be called from other
// goroutines than the test's own.
func (c *Client) Try(method, path string, body any, headers ...string) (*Answer, error) {
	var reader io.Reader
	contentType := "application/json"
	switch b := body.(type) {
	case nil:
	case Form:
		form, typ, err := b.encode()
		if err != nil {
			return nil, err
		}
		reader, contentType = bytes.NewReader(form), typ
	case string:
		reader = strings.NewReader(b)
	case []byte:
		reader = bytes.NewReader(b)
	default:
		js, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(js)
	}
	req, err := http.NewRequest(method, c.URL+path, reader)
	if err != nil {
		return nil, err
	}
	if c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.Key)
	}
	if c.Merchant != "" {
		req.Header.Set("Merchant-Id", c.Merchant)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &Answer{t: c.t, Method: method, Path: path, Status: resp.StatusCode, Header: resp.Header}
	a.Body, err = io.ReadAll(resp.Body)
	return a, err
}

// Want fails the test unless the status is this one.
func (a *Answer) Want(status int) *Answer {
	a.t.Helper()
	if a.Status != status {
		a.t.Fatalf("%s %s = %d, want %d: %s", a.Method, a.Path, a.Status, status, a.Body)
	}
	return a
}

// WantProblem fails the test unless the answer is a problem of this status and code.
func (a *Answer) WantProblem(status int, code string) *Answer {
	a.t.Helper()
	if got := a.Code(); a.Status != status || got != code {
		a.t.Fatalf("%s %s = %d %s, want %d %s: %s", a.Method, a.Path, a.Status, got, status, code, a.Body)
	}
	return a
}

// Fail fails the test for what the answer holds.
func (a *Answer) Fail(why string) {
	a.t.Helper()
	a.t.Errorf("%s %s = %d: %s: %s", a.Method, a.Path, a.Status, why, a.Body)
}

// Code is the problem's code, or "".
func (a *Answer) Code() string {
	var p struct{ Code string }
	if json.Unmarshal(a.Body, &p) != nil || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/problem+json") {
		return ""
	}
	return p.Code
}

// Into reads the body.
func (a *Answer) Into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		a.t.Fatalf("%s %s: %v: %s", a.Method, a.Path, err, a.Body)
	}
}

// Get digs into the body: Get("audit", "status"). Missing is "", null is "null".
func (a *Answer) Get(path ...string) string {
	var v any
	if json.Unmarshal(a.Body, &v) != nil {
		return ""
	}
	for _, p := range path {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[p]; !ok {
				return ""
			}
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(x) {
				return ""
			}
			v = x[i]
		default:
			return ""
		}
	}
	if v == nil {
		return "null"
	}
	return fmt.Sprint(v)
}

// Authorize lets an account of the simulator authorise the tenant through a
// link of ours, as its administrator would in a browser, and returns the
// merchant's id.
func (w *World) Authorize(g *Gateway, appid string) string {
	w.t.Helper()
	c := w.Client(g, "")
	w.WaitTicket(g)
	link := c.Do("POST", "/v1/authorization-links", map[string]string{"expected_appid": appid}).Want(http.StatusCreated)
	w.Control("POST", "authorizations", map[string]string{"appid": appid, "url": link.Get("url")}, nil)
	var id string
	w.Eventually("the merchant "+appid, func() error {
		a := c.Do("GET", "/v1/merchants/"+appid, nil)
		if id = a.Get("id"); a.Status != http.StatusOK || a.Get("status") != "authorized" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	return id
}

// WaitTicket waits until the tenant has a component_verify_ticket.
func (w *World) WaitTicket(g *Gateway) {
	w.t.Helper()
	admin := w.Client(g, "").As(w.AdminKey())
	w.Eventually("a ticket", func() error {
		a := admin.Do("GET", "/v1/admin/tenants/"+w.Tenant.ID+"/health", nil)
		if a.Get("ticket", "kept") == "0" || a.Status != http.StatusOK {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
}

// Demo authorises the simulator's Official Account with stores, and waits for
// the inventory.
func (w *World) Demo(g *Gateway) *Client {
	w.t.Helper()
	id := w.Authorize(g, sandbox.DemoOfficialAccount)
	c := w.Client(g, id)
	w.Eventually("the inventory of stores", func() error {
		if a := c.Do("GET", "/v1/stores", nil); a.Get("synced_at") == "null" {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	return c
}

// DocumentsStore is the example of document 000 §4.8 in our words, with the
// hours that its table requires.
func DocumentsStore() map[string]any {
	return map[string]any{
		"map_poi_id":        "2880741500279549033",
		"photos":            []string{"http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"},
		"contact_phone":     "1111222222",
		"business_hours":    map[string]string{"open": "10:00", "close": "21:00"},
		"credential_number": "22883878-0",
	}
}

// NewStore is a store at a fresh place with a credential of its own.
func (w *World) NewStore(n int) map[string]any {
	w.t.Helper()
	var places struct {
		IDs []string `json:"ids"`
	}
	w.Control("POST", "map-pois", map[string]any{"count": 1, "district_id": "440105"}, &places)
	if len(places.IDs) == 0 {
		w.t.Fatal("the simulator made no place")
	}
	s := DocumentsStore()
	s["map_poi_id"], s["credential_number"], s["contact_phone"] = places.IDs[0], fmt.Sprintf("91440101TEST%04d", n), fmt.Sprintf("020-8888%04d", n)
	return s
}
