package wechat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// An envelope is how a family of replies tells success from failure.
type envelope uint8

const (
	// errcodeEnvelope: {"errcode":0,"errmsg":"ok",…}. A reply without errcode
	// is no success: it is none of WeChat's.
	errcodeEnvelope envelope = iota
	// looseEnvelope: success may come without errcode (platform.md §9).
	looseEnvelope
	// statusEnvelope: {"status":0,"message":"query ok","result":…}, and an
	// errcode where the token was refused (document 000 §4.5).
	statusEnvelope
	// errorEnvelope: {"error":null,"data":{"base_id":…}}, the same with errcode
	// as newer pages have it, and an errcode alone where the token was refused
	// (document 000 §4.7, platform.md §11.1 no. 11). Only a base_id is success.
	errorEnvelope
)

// codeless is what a failure that came without errcode has as its code, so
// that it shares no number with errcodes: Tencent Maps' status is added to it,
// create_map_poi's error is codeless itself.
const codeless = 1_000_000_000

// Codeless reports whether the failure came without an errcode, and returns
// what it came with instead: Tencent Maps' status, or 0.
func (e *Error) Codeless() (status int64, ok bool) { return e.Code - codeless, e.Code >= codeless }

type head struct {
	code int64
	msg  string
}

// A number is an Int that may be absent: null and "" are. Two of one name that
// differ are an error: which one counts is nobody's to guess.
type number struct {
	Int
	set bool
}

func (n *number) UnmarshalJSON(b []byte) error {
	s, err := text(b)
	if err != nil || s == "" {
		return err
	}
	var v Int
	if err := v.UnmarshalJSON(b); err != nil {
		return err
	}
	if n.set && n.Int != v {
		return errors.New("two that differ")
	}
	n.Int, n.set = v, true
	return nil
}

var errNoHead = errors.New("reply says neither success nor failure")

// answered reads the answer, and what the reply holds besides, where e says how
// to read both at once.
func (e *Endpoint) answered(body []byte) (h answer, held any, err error) {
	switch {
	case len(body) == 0:
		return h, nil, errors.New("reply is empty")
	case body[0] != '{':
		return h, nil, errors.New("reply is not a JSON object")
	}
	if e.whole != nil {
		if h, held, err = e.whole(body); err == nil {
			return h, held, nil
		}
	}
	if h, err = unmarshal[answer](body); err != nil {
		err = fmt.Errorf("reply can't be read: %w", err)
	}
	return h, nil, err
}

// An answer is what tells a failure in all families.
type answer struct {
	Errcode number          `json:"errcode"`
	Errmsg  json.RawMessage `json:"errmsg"`
}

// read finds out what the reply, made readable, says of the call's fate. The
// error, if any, is that it says nothing that could be relied on.
func (env envelope) read(body []byte, h answer, proof string) (head, error) {
	switch {
	case h.Errcode.Int >= codeless:
		return head{}, fmt.Errorf("errcode %d", h.Errcode.Int)
	case h.Errcode.Int != 0:
		return head{int64(h.Errcode.Int), looseText(h.Errmsg)}, nil
	}
	switch env {
	case statusEnvelope:
		return readStatus(body)
	case errorEnvelope:
		return readError(body)
	case errcodeEnvelope:
		if !h.Errcode.set {
			return head{}, errNoHead
		}
	}
	if proof == "" {
		return head{}, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return head{}, fmt.Errorf("reply can't be read: %w", err)
	}
	if blank(members[proof]) {
		return head{}, fmt.Errorf("reply has no %s", proof)
	}
	return head{}, nil
}

func readStatus(body []byte) (head, error) {
	h, err := unmarshal[struct {
		Status  number          `json:"status"`
		Message json.RawMessage `json:"message"`
	}](body)
	if err != nil {
		return head{}, fmt.Errorf("reply can't be read: %w", err)
	}
	switch {
	case !h.Status.set:
		return head{}, errNoHead
	case h.Status.Int < 0, h.Status.Int >= codeless:
		return head{}, fmt.Errorf("status %d", h.Status.Int)
	case h.Status.Int > 0:
		return head{codeless + int64(h.Status.Int), looseText(h.Message)}, nil
	}
	return head{}, nil
}

func readError(body []byte) (head, error) {
	var h struct {
		Error json.RawMessage `json:"error"`
		Data  json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &h); err != nil {
		return head{}, fmt.Errorf("reply can't be read: %w", err)
	}
	var data struct {
		BaseID ID `json:"base_id"`
	}
	made := json.Unmarshal(h.Data, &data) == nil && data.BaseID != "" && data.BaseID != "0"
	switch {
	case made && blank(h.Error):
		return head{}, nil
	case made:
		return head{}, errors.New("reply has both an error and a base_id")
	case blank(h.Error):
		return head{}, errNoHead
	}
	return head{codeless, looseText(h.Error)}, nil
}

// blank reports whether a member is absent, null or "".
func blank(b json.RawMessage) bool {
	return len(b) == 0 || bytes.Equal(b, []byte("null")) || bytes.Equal(b, []byte(`""`))
}

// looseText shows a message whatever type it has.
func looseText(b json.RawMessage) string {
	var s string
	if json.Unmarshal(b, &s) == nil {
		return s
	}
	return string(b)
}
