package wechat

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	dialFor = 2 * time.Second // and as long again for TLS
	idleFor = 20 * time.Second
	maxIdle = 512

	maxHead  = 256 << 10 // of a reply
	maxAhead = 64 << 10  // allocated because a reply says that it is so long
	maxEarly = 5         // replies before the reply: 100, 103
)

// reads are the connections of the calls that only read. A request is written
// and its reply read by the goroutine that asks: net/http hands both to two
// others a connection, which costs more than all the rest of a warm read
// (docs/decisions/0008-reads.md). The reply is still parsed by net/http.
//
// A call that found a kept connection closed before the first byte of a reply
// is made once more, on a new one: so no call may go this way whose second
// execution would do or cost anything.
type reads struct {
	addr, host string
	path       string // before that of an endpoint
	tls        *tls.Config
	dialer     net.Dialer

	mu     sync.Mutex
	idle   []*kept // the latest used last
	reaper *time.Timer
}

// kept is a connection, and for one goroutine.
type kept struct {
	net.Conn
	raw   syscall.RawConn // below TLS
	br    *bufio.Reader
	left  int64 // bytes that may still be read of a head
	since time.Time
}

// cheap reports whether a call of e may go by reads.
func cheap(e *Endpoint) bool {
	return e.Risk == Read && e.Quota.PerDay == 0 && e.Family != FamilyComponent && e.Part == ""
}

// newReads returns nil where base is no URL of an API: net/http then says what
// is wrong with it.
func newReads(base string) *reads {
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" {
		return nil
	}
	r := &reads{host: u.Host, path: u.EscapedPath(), dialer: net.Dialer{Timeout: dialFor}}
	port := u.Port()
	switch u.Scheme {
	case "https":
		r.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
		port = cmp.Or(port, "443")
	case "http":
		port = cmp.Or(port, "80")
	default:
		return nil
	}
	r.addr = net.JoinHostPort(u.Hostname(), port)
	return r
}

// do makes one call. connected false: nothing left.
func (r *reads) do(ctx context.Context, e *Endpoint, token Token, query url.Values, body []byte) (reply Reply, connected bool, err error) {
	until := time.Now().Add(e.Deadline())
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	buf := requests.Get().(*[]byte)
	defer requests.Put(buf)
	*buf = r.request((*buf)[:0], e, token, query, body)
	for c := r.take(); ; c = nil {
		again := c != nil
		if c == nil {
			if c, err = r.dial(ctx, until); err != nil {
				return Reply{}, connected, ended(ctx, err)
			}
		}
		connected = true
		reply, err = r.ask(ctx, c, until, *buf, e)
		if err == nil || !again || c.left != maxHead || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return reply, connected, ended(ctx, err)
		}
	}
}

// requests are buffers. What they held is overwritten, not shown.
var requests = sync.Pool{New: func() any { return new(make([]byte, 0, 1024)) }}

func (r *reads) request(b []byte, e *Endpoint, token Token, query url.Values, body []byte) []byte {
	b = append(append(append(append(b, e.Method...), ' '), r.path...), e.Path...)
	mark := byte('?')
	if token.value != "" {
		b = append(append(append(append(b, mark), token.param...), '='), url.QueryEscape(token.value)...)
		mark = '&'
	}
	if len(query) > 0 {
		b = append(append(b, mark), query.Encode()...)
	}
	b = append(append(b, " HTTP/1.1\r\nHost: "...), r.host...)
	b = append(b, "\r\nUser-Agent: Go-http-client/1.1\r\n"...)
	if body != nil || e.Method != http.MethodGet {
		b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	if body != nil {
		b = append(b, "Content-Type: application/json; charset=utf-8\r\n"...)
	}
	return append(append(b, "\r\n"...), body...)
}

// ask writes the request and reads the reply. Afterwards the connection is kept
// or closed.
func (r *reads) ask(ctx context.Context, c *kept, until time.Time, request []byte, e *Endpoint) (reply Reply, err error) {
	if err := c.SetDeadline(until); err != nil {
		_ = c.Close()
		return Reply{}, err
	}
	keep := false
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if stop() && keep {
			r.keep(c)
		} else {
			_ = c.Close()
		}
	}()
	c.left = maxHead
	if _, err := c.Write(request); err != nil {
		return Reply{}, err
	}
	var resp *http.Response
	for early := 0; ; early++ {
		//nolint:bodyclose // the connection ends instead: Close would read a body without end to its end
		if resp, err = http.ReadResponse(c.br, nil); err != nil {
			return Reply{}, noEOF(err)
		}
		if resp.StatusCode >= http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		if early == maxEarly {
			return Reply{}, errors.New("replies without end before the reply")
		}
	}
	c.left = math.MaxInt64
	b, err := readBody(resp, e)
	if err != nil {
		return Reply{Body: b}, noEOF(err)
	}
	keep = !resp.Close && resp.StatusCode >= http.StatusOK && c.br.Buffered() == 0
	return Reply{Status: resp.StatusCode, Body: b}, nil
}

