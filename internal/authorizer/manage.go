package authorizer

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// The states of a token.
const (
	TokenFresh      = "fresh"
	TokenRefreshing = "refreshing"
	TokenExpired    = "expired"
	TokenInvalid    = "invalid"
)

// A TokenState tells how a merchant's token does, never the token.
type TokenState struct {
	State     string
	ExpiresAt *time.Time
}

func tokenState(expires *time.Time, invalid *string, leased, live, known bool) TokenState {
	s := TokenState{State: TokenExpired, ExpiresAt: expires}
	switch {
	case invalid != nil || !known:
		s.State = TokenInvalid
	case live:
		s.State = TokenFresh
	case leased:
		s.State = TokenRefreshing
	}
	return s
}

// A View is a merchant with the state of its token.
type View struct {
	Merchant
	Token TokenState
}

// View reads a merchant from the database. Errors: merchant_not_found.
func (a *Authorizer) View(ctx context.Context, tenantID, id uuid.UUID) (View, error) {
	var row dbsqlc.MerchantViewRow
	err := a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) (err error) {
		row, err = a.q.MerchantView(ctx, tx, dbsqlc.MerchantViewParams{TenantID: tenantID, ID: id})
		return err
	})
	if err != nil {
		return View{}, notFound(err)
	}
	return View{fromRow(row.Merchant), tokenState(row.AccessExpiresAt, row.InvalidReason, row.Leased, row.Live, row.HasToken)}, nil
}

// TokenState tells how the merchant's token does.
func (a *Authorizer) TokenState(ctx context.Context, m Merchant) (TokenState, error) {
	v, err := a.View(ctx, m.TenantID, m.ID)
	return v.Token, err
}

// A Filter narrows List. Zero members don't.
type Filter struct {
	Within          []uuid.UUID // the merchants that a key may act for; nil: all
	Status          string
	AppID           string
	PermissionSet   int32
	ClientReference string
	UpdatedAfter    *time.Time
	Before          *uuid.UUID // only older ones than this
	Limit           int
}

// List returns merchants of the tenant, newest first, and whether there are more.
func (a *Authorizer) List(ctx context.Context, tenantID uuid.UUID, f Filter) (_ []View, more bool, err error) {
	p := dbsqlc.MerchantListParams{
		TenantID: tenantID, Within: f.Within, Status: orNil(f.Status), Appid: orNil(f.AppID),
		ClientReference: orNil(f.ClientReference), UpdatedAfter: f.UpdatedAfter, Before: f.Before, N: int32(f.Limit) + 1, // #nosec G115 -- at most 100
	}
	if f.PermissionSet != 0 {
		p.PermissionSet = &f.PermissionSet
	}
	var rows []dbsqlc.MerchantListRow
	err = a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) (err error) {
		rows, err = a.q.MerchantList(ctx, tx, p)
		return err
	})
	if err != nil {
		return nil, false, storage(err)
	}
	if more = len(rows) > f.Limit; more {
		rows = rows[:f.Limit]
	}
	out := make([]View, len(rows))
	for i, r := range rows {
		out[i] = View{fromRow(r.Merchant), tokenState(r.AccessExpiresAt, r.InvalidReason, r.Leased, r.Live, r.HasToken)}
	}
	return out, more, nil
}

// A Patch changes a tenant's own notes on a merchant.
type Patch struct {
	SetReference    bool
	ClientReference *string         // with SetReference; nil removes it
	Metadata        json.RawMessage // an object; nil leaves it
	IfVersion       *int64
}

// Patch writes it. Errors: merchant_not_found, version_conflict,
// duplicate_client_reference.
func (a *Authorizer) Patch(ctx context.Context, who tenant.Caller, id uuid.UUID, p Patch) (_ Merchant, err error) {
	return a.change(ctx, who, id, "merchant.update", p.IfVersion, func(tx postgres.DBTX) (dbsqlc.Merchant, error) {
		return a.q.MerchantPatch(ctx, tx, dbsqlc.MerchantPatchParams{
			SetReference: p.SetReference, ClientReference: p.ClientReference, Metadata: p.Metadata, TenantID: who.TenantID, ID: id, IfVersion: p.IfVersion,
		})
	})
}

// Disable stops acting for a merchant: every row is kept, and WeChat's side
// stands until the merchant revokes it there. A new authorisation by a link
// ends it. Disabling twice is no error. Errors: merchant_not_found,
// version_conflict.
func (a *Authorizer) Disable(ctx context.Context, who tenant.Caller, id uuid.UUID, ifVersion *int64) error {
	_, err := a.change(ctx, who, id, "merchant.disable", ifVersion, func(tx postgres.DBTX) (dbsqlc.Merchant, error) {
		return a.q.MerchantDisable(ctx, tx, dbsqlc.MerchantDisableParams{TenantID: who.TenantID, ID: id, IfVersion: ifVersion})
	})
	return err
}

// change runs one change of a merchant and records who made it.
func (a *Authorizer) change(ctx context.Context, who tenant.Caller, id uuid.UUID, action string, ifVersion *int64, fn func(postgres.DBTX) (dbsqlc.Merchant, error)) (_ Merchant, err error) {
	defer problem.Wrap(&err, "authorizer.change(%s)", action)
	var after dbsqlc.Merchant
	err = a.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		before, err := a.q.MerchantByID(ctx, tx, dbsqlc.MerchantByIDParams{TenantID: who.TenantID, ID: id})
		if err != nil {
			return notFound(err)
		}
		after, err = fn(tx)
		switch {
		case postgres.IsNotFound(err) && ifVersion != nil:
			return problem.Of(problem.CodeVersionConflict)
		case postgres.IsUnique(err, "merchants_client_reference_key"):
			return problem.Of(problem.CodeDuplicateClientReference)
		case err != nil:
			return err
		}
		if after.RowVersion == before.RowVersion {
			return nil // it already was so
		}
		return tenant.RecordChange(ctx, tx, who, &who.TenantID, action, typeid.Format(typeid.Merchant, id), noted(before), noted(after))
	})
	if err != nil {
		return Merchant{}, storage(err)
	}
	m := fromRow(after)
	a.drop(m.account())
	return m, nil
}

// noted is what change_log shows of a merchant: what people can change.
func noted(r dbsqlc.Merchant) map[string]any {
	return map[string]any{"client_reference": r.ClientReference, "metadata": r.Metadata, "disabled": r.DisabledAt != nil}
}

// RefreshToken makes a new token for the merchant, and tells until when it is
// used. Errors: merchant_deauthorized, merchant_needs_reauthorization,
// merchant_disabled, and those of Problem.
func (a *Authorizer) RefreshToken(ctx context.Context, m Merchant) (expires time.Time, err error) {
	if err := m.usable(); err != nil {
		return time.Time{}, err
	}
	r := a.merchantRow(m.account())
	now, err := r.read(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if now.invalid != "" {
		return time.Time{}, r.invalid(now)
	}
	h, err := a.renew(ctx, r, now.gen)
	if err != nil {
		return time.Time{}, storage(err)
	}
	return h.until.UTC(), nil
}
