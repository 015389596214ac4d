package handlers

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// ListOperations implements GET /v1/operations.
func (s *Server) ListOperations(ctx context.Context, req oapi.ListOperationsRequestObject) (oapi.ListOperationsResponseObject, error) {
	p := req.Params
	merchants, err := s.reachFiltered(ctx, p.MerchantID, p.FilterMerchantID)
	if err != nil {
		return nil, err
	}
	who := CallerFrom(ctx)
	f := ledger.OperationFilter{Merchants: merchants, State: deref(p.Status), Kind: deref(p.Kind), UpdatedAfter: p.UpdatedAfter}
	scope := ListScope{Operation: "listOperations", Tenant: who.TenantID, Filters: []string{fmt.Sprint(merchants), f.State, f.Kind, formatTime(p.UpdatedAfter)}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	f.Before, f.Limit = page.Before, page.Limit+1
	ops, err := s.Ledger.Operations(ctx, who.TenantID, f)
	if err != nil {
		return nil, err
	}
	out := oapi.OperationList{Data: []oapi.Operation{}}
	if out.HasMore = len(ops) > page.Limit; out.HasMore {
		ops = ops[:page.Limit]
		if out.NextCursor, err = s.next(scope, ops[len(ops)-1].ID); err != nil {
			return nil, err
		}
	}
	for _, op := range ops {
		out.Data = append(out.Data, operationToAPI(ctx, op))
	}
	return oapi.ListOperations200JSONResponse{Body: out, Headers: oapi.ListOperations200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// GetOperation implements GET /v1/operations/{id}.
func (s *Server) GetOperation(ctx context.Context, req oapi.GetOperationRequestObject) (oapi.GetOperationResponseObject, error) {
	who := CallerFrom(ctx)
	id, err := pathID(typeid.Operation, req.ID)
	if err != nil {
		return nil, err
	}
	op, err := s.Ledger.Operation(ctx, who.TenantID, id)
	if err != nil {
		return nil, err
	}
	if who.Merchants != nil && (op.MerchantID == nil || !who.MayActFor(*op.MerchantID)) {
		return nil, problem.Of(problem.CodeMerchantNotAllowed)
	}
	body := operationToAPI(ctx, op)
	etag, err := etagOf(op.UpdatedAt, body)
	if err != nil {
		return nil, err
	}
	if NotModified(req.Params.IfNoneMatch, etag) {
		return oapi.GetOperation304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: &etag}}, nil
	}
	return oapi.GetOperation200JSONResponse{Body: body, Headers: oapi.GetOperation200ResponseHeaders{ETag: &etag}}, nil
}

// ResolveOperation implements POST /v1/operations/{id}/resolution.
func (s *Server) ResolveOperation(ctx context.Context, req oapi.ResolveOperationRequestObject) (oapi.ResolveOperationResponseObject, error) {
	who := CallerFrom(ctx)
	id, err := pathID(typeid.Operation, req.ID)
	if err != nil {
		return nil, err
	}
	op, err := s.Ledger.Operation(ctx, who.TenantID, id)
	switch {
	case err != nil:
		return nil, err
	case op.MerchantID == nil:
		return nil, problem.Of(problem.CodeOperationNotResolvable)
	case !who.MayActFor(*op.MerchantID):
		return nil, problem.Of(problem.CodeMerchantNotAllowed)
	}
	m, err := s.Authorizer.MerchantByID(ctx, who.TenantID, *op.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	r := ledger.Resolution{Executed: b.Decision == oapi.OperationResolutionDecisionExecuted, Note: deref(b.Note), WechatIDs: valueOf(b.WechatIds)}
	op, err = s.Ledger.Resolve(ctx, who, m, id, r)
	if err != nil {
		return nil, err
	}
	return oapi.ResolveOperation200JSONResponse{Body: operationToAPI(ctx, op)}, nil
}

// ListAllOperations implements GET /v1/admin/operations.
func (s *Server) ListAllOperations(ctx context.Context, req oapi.ListAllOperationsRequestObject) (oapi.ListAllOperationsResponseObject, error) {
	p := req.Params
	f := ledger.OperationFilter{State: deref(p.Status), Kind: deref(p.Kind)}
	scope := ListScope{Operation: "listAllOperations", Filters: []string{deref(p.TenantID), f.State, f.Kind}}
	page, err := s.page(scope, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	f.Before, f.Limit = page.Before, page.Limit+1
	var only uuid.UUID
	if p.TenantID != nil {
		if only, err = typeid.Parse(typeid.Tenant, *p.TenantID); err != nil {
			return nil, badParameter(stateOf(ctx), "tenant_id", ruleTenantID, "").WithErr(err)
		}
	}
	ops, err := s.Ledger.AllOperations(ctx, only, f)
	if err != nil {
		return nil, err
	}
	out := oapi.AdminOperationList{Data: []oapi.AdminOperation{}}
	if out.HasMore = len(ops) > page.Limit; out.HasMore {
		ops = ops[:page.Limit]
		if out.NextCursor, err = s.next(scope, ops[len(ops)-1].ID); err != nil {
			return nil, err
		}
	}
	for _, op := range ops {
		out.Data = append(out.Data, oapi.AdminOperation{TenantID: typeid.Format(typeid.Tenant, op.TenantID), Operation: operationToAPI(ctx, op)})
	}
	return oapi.ListAllOperations200JSONResponse{Body: out, Headers: oapi.ListAllOperations200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

func operationToAPI(ctx context.Context, r ledger.OperationRecord) oapi.Operation {
	out := oapi.Operation{
		ID: typeid.Format(typeid.Operation, r.ID), Kind: r.Kind, Status: oapi.OperationStatus(r.State), MerchantID: idPointer(typeid.Merchant, r.MerchantID),
		Subject: subjectToAPI(r.SubjectType, r.SubjectID), RequestedBy: &r.RequestedBy, IdempotencyKey: r.IdempotencyKey,
		NextCheckAt: utc(r.NextCheckAt), AttentionAt: utc(r.Deadline), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
		Attempts: []oapi.OperationAttempt{}, Candidates: []oapi.OperationCandidate{},
	}
	for _, a := range r.Attempts {
		out.Attempts = append(out.Attempts, oapi.OperationAttempt{N: a.N, StartedAt: utc(&a.StartedAt), EndedAt: utc(a.EndedAt), Outcome: a.Outcome, Errcode: a.Errcode})
	}
	var candidates []ledger.Candidate
	if json.Unmarshal(r.Candidates, &candidates) == nil {
		for _, c := range candidates {
			out.Candidates = append(out.Candidates, oapi.OperationCandidate{IDType: c.Type, WechatID: c.ID})
		}
	}
	if p := r.Problem(); p != nil && !open(r.State) {
		out.Error = errorToAPI(ctx, p)
	}
	if p := r.Progress(); p != nil {
		out.Progress = &oapi.OperationProgress{Done: p.Done, Total: p.Total}
	}
	return out
}

// errorToAPI shows a problem that was kept, in the words of the caller's language.
func errorToAPI(ctx context.Context, p *problem.Error) *oapi.OperationError {
	title, detail := problem.Text(p.Code, stateOf(ctx).language())
	if p.Detail != "" {
		detail = p.Detail
	}
	out := &oapi.OperationError{Code: p.Code, Title: title, Detail: detail, Retryable: p.Retryable, Errors: []oapi.ProblemField{}}
	for _, f := range p.Fields {
		out.Errors = append(out.Errors, oapi.ProblemField{Pointer: f.Pointer, Code: f.Code, Detail: f.Detail})
	}
	if u := p.Upstream; u != nil {
		out.Upstream = &oapi.ProblemUpstream{System: "wechat", Endpoint: u.Endpoint, Errcode: u.Errcode, Errmsg: u.Errmsg, Rid: optional(&u.RID)}
	}
	return out
}

func operationSummary(op dbsqlc.Operation) *oapi.OperationSummary {
	return &oapi.OperationSummary{ID: typeid.Format(typeid.Operation, op.ID), Kind: op.Kind, Status: oapi.OperationStatus(op.State), NextCheckAt: utc(op.NextCheckAt)}
}
