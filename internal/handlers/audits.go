package handlers

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// ListAudits implements GET /v1/audits.
func (s *Server) ListAudits(ctx context.Context, req oapi.ListAuditsRequestObject) (oapi.ListAuditsResponseObject, error) {
	p := req.Params
	merchants, err := s.reachFiltered(ctx, p.MerchantID, p.FilterMerchantID)
	if err != nil {
		return nil, err
	}
	who := CallerFrom(ctx)
	f := ledger.AuditFilter{Merchants: merchants, Kind: deref(p.Kind), Status: deref(p.Status), WechatAuditID: deref(p.WechatAuditID),
		SubmittedAfter: p.SubmittedAfter, Limit: limitOf(p.Limit) + 1}
	if p.Subject != nil {
		id, ok := subjectID(*p.Subject)
		if !ok {
			return oapi.ListAudits200JSONResponse{Body: oapi.AuditList{Data: []oapi.Audit{}}}, nil // nothing of ours has this id
		}
		f.Subject = &id
	}
	scope := ListScope{Operation: "listAudits", Tenant: who.TenantID, Filters: []string{fmt.Sprint(merchants), f.Kind, f.Status, f.WechatAuditID,
		deref(p.Subject), formatTime(p.SubmittedAfter)}}
	at, ok, err := DecodeCursor[position](s.cursors, scope, p.Cursor)
	if err != nil {
		return nil, err
	}
	if ok {
		f.Before = &at.Before
	}
	audits, err := s.Ledger.Audits(ctx, who.TenantID, f)
	if err != nil {
		return nil, err
	}
	out := oapi.AuditList{Data: []oapi.Audit{}}
	if out.HasMore = len(audits) >= f.Limit; out.HasMore {
		audits = audits[:f.Limit-1]
		next, err := EncodeCursor(s.cursors, scope, position{audits[len(audits)-1].ID})
		if err != nil {
			return nil, err
		}
		out.NextCursor = &next
	}
	for _, a := range audits {
		out.Data = append(out.Data, auditToAPI(a))
	}
	return oapi.ListAudits200JSONResponse{Body: out, Headers: oapi.ListAudits200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// GetAudit implements GET /v1/audits/{id}.
func (s *Server) GetAudit(ctx context.Context, req oapi.GetAuditRequestObject) (oapi.GetAuditResponseObject, error) {
	who := CallerFrom(ctx)
	id, err := typeid.Parse(typeid.Audit, req.ID)
	if err != nil {
		return nil, problem.Of(problem.CodeNotFound).WithErr(err)
	}
	a, err := s.Ledger.Audit(ctx, who.TenantID, id)
	if err != nil {
		return nil, err
	}
	if !who.MayActFor(a.MerchantID) {
		return nil, problem.Of(problem.CodeMerchantNotAllowed)
	}
	body := auditToAPI(a)
	etag, err := etagOf(a.UpdatedAt, body)
	if err != nil {
		return nil, err
	}
	if NotModified(req.Params.IfNoneMatch, etag) {
		return oapi.GetAudit304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: &etag}}, nil
	}
	return oapi.GetAudit200JSONResponse{Body: body, Headers: oapi.GetAudit200ResponseHeaders{ETag: &etag}}, nil
}

