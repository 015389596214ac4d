package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// inPath is the merchant that a path names, if the key may act for it. The
// header Merchant-Id may say the same, never another one. Errors:
// merchant_not_found, merchant_mismatch, merchant_not_allowed.
func (s *Server) inPath(ctx context.Context, ref oapi.MerchantIDPath, header *oapi.MerchantIDHeader) (authorizer.Merchant, error) {
	who := CallerFrom(ctx)
	m, err := s.Authorizer.Merchant(ctx, who.TenantID, ref)
	if err != nil {
		return m, err
	}
	if header != nil {
		other, err := s.Authorizer.Merchant(ctx, who.TenantID, *header)
		if err != nil && !problem.HasCode(err, problem.CodeMerchantNotFound) {
			return m, err
		}
		if other.ID != m.ID {
			return m, problem.Of(problem.CodeMerchantMismatch)
		}
	}
	if !who.MayActFor(m.ID) {
		return m, problem.Of(problem.CodeMerchantNotAllowed)
	}
	NoteMerchant(ctx, typeid.Format(typeid.Merchant, m.ID))
	return m, nil
}

// ListMerchants implements GET /v1/merchants.
func (s *Server) ListMerchants(ctx context.Context, req oapi.ListMerchantsRequestObject) (oapi.ListMerchantsResponseObject, error) {
	p, who := req.Params, CallerFrom(ctx)
	f := authorizer.Filter{
		Within: who.Merchants, Status: deref(p.Status), AppID: deref(p.Appid), ClientReference: deref(p.ClientReference),
		UpdatedAfter: p.UpdatedAfter,
	}
	f.PermissionSet = valueOf(p.PermissionSet)
	scope := ListScope{Operation: "listMerchants", Tenant: who.TenantID, Filters: []string{
		fmt.Sprint(who.Merchants), f.Status, f.AppID, strconv.Itoa(int(f.PermissionSet)), f.ClientReference, formatTime(f.UpdatedAfter)}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	f.Before, f.Limit = page.Before, page.Limit
	views, more, err := s.Authorizer.List(ctx, who.TenantID, f)
	if err != nil {
		return nil, err
	}
	out := oapi.MerchantList{Data: make([]oapi.Merchant, len(views)), HasMore: more}
	for i, v := range views {
		if out.Data[i], err = merchantToAPI(v); err != nil {
			return nil, err
		}
	}
	if more {
		if out.NextCursor, err = s.next(scope, views[len(views)-1].ID); err != nil {
			return nil, err
		}
	}
	return oapi.ListMerchants200JSONResponse{Body: out, Headers: oapi.ListMerchants200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// GetMerchant implements GET /v1/merchants/{merchant_id}.
func (s *Server) GetMerchant(ctx context.Context, req oapi.GetMerchantRequestObject) (oapi.GetMerchantResponseObject, error) {
	m, err := s.inPath(ctx, req.MerchantID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	body, etag, err := s.viewMerchant(ctx, m.TenantID, m.ID)
	if err != nil {
		return nil, err
	}
	if NotModified(req.Params.IfNoneMatch, etag) {
		return oapi.GetMerchant304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: &etag}}, nil
	}
	return oapi.GetMerchant200JSONResponse{Body: body, Headers: oapi.GetMerchant200ResponseHeaders{ETag: &etag}}, nil
}

// UpdateMerchant implements PATCH /v1/merchants/{merchant_id}.
func (s *Server) UpdateMerchant(ctx context.Context, req oapi.UpdateMerchantRequestObject) (oapi.UpdateMerchantResponseObject, error) {
	m, err := s.inPath(ctx, req.MerchantID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	var p authorizer.Patch
	if p.IfVersion, err = IfMatch(req.Params.IfMatch); err != nil {
		return nil, err
	}
	if ref := req.Body.ClientReference; ref.IsSpecified() {
		p.SetReference = true
		if v, err := ref.Get(); err == nil { // an error means null
			p.ClientReference = &v
		}
	}
	if req.Body.Metadata != nil {
		if err := metadataRules(ctx, *req.Body.Metadata); err != nil {
			return nil, err
		}
		if p.Metadata, err = json.Marshal(*req.Body.Metadata); err != nil {
			return nil, err
		}
	}
	if _, err := s.Authorizer.Patch(ctx, CallerFrom(ctx), m.ID, p); err != nil {
		return nil, err
	}
	body, etag, err := s.viewMerchant(ctx, m.TenantID, m.ID)
	if err != nil {
		return nil, err
	}
	return oapi.UpdateMerchant200JSONResponse{Body: body, Headers: oapi.UpdateMerchant200ResponseHeaders{ETag: &etag}}, nil
}

// metadataRules bounds the names of notes, which OpenAPI 3.0 can't.
func metadataRules(ctx context.Context, notes oapi.Metadata) error {
	const most = 64
	s := stateOf(ctx)
	var wrong []problem.Field
	for name := range notes {
		pointer := string(appendToken([]byte("/metadata/"), name))
		switch n := utf8.RuneCountInString(name); {
		case n == 0:
			wrong = append(wrong, field(s, pointer, ruleTooShort, "1"))
		case n > most:
			wrong = append(wrong, field(s, pointer, ruleTooLong, strconv.Itoa(most)))
		}
	}
	if wrong != nil {
		return problem.Of(problem.CodeValidationFailed).WithFields(wrong...)
	}
	return nil
}

// DisableMerchant implements DELETE /v1/merchants/{merchant_id}.
func (s *Server) DisableMerchant(ctx context.Context, req oapi.DisableMerchantRequestObject) (oapi.DisableMerchantResponseObject, error) {
	m, err := s.inPath(ctx, req.MerchantID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	version, err := IfMatch(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Disable(ctx, CallerFrom(ctx), m.ID, version); err != nil {
		return nil, err
	}
	return oapi.DisableMerchant204Response{}, nil
}

// RefreshMerchantToken implements POST /v1/merchants/{merchant_id}/token-refreshes.
func (s *Server) RefreshMerchantToken(ctx context.Context, req oapi.RefreshMerchantTokenRequestObject) (oapi.RefreshMerchantTokenResponseObject, error) {
	m, err := s.inPath(ctx, req.MerchantID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	expires, err := s.Authorizer.RefreshToken(ctx, m)
	if err != nil {
		return nil, err
	}
	return oapi.RefreshMerchantToken200JSONResponse{Body: oapi.TokenRefresh{ExpiresAt: expires}}, nil
}

func (s *Server) viewMerchant(ctx context.Context, tenantID, id uuid.UUID) (oapi.Merchant, string, error) {
	v, err := s.Authorizer.View(ctx, tenantID, id)
	if err != nil {
		return oapi.Merchant{}, "", err
	}
	body, err := merchantToAPI(v)
	if err != nil {
		return body, "", err
	}
	js, err := json.Marshal(body)
	return body, ETag(v.RowVersion, js), err
}

func merchantToAPI(v authorizer.View) (oapi.Merchant, error) {
	c := v.Capabilities()
	out := oapi.Merchant{
		ID: typeid.Format(typeid.Merchant, v.ID), Appid: v.AppID, UserName: optional(&v.UserName), Nickname: optional(&v.Nickname),
		PrincipalName: optional(&v.PrincipalName), HeadImageURL: optional(&v.HeadImageURL),
		AccountType: oapi.AccountType(v.ShownAccountType()), AccountStatus: oapi.AccountStatus(v.AccountStatusName()), Verified: v.Verified,
		ClientReference: v.ClientReference, Metadata: oapi.Metadata{}, Status: merchantStatus(v.Merchant),
		PermissionSets: make([]oapi.PermissionSet, len(v.PermissionSets)),
		Capabilities: oapi.MerchantCapabilities{
			StoreProgram: c.StoreProgram, Stores: c.Stores, MapPois: c.MapPOIs, Reference: c.Reference,
			LegacyStores: c.LegacyStores, Goods: c.Goods, Images: c.Images, TemporaryMedia: c.TemporaryMedia,
		},
		AuthorizedAt: &v.AuthorizedAt,
		Token:        oapi.MerchantToken{State: oapi.TokenState(v.Token.State), ExpiresAt: utc(v.Token.ExpiresAt)},
		CreatedAt:    v.CreatedAt, UpdatedAt: v.UpdatedAt, SyncedAt: utc(v.InfoSyncedAt),
	}
	for i, set := range v.ShownSets() {
		out.PermissionSets[i] = oapi.PermissionSet{ID: set.ID, Name: set.Name}
	}
	if v.StoreProgram != "" {
		out.StoreProgram = &oapi.StoreProgramSummary{Status: v.StoreProgram}
	}
	err := json.Unmarshal(v.Metadata, &out.Metadata)
	return out, err
}
