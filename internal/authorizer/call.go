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

// A breaker is open for a merchant whose fresh token WeChat rejected: asking
// again at once would refresh for ever. Another token closes it.
type breaker struct {
	gen   int32
	until time.Time
}

// brokenFor is how long such a merchant's calls are refused here.
const brokenFor = time.Minute

// Send makes the call with the merchant's token. A token that WeChat rejects
// was not executed: it is refreshed once, by its generation, and the call made
// once more, never in a loop.
//
// When a reply came err is nil, whatever the reply says: wechat.Classify reads
// it. Otherwise err is a *wechat.Error of class NotSent or Ambiguous, with what
// came of the reply (wechat.Client.Do), or a *problem.Error: no token could be
// had, and nothing was executed.
//
// ctx bounds the wait for a token, and a call that reads.
func (a *Authorizer) Send(ctx context.Context, m Merchant, e *wechat.Endpoint, query url.Values, body []byte) (wechat.Reply, error) {
	c := m.account()
	token, err := a.merchantToken(ctx, c, noGen)
	if err != nil {
		return wechat.Reply{}, storage(err)
	}
	if b, ok := a.broken.Get(c.key()); ok && b.gen == token.gen && time.Now().Before(b.until) {
		p := problem.Of(problem.CodeMerchantTokenUnavailable)
		p.RetryAfter = time.Until(b.until)
		return wechat.Reply{}, p
	}
	a.touch(c)
	sent := fault.AtWire(ctx, "request_written", "reply_begun")
	for again := false; ; again = true {
		reply, err := a.WeChat.Do(sent, e, wechat.AuthorizerToken(token.token.Reveal()), query, body)
		if err != nil {
			return reply, err
		}
		class, we := wechat.Classify(e, reply)
		if we == nil {
			return reply, nil
		}
		a.heed(m, token.gen, we)
		switch {
		case class != wechat.TokenRejected:
			return reply, nil
		case again:
			a.broken.Add(c.key(), breaker{token.gen, time.Now().Add(brokenFor)})
			a.Log.WarnContext(ctx, "WeChat rejects a fresh token", "tenant_id", c.tenant, "merchant_id", c.id, "errcode", we.Code)
			p := problem.Of(problem.CodeMerchantTokenUnavailable)
			p.RetryAfter = brokenFor
			return wechat.Reply{}, withUpstream(p, we)
		}
		if token, err = a.merchantToken(ctx, c, token.gen); err != nil {
			return wechat.Reply{}, storage(err)
		}
	}
}

// Call is Send for a call that only reads: it decodes the answer, and tries
// once more when nothing was sent. Errors are *problem.Error.
func Call[T any](ctx context.Context, a *Authorizer, m Merchant, e *wechat.Endpoint, query url.Values, req any) (T, error) {
	var none T
	var body []byte
	if req != nil {
		var err error
		if body, err = wechat.Encode(req); err != nil {
			return none, err
		}
	}
	reply, err := a.read(ctx, m, e, query, body)
	if err != nil {
		return none, Problem(err)
	}
	if _, we := wechat.Classify(e, reply); we != nil {
		return none, Problem(we)
	}
	v, err := wechat.Decode[T](e, reply)
	return v, Problem(err)
}

// read is Send with one more try when nothing was sent. A call that WeChat
// limits by the day is counted first, and equal ones that are under way at the
// same time become one.
func (a *Authorizer) read(ctx context.Context, m Merchant, e *wechat.Endpoint, query url.Values, body []byte) (wechat.Reply, error) {
	if e.Quota.PerDay == 0 {
		return a.sendAgain(ctx, m, e, query, body)
	}
	type result struct {
		reply wechat.Reply
		state quota.State
	}
	key := strings.Join([]string{m.TenantID.String(), m.ID.String(), e.Name, query.Encode(), string(body), strconv.FormatBool(quota.IsInBackground(ctx))}, "\n")
	one := a.reads.DoChan(key, func() (any, error) {
		// Whoever came first may leave before the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*(obtainFor+e.Deadline()))
		defer cancel()
		call, err := a.Quotas.Take(ctx, m.TenantID, m.ID, e)
		if err != nil {
			return result{state: call.State}, storage(err)
		}
		reply, err := a.sendAgain(ctx, m, e, query, body)
		if err != nil {
			if notSent(err) {
				call.NotSent(ctx)
			}
		} else if _, we := wechat.Classify(e, reply); we != nil && quota.SpentBy(e, we.Code) {
			call.Spent(ctx)
			call.State.Left = 0
		}
		return result{reply, call.State}, err
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

// sendAgain is Send, and once more where nothing was sent.
func (a *Authorizer) sendAgain(ctx context.Context, m Merchant, e *wechat.Endpoint, query url.Values, body []byte) (wechat.Reply, error) {
	reply, err := a.Send(ctx, m, e, query, body)
	if we := (*wechat.Error)(nil); errors.As(err, &we) && we.Class == wechat.NotSent && ctx.Err() == nil {
		reply, err = a.Send(ctx, m, e, query, body)
	}
	return reply, err
}

// notSent reports whether Send's error says that nothing was executed.
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
