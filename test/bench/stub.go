package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// stub is the upstream that gateway and peers have in common, in a process of
// its own: it answers as document 000 does, at once or after a delay, and
// forgets everything. What the calls mean is the simulator's business.
type stub struct {
	list  []byte // document 000 §4.11, 1.3 KB
	one   []byte
	delay atomic.Int64
	ids   atomic.Int64
	// refreshes counts the calls that gave a merchant a token.
	refreshes atomic.Int64
}

// serveStub runs until ctx ends. Its control calls are
// /_delay?ms=20 and /_refreshes.
func serveStub(ctx context.Context, root, addr string) error {
	list, err := os.ReadFile(filepath.Join(root, "internal/wechat/testdata/documents/get_store_list.reply"))
	if err != nil {
		return err
	}
	s := &stub{}
	var buf bytes.Buffer
	if err := json.Compact(&buf, list); err != nil {
		return err
	}
	s.list = buf.Bytes()
	var page struct {
		List []json.RawMessage `json:"business_list"`
	}
	if err := json.Unmarshal(s.list, &page); err != nil {
		return err
	}
	s.one = fmt.Appendf(nil, `{"errcode":0,"errmsg":"ok","business":%s}`, page.List[0])
	s.ids.Store(time.Now().UnixNano()) // never the same over the runs on one database
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go s.serve(newWire(c))
	}
}

func (s *stub) serve(w *wire) {
	defer w.Close()
	var out []byte
	for w.read() == nil {
		_, target, _ := strings.Cut(string(w.first), " ")
		target, _, _ = strings.Cut(target, " ")
		path, query, _ := strings.Cut(target, "?")
		status, body := s.answer(path, query)
		if d := s.delay.Load(); d > 0 && !strings.HasPrefix(path, "/_") {
			time.Sleep(time.Duration(d))
		}
		out = fmt.Appendf(out[:0], "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", status, len(body))
		if _, err := w.Write(append(out, body...)); err != nil || w.close {
			return
		}
	}
}

const refusedToken = `{"errcode":41001,"errmsg":"access_token missing"}`

func (s *stub) answer(path, query string) (status string, body []byte) {
	const ok = "200 OK"
	if strings.HasPrefix(path, "/wxa/") && !strings.Contains(query, "access_token=") {
		return ok, []byte(refusedToken)
	}
	switch path {
	case "/wxa/get_store_list":
		return ok, s.list
	case "/wxa/get_store_info":
		return ok, s.one
	case "/wxa/add_store":
		return ok, fmt.Appendf(nil, `{"errcode":0,"errmsg":"ok","data":{"audit_id":%d}}`, s.ids.Add(1))
	case "/cgi-bin/component/api_component_token":
		return ok, fmt.Appendf(nil, `{"component_access_token":"%s","expires_in":7200}`, token(s.ids.Add(1)))
	case "/cgi-bin/component/api_authorizer_token":
		s.refreshes.Add(1)
		return ok, fmt.Appendf(nil, `{"authorizer_access_token":"%s","expires_in":7200}`, token(s.ids.Add(1)))
	case "/_delay":
		q, _ := url.ParseQuery(query)
		ms, err := strconv.Atoi(q.Get("ms"))
		if err != nil {
			return "400 Bad Request", nil
		}
		s.delay.Store(int64(time.Duration(ms) * time.Millisecond))
		return ok, nil
	case "/_refreshes":
		return ok, strconv.AppendInt(nil, s.refreshes.Load(), 10)
	}
	return ok, []byte(`{"errcode":0,"errmsg":"ok"}`)
}

// token is as long as WeChat's are (platform.md §5.2).
func token(n int64) string { return fmt.Sprintf("%019d_%s", n, strings.Repeat("A", 137)) }
