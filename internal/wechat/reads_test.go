package wechat

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ask makes a call that reads.
func ask(ctx context.Context, c *Client) (Reply, error) {
	return c.Do(ctx, GetStoreList, AuthorizerToken("CANARY"), nil, []byte(`{"offset":0}`))
}

// Which calls may be made twice: none that costs, or gives a token.
func TestCheap(t *testing.T) {
	t.Parallel()
	n := 0
	for name, d := range declared {
		e := d.endpoint
		if !cheap(e) {
			continue
		}
		n++
		if e.Risk != Read || e.Quota.PerDay > 0 || strings.HasPrefix(e.Path, "/cgi-bin/component/") {
			t.Errorf("%s may be made twice", name)
		}
	}
	if n == 0 || !cheap(GetStoreList) {
		t.Errorf("%d calls are cheap, and the list of stores: %v", n, cheap(GetStoreList))
	}
}

// A connection is used again as long as all of a reply was read, and nothing
// follows.
func TestReadsKeepConnections(t *testing.T) {
	t.Parallel()
	list := `{"errcode":0}`
	for name, tc := range map[string]struct {
		reply string
		keeps bool
	}{
		"length":    {ok(list), true},
		"chunks":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"err\r\n8\r\ncode\":0}\r\n0\r\n\r\n", true},
		"early":     {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\n\r\n" + ok(list), true},
		"closes":    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\n" + list, false},
		"HTTP/1.0":  {"HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\n" + list, false},
		"two":       {ok(list) + ok(`{"errcode":1}`), false},
		"more":      {ok(list) + "x", false},
		"redirects": {"HTTP/1.1 307 x\r\nLocation: /elsewhere\r\nContent-Length: 13\r\n\r\n" + list, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conns := make(chan string, 3)
			r := newRude(t, func(_ int64, c net.Conn) (string, bool) {
				conns <- c.RemoteAddr().String()
				return tc.reply, false
			})
			c := NewClient(r.url(), nil)
			defer c.Close()
			for range 3 {
				if reply, err := ask(t.Context(), c); err != nil || string(reply.Body) != list {
					t.Fatalf("%s, %v", reply.Body, err)
				}
			}
			if first, second := <-conns, <-conns; (first == second) != tc.keeps || r.arrivals.Load() != 3 {
				t.Errorf("%s, then %s; %d arrivals", first, second, r.arrivals.Load())
			}
		})
	}
}

// What comes on a connection that waits is nobody's reply.
func TestReadsTakeNoForeignReply(t *testing.T) {
	t.Parallel()
	conns := make(chan net.Conn, 2)
	r := newRude(t, func(_ int64, c net.Conn) (string, bool) {
		conns <- c
		return ok(`{"errcode":0}`), false
	})
	c := NewClient(r.url(), nil)
	defer c.Close()
	if _, err := ask(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(<-conns, ok(`{"errcode":7}`)); err != nil {
		t.Fatal(err)
	}
	if reply, err := ask(t.Context(), c); err != nil || string(reply.Body) != `{"errcode":0}` {
		t.Errorf("%s, %v", reply.Body, err)
	}
}

// One that was closed while it waited, or before a byte of the reply came, is
// replaced once; one that ends later is a failure.
func TestReadsRetryOnce(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		second   string // to the request on the kept connection
		then     string
		hangUp   bool
		arrivals int64
		fails    bool
	}{
		"nothing comes":      {"", ok(`{"errcode":0}`), false, 3, false},
		"nothing comes ever": {"", "", true, 3, true},
		"half a head":        {"HTTP/1.1 200 OK\r\nCont", ok(`{"errcode":0}`), false, 2, true},
		"half a body":        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", ok(`{"errcode":0}`), false, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRude(t, func(n int64, _ net.Conn) (string, bool) {
				switch n {
				case 1:
					return ok(`{"errcode":0}`), false
				case 2:
					return tc.second, true
				}
				return tc.then, tc.hangUp
			})
			c := NewClient(r.url(), nil)
			defer c.Close()
			if _, err := ask(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			_, err := ask(t.Context(), c)
			if we := (*Error)(nil); (err != nil) != tc.fails || err != nil && (!errors.As(err, &we) || we.Class != Ambiguous) {
				t.Errorf("Do = %v, fails %v", err, tc.fails)
			}
			if n := r.arrivals.Load(); n != tc.arrivals {
				t.Errorf("%d arrivals, want %d", n, tc.arrivals)
			}
		})
	}
}

