package wechat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// A Token is an access token on its way to the wire. It prints as [REDACTED].
type Token struct {
	param string
	value string
}

// ComponentToken is the platform's own token; AuthorizerToken a merchant's.
func ComponentToken(s string) Token { return Token{"component_access_token", s} }

// AuthorizerToken makes the token of calls on behalf of a merchant (platform.md §5.6).
func AuthorizerToken(s string) Token { return Token{"access_token", s} }

// NoToken is for the calls that carry a secret in their body instead.
var NoToken = Token{}

func (Token) String() string             { return "[REDACTED]" }
func (Token) GoString() string           { return "[REDACTED]" }
func (Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[REDACTED]") }

// A Reply is what came back, unread: it is spooled before anybody judges it.
type Reply struct {
	Status int
	Body   []byte

	// What Do found when it counted the call, so that each who asks afterwards
	// doesn't read the body once more; nil: nobody has looked.
	said *said
}

// A Mark tells replies apart, in this process: those with the same mark are
// the same, byte by byte, but for one chance in 2^64. 0 is none's.
type Mark uint64

var marked = maphash.MakeSeed()

// Mark is the reply's.
func (r Reply) Mark() Mark { return Mark(maphash.Bytes(marked, r.JSON())) }

// A Client sends calls to one WeChat, each exactly once but for reads that cost
// nothing, see reads: HTTP/1.1, no redirects, no replay of a body, no proxy from
// the environment.
type Client struct {
	http    *http.Client
	reads   *reads // nil: they go by http too
	base    string
	observe func(endpoint string, class Class, took time.Duration)
}

// NewClient makes a client of the API at base ("https://api.weixin.qq.com").
// observe, which may be nil, hears of each call when it ends.
func NewClient(base string, observe func(endpoint string, class Class, took time.Duration)) *Client {
	h1 := new(http.Protocols)
	h1.SetHTTP1(true)
	if observe == nil {
		observe = func(string, Class, time.Duration) {}
	}
	return &Client{base: base, observe: observe, reads: newReads(base), http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &tokenTransport{&http.Transport{
			Proxy:               nil, // a query that holds a token must not reach an environment's proxy
			Protocols:           h1,
			DialContext:         (&net.Dialer{Timeout: dialFor}).DialContext,
			TLSHandshakeTimeout: dialFor,
			MaxIdleConns:        1024,
			MaxIdleConnsPerHost: maxIdle,
			IdleConnTimeout:     idleFor,
			DisableCompression:  true,
		}},
	}}
}

// Close drops idle connections.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	if c.reads != nil {
		c.reads.close()
	}
}

// Do sends one call and reads its whole reply. query may be nil; body nil
// means none. Where e has a Part, body is the file itself. The error, if any, is an *Error of class NotSent, when it is
// certain that nothing left, or Ambiguous. The reply then holds, with status 0,
// as much of the body as came: there may be an id in it.
//
// Only a call that reads ends with ctx. Any other, once begun, is heard to its
// end, for as long as e may take.
func (c *Client) Do(ctx context.Context, e *Endpoint, token Token, query url.Values, body []byte) (Reply, error) {
	start := time.Now()
	reply, err := c.do(ctx, e, token, query, body)
	class := Ambiguous
	if we, ok := errors.AsType[*Error](err); ok {
		class = we.Class
	} else if err == nil {
		reply.said = read(e, reply)
		class = reply.said.class
	}
	c.observe(e.Name, class, time.Since(start))
	return reply, err
}

func (c *Client) do(ctx context.Context, e *Endpoint, token Token, query url.Values, body []byte) (Reply, error) {
	if err := ctx.Err(); err != nil {
		return Reply{}, &Error{Endpoint: e.Name, Class: NotSent, Err: err}
	}
	if c.reads != nil && cheap(e) {
		reply, connected, err := c.reads.do(ctx, e, token, query, body)
		if err != nil {
			class := Ambiguous
			if !connected {
				class = NotSent
			}
			err = &Error{Endpoint: e.Name, Class: class, Err: err}
		}
		return reply, err
	}
	if e.Risk != Read {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, e.Deadline())
	defer cancel()
	// Once a connection was handed to the request its bytes may leave at any
	// moment, also after a cancelled Do has returned: only a request that
	// never got one is certainly not sent.
	var gotConn atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { gotConn.Store(true) }})
	ctx = context.WithValue(ctx, tokenKey{}, token)

	target := c.base + e.Path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	contentType := "application/json; charset=utf-8"
	if e.Part != "" {
		var err error
		if body, contentType, err = form(e.Part, body); err != nil {
			return Reply{}, &Error{Endpoint: e.Name, Class: NotSent, Err: err}
		}
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, e.Method, target, reader)
	if err != nil {
		return Reply{}, &Error{Endpoint: e.Name, Class: NotSent, Err: err}
	}
	req.GetBody = nil // or net/http would send the body a second time
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	fail := func(err error) (Reply, error) {
		class := Ambiguous
		if !gotConn.Load() {
			class = NotSent
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its text would name the URL
		}
		return Reply{}, &Error{Endpoint: e.Name, Class: class, Err: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	b, err := readLimited(resp.Body, e.maxReply())
	if err != nil {
		_, err = fail(err)
		return Reply{Body: b}, err
	}
	return Reply{Status: resp.StatusCode, Body: b}, nil
}

// readLimited reads a whole body, or as much of it as came.
func readLimited(body io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(b)) > limit {
		b, err = b[:limit], fmt.Errorf("reply is over %d bytes", limit)
	}
	return b, err
}

type tokenKey struct{}

// tokenTransport adds the token on a clone, below http.Client: the request
// that errors are made from never holds it.
type tokenTransport struct{ next http.RoundTripper }

func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	token, _ := req.Context().Value(tokenKey{}).(Token)
	out := req
	if token.value != "" {
		out = req.Clone(req.Context())
		out.GetBody = nil
		q := token.param + "=" + url.QueryEscape(token.value)
		if out.URL.RawQuery != "" {
			q += "&" + out.URL.RawQuery
		}
		out.URL.RawQuery = q
	}
	resp, err := t.next.RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func (t *tokenTransport) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
