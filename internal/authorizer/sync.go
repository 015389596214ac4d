package authorizer

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// adopt writes an account as WeChat shows it now, without a code: it was
// authorised while nobody listened. listed is the refresh token that the list
// gave, if it gave one. An account without any needs its administrator once
// more, for no token can be had (platform.md §5.1).
func (a *Authorizer) adopt(ctx context.Context, tenantID uuid.UUID, appid string, listed secret.Text, eventAt *time.Time) (Merchant, error) {
	info, err := a.authorizerInfo(ctx, account{tenant: tenantID, appid: appid})
	if err != nil {
		return Merchant{}, err
	}
	if t := info.AuthorizationInfo.AuthorizerRefreshToken; t != "" {
		listed = secret.NewText(t)
	}
	fresh := typeid.New()
	var m Merchant
	err = a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error {
		held, err := a.q.AppIDHeldElsewhere(ctx, tx, dbsqlc.AppIDHeldElsewhereParams{Appid: appid, Me: tenantID})
		if err != nil {
			return err
		}
		if held {
			return problem.Of(problem.CodeMerchantBoundToOtherTenant)
		}
		was, err := a.q.MerchantLock(ctx, tx, dbsqlc.MerchantLockParams{TenantID: tenantID, Appid: appid})
		if err != nil && !postgres.IsNotFound(err) {
			return err
		}
		row, err := a.q.MerchantAuthorize(ctx, tx, dbsqlc.MerchantAuthorizeParams{
			TenantID: tenantID, ID: fresh, Appid: appid, PermissionSets: info.AuthorizationInfo.PermissionSets(), EventAt: eventAt,
		})
		if err != nil {
			return boundElsewhere(err)
		}
		c := fromRow(row).account()
		usable, err := a.restore(ctx, tx, c, listed)
		if err != nil {
			return err
		}
		if m, err = a.describe(ctx, tx, c, info); err != nil {
			return err
		}
		if !usable {
			row, err := a.q.MerchantStatus(ctx, tx, dbsqlc.MerchantStatusParams{
				Status: StatusNeedsReauthorization, TenantID: tenantID, ID: c.id, FromStatus: []string{StatusAuthorized},
			})
			if err != nil {
				return err
			}
			m = fromRow(row)
		}
		return a.tellAdopted(ctx, tx, was, m)
	})
	a.drop(m.account())
	return m, storage(err)
}

// tellAdopted writes the event of what an adoption changed, if it did.
func (a *Authorizer) tellAdopted(ctx context.Context, tx postgres.DBTX, was dbsqlc.Merchant, m Merchant) error {
	switch {
	case m.Status == was.Status && sameSets(m.PermissionSets, was.PermissionSets):
		return nil
	case m.Status == was.Status:
		return a.tell(ctx, tx, outbox.MerchantAuthorizationUpdated, m, was.Status)
	case m.Status == StatusNeedsReauthorization:
		return a.tell(ctx, tx, outbox.MerchantNeedsReauthorization, m, was.Status)
	}
	if err := a.q.MerchantInventoryDue(ctx, tx, dbsqlc.MerchantInventoryDueParams{TenantID: m.TenantID, ID: m.ID}); err != nil {
		return err
	}
	return a.tell(ctx, tx, outbox.MerchantAuthorized, m, was.Status)
}

// restore puts a refresh token in its place, unless it is there already. It
// tells whether the account can get a token at all.
func (a *Authorizer) restore(ctx context.Context, tx postgres.DBTX, c account, listed secret.Text) (usable bool, err error) {
	row, known, err := a.lockRefreshTokens(ctx, tx, c)
	if err != nil {
		return false, err
	}
	if listed.IsZero() || listed == known.current && row.InvalidReason == nil {
		return !known.current.IsZero() && row.InvalidReason == nil, nil
	}
	ct, history, err := a.replace(c, known, listed)
	if err != nil {
		return false, err
	}
	if ct == nil { // the same one, which WeChat stands by after all
		ct = row.RefreshTokenCt
	}
	return true, a.q.AuthorizerTokenRestore(ctx, tx, dbsqlc.AuthorizerTokenRestoreParams{
		TenantID: c.tenant, MerchantID: c.id, RefreshTokenCt: ct, RefreshHistory: history,
	})
}

