package handlers

import (
	"context"
	"encoding/json"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// ListTenants implements GET /v1/admin/tenants.
func (s *Server) ListTenants(ctx context.Context, req oapi.ListTenantsRequestObject) (oapi.ListTenantsResponseObject, error) {
	p := req.Params
	f := tenant.Filter{Status: tenantStatus(deref(p.Status)), ComponentAppID: deref(p.ComponentAppid)}
	scope := ListScope{Operation: "listTenants", Filters: []string{string(f.Status), f.ComponentAppID}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	list, more, err := s.Tenants.List(ctx, f, page)
	if err != nil {
		return nil, err
	}
	out := oapi.TenantList{Data: make([]oapi.Tenant, len(list)), HasMore: more}
	for i, d := range list {
		out.Data[i] = s.tenantToAPI(d)
	}
	if more {
		if out.NextCursor, err = s.next(scope, list[len(list)-1].ID); err != nil {
			return nil, err
		}
	}
	return oapi.ListTenants200JSONResponse{Body: out, Headers: oapi.ListTenants200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// CreateTenant implements POST /v1/admin/tenants.
func (s *Server) CreateTenant(ctx context.Context, req oapi.CreateTenantRequestObject) (oapi.CreateTenantResponseObject, error) {
	b := req.Body
	n := tenant.NewTenant{Name: b.Name, ComponentAppID: b.ComponentAppid, ReturnURLAllowList: valueOf(b.ReturnURLAllowList), CORSOrigins: valueOf(b.CorsOrigins),
		ReleaseCheck: valueOf(b.ReleaseCheck)}
	if b.Limits != nil {
		n.Limits = limitsFromAPI(*b.Limits)
	}
	d, err := s.Tenants.Create(ctx, CallerFrom(ctx), n)
	if err != nil {
		return nil, err
	}
	body := s.tenantToAPI(d)
	etag, err := etagOf(d.UpdatedAt, body)
	if err != nil {
		return nil, err
	}
	return oapi.CreateTenant201JSONResponse{Body: body, Headers: oapi.CreateTenant201ResponseHeaders{ETag: &etag, Location: new("/v1/admin/tenants/" + body.ID)}}, nil
}

// GetTenant implements GET /v1/admin/tenants/{id}.
func (s *Server) GetTenant(ctx context.Context, req oapi.GetTenantRequestObject) (oapi.GetTenantResponseObject, error) {
	id, err := pathID(typeid.Tenant, req.ID)
	if err != nil {
		return nil, err
	}
	d, err := s.Tenants.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	body := s.tenantToAPI(d)
	etag, err := etagOf(d.UpdatedAt, body)
	if err != nil {
		return nil, err
	}
	if NotModified(req.Params.IfNoneMatch, etag) {
		return oapi.GetTenant304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: &etag}}, nil
	}
	return oapi.GetTenant200JSONResponse{Body: body, Headers: oapi.GetTenant200ResponseHeaders{ETag: &etag}}, nil
}

// UpdateTenant implements PATCH /v1/admin/tenants/{id}.
func (s *Server) UpdateTenant(ctx context.Context, req oapi.UpdateTenantRequestObject) (oapi.UpdateTenantResponseObject, error) {
	id, err := pathID(typeid.Tenant, req.ID)
	if err != nil {
		return nil, err
	}
	precondition, err := unchangedSince(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	b := req.Body
	u := tenant.Update{
		Name: b.Name, ComponentAppID: b.ComponentAppid, ReturnURLAllowList: b.ReturnURLAllowList, CORSOrigins: b.CorsOrigins,
		ReleaseCheck: b.ReleaseCheck, Precondition: precondition,
	}
	if b.Status != nil {
		u.Status = new(tenant.Status(*b.Status))
	}
	if b.Limits != nil {
		u.Limits = new(limitsFromAPI(*b.Limits))
	}
	d, err := s.Tenants.Update(ctx, CallerFrom(ctx), id, u)
	if err != nil {
		return nil, err
	}
	body := s.tenantToAPI(d)
	etag, err := etagOf(d.UpdatedAt, body)
	if err != nil {
		return nil, err
	}
	return oapi.UpdateTenant200JSONResponse{Body: body, Headers: oapi.UpdateTenant200ResponseHeaders{ETag: &etag}}, nil
}

// DeleteTenant implements DELETE /v1/admin/tenants/{id}.
func (s *Server) DeleteTenant(ctx context.Context, req oapi.DeleteTenantRequestObject) (oapi.DeleteTenantResponseObject, error) {
	id, err := pathID(typeid.Tenant, req.ID)
	if err != nil {
		return nil, err
	}
	precondition, err := unchangedSince(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	if err := s.Tenants.Delete(ctx, CallerFrom(ctx), id, precondition); err != nil {
		return nil, err
	}
	return oapi.DeleteTenant204Response{}, nil
}

// unchangedSince is the precondition that an If-Match header sets.
func unchangedSince(ifMatch *string) (func(tenant.Details) error, error) {
	version, err := IfMatch(ifMatch)
	if version == nil {
		return nil, err
	}
	return func(d tenant.Details) error {
		if d.UpdatedAt.UnixMicro() != *version {
			return problem.Of(problem.CodeVersionConflict)
		}
		return nil
	}, nil
}

// SetComponentCredentials implements PUT /v1/admin/tenants/{id}/component-credentials.
func (s *Server) SetComponentCredentials(ctx context.Context, req oapi.SetComponentCredentialsRequestObject) (oapi.SetComponentCredentialsResponseObject, error) {
	id, err := pathID(typeid.Tenant, req.ID)
	if err != nil {
		return nil, err
	}
	f, err := s.Tenants.SetCredentials(ctx, CallerFrom(ctx), id, tenant.NewCredentials{
		Secret: secret.NewText(req.Body.ComponentSecret), MessageToken: secret.NewText(req.Body.MessageToken), EncodingAESKey: secret.NewText(req.Body.EncodingAesKey),
	})
	if err != nil {
		return nil, err
	}
	return oapi.SetComponentCredentials200JSONResponse{Body: credentialsToAPI(&f)}, nil
}

// ListChanges implements GET /v1/admin/changes.
func (s *Server) ListChanges(ctx context.Context, req oapi.ListChangesRequestObject) (oapi.ListChangesResponseObject, error) {
	p := req.Params
	f := tenant.ChangeFilter{Actor: deref(p.Actor), Action: deref(p.Action)}
	if p.TenantID != nil {
		id, err := typeid.Parse(typeid.Tenant, *p.TenantID)
		if err != nil {
			return nil, badParameter(stateOf(ctx), "tenant_id", ruleTenantID, "").WithErr(err)
		}
		f.TenantID = &id
	}
	scope := ListScope{Operation: "listChanges", Filters: []string{deref(p.TenantID), f.Actor, f.Action}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	list, more, err := s.Tenants.ListChanges(ctx, f, page)
	if err != nil {
		return nil, err
	}
	out := oapi.ChangeList{Data: make([]oapi.Change, len(list)), HasMore: more}
	for i, c := range list {
		out.Data[i] = oapi.Change{
			ID: typeid.Format(typeid.Change, c.ID), TenantID: idPointer(typeid.Tenant, c.TenantID), At: c.At, Actor: c.Actor, Action: c.Action,
			Subject: &oapi.Subject{Type: c.SubjectType(), ID: c.Subject},
		}
		if out.Data[i].Before, err = changeState(c.Before); err != nil {
			return nil, err
		}
		if out.Data[i].After, err = changeState(c.After); err != nil {
			return nil, err
		}
	}
	if more {
		if out.NextCursor, err = s.next(scope, list[len(list)-1].ID); err != nil {
			return nil, err
		}
	}
	return oapi.ListChanges200JSONResponse{Body: out, Headers: oapi.ListChanges200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

func changeState(js json.RawMessage) (*oapi.ChangeState, error) {
	if js == nil {
		return nil, nil
	}
	var state oapi.ChangeState
	return &state, json.Unmarshal(js, &state)
}

func (s *Server) tenantToAPI(d tenant.Details) oapi.Tenant {
	component, messages := d.PushURLs(s.PublicURL)
	l := d.Limits
	return oapi.Tenant{
		ID: typeid.Format(typeid.Tenant, d.ID), Ref: d.Ref, Name: d.Name, ComponentAppid: d.ComponentAppID, Status: statusToAPI(d.Status),
		ReturnURLAllowList: d.ReturnURLAllowList, CorsOrigins: d.CORSOrigins, ReleaseCheck: d.ReleaseCheck,
		Limits: oapi.TenantLimits{
			RequestsPerSecond: l.RequestsPerSecond, KeyRequestsPerSecond: l.KeyRequestsPerSecond, KeyBurst: number[int, int32](l.KeyBurst),
			InFlight: number[int, int32](l.InFlight), MerchantInFlight: number[int, int32](l.MerchantInFlight), MerchantWritesInFlight: number[int, int32](l.MerchantWritesInFlight),
		},
		PushUrls: oapi.PushURLs{Component: component, Messages: messages}, ComponentCredentials: credentialsToAPI(d.Credentials),
		CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
	}
}

func limitsFromAPI(l oapi.TenantLimits) tenant.Limits {
	return tenant.Limits{
		RequestsPerSecond: l.RequestsPerSecond, KeyRequestsPerSecond: l.KeyRequestsPerSecond, KeyBurst: number[int32, int](l.KeyBurst),
		InFlight: number[int32, int](l.InFlight), MerchantInFlight: number[int32, int](l.MerchantInFlight), MerchantWritesInFlight: number[int32, int](l.MerchantWritesInFlight),
	}
}

func number[From, To int | int32](p *From) *To {
	if p == nil {
		return nil
	}
	return new(To(*p))
}

func credentialsToAPI(f *tenant.Fingerprints) oapi.ComponentCredentials {
	if f == nil {
		return oapi.ComponentCredentials{}
	}
	one := func(f tenant.Fingerprint) *oapi.SecretFingerprint {
		return &oapi.SecretFingerprint{Sha256Prefix: f.SHA256Prefix, SetAt: f.SetAt}
	}
	return oapi.ComponentCredentials{ComponentSecret: one(f.Secret), MessageToken: one(f.MessageToken), EncodingAesKey: one(f.EncodingAESKey)}
}

// A deleted tenant is closed to those outside: its rows are all there.
func statusToAPI(s tenant.Status) oapi.TenantStatus {
	if s == tenant.Deleted {
		return oapi.TenantStatusClosed
	}
	return oapi.TenantStatus(s)
}

func tenantStatus(s string) tenant.Status {
	if s == string(oapi.TenantStatusClosed) {
		return tenant.Deleted
	}
	return tenant.Status(s)
}
