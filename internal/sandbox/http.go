package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const maxBody = 1 << 20

// answer is a reply before it is written, so that faults can still change it.
type answer struct {
	status   int
	kind     string // Content-Type
	location string
	body     []byte
}

// okReply opens the replies that carry errcode on success too.
type okReply struct {
	ErrCode int    `json:"errcode"`
	ErrMsg  string `json:"errmsg"`
}

var ok = okReply{0, "ok"}

func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	s.routeControl(mux)
	for _, ep := range s.endpoints() {
		limit := int64(maxBody)
		if ep.upload {
			limit = maxUpload
		}
		mux.HandleFunc(ep.path, s.wechat(limit, func(r *http.Request, body []byte) answer {
			v, err := s.do(ep, r, body)
			a := s.encode(v, err)
			if ep.upload {
				a.kind = "text/plain" // JSON all the same (platform.md §11.1 no. 2)
			}
			return a
		}))
	}
	for _, path := range consentPaths {
		mux.HandleFunc(path, s.wechat(maxBody, s.consentPage))
	}
	mux.HandleFunc("GET /{$}", s.dashboard)
	mux.HandleFunc("/", s.wechat(maxBody, func(*http.Request, []byte) answer {
		return answer{http.StatusNotFound, "text/plain; charset=utf-8", "", []byte("the simulator does not know this path\n")}
	}))
	return mux
}

func (s *Server) encode(v any, err error) answer {
	if e, ok := errors.AsType[*wxError](err); ok {
		v = okReply{e.code, e.msg + " rid: " + s.rid()}
	} else if err != nil {
		return serverError(err)
	}
	body, err := marshal(v)
	if err != nil {
		return serverError(err)
	}
	return answer{http.StatusOK, "application/json; encoding=utf-8", "", body}
}

func serverError(err error) answer {
	return answer{http.StatusInternalServerError, "text/plain; charset=utf-8", "", []byte(err.Error())}
}

// rid is the request id at the end of an errmsg, in WeChat's form.
func (s *Server) rid() string {
	return fmt.Sprintf("%08x-%08x-%08x", time.Now().Unix(), s.rng.Uint32(), s.rng.Uint32())
}

// marshal leaves &, < and > as they are, as WeChat does.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// wechat wraps what WeChat itself serves: the journal around it, and faults.
func (s *Server) wechat(limit int64, serve func(*http.Request, []byte) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
		if err != nil {
			http.Error(w, "request body", http.StatusRequestEntityTooLarge)
			return
		}
		s.mu.Lock()
		entry := s.journal.open(r, body)
		f := s.takeFault(r.URL.Path, body)
		s.mu.Unlock()

		if f.delaysFirst() {
			s.sleep(f.delay())
		}
		var a answer
		if f.executes() {
			a = s.locked(func() answer { return serve(r, body) })
		}
		f.alter(&a)
		if f.delaysLast() {
			s.sleep(f.delay())
		}

		s.mu.Lock()
		entry.close(a, f)
		s.mu.Unlock()
		if f != nil && f.DropReply {
			panic(http.ErrAbortHandler) // net/http cuts the connection without a reply
		}
		a.write(w)
	}
}

// locked serves under the lock and commits what changed before the reply can leave.
func (s *Server) locked(serve func() answer) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return answer{http.StatusServiceUnavailable, "text/plain; charset=utf-8", "", []byte("the simulator has stopped\n")}
	}
	a := serve()
	if err := s.commit(); err != nil {
		s.log.Error("sandbox: state not written", "err", err)
		return serverError(err)
	}
	return a
}

func (a answer) write(w http.ResponseWriter) {
	if a.kind != "" {
		w.Header().Set("Content-Type", a.kind)
	}
	if a.location != "" {
		w.Header().Set("Location", a.location)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// sleep delays a reply. A caller who hangs up does not stop it: WeChat executes late calls too.
func (s *Server) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.closed:
	}
}

func clientIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func trimSlash(path string) string { return strings.TrimPrefix(path, "/") }
