package wechat

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A rude is a TCP server that reads whole requests, counts them, and then
// misbehaves.
type rude struct {
	ln       net.Listener
	arrivals atomic.Int64
	last     atomic.Value // string: the request line of the newest
	headers  atomic.Value // string
}

// newRude answers the nth request of all connections by answer(n): bytes to
// write, and whether to hang up then.
func newRude(t *testing.T, answer func(n int64, conn net.Conn) (string, bool)) *rude {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rude{ln: ln}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go r.serve(conn, answer)
		}
	}()
	return r
}

func (r *rude) serve(conn net.Conn, answer func(int64, net.Conn) (string, bool)) {
	defer conn.Close()
	br := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		n := r.arrivals.Add(1) // its head is enough
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		r.last.Store(req.Method + " " + req.URL.RequestURI() + " " + req.Proto)
		var h strings.Builder
		_ = req.Header.Write(&h)
		r.headers.Store(h.String())
		text, hangUp := answer(n, conn)
		if _, err := io.WriteString(conn, text); err != nil || hangUp {
			return
		}
	}
}

func (r *rude) url() string { return "http://" + r.ln.Addr().String() }

func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

var write = &Endpoint{Name: "test.write", Method: http.MethodPost, Path: "/wxa/add_store", Family: FamilyStore, Risk: SelfFencing, Timeout: 2 * time.Second}

// writes are what may never be sent twice: a JSON body, a file, and the calls that
// give tokens and codes. Their time is cut short.
func writes() map[string]*Endpoint {
	all := map[string]*Endpoint{}
	for _, e := range []*Endpoint{AddStore, UploadImage, UploadMedia, GetComponentToken, GetAuthorizerToken, QueryAuth, CreatePreAuthCode} {
		short := *e
		short.Timeout = time.Second
		all[e.Name] = &short
	}
	return all
}

// Whatever the server does once it has read a request, or the head of one, that
// request arrived once, and what came of it is ambiguous: neither "not sent" nor
// anything that was answered.
func TestOneArrivalPerAttempt(t *testing.T) {
	t.Parallel()
	type bad func(net.Conn) (string, bool)
	says := func(text string, hangUp bool) bad { return func(net.Conn) (string, bool) { return text, hangUp } }
	behaviours := map[string]bad{
		"closes":          says("", true),
		"resets":          func(c net.Conn) (string, bool) { _ = c.(*net.TCPConn).SetLinger(0); return "", true },
		"half-closes":     func(c net.Conn) (string, bool) { _ = c.(*net.TCPConn).CloseWrite(); return "", false },
		"half a head":     says("HTTP/1.1 200 OK\r\nContent-", true),
		"a head alone":    says("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n", true),
		"half a body":     says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"errcode\":0", true),
		"half the chunks": says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{\"errcode\":0}\r\n", true),
		"goes on only":    says("HTTP/1.1 100 Continue\r\n\r\n", true),
		"no HTTP":         says("\x15\x03\x01\x00\x02\x02\x16", true),
		"never answers":   func(c net.Conn) (string, bool) { _, _ = c.Read(make([]byte, 1)); return "", true }, // until we give up
	}
	for _, status := range []int{301, 302, 303, 307, 308, 408, 421, 425, 429, 500, 502, 503, 504} {
		text := fmt.Sprintf("HTTP/1.1 %d x\r\nLocation: /elsewhere\r\nRetry-After: 0\r\nContent-Length: 13\r\n\r\n{\"errcode\":0}", status)
		behaviours[fmt.Sprint("says ", status)] = says(text, false)
		behaviours[fmt.Sprint("says ", status, " and closes")] = says(text, true)
	}
	for name, bad := range behaviours {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls sync.WaitGroup
			defer calls.Wait()
			for call, e := range writes() {
				for _, reused := range []bool{false, true} {
					calls.Go(func() { arrivesOnce(t, fmt.Sprintf("%s, reused %v", call, reused), e, reused, bad) })
				}
			}
		})
	}
}