func readBody(resp *http.Response, e *Endpoint) ([]byte, error) {
	if n := resp.ContentLength; n >= 0 && n <= maxAhead && n <= e.maxReply() {
		b := make([]byte, n)
		got, err := io.ReadFull(resp.Body, b)
		return b[:got], err
	}
	return readLimited(resp.Body, e.maxReply())
}

// noEOF says that the connection ended too early, as net/http does.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ended names the reason why a connection was made to end.
func ended(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

var errHead = fmt.Errorf("the head of the reply is over %d bytes", maxHead)

// Read is for br.
func (c *kept) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errHead
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

func (r *reads) dial(ctx context.Context, until time.Time) (*kept, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	conn, err := r.dialer.DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return nil, err
	}
	c := &kept{Conn: conn}
	if s, ok := conn.(syscall.Conn); ok {
		c.raw, err = s.SyscallConn()
	}
	if err == nil && r.tls != nil {
		ctx, cancel := context.WithTimeout(ctx, dialFor)
		defer cancel()
		secure := tls.Client(conn, r.tls)
		c.Conn, err = secure, secure.HandshakeContext(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.br = bufio.NewReader(c)
	return c, nil
}

// take returns a kept connection that nothing has come on since, or nil.
func (r *reads) take() *kept {
	for {
		r.mu.Lock()
		n := len(r.idle)
		if n == 0 {
			r.mu.Unlock()
			return nil
		}
		c := r.idle[n-1]
		r.idle[n-1], r.idle = nil, r.idle[:n-1]
		r.mu.Unlock()
		if time.Since(c.since) < idleFor && c.quiet() {
			return c
		}
		_ = c.Close()
	}
}

// quiet reports whether nothing has come: no end, and no bytes, which would be
// taken for the reply to somebody else's request.
func (c *kept) quiet() bool {
	if c.raw == nil {
		return false
	}
	quiet := false
	var b [1]byte
	err := c.raw.Control(func(fd uintptr) { // not Read, which may be over its deadline
		_, err := syscall.Read(int(fd), b[:])
		quiet = errors.Is(err, syscall.EAGAIN)
	})
	if _, plain := c.Conn.(syscall.Conn); err != nil || !quiet || plain {
		return err == nil && quiet
	}
	// What came together with the reply lies in TLS already, which is asked with
	// no time to wait for more; ask gives the connection its time again.
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return false
	}
	_, err = c.Conn.Read(b[:])
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func (r *reads) keep(c *kept) {
	c.since = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idle) >= maxIdle {
		_ = c.Close()
		return
	}
	r.idle = append(r.idle, c)
	if r.reaper == nil {
		r.reaper = time.AfterFunc(idleFor, r.reap)
	}
}

// reap closes what nobody has used for idleFor, and comes again while there is
// something to close.
func (r *reads) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := 0
	for old < len(r.idle) && time.Since(r.idle[old].since) >= idleFor {
		_ = r.idle[old].Close()
		old++
	}
	n := copy(r.idle, r.idle[old:])
	clear(r.idle[n:])
	r.idle = r.idle[:n]
	r.reaper = nil
	if n > 0 {
		r.reaper = time.AfterFunc(idleFor-time.Since(r.idle[0].since), r.reap)
	}
}

// close drops the idle connections.
func (r *reads) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.idle {
		_ = c.Close()
	}
	r.idle = nil
	if r.reaper != nil {
		r.reaper.Stop()
		r.reaper = nil
	}
}
