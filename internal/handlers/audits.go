package handlers

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
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
		SubmittedAfter: p.SubmittedAfter}
	if p.Subject != nil {
		id, ok := subjectID(*p.Subject)
		if !ok {
			return oapi.ListAudits200JSONResponse{Body: oapi.AuditList{Data: []oapi.Audit{}}}, nil // nothing of ours has this id
		}
		f.Subject = &id
	}
	scope := ListScope{Operation: "listAudits", Tenant: who.TenantID, Filters: []string{fmt.Sprint(merchants), f.Kind, f.Status, f.WechatAuditID,
		deref(p.Subject), formatTime(p.SubmittedAfter)}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	f.Before, f.Limit = page.Before, page.Limit+1
	audits, err := s.Ledger.Audits(ctx, who.TenantID, f)
	if err != nil {
		return nil, err
	}
	out := oapi.AuditList{Data: []oapi.Audit{}}
	if out.HasMore = len(audits) > page.Limit; out.HasMore {
		audits = audits[:page.Limit]
		if out.NextCursor, err = s.next(scope, audits[len(audits)-1].ID); err != nil {
			return nil, err
		}
	}
	for _, a := range audits {
		out.Data = append(out.Data, auditToAPI(a))
	}
	return oapi.ListAudits200JSONResponse{Body: out, Headers: oapi.ListAudits200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// GetAudit implements GET /v1/audits/{id}.
func (s *Server) GetAudit(ctx context.Context, req oapi.GetAuditRequestObject) (oapi.GetAuditResponseObject, error) {
	a, err := s.auditOf(ctx, req.ID)
	if err != nil {
		return nil, err
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

// auditOf reads an audit for a caller who may see it. Errors: not_found,
// merchant_not_allowed.
func (s *Server) auditOf(ctx context.Context, segment string) (ledger.Audit, error) {
	who := CallerFrom(ctx)
	id, err := pathID(typeid.Audit, segment)
	if err != nil {
		return ledger.Audit{}, err
	}
	a, err := s.Ledger.Audit(ctx, who.TenantID, id)
	if err == nil && !who.MayActFor(a.MerchantID) {
		err = problem.Of(problem.CodeMerchantNotAllowed)
	}
	return a, err
}

// auditToWrite reads an audit for a caller who may change what it is about.
func (s *Server) auditToWrite(ctx context.Context, segment string) (ledger.Audit, authorizer.Merchant, error) {
	a, err := s.auditOf(ctx, segment)
	if err != nil {
		return a, authorizer.Merchant{}, err
	}
	who := CallerFrom(ctx)
	if scope := subjectType(a.SubjectType).Scope + ":write"; !who.Can(scope) {
		return a, authorizer.Merchant{}, problem.Of(problem.CodeScopeMissing).With("required", scope)
	}
	m, err := s.Authorizer.MerchantByID(ctx, who.TenantID, a.MerchantID)
	if err == nil {
		NoteMerchant(ctx, typeid.Format(typeid.Merchant, m.ID))
	}
	return a, m, err
}

// narrowed is the merchant that a header or a query parameter names; nil: neither
// does. Errors: merchant_mismatch, and acting's where they differ.
func (s *Server) narrowed(ctx context.Context, header, filter *string) (*string, error) {
	if filter == nil {
		return header, nil
	}
	if header != nil && *header != *filter { // an id and an appid may be of one
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
	return filter, nil
}

// reachFiltered is reach where a query parameter may narrow it too.
func (s *Server) reachFiltered(ctx context.Context, header, filter *string) ([]uuid.UUID, error) {
	named, err := s.narrowed(ctx, header, filter)
	if err != nil {
		return nil, err
	}
	merchants, _, err := s.reach(ctx, named)
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

func auditSummary(a *ledger.AuditBrief) *oapi.AuditSummary {
	if a == nil {
		return nil
	}
	return &oapi.AuditSummary{ID: typeid.Format(typeid.Audit, a.ID), Kind: oapi.AuditKind(a.Kind), Status: oapi.AuditStatus(a.Status),
		Reason: a.Reason, WechatAuditID: a.WechatAuditID, SubmittedAt: utc(a.SubmittedAt), DecidedAt: utc(a.DecidedAt)}
}
