package handlers

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// CreateAuthorizationLink implements POST /v1/authorization-links.
func (s *Server) CreateAuthorizationLink(ctx context.Context, req oapi.CreateAuthorizationLinkRequestObject) (oapi.CreateAuthorizationLinkResponseObject, error) {
	b := req.Body
	if err := s.mayAuthorize(ctx, nil, b.ExpectedAppid); err != nil {
		return nil, err
	}
	link, url, err := s.Authorizer.CreateLink(ctx, CallerFrom(ctx), authorizer.NewLink{
		AccountType: deref(b.AccountType), ExpectedAppID: deref(b.ExpectedAppid), ClientReference: deref(b.ClientReference), ReturnURL: deref(b.ReturnURL),
	})
	if err != nil {
		return nil, err
	}
	id := typeid.Format(typeid.AuthorizationLink, link.ID)
	return oapi.CreateAuthorizationLink201JSONResponse{
		Body:    oapi.AuthorizationLinkCreated{ID: id, URL: url, ExpiresAt: link.ExpiresAt},
		Headers: oapi.CreateAuthorizationLink201ResponseHeaders{Location: new("/v1/authorization-links/" + id)},
	}, nil
}

// GetAuthorizationLink implements GET /v1/authorization-links/{id}.
func (s *Server) GetAuthorizationLink(ctx context.Context, req oapi.GetAuthorizationLinkRequestObject) (oapi.GetAuthorizationLinkResponseObject, error) {
	id, err := pathID(typeid.AuthorizationLink, req.ID)
	if err != nil {
		return nil, err
	}
	link, err := s.Authorizer.GetLink(ctx, CallerFrom(ctx).TenantID, id)
	if err != nil {
		return nil, err
	}
	if err := s.mayAuthorize(ctx, link.MerchantID, link.ExpectedAppID); err != nil {
		return nil, err
	}
	body := linkToAPI(ctx, link)
	js, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	etag := ETag(1, js)
	if NotModified(req.Params.IfNoneMatch, etag) {
		return oapi.GetAuthorizationLink304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: &etag}}, nil
	}
	return oapi.GetAuthorizationLink200JSONResponse{Body: body, Headers: oapi.GetAuthorizationLink200ResponseHeaders{ETag: &etag}}, nil
}

// mayAuthorize keeps a key that is bound to merchants away from links of the
// tenant's others: those that brought one here, and those that expect one.
// Accounts that nobody knows yet are anybody's. Errors: merchant_not_allowed.
func (s *Server) mayAuthorize(ctx context.Context, merchant *uuid.UUID, expected *string) error {
	who := CallerFrom(ctx)
	if who.Merchants == nil {
		return nil
	}
	if merchant == nil && expected != nil {
		m, err := s.Authorizer.Merchant(ctx, who.TenantID, *expected)
		if problem.HasCode(err, problem.CodeMerchantNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		merchant = &m.ID
	}
	if merchant != nil && !who.MayActFor(*merchant) {
		return problem.Of(problem.CodeMerchantNotAllowed)
	}
	return nil
}

func linkToAPI(ctx context.Context, l authorizer.Link) oapi.AuthorizationLink {
	out := oapi.AuthorizationLink{
		ID: typeid.Format(typeid.AuthorizationLink, l.ID), AccountType: oapi.LinkAccountType(l.AccountType), ExpectedAppid: l.ExpectedAppID,
		ClientReference: l.ClientReference, ReturnURL: l.ReturnURL, Status: oapi.LinkStatus(l.Status),
		MerchantID: idPointer(typeid.Merchant, l.MerchantID), CreatedAt: l.CreatedAt, ExpiresAt: l.ExpiresAt, UsedAt: utc(l.UsedAt),
	}
	if e := l.LastError; e != nil {
		_, detail := problem.Text(e.Code, stateOf(ctx).language())
		out.LastError = &oapi.LinkError{Code: e.Code, Detail: detail, At: e.At}
	}
	return out
}
