package authorizer

import (
	"errors"
	"time"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/wechat"
)

// Problem turns what a call ended with into what a caller may see (design
// api.md §6): a *wechat.Error by its row of the catalogue, with WeChat's words
// in Upstream. Other errors and nil stay as they are.
//
// It says nothing of what was executed: that is the *wechat.Error's class.
func Problem(err error) error {
	if _, ok := problem.As(err); ok {
		return err
	}
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		return err
	}
	if we.Code == 0 {
		p := problem.Of(problem.CodeWeChatUnreachable)
		if we.Class == wechat.NotSent {
			p.RetryAfter = time.Second
		}
		return p.WithErr(err)
	}
	row, ok := (&wechat.Endpoint{Name: we.Endpoint, Family: we.Family}).Errcode(we.Code)
	if !ok {
		return withUpstream(problem.Of(problem.CodeWeChatUnknownError), err)
	}
	p := problem.Of(row.Code)
	p.Retryable = row.Retryable
	for _, pointer := range row.Pointers {
		p.Fields = append(p.Fields, problem.Field{Pointer: pointer, Code: row.Code, Detail: "WeChat refused it."})
	}
	switch row.Code {
	case problem.CodeWeChatQuotaExhausted:
		p.RetryAfter = time.Until(quota.Resets(time.Now()))
	case problem.CodeWeChatRateLimited:
		p.RetryAfter = time.Minute
	case problem.CodeComponentTicketStale:
		p.RetryAfter = ticketRetry
	case problem.CodeMerchantTokenUnavailable:
		p.RetryAfter = time.Second
	}
	return withUpstream(p, err)
}

// withUpstream returns a copy of p that tells what WeChat said.
func withUpstream(p *problem.Error, err error) error {
	c := p.WithErr(err)
	if we := (*wechat.Error)(nil); errors.As(err, &we) && we.Code != 0 {
		code := we.Code
		if status, ok := we.Codeless(); ok {
			code = status
		}
		c.Upstream = &problem.UpstreamError{Endpoint: we.Endpoint, Errcode: code, Errmsg: we.Msg, RID: we.RID}
	}
	return c
}

// ticketRetry is when a new ticket may have come: WeChat pushes one every ten
// minutes.
const ticketRetry = time.Minute