// arrivesOnce makes one call, on a connection that another one has used before or
// not, to a server that is bad to it.
func arrivesOnce(t *testing.T, name string, e *Endpoint, reused bool, bad func(net.Conn) (string, bool)) {
	first := int64(0)
	if reused {
		first = 1
	}
	r := newRude(t, func(n int64, c net.Conn) (string, bool) {
		if n <= first {
			return ok("{}"), false
		}
		return bad(c)
	})
	c := NewClient(r.url(), nil)
	defer c.Close()
	if reused {
		if _, err := c.Do(context.Background(), e, AuthorizerToken("CANARY"), nil, []byte(`{}`)); err != nil {
			t.Errorf("%s: the call before: %v", name, err)
			return
		}
	}
	reply, err := c.Do(context.Background(), e, AuthorizerToken("CANARY"), nil, []byte(`{"a":1}`))
	class, _ := Classify(e, reply)
	if we := (*Error)(nil); errors.As(err, &we) {
		class = we.Class
	}
	if class != Ambiguous {
		t.Errorf("%s: Do = %v, %v, of class %s, want ambiguous", name, reply, err, class)
	}
	if err != nil && strings.Contains(err.Error(), "CANARY") {
		t.Errorf("%s: the error holds the token: %v", name, err)
	}
	if n := r.arrivals.Load() - first; n != 1 {
		t.Errorf("%s: %d arrivals of one attempt", name, n)
	}
}

// Whoever asked may leave: what does more than read is heard to its end.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	r := newRude(t, func(_ int64, c net.Conn) (string, bool) { return ok(`{"errcode":0}`), false })
	leaving := func(e *Endpoint) (Reply, error) {
		ctx, leave := context.WithCancel(context.Background())
		defer leave()
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { leave() }})
		c := NewClient(r.url(), nil)
		defer c.Close()
		return c.Do(ctx, e, AuthorizerToken("t"), nil, []byte(`{}`))
	}
	for name, d := range declared {
		if d.risk == Read {
			continue
		}
		if reply, err := leaving(d.endpoint); err != nil || reply.Status != http.StatusOK {
			t.Errorf("%s: %v, %v", name, reply, err)
		}
	}
}