// Sync compares the tenant's merchants with WeChat: it adds what is missing,
// renews what each account is and granted, restores refresh tokens, and marks
// those that are gone. It may be run again after any error. progress, which
// may be nil, hears how many of how many accounts are done.
func (a *Authorizer) Sync(ctx context.Context, tenantID uuid.UUID, progress func(done, total int)) (err error) {
	defer problem.Wrap(&err, "authorizer.Sync")
	if progress == nil {
		progress = func(int, int) {}
	}
	listed := map[string]secret.Text{}
	var order []string
	err = a.eachListed(ctx, tenantID, nil, func(l wechat.ListedAuthorizer) bool {
		if _, ok := wechat.ReleaseTester(l.AuthorizerAppID); ok {
			return true
		}
		if _, ok := listed[l.AuthorizerAppID]; !ok {
			order = append(order, l.AuthorizerAppID)
		}
		if l.RefreshToken != "" || listed[l.AuthorizerAppID].IsZero() {
			listed[l.AuthorizerAppID] = secret.NewText(l.RefreshToken)
		}
		return true
	})
	if err != nil {
		return Problem(err)
	}
	var known []dbsqlc.Merchant
	err = a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) (err error) {
		known, err = a.q.MerchantsAuthorized(ctx, tx, dbsqlc.MerchantsAuthorizedParams{TenantID: tenantID})
		return err
	})
	if err != nil {
		return storage(err)
	}
	var gone []account
	for _, row := range known {
		if _, ok := listed[row.Appid]; !ok {
			gone = append(gone, fromRow(row).account())
		}
	}
	total := len(order) + len(gone)
	for i, appid := range order {
		progress(i, total)
		_, err := a.adopt(ctx, tenantID, appid, listed[appid], nil)
		switch {
		case problem.HasCode(err, problem.CodeMerchantBoundToOtherTenant):
			a.Log.ErrorContext(ctx, "an account of another tenant is listed for this one: passed over", "tenant_id", tenantID, "appid", appid)
		case isCode(err, wechat.CodeDeauthorized): // it left meanwhile
		case err != nil:
			return Problem(err)
		}
	}
	for i, c := range gone {
		progress(len(order)+i, total)
		if _, err := a.confirmGone(ctx, c); err != nil {
			return Problem(err)
		}
	}
	progress(total, total)
	return nil
}

const (
	inUse           = 24 * time.Hour
	refreshesAtOnce = 16
)

// RefreshDue refreshes the tokens that end within ten minutes, of merchants in
// use within the last day, so that no caller waits for it. It is to be called
// every few seconds, by any number of processes: the lease sees to it that
// each token is refreshed once. n is how many were.
func (a *Authorizer) RefreshDue(ctx context.Context) (n int, err error) {
	var done atomic.Int32
	err = a.DB.Work(ctx, refreshesAtOnce, nil, func(d postgres.Due) {
		a.Background.Run(ctx, "refresh ahead", func(ctx context.Context) error {
			m, err := a.MerchantByID(ctx, d.Tenant, d.ID)
			if err != nil {
				return err
			}
			if reason := m.usable(); reason != nil {
				return nil //nolint:nilerr // changed since it was listed
			}
			if _, err := a.renewMerchant(ctx, m.account(), noGen); err != nil {
				return err
			}
			done.Add(1)
			return nil
		}, slog.Any("tenant_id", d.Tenant), slog.Any("merchant_id", d.ID))
	}, postgres.DueTokens, ahead, inUse)
	return int(done.Load()), storage(err)
}

// QuotasToday tells what is left of WeChat's daily quotas of m, and of its month.
func (a *Authorizer) QuotasToday(ctx context.Context, m Merchant) ([]quota.Bucket, quota.Month, error) {
	out, month, err := quota.Today(ctx, a.DB, m.TenantID, m.ID)
	return out, month, storage(err)
}

// SyncQuota keeps what WeChat says of the quota that calls of e are counted against.
func (a *Authorizer) SyncQuota(ctx context.Context, m Merchant, e *wechat.Endpoint, reply wechat.GetQuotaReply) error {
	return storage(quota.Sync(ctx, a.DB, m.TenantID, m.ID, e, reply))
}
