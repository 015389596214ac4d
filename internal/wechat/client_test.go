package wechat

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
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
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		n := r.arrivals.Add(1)
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

// Whatever the server does after it has read a request, that request arrived
// once, and what came of it is ambiguous, not "not sent".
func TestOneArrivalPerAttempt(t *testing.T) {
	t.Parallel()
	good := ok(`{"errcode":0,"errmsg":"ok"}`)
	for name, bad := range map[string]func(net.Conn) (string, bool){
		"closes":      func(net.Conn) (string, bool) { return "", true },
		"resets":      func(c net.Conn) (string, bool) { _ = c.(*net.TCPConn).SetLinger(0); return "", true },
		"half a head": func(net.Conn) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-", true },
		"half a body": func(net.Conn) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", true },
		"no HTTP":     func(net.Conn) (string, bool) { return "\x15\x03\x01\x00\x02\x02\x16", true },
		"never answers": func(net.Conn) (string, bool) {
			time.Sleep(3 * time.Second) // longer than the endpoint's deadline
			return "", true
		},
	} {
		for _, reused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reused %v", name, reused), func(t *testing.T) {
				t.Parallel()
				first := int64(0)
				if reused {
					first = 1
				}
				r := newRude(t, func(n int64, c net.Conn) (string, bool) {
					if n <= first {
						return good, false
					}
					return bad(c)
				})
				c := NewClient(r.url(), nil)
				defer c.Close()
				if reused {
					if _, err := c.Do(context.Background(), write, AuthorizerToken("CANARY"), nil, []byte(`{}`)); err != nil {
						t.Fatal(err)
					}
				}
				_, err := c.Do(context.Background(), write, AuthorizerToken("CANARY"), nil, []byte(`{"a":1}`))
				var we *Error
				if !errors.As(err, &we) || we.Class != Ambiguous {
					t.Errorf("Do = %v, want an ambiguous *Error", err)
				}
				if err != nil && strings.Contains(err.Error(), "CANARY") {
					t.Errorf("the error holds the token: %v", err)
				}
				if n := r.arrivals.Load() - first; n != 1 {
					t.Errorf("%d arrivals of one attempt", n)
				}
			})
		}
	}
}

// A redirect is an answer and is not followed: once, not ten times.
func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	r := newRude(t, func(int64, net.Conn) (string, bool) {
		return "HTTP/1.1 307 Temporary Redirect\r\nLocation: /wxa/add_store\r\nContent-Length: 0\r\n\r\n", false
	})
	c := NewClient(r.url(), nil)
	defer c.Close()
	reply, err := c.Do(context.Background(), write, AuthorizerToken("t"), nil, []byte(`{}`))
	if err != nil || reply.Status != 307 || r.arrivals.Load() != 1 {
		t.Errorf("Do = %d, %v, %d arrivals", reply.Status, err, r.arrivals.Load())
	}
	if class, _ := Classify(write, reply); class != Ambiguous {
		t.Errorf("class of a redirect = %v", class)
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