// What had come of a body when the connection ended is handed on: an id may be
// in it. It is no reply.
func TestCutBody(t *testing.T) {
	t.Parallel()
	r := newRude(t, func(int64, net.Conn) (string, bool) {
		return "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":{\"audit_id\":111}", true
	})
	c := NewClient(r.url(), nil)
	defer c.Close()
	reply, err := c.Do(context.Background(), AddStore, AuthorizerToken("t"), nil, []byte(`{}`))
	if class, _ := Classify(AddStore, reply); err == nil || reply.Status != 0 || string(reply.Body) != `{"data":{"audit_id":111}` || class != Ambiguous {
		t.Errorf("Do = %d %s, %v, class %s", reply.Status, reply.Body, err, class)
	}
}

// A request that net/http may send again has a GetBody or an Idempotency-Key:
// what reaches its transport has neither, with a token or without.
func TestNothingToSendAgain(t *testing.T) {
	t.Parallel()
	for call, e := range writes() {
		for _, token := range []Token{NoToken, AuthorizerToken("t")} {
			c := NewClient("http://wechat.invalid", nil)
			var sent *http.Request
			c.http.Transport = &tokenTransport{transport(func(r *http.Request) (*http.Response, error) {
				sent = r
				return nil, io.ErrUnexpectedEOF
			})}
			if _, err := c.Do(context.Background(), e, token, nil, []byte(`{}`)); err == nil {
				t.Fatal("no error")
			}
			if sent.GetBody != nil {
				t.Errorf("%s: its body can be had twice", call)
			}
			for name := range sent.Header {
				if strings.Contains(strings.ToLower(name), "idempotency") {
					t.Errorf("%s: header %s", call, name)
				}
			}
			if sent.ContentLength <= 0 {
				t.Errorf("%s: length %d", call, sent.ContentLength)
			}
		}
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A server that offers HTTP/2 is spoken to in HTTP/1.1: over HTTP/2 net/http
// sends again what the server says that it has not processed.
func TestHTTP1Only(t *testing.T) {
	t.Parallel()
	var proto atomic.Value
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		_, _ = io.WriteString(w, `{"errcode":0}`)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c := NewClient(srv.URL, nil)
	defer c.Close()
	tr := c.http.Transport.(*tokenTransport).next.(*http.Transport)
	tr.TLSClientConfig = &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	tr.ForceAttemptHTTP2 = true // which Protocols overrules
	if _, err := c.Do(context.Background(), AddStore, AuthorizerToken("t"), nil, []byte(`{}`)); err != nil || proto.Load() != "HTTP/1.1" {
		t.Errorf("%v, %v", proto.Load(), err)
	}
}

// A server that drops each connection after its answer, as keep-alive limits
// do, costs no write: every one arrives once.
func TestDroppedIdleConnections(t *testing.T) {
	t.Parallel()
	r := newRude(t, func(int64, net.Conn) (string, bool) { return ok(`{"errcode":0}`), true })
	c := NewClient(r.url(), nil)
	defer c.Close()
	const n = 300
	failed := 0
	for range n {
		if _, err := c.Do(context.Background(), write, AuthorizerToken("t"), nil, []byte(`{}`)); err != nil {
			failed++
		}
	}
	if got := r.arrivals.Load(); got > n || int(got) < n-failed {
		t.Errorf("%d arrivals of %d attempts, %d failed", got, n, failed)
	}
	if failed > n/20 {
		t.Errorf("%d of %d attempts failed: idle connections aren't noticed", failed, n)
	}
}

func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	r := newRude(t, func(int64, net.Conn) (string, bool) { return ok(`{"errcode":0}`), false })
	c := NewClient(r.url(), nil)
	defer c.Close()
	if _, err := c.Do(context.Background(), write, AuthorizerToken("a&b=c"), nil, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if got, want := r.last.Load(), "POST /wxa/add_store?access_token=a%26b%3Dc HTTP/1.1"; got != want {
		t.Errorf("request line %q, want %q", got, want)
	}
	headers := r.headers.Load().(string)
	if strings.Contains(strings.ToLower(headers), "idempotency-key") || !strings.Contains(headers, "Content-Type: application/json; charset=utf-8") ||
		strings.Contains(headers, "Transfer-Encoding") {
		t.Errorf("headers: %s", headers)
	}
	if _, err := c.Do(context.Background(), GetDistrict, ComponentToken("x"), map[string][]string{"k": {"v"}}, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := r.last.Load(), "GET /wxa/get_district?component_access_token=x&k=v HTTP/1.1"; got != want {
		t.Errorf("request line %q, want %q", got, want)
	}
}

// What never got a connection was certainly not sent.
func TestNotSent(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	c := NewClient("http://"+addr, nil)
	_, err = c.Do(context.Background(), write, AuthorizerToken("CANARY"), nil, []byte(`{}`))
	var we *Error
	if !errors.As(err, &we) || we.Class != NotSent || strings.Contains(fmt.Sprintf("%v %+v", err, err), "CANARY") {
		t.Errorf("refused connection: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = c.Do(ctx, write, AuthorizerToken("CANARY"), nil, []byte(`{}`))
	if !errors.As(err, &we) || we.Class != NotSent {
		t.Errorf("cancelled before: %v", err)
	}
}

func TestReplyIsBounded(t *testing.T) {
	t.Parallel()
	big := ok(string(bytes.Repeat([]byte("x"), defaultMaxReply+1)))
	r := newRude(t, func(int64, net.Conn) (string, bool) { return big, true })
	c := NewClient(r.url(), nil)
	defer c.Close()
	_, err := c.Do(context.Background(), write, NoToken, nil, []byte(`{}`))
	var we *Error
	if !errors.As(err, &we) || we.Class != Ambiguous {
		t.Errorf("a reply over the limit: %v", err)
	}
}

func TestTokenPrintsNothing(t *testing.T) {
	t.Parallel()
	tok := AuthorizerToken("CANARY")
	if s := fmt.Sprintf("%v %+v %#v %s %q", tok, tok, tok, tok, tok); strings.Contains(s, "CANARY") {
		t.Errorf("printed %s", s)
	}
}
