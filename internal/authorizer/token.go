package authorizer

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// left turns what the database said was left of a token into a moment of this
// process's monotonic clock.
func left(seconds float64) time.Time {
	return time.Now().Add(time.Duration(seconds * float64(time.Second)))
}

// An account names a merchant's token row: what is needed to find it, open it
// and speak of it.
type account struct {
	tenant, id uuid.UUID
	appid      string
}

func (m Merchant) account() account { return account{m.TenantID, m.ID, m.AppID} }

func (c account) key() postgres.Key { return postgres.Key{Tenant: c.tenant, ID: c.id} }

func (c account) place(column string) secret.Place {
	return placeOf("authorizer_tokens", column, c.tenant, c.appid, c.id.String())
}

// merchantToken is the merchant's token, but not the rejected one. Errors:
// merchant_needs_reauthorization, merchant_deauthorized,
// component_ticket_stale, merchant_token_unavailable and the codes of Problem.
func (a *Authorizer) merchantToken(ctx context.Context, c account, rejected int32) (held, error) {
	if h, ok := a.tokens.Peek(c.key()); ok && decide(h, rejected, time.Now()) == use {
		return h, nil // as nearly always
	}
	return a.obtain(ctx, a.merchantRow(c), rejected)
}

// renewMerchant is merchantToken without looking at what is in memory.
func (a *Authorizer) renewMerchant(ctx context.Context, c account, rejected int32) (held, error) {
	return a.renew(ctx, a.merchantRow(c), rejected)
}

func queueToken(b *postgres.Batch, k postgres.Key, into *[]dbsqlc.AuthorizerTokenReadRow) {
	postgres.QueueMany(b, dbsqlc.AuthorizerTokenRead, dbsqlc.AuthorizerTokenReadParams{TenantID: k.Tenant, MerchantID: k.ID}, into)
}

// openToken is the token of the row that queueToken found.
func (a *Authorizer) openToken(c account, rows []dbsqlc.AuthorizerTokenReadRow) (held, error) {
	if len(rows) == 0 { // known from elsewhere, never exchanged
		return held{invalid: "none"}, nil
	}
	r := rows[0]
	h := held{gen: r.AccessGen, until: left(r.Remaining), invalid: text(r.InvalidReason), leased: r.Leased}
	var err error
	if r.AccessCt != nil {
		h.token, err = a.Keyset.OpenText(c.place("access_ct"), r.AccessCt)
	}
	return h, err
}

func (a *Authorizer) merchantRow(c account) tokenRow {
	return tokenRow{
		of: "merchant", key: c.key(), cache: a.tokens,
		read: func(ctx context.Context) (held, error) {
			var rows []dbsqlc.AuthorizerTokenReadRow
			b := a.DB.NewBatch(c.tenant)
			queueToken(b, c.key(), &rows)
			if err := a.DB.Run(ctx, b); err != nil {
				return held{}, storage(err)
			}
			return a.openToken(c, rows)
		},
		// Not while the lease runs: it may take as long as the lease.
		prepare: func(ctx context.Context) error {
			_, err := a.componentToken(ctx, c.tenant, noGen)
			return err
		},
		take: func(ctx context.Context, rejected int32) (*grant, held, error) {
			var rows []dbsqlc.AuthorizerTokenReadRow
			var leases []dbsqlc.AuthorizerTokenLeaseRow
			b := a.DB.NewBatch(c.tenant)
			postgres.QueueMany(b, dbsqlc.AuthorizerTokenLease, dbsqlc.AuthorizerTokenLeaseParams{
				Owner: a.Config.Instance, TenantID: c.tenant, MerchantID: c.id, RejectedGen: rejected,
			}, &leases)
			queueToken(b, c.key(), &rows)
			if err := a.DB.Run(ctx, b); err != nil {
				return nil, held{}, err
			}
			h, err := a.openToken(c, rows)
			if err != nil || len(leases) == 0 {
				return nil, h, err
			}
			return &grant{leaseGen: leases[0].LeaseGen, gen: leases[0].AccessGen, row: leases[0]}, h, nil
		},
		refresh: func(ctx context.Context, g grant) (held, error) { return a.refreshMerchant(ctx, c, g) },
		invalid: func(h held) error {
			if h.invalid == StatusDeauthorized {
				return reauthorize(problem.CodeMerchantDeauthorized, c.appid)
			}
			return reauthorize(problem.CodeMerchantNeedsReauthorization, c.appid)
		},
	}
}

// refreshTokens are what a merchant's token can be refreshed with: the current
// one, then those before it, newest first.
type refreshTokens struct {
	current   secret.Text
	history   []secret.Text
	historyCT [][]byte
}

