package authorizer

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// An arrival is one of the two ways in which an authorization code reaches us:
// the browser's redirect, and the signed push. Either may come first, both may
// come at once and to two processes; the code can be exchanged once.
type arrival struct {
	code    secret.Text // of a reply from the spool none: it was used
	hash    []byte      // of the code, by which it is known
	link    *uuid.UUID  // the callback's link; of a push, that of its PreAuthCode, if it was ours
	appid   string      // of a push
	eventAt *time.Time  // CreateTime of a push
	expired bool        // a push so late that the code can't be good any more
}

func (v arrival) pushed() bool { return v.appid != "" }

// errStillExchanging is for the loser of the race when the winner takes too
// long: whoever hears it comes again.
var errStillExchanging = errors.New("the authorization code is being exchanged by another process")

const exchangeWait = 12 * time.Second

// exchange makes the code's account a merchant of the tenant, once however
// often and wherever the code arrives, and returns the merchant and the link
// that it was bound to. Errors: authorization_code_expired,
// merchant_bound_to_other_tenant, errStillExchanging, and those of Problem,
// after which it may be tried again.
func (a *Authorizer) exchange(ctx context.Context, tenantID uuid.UUID, v arrival) (dbsqlc.AuthorizationCode, error) {
	deadline := time.Now().Add(exchangeWait)
	for wait := pollFirst; ; wait = min(2*wait, pollMost) {
		mine, seen, err := a.claimCode(ctx, tenantID, v)
		if err != nil {
			return seen, storage(err)
		}
		if mine {
			row, err := a.exchangeClaimed(ctx, tenantID, v, seen)
			if errors.Is(err, errFenced) {
				continue
			}
			return row, err
		}
		switch seen.State {
		case "done":
			return seen, nil
		case "failed":
			return seen, problem.Of(text(seen.Error))
		}
		if time.Now().After(deadline) {
			return seen, errStillExchanging
		}
		select {
		case <-ctx.Done():
			return seen, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// claimCode makes the exchange ours, or shows how far somebody else's is.
func (a *Authorizer) claimCode(ctx context.Context, tenantID uuid.UUID, v arrival) (mine bool, row dbsqlc.AuthorizationCode, err error) {
	var claimed, read []dbsqlc.AuthorizationCode
	b := a.DB.NewBatch(tenantID)
	postgres.QueueMany(b, dbsqlc.CodeClaim, dbsqlc.CodeClaimParams{TenantID: tenantID, CodeSha256: v.hash, MendFailed: v.pushed()}, &claimed)
	postgres.QueueMany(b, dbsqlc.CodeRead, dbsqlc.CodeReadParams{TenantID: tenantID, CodeSha256: v.hash}, &read)
	switch err := a.DB.Run(ctx, b); {
	case err != nil:
		return false, row, err
	case len(claimed) > 0:
		return true, claimed[0], nil
	case len(read) > 0:
		return false, read[0], nil
	}
	return false, row, errors.New("an authorization code's row vanished")
}

// exchangeClaimed does it, in two transactions: what WeChat gave is written as
// soon as it is there; what the account is follows. A process that dies in
// between leaves a merchant that works, and a row that the next arrival takes
// up where it was left.
func (a *Authorizer) exchangeClaimed(ctx context.Context, tenantID uuid.UUID, v arrival, claim dbsqlc.AuthorizationCode) (dbsqlc.AuthorizationCode, error) {
	// A caller who leaves must not lose what WeChat gives only once.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	row := claim
	fault.At("code_claimed")
	if claim.MerchantID == nil {
		info, err := a.queryAuth(ctx, tenantID, v)
		fault.At("code_answered")
		switch {
		case isCode(err, wechat.CodeAuthCodeInvalid, wechat.CodeAuthCodeExpired) && !v.pushed(),
			isCode(err, wechat.CodeDeauthorized):
			return row, a.failCode(ctx, tenantID, v, claim, problem.CodeAuthorizationCodeExpired)
		case err != nil:
			a.releaseCode(ctx, tenantID, v)
			return row, Problem(err)
		}
		settle := a.spool(ctx, tenantID, uuid.Nil, given{Exchange: &exchanged{
			CodeSHA256: v.hash, ClaimedUntil: claim.LeaseUntil, Link: v.link, EventAt: v.eventAt, Info: info,
		}})
		fault.At("code_spooled")
		row, err = a.bind(ctx, tenantID, v, claim, info)
		settle(err == nil || problem.HasCode(err, problem.CodeMerchantBoundToOtherTenant))
		if err != nil {
			return row, err
		}
	}
	return row, a.finish(ctx, tenantID, v, row)
}

// queryAuth exchanges the code. Where that is too late a push still names the
// account, and WeChat still tells what it granted.
func (a *Authorizer) queryAuth(ctx context.Context, tenantID uuid.UUID, v arrival) (wechat.AuthorizationInfo, error) {
	if !v.expired {
		reply, err := ask[wechat.QueryAuthReply](ctx, a, tenantID, wechat.QueryAuth, nil, func(creds tenant.Credentials) any {
			return wechat.QueryAuthRequest{ComponentAppID: creds.AppID, AuthorizationCode: v.code.Reveal()}
		})
		switch {
		case err == nil && reply.AuthorizationInfo.AuthorizerAppID == "":
			return wechat.AuthorizationInfo{}, problem.Of(problem.CodeWeChatUnknownError).WithErr(errors.New("no account in the reply"))
		case !v.pushed() || !isCode(err, wechat.CodeAuthCodeInvalid, wechat.CodeAuthCodeExpired):
			return reply.AuthorizationInfo, err
		}
	}
	info, err := a.authorizerInfo(ctx, account{tenant: tenantID, appid: v.appid})
	info.AuthorizationInfo.AuthorizerAppID = v.appid
	return info.AuthorizationInfo, err
}

// bind writes the merchant, its tokens, and the link that is thereby used up.
// Errors: merchant_bound_to_other_tenant, which ends the code, errFenced, and
// those of the database, after which it may be tried again.
func (a *Authorizer) bind(ctx context.Context, tenantID uuid.UUID, v arrival, claim dbsqlc.AuthorizationCode, info wechat.AuthorizationInfo) (dbsqlc.AuthorizationCode, error) {
	fresh := typeid.New()
	var row dbsqlc.AuthorizationCode
	err := a.commit(ctx, func() error {
		return a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) (err error) {
			if row, err = a.lockClaim(ctx, tx, tenantID, v, claim); err != nil {
				return err
			}
			if row.MerchantID != nil {
				return nil // an earlier try was committed after all
			}
			held, err := a.q.AppIDHeldElsewhere(ctx, tx, dbsqlc.AppIDHeldElsewhereParams{Appid: info.AuthorizerAppID, Me: tenantID})
			if err != nil {
				return err
			}
			if held {
				return problem.Of(problem.CodeMerchantBoundToOtherTenant)
			}
			link, err := a.linkFor(ctx, tx, tenantID, v.link, info.AuthorizerAppID)
			if err != nil {
				return err
			}
			p := dbsqlc.MerchantAuthorizeParams{
				TenantID: tenantID, ID: fresh, Appid: info.AuthorizerAppID, PermissionSets: info.PermissionSets(), EventAt: v.eventAt,
			}
			if link != nil {
				p.ClientReference, p.Enable = link.ClientReference, true
			}
			m, err := a.q.MerchantAuthorize(ctx, tx, p)
			if err != nil {
				return boundElsewhere(err)
			}
			if err := a.putTokens(ctx, tx, fromRow(m).account(), info); err != nil {
				return err
			}
			row.MerchantID = &m.ID
			if link != nil {
				if row.LinkID, err = a.useLink(ctx, tx, tenantID, link.ID, m.ID); err != nil {
					return err
				}
			}
			return a.q.CodeBind(ctx, tx, dbsqlc.CodeBindParams{MerchantID: row.MerchantID, LinkID: row.LinkID, TenantID: tenantID, CodeSha256: v.hash})
		})
	})
	switch {
	case problem.HasCode(err, problem.CodeMerchantBoundToOtherTenant):
		a.Log.ErrorContext(ctx, "an account of another tenant authorised this one: refused", "tenant_id", tenantID, "appid", info.AuthorizerAppID)
		return claim, a.failCode(ctx, tenantID, v, claim, problem.CodeMerchantBoundToOtherTenant)
	case errors.Is(err, errFenced):
		return claim, err
	case err != nil:
		a.releaseCode(ctx, tenantID, v)
		return claim, storage(err)
	}
	a.drop(account{tenant: tenantID, id: *row.MerchantID})
	fault.At("code_bound")
	return row, nil
}

// boundElsewhere tells the race for one account between two tenants.
func boundElsewhere(err error) error {
	if postgres.IsUnique(err, "merchants_one_tenant") {
		return problem.Of(problem.CodeMerchantBoundToOtherTenant)
	}
	return err
}

// lockClaim locks the code's row, and fails with errFenced when the claim is
// no longer ours: its lease ran out and somebody took it.
func (a *Authorizer) lockClaim(ctx context.Context, tx postgres.DBTX, tenantID uuid.UUID, v arrival, claim dbsqlc.AuthorizationCode) (dbsqlc.AuthorizationCode, error) {
	row, err := a.q.CodeLock(ctx, tx, dbsqlc.CodeLockParams{TenantID: tenantID, CodeSha256: v.hash})
	if err == nil && (row.State != "exchanging" || !row.LeaseUntil.Equal(claim.LeaseUntil)) {
		err = errFenced
	}
	return row, err
}

// putTokens writes what an exchange gave, and ends any refresh under way. An
// empty refresh token leaves the one that is there.
func (a *Authorizer) putTokens(ctx context.Context, tx postgres.DBTX, c account, info wechat.AuthorizationInfo) error {
	_, known, err := a.lockRefreshTokens(ctx, tx, c)
	if err != nil {
		return err
	}
	refreshCT, history, err := a.replace(c, known, secret.NewText(info.AuthorizerRefreshToken))
	if err != nil {
		return err
	}
	p := dbsqlc.AuthorizerTokenPutParams{TenantID: c.tenant, MerchantID: c.id, RefreshTokenCt: refreshCT, RefreshHistory: history}
	if info.AuthorizerAccessToken != "" {
		if p.AccessCt, err = a.Keyset.SealText(c.place("access_ct"), secret.NewText(info.AuthorizerAccessToken)); err != nil {
			return err
		}
		seconds := lifetime(int64(info.ExpiresIn))
		p.Seconds = &seconds
	}
	return a.q.AuthorizerTokenPut(ctx, tx, p)
}

// lockRefreshTokens reads the account's row of tokens, which is empty when there
// is none, and opens its refresh tokens.
func (a *Authorizer) lockRefreshTokens(ctx context.Context, tx postgres.DBTX, c account) (dbsqlc.AuthorizerToken, refreshTokens, error) {
	row, err := a.q.AuthorizerTokenLock(ctx, tx, dbsqlc.AuthorizerTokenLockParams{TenantID: c.tenant, MerchantID: c.id})
	if err != nil && !postgres.IsNotFound(err) {
		return row, refreshTokens{}, err
	}
	known, err := a.openRefreshTokens(c, row.RefreshTokenCt, row.RefreshHistory)
	return row, known, err
}

// finish writes what the account is, tells the tenant, and closes the code. An
// account that WeChat can't describe at the moment is described later.
func (a *Authorizer) finish(ctx context.Context, tenantID uuid.UUID, v arrival, code dbsqlc.AuthorizationCode) error {
	m, err := a.MerchantByID(ctx, tenantID, *code.MerchantID)
	if err != nil {
		a.releaseCode(ctx, tenantID, v)
		return err
	}
	c := m.account()
	info, infoErr := a.authorizerInfo(ctx, c)
	err = a.commit(ctx, func() error {
		return a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error {
			if _, err := a.lockClaim(ctx, tx, tenantID, v, code); err != nil {
				return err
			}
			row, err := a.q.MerchantLock(ctx, tx, dbsqlc.MerchantLockParams{TenantID: tenantID, Appid: c.appid})
			if err != nil {
				return err
			}
			m := fromRow(row)
			late := v.eventAt != nil && v.eventAt.Before(row.TransitionAt)
			switch {
			case isCode(infoErr, wechat.CodeDeauthorized):
				if err := a.deauthorize(ctx, tx, c, nil); err != nil {
					return err
				}
				return a.closeCode(ctx, tx, tenantID, v)
			case row.Status == StatusDeauthorized: // withdrawn meanwhile
				return a.closeCode(ctx, tx, tenantID, v)
			case infoErr == nil && !late: // else a later event has said it already
				if m, err = a.describe(ctx, tx, c, info); err != nil {
					return err
				}
			}
			event := outbox.MerchantAuthorizationUpdated
			if !m.AuthorizedAt.Before(code.CreatedAt) { // this code made it so
				event = outbox.MerchantAuthorized
			}
			if err := a.q.MerchantInventoryDue(ctx, tx, dbsqlc.MerchantInventoryDueParams{TenantID: tenantID, ID: c.id}); err != nil {
				return err
			}
			if err := a.tell(ctx, tx, event, m, m.Status); err != nil {
				return err
			}
			return a.closeCode(ctx, tx, tenantID, v)
		})
	})
	a.drop(c)
	if errors.Is(err, errFenced) {
		return err
	}
	if err != nil {
		a.releaseCode(ctx, tenantID, v)
		return storage(err)
	}
	if infoErr != nil && !isCode(infoErr, wechat.CodeDeauthorized) {
		a.Log.WarnContext(ctx, "an account could not be described", "tenant_id", tenantID, "merchant_id", c.id, "err", infoErr)
		a.beside("describe an account", func(ctx context.Context) error {
			_, err := a.reread(ctx, c)
			return err
		})
	}
	return nil
}