// RefreshAudit implements POST /v1/audits/{id}/refresh.
func (s *Server) RefreshAudit(ctx context.Context, req oapi.RefreshAuditRequestObject) (oapi.RefreshAuditResponseObject, error) {
	a, m, err := s.auditToWrite(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	if a, err = s.Ledger.RefreshAudit(ctx, m, a); err != nil {
		return nil, err
	}
	return oapi.RefreshAudit200JSONResponse{Body: auditToAPI(a)}, nil
}

// auditToWrite reads an audit for a caller who may change what it is about.
func (s *Server) auditToWrite(ctx context.Context, segment string) (ledger.Audit, authorizer.Merchant, error) {
	who := CallerFrom(ctx)
	id, err := typeid.Parse(typeid.Audit, segment)
	if err != nil {
		return ledger.Audit{}, authorizer.Merchant{}, problem.Of(problem.CodeNotFound).WithErr(err)
	}
	a, err := s.Ledger.Audit(ctx, who.TenantID, id)
	if err != nil {
		return a, authorizer.Merchant{}, err
	}
	if !who.MayActFor(a.MerchantID) {
		return a, authorizer.Merchant{}, problem.Of(problem.CodeMerchantNotAllowed)
	}
	if scope := subjectType(a.SubjectType).Scope + ":write"; !who.Can(scope) {
		return a, authorizer.Merchant{}, problem.Of(problem.CodeScopeMissing).With("required", scope)
	}
	m, err := s.Authorizer.MerchantByID(ctx, who.TenantID, a.MerchantID)
	if err == nil {
		NoteMerchant(ctx, typeid.Format(typeid.Merchant, m.ID))
	}
	return a, m, err
}

// reachFiltered is reach where a query parameter may narrow it too.
func (s *Server) reachFiltered(ctx context.Context, header, filter *string) ([]uuid.UUID, error) {
	if header != nil && filter != nil && *header != *filter {
		a, err := s.acting(ctx, header)
		if err != nil {
			return nil, err
		}
		b, err := s.acting(ctx, filter)
		if err != nil {
			return nil, err
		}
		if a.ID != b.ID {
			return nil, problem.Of(problem.CodeMerchantMismatch)
		}
	}
	if filter != nil {
		header = filter
	}
	merchants, _, err := s.reach(ctx, header)
	return merchants, err
}

// subjectID reads the id of any resource that is audited.
func subjectID(text string) (uuid.UUID, bool) {
	for _, t := range ledger.Types() {
		if id, err := typeid.Parse(t.Prefix, text); err == nil {
			return id, true
		}
	}
	return uuid.Nil, false
}

// subjectType is the type of that name.
func subjectType(name string) ledger.Type {
	for _, t := range ledger.Types() {
		if t.Name == name {
			return t
		}
	}
	return ledger.Type{} // whose scope nobody has
}

func subjectToAPI(typ *string, id *uuid.UUID) *oapi.Subject {
	if typ == nil || id == nil {
		return nil
	}
	return &oapi.Subject{Type: *typ, ID: typeid.Format(subjectType(*typ).Prefix, *id)}
}

func auditToAPI(a ledger.Audit) oapi.Audit {
	out := oapi.Audit{
		ID: typeid.Format(typeid.Audit, a.ID), Kind: oapi.AuditKind(a.Kind), MerchantID: typeid.Format(typeid.Merchant, a.MerchantID),
		Subject: subjectToAPI(&a.SubjectType, &a.SubjectID), WechatAuditID: a.WechatAuditID, Status: oapi.AuditStatus(a.Status), Reason: a.Reason,
		Source: oapi.AuditSource(a.Source), Attempt: a.Attempt, SubmittedAt: utc(&a.SubmittedAt), DecidedAt: utc(a.DecidedAt), DeadlineAt: utc(a.DeadlineAt), OverdueAt: utc(a.OverdueAt),
		History: []oapi.AuditStep{},
	}
	for _, h := range a.History {
		out.History = append(out.History, oapi.AuditStep{At: h.At.UTC(), Status: oapi.AuditStatus(h.Status), Source: oapi.AuditSource(h.Source),
			RawEventID: idPointer(typeid.Event, h.InboxID)})
	}
	return out
}

func auditSummary(a dbsqlc.Audit) *oapi.AuditSummary {
	return &oapi.AuditSummary{ID: typeid.Format(typeid.Audit, a.ID), Kind: oapi.AuditKind(a.Kind), Status: oapi.AuditStatus(a.Status),
		Reason: a.Reason, WechatAuditID: a.WechatAuditID, SubmittedAt: utc(&a.SubmittedAt), DecidedAt: utc(a.DecidedAt)}
}