func (a *Authorizer) openRefreshTokens(c account, currentCT []byte, historyCT [][]byte) (refreshTokens, error) {
	var r refreshTokens
	var err error
	if currentCT != nil {
		if r.current, err = a.Keyset.OpenText(c.place("refresh_token_ct"), currentCT); err != nil {
			return r, err
		}
	}
	for _, ct := range historyCT {
		old, err := a.Keyset.OpenText(c.place("refresh_history"), ct)
		if err != nil {
			return r, err
		}
		r.history = append(r.history, old)
	}
	r.historyCT = historyCT
	return r, nil
}

// noRefreshToken is why a row is invalid for which no refresh token works.
const noRefreshToken = "refresh_token"

// keptBefore is how many refresh tokens are kept beside the current one.
const keptBefore = 3

// replace says what to write so that next becomes the current one: nil when it
// already is, or is empty, and the history with what it replaces.
func (a *Authorizer) replace(c account, r refreshTokens, next secret.Text) (ct []byte, history [][]byte, err error) {
	history = r.historyCT
	if history == nil {
		history = [][]byte{}
	}
	if next.IsZero() || next == r.current {
		return nil, history, nil
	}
	if ct, err = a.Keyset.SealText(c.place("refresh_token_ct"), next); err != nil {
		return nil, nil, err
	}
	if r.current.IsZero() {
		return ct, history, nil
	}
	history, err = a.historyWith(c, r, r.current, next)
	return ct, history, err
}

// historyWith is the history with first at its head, and without except.
func (a *Authorizer) historyWith(c account, r refreshTokens, first, except secret.Text) ([][]byte, error) {
	ct, err := a.Keyset.SealText(c.place("refresh_history"), first)
	if err != nil {
		return nil, err
	}
	kept := [][]byte{ct}
	for i, h := range r.history {
		if h != except && h != first && len(kept) < keptBefore {
			kept = append(kept, r.historyCT[i])
		}
	}
	return kept, nil
}

// refreshMerchant makes a new token with the refresh token. When WeChat knows
// that no more (61023) it tries those before it, then the one that
// api_get_authorizer_list shows; when none helps the merchant has to authorise
// again (platform.md §5.2).
func (a *Authorizer) refreshMerchant(ctx context.Context, c account, g grant) (_ held, err error) {
	defer func() {
		if err != nil && !errors.Is(err, errFenced) {
			a.releaseMerchant(ctx, c, g)
		}
	}()
	row, _ := g.row.(dbsqlc.AuthorizerTokenLeaseRow)
	known, err := a.openRefreshTokens(c, row.RefreshTokenCt, row.RefreshHistory)
	if err != nil {
		return held{}, err
	}
	fence := func() error {
		return a.fence(ctx, c.tenant, dbsqlc.AuthorizerTokenRenew, dbsqlc.AuthorizerTokenRenewParams{TenantID: c.tenant, MerchantID: c.id, LeaseGen: g.leaseGen})
	}
	tried := map[secret.Text]bool{{}: true}
	try := func(with secret.Text) (h held, done bool, err error) {
		if tried[with] {
			return held{}, false, nil
		}
		if len(tried) > 1 {
			if err := fence(); err != nil {
				return held{}, true, err
			}
		}
		tried[with] = true
		reply, err := ask[wechat.GetAuthorizerTokenReply](ctx, a, c.tenant, wechat.GetAuthorizerToken, fence, func(creds tenant.Credentials) any {
			return wechat.GetAuthorizerTokenRequest{ComponentAppID: creds.AppID, AuthorizerAppID: c.appid, AuthorizerRefreshToken: with.Reveal()}
		})
		switch {
		case isCode(err, wechat.CodeRefreshTokenInvalid):
			return held{}, false, nil
		case err != nil:
			return held{}, true, a.refreshFailed(ctx, c, g, err)
		case reply.AuthorizerAccessToken == "":
			return held{}, true, problem.Of(problem.CodeWeChatUnknownError).WithErr(errors.New("no token in the reply"))
		}
		fault.At("token_answered")
		r := refreshed{AppID: c.appid, LeaseGen: g.leaseGen, Gen: g.gen, With: with.Reveal(), Reply: reply}
		settle := a.spool(ctx, c.tenant, c.id, given{Refresh: &r})
		fault.At("token_spooled")
		h, err = a.storeMerchantToken(ctx, c, known, r)
		settle(err == nil || errors.Is(err, errFenced))
		return h, true, err
	}
	for _, with := range append([]secret.Text{known.current}, known.history...) {
		if h, done, err := try(with); done {
			return h, err
		}
	}
	if err := fence(); err != nil {
		return held{}, err
	}
	listed, err := a.listedRefreshToken(ctx, c, fence)
	if err != nil {
		return held{}, Problem(err)
	}
	if h, done, err := try(listed); done {
		return h, err
	}
	a.Log.WarnContext(ctx, "no refresh token of the merchant works", "tenant_id", c.tenant, "merchant_id", c.id)
	if err := a.markNeedsReauthorization(ctx, c, noRefreshToken, &g.leaseGen, nil); err != nil {
		return held{}, err
	}
	return held{}, reauthorize(problem.CodeMerchantNeedsReauthorization, c.appid)
}

