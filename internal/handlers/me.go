package handlers

import (
	"context"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/typeid"
)

// GetMe implements GET /v1/me.
func (s *Server) GetMe(ctx context.Context, _ oapi.GetMeRequestObject) (oapi.GetMeResponseObject, error) {
	who := CallerFrom(ctx)
	t, err := s.Tenants.Tenant(ctx, who.TenantID)
	if err != nil {
		return nil, err
	}
	key, err := s.Keys.Get(ctx, who, who.KeyID)
	if err != nil {
		return nil, err
	}
	me := oapi.Me{
		Tenant: oapi.MeTenant{ID: typeid.Format(typeid.Tenant, t.ID), Name: t.Name},
		Key:    oapi.MeKey{ID: typeid.Format(typeid.Key, key.ID), Name: key.Name, ExpiresAt: key.ExpiresAt},
		Scopes: who.Scopes,
	}
	if who.Merchants != nil {
		list := make([]oapi.MeMerchant, len(who.Merchants))
		for i, id := range who.Merchants {
			m, err := s.Authorizer.MerchantByID(ctx, who.TenantID, id)
			if err != nil {
				return nil, err
			}
			list[i] = oapi.MeMerchant{ID: typeid.Format(typeid.Merchant, id), Appid: m.AppID, Nickname: optional(&m.Nickname), Status: merchantStatus(m)}
		}
		me.Merchants = &list
	}
	return oapi.GetMe200JSONResponse{Body: me}, nil
}

// merchantStatus is what a caller sees: our own switch stands before WeChat's state.
func merchantStatus(m authorizer.Merchant) oapi.MerchantStatus {
	if m.Disabled {
		return oapi.MerchantStatusDisabled
	}
	return oapi.MerchantStatus(m.Status)
}

// AllowedOrigin says whether pages of this origin may read the answer: by the
// list of the caller's tenant, or, before the key is known, of any tenant.
func (s *Server) AllowedOrigin(ctx context.Context, origin string) bool {
	who := CallerFrom(ctx)
	if who.TenantID == uuid.Nil {
		return s.Tenants.AllowedOrigin(ctx, origin)
	}
	t, err := s.Tenants.Tenant(ctx, who.TenantID)
	return err == nil && t.AllowsOrigin(origin)
}
