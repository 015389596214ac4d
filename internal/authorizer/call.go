package authorizer

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/wechat"
)

// A refusal is of a merchant whose fresh token WeChat rejected: asking again
// at once would refresh for ever. Another token ends it.
type refusal struct {
	gen   int32
	until time.Time
}

// refusedFor is how long such a merchant's calls are refused here.
const refusedFor = time.Minute

// A Pass is leave to make one call for a merchant: a place among the calls that
// are under way, and the circuit's permit. Whoever has one ends it, by Send or
// by Leave. It is for one goroutine.
type Pass struct {
	a      *Authorizer
	m      Merchant
	e      *wechat.Endpoint
	permit permit
	place  func() // nil: none is held
}

// Admit says whether the merchant may make the call now, from memory and
// before anything is written or sent. Errors: rate_limited where the tenant or
// the merchant has too many under way, upstream_circuit_open while WeChat gives
// no answers.
func (a *Authorizer) Admit(ctx context.Context, m Merchant, e *wechat.Endpoint) (*Pass, error) {
	c := m.account()
	if h, ok := a.tokens.Peek(c.key()); ok && decide(h, noGen, time.Now()) == refresh {
		// It would take a token that can't be had.
		if wait := a.circuit(m.TenantID, wechat.GetAuthorizerToken).paused(); wait > 0 {
			return nil, circuitIsOpen(wait)
		}
	}
	place, err := a.place(ctx, c, e)
	if err != nil {
		return nil, err
	}
	p, err := a.pass(m, e)
	if err != nil {
		place()
		return nil, err
	}
	p.place = place
	return &p, nil
}

// pass is a Pass without a place. Errors: upstream_circuit_open.
func (a *Authorizer) pass(m Merchant, e *wechat.Endpoint) (Pass, error) {
	permit, err := a.permit(m.TenantID, e)
	return Pass{a: a, m: m, e: e, permit: permit}, err
}

// Leave ends a Pass. Further calls do nothing.
func (p *Pass) Leave() {
	p.permit.leave()
	if p.place != nil {
		p.place()
		p.place = nil
	}
}

// Send makes the call with the merchant's token, and ends the Pass. A token
// that WeChat rejects was not executed: it is refreshed once, by its
// generation, and the call made once more, never in a loop.
//
// When a reply came err is nil, whatever the reply says: wechat.Classify reads
// it. Otherwise err is a *wechat.Error of class NotSent or Ambiguous, with what
// came of the reply (wechat.Client.Do), or a *problem.Error: no token could be
// had, and nothing was executed.
//
// ctx bounds the wait for a token, and a call that reads.
func (p *Pass) Send(ctx context.Context, query url.Values, body []byte) (wechat.Reply, error) {
	defer p.Leave()
	a, e, c := p.a, p.e, p.m.account()
	token, err := a.merchantToken(ctx, c, noGen)
	if err != nil {
		return wechat.Reply{}, storage(err)
	}
	if r, ok := a.refused.Get(c.key()); ok && r.gen == token.gen && time.Now().Before(r.until) {
		p := problem.Of(problem.CodeMerchantTokenUnavailable)
		p.RetryAfter = time.Until(r.until)
		return wechat.Reply{}, p
	}
	a.touch(c)
	sent := fault.AtWire(ctx, "request_written", "reply_begun")
	for again := false; ; again = true {
		reply, err := a.WeChat.Do(sent, e, wechat.AuthorizerToken(token.token.Reveal()), query, body)
		p.permit.judge(sent, e, reply, err)
		if err != nil {
			return reply, err
		}
		class, we := wechat.Classify(e, reply)
		if we == nil {
			return reply, nil
		}
		a.heed(p.m, token.gen, we)
		switch {
		case class != wechat.TokenRejected:
			return reply, nil
		case again:
			a.refused.Add(c.key(), refusal{token.gen, time.Now().Add(refusedFor)})
			a.Log.WarnContext(ctx, "WeChat rejects a fresh token", "tenant_id", c.tenant, "merchant_id", c.id, "errcode", we.Code)
			p := problem.Of(problem.CodeMerchantTokenUnavailable)
			p.RetryAfter = refusedFor
			return wechat.Reply{}, withUpstream(p, we)
		}
		if token, err = a.merchantToken(ctx, c, token.gen); err != nil {
			return wechat.Reply{}, storage(err)
		}
	}
}

// Call makes a call that only reads, decodes the answer, and tries again
// within limits when there was none. Errors are *problem.Error: rate_limited
// and upstream_circuit_open, where nothing was sent, and the codes of Problem.
func Call[T any](ctx context.Context, a *Authorizer, m Merchant, e *wechat.Endpoint, query url.Values, req any) (T, error) {
	v, _, err := CallMarked[T](ctx, a, m, e, query, req)
	return v, err
}