// A call that reads ends with its caller, and with its time.
func TestReadsEnd(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 2)
	r := newRude(t, func(_ int64, c net.Conn) (string, bool) {
		arrived <- struct{}{}
		_, _ = c.Read(make([]byte, 1)) // until the caller hangs up
		return "", true
	})
	c := NewClient(r.url(), nil)
	defer c.Close()
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-arrived
		leave()
	}()
	var we *Error
	if _, err := ask(ctx, c); !errors.Is(err, context.Canceled) || !errors.As(err, &we) || we.Class != Ambiguous {
		t.Errorf("the caller left: %v", err)
	}
	short := *GetStoreList
	short.Timeout = 50 * time.Millisecond
	if _, err := c.Do(t.Context(), &short, NoToken, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("time is up: %v", err)
	}
	ctx, leave = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	if _, err := ask(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's time is up: %v", err)
	}
}

func TestReadsAreBounded(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", defaultMaxReply+1)
	for name, text := range map[string]string{
		"length":        ok(big),
		"until the end": "HTTP/1.1 200 OK\r\n\r\n" + big,
		"a header":      "HTTP/1.1 200 OK\r\nX: " + big,
		"headers":       "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxHead/4),
		"early replies": strings.Repeat("HTTP/1.1 100 x\r\n\r\n", 1000),
		"no HTTP":       "\x15\x03\x01\x00\x02\x02\x16",
		"nothing":       "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRude(t, func(int64, net.Conn) (string, bool) { return text, true })
			c := NewClient(r.url(), nil)
			defer c.Close()
			var we *Error
			if _, err := ask(t.Context(), c); !errors.As(err, &we) || we.Class != Ambiguous || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("Do = %v", err)
			}
			if n := r.arrivals.Load(); n != 1 {
				t.Errorf("%d arrivals on a new connection", n)
			}
		})
	}
}

func TestReadsNotSent(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	c := NewClient("http://"+ln.Addr().String(), nil)
	var we *Error
	if _, err := ask(t.Context(), c); !errors.As(err, &we) || we.Class != NotSent {
		t.Errorf("refused connection: %v", err)
	}
}

// The peer's certificate is verified, and the connection used again.
func TestReadsOverTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"errcode":0}`)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of the handshake that fails
	var conns atomic.Int64
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	defer srv.Close()
	c := NewClient(srv.URL, nil)
	defer c.Close()
	var unknown *tls.CertificateVerificationError
	if _, err := ask(t.Context(), c); !errors.As(err, &unknown) {
		t.Errorf("an unknown certificate: %v", err)
	}
	c.reads.tls.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for range 3 {
		if reply, err := ask(t.Context(), c); err != nil || reply.Status != http.StatusOK {
			t.Fatalf("%d, %v", reply.Status, err)
		}
	}
	if n := conns.Load(); n != 2 || len(c.reads.idle) != 1 { // the first one was refused
		t.Errorf("%d connections were made, %d are kept", n, len(c.reads.idle))
	}
}

// What is written for a read is what net/http writes for a write.
func TestReadsAreSentAlike(t *testing.T) {
	t.Parallel()
	r := newRude(t, func(int64, net.Conn) (string, bool) { return ok(`{"errcode":0}`), false })
	c := NewClient(r.url()+"/base", nil)
	defer c.Close()
	query := map[string][]string{"k": {"v&\r\nw"}}
	plain := *write
	plain.Risk = Read
	var lines, headers [2]any
	for i, e := range []*Endpoint{write, &plain} {
		if _, err := c.Do(t.Context(), e, AuthorizerToken("a&b=c"), query, []byte(`{"x":"y"}`)); err != nil {
			t.Fatal(err)
		}
		lines[i], headers[i] = r.last.Load(), r.headers.Load()
	}
	if lines[0] != lines[1] || headers[0] != headers[1] || !strings.HasPrefix(lines[0].(string), "POST /base/wxa/add_store?access_token=a%26b%3Dc&k=") {
		t.Errorf("%q\n%q", lines, headers)
	}
}

// joined writes what is written to it in one piece with what comes next.
type joined struct {
	net.Conn
	held []byte
	wait bool
}

func (j *joined) Write(b []byte) (int, error) {
	j.held = append(j.held, b...)
	if j.wait {
		return len(b), nil
	}
	_, err := j.Conn.Write(j.held)
	j.held = nil
	return len(b), err
}

// A second reply that came together with the first one, in a record of TLS of
// its own, is nobody's either.
func TestReadsTakeNoForeignReplyOverTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS()
	defer srv.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				below := &joined{Conn: conn}
				secure := tls.Server(below, srv.TLS)
				br := bufio.NewReader(secure)
				for {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					below.wait = true
					_, _ = io.WriteString(secure, ok(`{"errcode":0}`))
					below.wait = false
					_, _ = io.WriteString(secure, ok(`{"errcode":7}`))
				}
			}()
		}
	}()
	c := NewClient("https://"+ln.Addr().String(), nil)
	defer c.Close()
	c.reads.tls.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for range 3 {
		if reply, err := ask(t.Context(), c); err != nil || string(reply.Body) != `{"errcode":0}` {
			t.Fatalf("%s, %v", reply.Body, err)
		}
	}
}