func (a *Authorizer) closeCode(ctx context.Context, tx postgres.DBTX, tenantID uuid.UUID, v arrival) error {
	return a.q.CodeFinish(ctx, tx, dbsqlc.CodeFinishParams{State: "done", TenantID: tenantID, CodeSha256: v.hash})
}

// failCode writes down that the code is good for nothing, and why, also to the
// link that it came by. It returns the problem.
func (a *Authorizer) failCode(ctx context.Context, tenantID uuid.UUID, v arrival, claim dbsqlc.AuthorizationCode, code string) error {
	err := a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error {
		if _, err := a.lockClaim(ctx, tx, tenantID, v, claim); err != nil {
			return err
		}
		if v.link != nil {
			if err := a.linkFailed(ctx, tx, tenantID, *v.link, code); err != nil {
				return err
			}
		}
		return a.q.CodeFinish(ctx, tx, dbsqlc.CodeFinishParams{State: "failed", Error: &code, TenantID: tenantID, CodeSha256: v.hash})
	})
	if err != nil {
		return storage(err)
	}
	return problem.Of(code)
}

// releaseCode lets the next arrival try at once.
func (a *Authorizer) releaseCode(ctx context.Context, tenantID uuid.UUID, v arrival) {
	b := a.DB.NewBatch(tenantID)
	b.Queue(dbsqlc.CodeRelease, dbsqlc.CodeReleaseParams{TenantID: tenantID, CodeSha256: v.hash})
	if err := a.DB.Run(ctx, b); err != nil {
		a.Log.WarnContext(ctx, "an authorization code's claim was not given back", "tenant_id", tenantID, "err", err)
	}
}
