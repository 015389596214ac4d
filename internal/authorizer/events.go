package authorizer

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/wechat"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// ErrUnknownInfoType is returned for a component event that nobody here knows:
// new types come without notice. It is to be kept and answered all the same.
var ErrUnknownInfoType = errors.New("unknown InfoType")

// ErrNotOurs is returned for a component event that names another component,
// an account that is no merchant of the tenant, or that can't be read: it is
// to be kept, and has no effect.
var ErrNotOurs = errors.New("not an event of this tenant")

// ApplyComponentEvent applies a decrypted push to the authorization event URL
// (platform.md §6). It may be called again with the same one, and in any
// order: tickets are ordered by the smaller of CreateTime and arrival,
// authorisations by CreateTime; where that leaves a doubt, WeChat is asked.
//
// Errors: ErrUnknownInfoType and ErrNotOurs are final; after any other one it
// is to be called again.
func (a *Authorizer) ApplyComponentEvent(ctx context.Context, tenantID uuid.UUID, msg msgcrypt.Message, received time.Time) (err error) {
	infoType := msg.Get("InfoType")
	defer problem.Wrap(&err, "authorizer.ApplyComponentEvent(%q)", infoType)
	creds, err := a.Tenants.Credentials(ctx, tenantID)
	if err != nil {
		return notSet(err)
	}
	if msg.Get("AppId") != creds.AppID {
		return fmt.Errorf("%w: another component", ErrNotOurs)
	}
	created := received
	if n, err := strconv.ParseInt(msg.Get("CreateTime"), 10, 64); err == nil && n > 0 {
		created = time.Unix(n, 0)
	}
	switch infoType {
	case "component_verify_ticket":
		value := msg.Get("ComponentVerifyTicket")
		if value == "" {
			return fmt.Errorf("%w: no ticket", ErrNotOurs)
		}
		return a.keepTicket(ctx, tenantID, secret.NewText(value), created, received)
	case "authorized", "updateauthorized":
		return a.applyAuthorized(ctx, tenantID, msg, created, received)
	case "unauthorized":
		return a.applyUnauthorized(ctx, tenantID, msg, created)
	}
	return fmt.Errorf("%w: %q", ErrUnknownInfoType, infoType)
}

var appidPattern = regexp.MustCompile(`^wx[0-9A-Za-z]{8,40}$`)

// codeExpiry reads AuthorizationCodeExpiredTime: documented as "seconds", an
// absolute time in every sample (platform.md §6). Zero: it says nothing.
func codeExpiry(s string, created time.Time) time.Time {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil || n <= 0:
		return time.Time{}
	case n > 1_000_000_000:
		return time.Unix(n, 0)
	}
	return created.Add(time.Duration(n) * time.Second)
}

// expirySlack is how much our clock and WeChat's may differ before a code
// counts as expired without being tried.
const expirySlack = 10 * time.Minute

func (a *Authorizer) applyAuthorized(ctx context.Context, tenantID uuid.UUID, msg msgcrypt.Message, created, received time.Time) error {
	v := arrival{code: secret.NewText(msg.Get("AuthorizationCode")), hash: sum(msg.Get("AuthorizationCode")), appid: msg.Get("AuthorizerAppid"), eventAt: &created}
	if !appidPattern.MatchString(v.appid) || !authCodePattern.MatchString(v.code.Reveal()) {
		return fmt.Errorf("%w: no account or no code", ErrNotOurs)
	}
	if _, ok := wechat.ReleaseTester(v.appid); ok {
		return fmt.Errorf("%w: an account of WeChat's own", ErrNotOurs)
	}
	if expiry := codeExpiry(msg.Get("AuthorizationCodeExpiredTime"), created); !expiry.IsZero() && received.After(expiry.Add(expirySlack)) {
		v.expired = true
	}
	if pre := msg.Get("PreAuthCode"); pre != "" {
		err := a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error {
			link, err := a.q.ClickLink(ctx, tx, dbsqlc.ClickLinkParams{TenantID: tenantID, PreAuthCodeSha256: sum(pre)})
			if err == nil {
				v.link = &link
			}
			return err
		})
		// An unknown one comes from WeChat's console, or from other links.
		if err != nil && !postgres.IsNotFound(err) {
			return storage(err)
		}
	}
	_, err := a.exchange(ctx, tenantID, v)
	switch {
	case problem.HasCode(err, problem.CodeMerchantBoundToOtherTenant), problem.HasCode(err, problem.CodeAuthorizationCodeExpired):
		return nil // written down and logged; trying again would change nothing
	case err != nil:
		return err
	}
	code, err := a.bindLink(ctx, tenantID, v)
	if err != nil || code.MerchantID == nil {
		return err
	}
	m, err := a.MerchantByID(ctx, tenantID, *code.MerchantID)
	if err != nil {
		return err
	}
	return a.confirmAuthorized(ctx, m.account(), created)
}

