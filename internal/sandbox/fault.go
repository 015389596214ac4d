package sandbox

import (
	"bytes"
	"net/http"
	"time"
)

// fault is what POST /_sandbox/faults orders for the next calls of a path.
type fault struct {
	Path string `json:"path"` // with or without the leading slash; "*" is every path of WeChat's
	N    int    `json:"n"`    // calls left

	Contains string `json:"contains,omitempty"` // only calls whose body does

	ErrCode    *int   `json:"errcode,omitempty"`
	ErrMsg     string `json:"errmsg,omitempty"`
	DelayMS    int    `json:"delay_ms,omitempty"`
	DropReply  bool   `json:"drop_reply,omitempty"`
	HTTPStatus int    `json:"http_status,omitempty"`
	Body       string `json:"body,omitempty"`        // sent verbatim instead of the reply
	TruncateTo *int   `json:"truncate_to,omitempty"` // bytes of the real reply to keep

	// Before says whether the fault comes before the call is executed. Unset: an errcode,
	// http_status or body replaces the call, drop_reply and truncate_to come after it, a delay precedes it.
	Before *bool `json:"before,omitempty"`
}

// The methods of a nil fault leave everything as it is.

func (f *fault) replaces() bool { return f.ErrCode != nil || f.HTTPStatus != 0 || f.Body != "" }

func (f *fault) executes() bool {
	switch {
	case f == nil:
		return true
	case f.Before != nil:
		return !*f.Before || (!f.replaces() && !f.DropReply)
	default:
		return !f.replaces()
	}
}

func (f *fault) delay() time.Duration { return time.Duration(f.DelayMS) * time.Millisecond }

func (f *fault) delaysFirst() bool {
	return f != nil && f.DelayMS > 0 && (f.Before == nil || *f.Before)
}

func (f *fault) delaysLast() bool { return f != nil && f.DelayMS > 0 && !f.delaysFirst() }

func (f *fault) alter(a *answer) {
	if f == nil {
		return
	}
	const jsonKind = "application/json; encoding=utf-8"
	if f.ErrCode != nil {
		msg := f.ErrMsg
		if msg == "" {
			msg = errmsg[*f.ErrCode]
		}
		body, err := marshal(okReply{*f.ErrCode, msg})
		if err != nil {
			*a = serverError(err)
			return
		}
		*a = answer{http.StatusOK, jsonKind, "", body}
	}
	if f.HTTPStatus != 0 && f.ErrCode == nil {
		*a = answer{0, "text/html; charset=utf-8", "", []byte("<html><body>" + http.StatusText(f.HTTPStatus) + "</body></html>\n")}
	}
	if f.Body != "" {
		*a = answer{http.StatusOK, jsonKind, "", []byte(f.Body)}
	}
	if f.HTTPStatus != 0 {
		a.status = f.HTTPStatus
	}
	if f.TruncateTo != nil {
		a.body = a.body[:min(len(a.body), max(0, *f.TruncateTo))]
	}
}

// takeFault uses up one call of the oldest fault that matches.
func (s *Server) takeFault(path string, body []byte) *fault {
	for i, f := range s.faults {
		if f.Path != "*" && trimSlash(f.Path) != trimSlash(path) || !bytes.Contains(body, []byte(f.Contains)) {
			continue
		}
		taken := *f
		if f.N--; f.N <= 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return &taken
	}
	return nil
}
