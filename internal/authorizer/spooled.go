package authorizer

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// A given is a reply with what WeChat gives once: a merchant's tokens. It lies
// in the spool until the database has it. One of its members is set.
type given struct {
	Refresh  *refreshed `json:"refresh,omitempty"`
	Exchange *exchanged `json:"exchange,omitempty"`
}

// refreshed is the reply to a refresh.
type refreshed struct {
	AppID    string                         `json:"appid"`
	LeaseGen int32                          `json:"lease_gen"`
	Gen      int32                          `json:"gen"`  // of the token that was refreshed
	With     string                         `json:"with"` // the refresh token that worked
	Reply    wechat.GetAuthorizerTokenReply `json:"reply"`
}

// exchanged is the reply to an authorization code.
type exchanged struct {
	CodeSHA256   []byte                   `json:"code_sha256"`
	ClaimedUntil time.Time                `json:"claimed_until"`
	Link         *uuid.UUID               `json:"link"`
	EventAt      *time.Time               `json:"event_at"`
	Info         wechat.AuthorizationInfo `json:"info"`
}

// spool writes g down before the database hears of it. settle is to be told
// whether it has, or nothing is left to tell it. What can't be written is
// stored all the same: WeChat has given it.
func (a *Authorizer) spool(ctx context.Context, tenantID, merchantID uuid.UUID, g given) (settle func(done bool)) {
	r := spool.Record{Tenant: tenantID, Merchant: merchantID, Operation: typeid.New(), At: time.Now().UTC()}
	var err error
	if r.Tokens, err = json.Marshal(g); err == nil {
		err = a.Spool.Append(r)
	}
	if err != nil {
		a.Log.ErrorContext(ctx, "tokens could not be spooled", "tenant_id", tenantID, "merchant_id", merchantID, "err", err)
	}
	return func(done bool) {
		if err == nil && done {
			a.spoolDone(ctx, r)
		}
	}
}

func (a *Authorizer) spoolDone(ctx context.Context, r spool.Record) {
	if err := a.Spool.Done(r); err != nil {
		a.Log.WarnContext(ctx, "spool", "err", err)
	}
}

// Replay applies tokens that an earlier process on the spool directory was
// given and may not have stored, as that process would have: where somebody
// has had the lease since, only the refresh token is remembered; where the
// merchant or its tenant is gone, nothing is. After an error the record stays
// in the spool.
func (a *Authorizer) Replay(ctx context.Context, r spool.Record) (err error) {
	defer problem.Wrap(&err, "authorizer.Replay")
	var g given
	if err := json.Unmarshal(r.Tokens, &g); err != nil {
		return err
	}
	switch {
	case g.Refresh != nil:
		g.Refresh.Reply.ExpiresIn = remaining(g.Refresh.Reply.ExpiresIn, r.At)
		err = a.replayRefresh(ctx, account{r.Tenant, r.Merchant, g.Refresh.AppID}, *g.Refresh)
	case g.Exchange != nil:
		g.Exchange.Info.ExpiresIn = remaining(g.Exchange.Info.ExpiresIn, r.At)
		err = a.replayExchange(ctx, r.Tenant, *g.Exchange)
	}
	if err != nil {
		return err
	}
	a.Log.InfoContext(ctx, "spooled tokens applied", "tenant_id", r.Tenant, "merchant_id", r.Merchant)
	a.spoolDone(ctx, r)
	return nil
}

// remaining is what is left of a token's life that was given at a moment.
func remaining(life wechat.Int, at time.Time) wechat.Int {
	return max(1, life-wechat.Int(max(0, time.Since(at)).Seconds()))
}

func (a *Authorizer) replayRefresh(ctx context.Context, c account, r refreshed) error {
	var known refreshTokens
	err := a.DB.InTenant(ctx, c.tenant, func(tx postgres.DBTX) (err error) {
		_, known, err = a.lockRefreshTokens(ctx, tx, c)
		return err
	})
	if err != nil {
		return storage(err)
	}
	if _, err = a.storeMerchantToken(ctx, c, known, r); errors.Is(err, errFenced) {
		return nil
	}
	return err
}

// replayExchange goes on where the dead process was, whose claim lasts as long
// as nobody has taken it. Where somebody was faster, with a code that was used
// up, this refresh token is remembered beside what he found.
func (a *Authorizer) replayExchange(ctx context.Context, tenantID uuid.UUID, e exchanged) error {
	v := arrival{hash: e.CodeSHA256, link: e.Link, appid: e.Info.AuthorizerAppID, eventAt: e.EventAt}
	code, err := a.bind(ctx, tenantID, v, dbsqlc.AuthorizationCode{LeaseUntil: e.ClaimedUntil}, e.Info)
	if errors.Is(err, errFenced) || postgres.IsNotFound(err) {
		var mine bool
		var seen dbsqlc.AuthorizationCode
		if mine, seen, err = a.claimCode(ctx, tenantID, v); err != nil {
			return storage(err)
		}
		if seen.MerchantID != nil {
			err = a.remember(ctx, account{tenantID, *seen.MerchantID, v.appid}, secret.NewText(e.Info.AuthorizerRefreshToken))
		}
		switch {
		case err != nil:
			return err
		case !mine && seen.MerchantID == nil:
			return errStillExchanging
		case !mine:
			return nil
		}
		code, err = a.bind(ctx, tenantID, v, seen, e.Info)
	}
	if problem.HasCode(err, problem.CodeMerchantBoundToOtherTenant) {
		return nil
	}
	if err == nil {
		// It asks WeChat, which may take its time. Until then the merchant works.
		a.beside("finish an authorization", func(ctx context.Context) error { return a.finish(ctx, tenantID, v, code) })
	}
	return err
}

// remember keeps a refresh token that came too late to become the current one
// among those before it, unless it is known or the authorisation is gone:
// WeChat may have ended all others with it. Where none of those works, it is
// tried at once.
func (a *Authorizer) remember(ctx context.Context, c account, late secret.Text) error {
	needed := false
	err := a.DB.InTenant(ctx, c.tenant, func(tx postgres.DBTX) error {
		row, known, err := a.lockRefreshTokens(ctx, tx, c)
		if err != nil || late.IsZero() || known.current == late || slices.Contains(known.history, late) ||
			row.MerchantID == uuid.Nil || text(row.InvalidReason) == StatusDeauthorized {
			return err
		}
		history, err := a.historyWith(c, known, late, late)
		if err != nil {
			return err
		}
		needed = text(row.InvalidReason) == noRefreshToken
		return a.q.AuthorizerTokenRemember(ctx, tx, dbsqlc.AuthorizerTokenRememberParams{TenantID: c.tenant, MerchantID: c.id, RefreshHistory: history})
	})
	if err == nil && needed {
		a.beside("try a refresh token that was found", func(ctx context.Context) error {
			_, err := a.adopt(ctx, c.tenant, c.appid, late, nil)
			return err
		})
	}
	return storage(err)
}
