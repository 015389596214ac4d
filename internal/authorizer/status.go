package authorizer

import (
	"context"
	"time"

	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// markNeedsReauthorization says that no token of the merchant works any more.
// Every id is kept. It changes nothing, and fails with errFenced, when the
// token has meanwhile been replaced: leaseGen or accessGen says which one it
// was that failed.
func (a *Authorizer) markNeedsReauthorization(ctx context.Context, c account, reason string, leaseGen, accessGen *int32) error {
	err := a.commit(ctx, func() error {
		return a.DB.InTenant(ctx, c.tenant, func(tx postgres.DBTX) error {
			n, err := a.q.AuthorizerTokenInvalidate(ctx, tx, dbsqlc.AuthorizerTokenInvalidateParams{
				Reason: reason, TenantID: c.tenant, MerchantID: c.id, LeaseGen: leaseGen, AccessGen: accessGen,
			})
			if err != nil {
				return err
			}
			if n == 0 {
				return errFenced
			}
			return a.moveStatus(ctx, tx, c, StatusNeedsReauthorization, outbox.MerchantNeedsReauthorization, nil, StatusAuthorized)
		})
	})
	a.drop(c)
	return storage(err)
}

// moveStatus moves the merchant to status if it is in one of from, and writes
// the event. eventAt is the CreateTime of the push that says so, if it was one.
func (a *Authorizer) moveStatus(ctx context.Context, tx postgres.DBTX, c account, status, event string, eventAt *time.Time, from ...string) error {
	was, err := a.q.MerchantLock(ctx, tx, dbsqlc.MerchantLockParams{TenantID: c.tenant, Appid: c.appid})
	if err != nil {
		return err
	}
	row, err := a.q.MerchantStatus(ctx, tx, dbsqlc.MerchantStatusParams{
		Status: status, EventAt: eventAt, TenantID: c.tenant, ID: c.id, FromStatus: from,
	})
	if postgres.IsNotFound(err) {
		return nil // it already is
	}
	if err != nil {
		return err
	}
	return a.tell(ctx, tx, event, fromRow(row), was.Status)
}

// tell writes an event of the merchant in the transaction of its change.
func (a *Authorizer) tell(ctx context.Context, tx postgres.DBTX, event string, m Merchant, was string) error {
	if was == m.Status {
		was = ""
	}
	return outbox.Add(ctx, tx, m.TenantID, outbox.Event{Type: event, MerchantID: m.ID, Object: m.Object(), PreviousStatus: was})
}

// drop forgets what this process keeps of the merchant; the database tells the others.
func (a *Authorizer) drop(c account) {
	a.merchants.Drop(c.key())
	a.tokens.Drop(c.key())
}

// deauthorize ends the authorisation: the tokens go, every id stays.
func (a *Authorizer) deauthorize(ctx context.Context, tx postgres.DBTX, c account, eventAt *time.Time) error {
	err := a.q.AuthorizerTokenErase(ctx, tx, dbsqlc.AuthorizerTokenEraseParams{TenantID: c.tenant, MerchantID: c.id})
	if err != nil {
		return err
	}
	return a.moveStatus(ctx, tx, c, StatusDeauthorized, outbox.MerchantDeauthorized, eventAt, StatusAuthorized, StatusNeedsReauthorization)
}

// confirmGone asks WeChat whether the account is authorised, and writes down
// what it says: the one judge where the order of events is in doubt.
func (a *Authorizer) confirmGone(ctx context.Context, c account) (gone bool, err error) {
	_, err = a.reread(ctx, c)
	if !isCode(err, wechat.CodeDeauthorized) {
		return false, err
	}
	err = a.commit(ctx, func() error {
		return a.DB.InTenant(ctx, c.tenant, func(tx postgres.DBTX) error { return a.deauthorize(ctx, tx, c, nil) })
	})
	a.drop(c)
	return err == nil, storage(err)
}

// reread asks what the account is and what it granted, and writes it down.
// Errors: *wechat.Error of the call, 61003 among them.
func (a *Authorizer) reread(ctx context.Context, c account) (Merchant, error) {
	info, err := a.authorizerInfo(ctx, c)
	if err != nil {
		return Merchant{}, err
	}
	var m Merchant
	err = a.commit(ctx, func() error {
		return a.DB.InTenant(ctx, c.tenant, func(tx postgres.DBTX) error {
			was, err := a.q.MerchantLock(ctx, tx, dbsqlc.MerchantLockParams{TenantID: c.tenant, Appid: c.appid})
			if err != nil {
				return err
			}
			if m = fromRow(was); was.Status == StatusDeauthorized {
				return nil
			}
			if m, err = a.describe(ctx, tx, c, info); err != nil {
				return err
			}
			if sameSets(was.PermissionSets, m.PermissionSets) {
				return nil
			}
			return a.tell(ctx, tx, outbox.MerchantAuthorizationUpdated, m, was.Status)
		})
	})
	a.drop(c)
	return m, storage(err)
}

func (a *Authorizer) authorizerInfo(ctx context.Context, c account) (wechat.GetAuthorizerInfoReply, error) {
	return ask[wechat.GetAuthorizerInfoReply](ctx, a, c.tenant, wechat.GetAuthorizerInfo, nil, func(creds tenant.Credentials) any {
		return wechat.AuthorizerRef{ComponentAppID: creds.AppID, AuthorizerAppID: c.appid}
	})
}

// describe writes what the account is and what it granted.
func (a *Authorizer) describe(ctx context.Context, tx postgres.DBTX, c account, info wechat.GetAuthorizerInfoReply) (Merchant, error) {
	i := info.AuthorizerInfo
	kind := OfficialAccount
	if i.IsMiniProgram() {
		kind = MiniProgram
	}
	var verified *bool
	if i.VerifyTypeInfo != nil {
		v := i.VerifyTypeInfo.ID >= 0
		verified = &v
	}
	row, err := a.q.MerchantDescribe(ctx, tx, dbsqlc.MerchantDescribeParams{
		AccountType: kind, UserName: i.UserName, Nickname: i.NickName, PrincipalName: i.PrincipalName, HeadImageURL: i.HeadImg,
		AccountStatus: int32(i.AccountStatus), Verified: verified, // #nosec G115 -- a small number
		PermissionSets: info.AuthorizationInfo.PermissionSets(), TenantID: c.tenant, ID: c.id,
	})
	return fromRow(row), err
}

// sameSets compares what was granted, in whatever order.
func sameSets(a, b []int32) bool {
	if len(a) != len(b) {
		return false
	}
	seen := make(map[int32]bool, len(a))
	for _, s := range a {
		seen[s] = true
	}
	for _, s := range b {
		if !seen[s] {
			return false
		}
	}
	return true
}