// confirmAuthorized notes the event's time, and asks WeChat when the merchant
// is not authorised though a newer event says so: an older withdrawal was
// delivered in between.
func (a *Authorizer) confirmAuthorized(ctx context.Context, c account, created time.Time) error {
	var was dbsqlc.Merchant
	err := a.DB.InTenant(ctx, c.tenant, func(tx postgres.DBTX) (err error) {
		if was, err = a.q.MerchantLock(ctx, tx, dbsqlc.MerchantLockParams{TenantID: c.tenant, Appid: c.appid}); err != nil {
			return err
		}
		return a.q.MerchantEventAt(ctx, tx, dbsqlc.MerchantEventAtParams{EventAt: created, TenantID: c.tenant, ID: c.id})
	})
	if err != nil || was.Status == StatusAuthorized || !created.After(was.TransitionAt) {
		return storage(err)
	}
	_, err = a.adopt(ctx, c.tenant, c.appid, secret.Text{}, &created)
	if isCode(err, wechat.CodeDeauthorized) {
		return nil // it left again since: as we have it
	}
	return Problem(err)
}

// recently is how new an authorisation may be for a withdrawal to be checked
// with WeChat, whatever the times say: our clock and WeChat's are two.
const recently = 10 * time.Minute

func (a *Authorizer) applyUnauthorized(ctx context.Context, tenantID uuid.UUID, msg msgcrypt.Message, created time.Time) error {
	var row dbsqlc.Merchant
	err := a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) (err error) {
		row, err = a.q.MerchantByAppID(ctx, tx, dbsqlc.MerchantByAppIDParams{TenantID: tenantID, Appid: msg.Get("AuthorizerAppid")})
		return err
	})
	if postgres.IsNotFound(err) {
		return fmt.Errorf("%w: no merchant of it", ErrNotOurs)
	}
	if err != nil {
		return storage(err)
	}
	c := fromRow(row).account()
	switch {
	case row.Status == StatusDeauthorized:
		err = a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error {
			return a.q.MerchantEventAt(ctx, tx, dbsqlc.MerchantEventAtParams{EventAt: created, TenantID: tenantID, ID: c.id})
		})
		return storage(err)
	case created.Before(row.TransitionAt):
		a.Log.InfoContext(ctx, "a withdrawal older than the authorisation has no effect", "tenant_id", tenantID, "merchant_id", c.id)
		return nil
	case created.Equal(row.TransitionAt), created.Before(row.AuthorizedAt.Add(recently)):
		gone, err := a.confirmGone(ctx, c)
		if err != nil || !gone {
			return Problem(err)
		}
		err = a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error {
			return a.q.MerchantEventAt(ctx, tx, dbsqlc.MerchantEventAtParams{EventAt: created, TenantID: tenantID, ID: c.id})
		})
		return storage(err)
	}
	err = a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error { return a.deauthorize(ctx, tx, c, &created) })
	a.drop(c)
	return storage(err)
}