// CallMarked is Call, and tells the mark of the reply too.
func CallMarked[T any](ctx context.Context, a *Authorizer, m Merchant, e *wechat.Endpoint, query url.Values, req any) (v T, mark wechat.Mark, err error) {
	var body []byte
	if req != nil {
		if body, err = wechat.Encode(req); err != nil {
			return v, 0, err
		}
	}
	reply, err := a.read(ctx, m, e, query, body)
	if err != nil {
		return v, 0, Problem(err)
	}
	if _, we := wechat.Classify(e, reply); we != nil {
		return v, 0, Problem(we)
	}
	v, err = wechat.Decode[T](e, reply)
	return v, reply.Mark(), Problem(err)
}

// read is a call that only reads, patiently. Each that waits takes a place: all
// of them take up this process.
func (a *Authorizer) read(ctx context.Context, m Merchant, e *wechat.Endpoint, query url.Values, body []byte) (wechat.Reply, error) {
	c := m.account()
	leave, err := a.place(ctx, c, e)
	if err != nil {
		return wechat.Reply{}, err
	}
	defer leave()
	if e.Quota.PerDay > 0 {
		return a.counted(ctx, m, e, query, body)
	}
	return a.patiently(ctx, c, e, func() (wechat.Reply, error) { return a.send(ctx, m, e, query, body) })
}

func (a *Authorizer) send(ctx context.Context, m Merchant, e *wechat.Endpoint, query url.Values, body []byte) (wechat.Reply, error) {
	p, err := a.pass(m, e)
	if err != nil {
		return wechat.Reply{}, err
	}
	return p.Send(ctx, query, body)
}

// counted makes a call that WeChat limits by the day: it is counted first, and
// equal ones that are under way at the same time become one.
func (a *Authorizer) counted(ctx context.Context, m Merchant, e *wechat.Endpoint, query url.Values, body []byte) (wechat.Reply, error) {
	type result struct {
		reply wechat.Reply
		state quota.State
	}
	key := strings.Join([]string{m.TenantID.String(), m.ID.String(), e.Name, query.Encode(), string(body), strconv.FormatBool(quota.IsInBackground(ctx))}, "\n")
	one := a.reads.DoChan(key, func() (any, error) {
		// Whoever came first may leave before the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*(obtainFor+e.Deadline()))
		defer cancel()
		var state quota.State
		reply, err := a.patiently(ctx, m.account(), e, func() (wechat.Reply, error) {
			call, err := a.Quotas.Take(ctx, m.TenantID, m.ID, e)
			state = call.State
			if err != nil {
				return wechat.Reply{}, storage(err)
			}
			reply, err := a.send(ctx, m, e, query, body)
			if err != nil {
				if notSent(err) {
					call.NotSent(ctx)
				}
			} else if _, we := wechat.Classify(e, reply); we != nil && quota.SpentBy(e, we.Code) {
				call.Spent(ctx)
				state.Left = 0
			}
			return reply, err
		})
		return result{reply, state}, err
	})
	select {
	case <-ctx.Done():
		return wechat.Reply{}, ctx.Err()
	case r := <-one:
		out, _ := r.Val.(result)
		if out.state.Limit > 0 {
			quota.Tell(ctx, out.state)
		}
		return out.reply, r.Err
	}
}

// notSent reports whether Pass.Send's error says that nothing was executed.
func notSent(err error) bool {
	if _, ok := problem.As(err); ok {
		return true
	}
	we := (*wechat.Error)(nil)
	return errors.As(err, &we) && we.Class == wechat.NotSent
}

// heed looks at what an answer says of the authorisation itself.
func (a *Authorizer) heed(m Merchant, gen int32, we *wechat.Error) {
	c := m.account()
	switch we.Code {
	case wechat.CodeSetNotGranted:
		a.beside("read what the merchant granted", func(ctx context.Context) error {
			_, err := a.reread(ctx, c)
			return err
		})
	case wechat.CodeDeauthorized:
		a.beside("confirm that the authorisation is gone", func(ctx context.Context) error {
			_, err := a.confirmGone(ctx, c)
			return err
		})
	case wechat.CodePasswordChanged:
		a.beside("mark a merchant", func(ctx context.Context) error {
			err := a.markNeedsReauthorization(ctx, c, "password_changed", nil, &gen)
			if errors.Is(err, errFenced) {
				return nil // somebody was faster
			}
			return err
		})
	}
}

// touchEvery is how coarsely a merchant's use is noted: it only decides whose
// tokens are refreshed ahead.
const touchEvery = 10 * time.Minute

// touch notes that the merchant is in use, off the caller's path.
func (a *Authorizer) touch(c account) {
	now := time.Now()
	if at, ok := a.used.Get(c.key()); ok && now.Sub(at) < touchEvery {
		return
	}
	a.used.Add(c.key(), now)
	a.beside("note a merchant's use", func(ctx context.Context) error {
		b := a.DB.NewBatch(c.tenant)
		b.Queue(dbsqlc.AuthorizerTokenUsed, dbsqlc.AuthorizerTokenUsedParams{TenantID: c.tenant, MerchantID: c.id})
		return a.DB.Run(ctx, b)
	})
}