// refreshFailed looks at why a refresh was refused, and marks the merchant
// where that is what it says.
func (a *Authorizer) refreshFailed(ctx context.Context, c account, g grant, err error) error {
	switch {
	case isCode(err, wechat.CodeDeauthorized):
		if gone, err := a.confirmGone(ctx, c); err != nil || !gone {
			return Problem(errors.Join(err, problem.Of(problem.CodeMerchantTokenUnavailable)))
		}
		return withUpstream(reauthorize(problem.CodeMerchantDeauthorized, c.appid), err)
	case isCode(err, wechat.CodePasswordChanged):
		if err := a.markNeedsReauthorization(ctx, c, "password_changed", &g.leaseGen, nil); err != nil {
			return err
		}
	}
	return Problem(err)
}

// storeMerchantToken writes what WeChat gave, at once and as long as it takes.
// The reply may bring another refresh token than the one that worked, and
// brings none where nothing changed. errFenced: somebody else has had the
// lease since, and of the reply only its refresh token is remembered.
func (a *Authorizer) storeMerchantToken(ctx context.Context, c account, known refreshTokens, r refreshed) (held, error) {
	token := secret.NewText(r.Reply.AuthorizerAccessToken)
	next := secret.NewText(cmp.Or(r.Reply.AuthorizerRefreshToken, r.With))
	accessCT, err := a.Keyset.SealText(c.place("access_ct"), token)
	if err != nil {
		return held{}, err
	}
	refreshCT, history, err := a.replace(c, known, next)
	if err != nil {
		return held{}, err
	}
	seconds := lifetime(int64(r.Reply.ExpiresIn))
	err = a.commit(ctx, func() error {
		return a.fence(ctx, c.tenant, dbsqlc.AuthorizerTokenStore, dbsqlc.AuthorizerTokenStoreParams{
			AccessCt: accessCT, AccessGen: r.Gen + 1, Seconds: seconds, RefreshTokenCt: refreshCT, RefreshHistory: history,
			TenantID: c.tenant, MerchantID: c.id, LeaseGen: r.LeaseGen,
		})
	})
	fault.At("token_stored")
	if errors.Is(err, errFenced) {
		if err := a.remember(ctx, c, next); err != nil {
			return held{}, err
		}
	}
	return held{token: token, gen: r.Gen + 1, until: left(seconds)}, err
}

func (a *Authorizer) releaseMerchant(ctx context.Context, c account, g grant) {
	b := a.DB.NewBatch(c.tenant)
	b.Queue(dbsqlc.AuthorizerTokenRelease, dbsqlc.AuthorizerTokenReleaseParams{
		Cool: coolDown.Seconds(), TenantID: c.tenant, MerchantID: c.id, LeaseGen: g.leaseGen,
	})
	if err := a.DB.Run(ctx, b); err != nil {
		a.Log.WarnContext(ctx, "a lease was not given back", "tenant_id", c.tenant, "merchant_id", c.id, "err", err)
	}
}

// listedRefreshToken looks the account up in api_get_authorizer_list. It is
// empty when the list has no such account, or shows no token for it.
func (a *Authorizer) listedRefreshToken(ctx context.Context, c account, fence func() error) (secret.Text, error) {
	var found secret.Text
	err := a.eachListed(ctx, c.tenant, fence, func(l wechat.ListedAuthorizer) bool {
		if l.AuthorizerAppID != c.appid || l.RefreshToken == "" {
			return true
		}
		found = secret.NewText(l.RefreshToken)
		return false
	})
	return found, err
}

// eachListed calls fn for each authorised account until it returns false. The
// list has no order and may repeat itself while it is read (platform.md §5.4).
func (a *Authorizer) eachListed(ctx context.Context, tenantID uuid.UUID, fence func() error, fn func(wechat.ListedAuthorizer) bool) error {
	for offset := 0; ; {
		reply, err := ask[wechat.GetAuthorizerListReply](ctx, a, tenantID, wechat.GetAuthorizerList, fence, func(creds tenant.Credentials) any {
			return wechat.GetAuthorizerListRequest{ComponentAppID: creds.AppID, Offset: offset, Count: wechat.MaxAuthorizerPage}
		})
		if err != nil {
			return err
		}
		for _, l := range reply.List {
			if !fn(l) {
				return nil
			}
		}
		if offset += len(reply.List); len(reply.List) == 0 || offset >= int(reply.TotalCount) {
			return nil
		}
		if fence != nil {
			if err := fence(); err != nil {
				return err
			}
		}
	}
}
