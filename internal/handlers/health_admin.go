package handlers

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// What a tenant's health is judged by (design reliability.md §7).
const (
	ticketLate = 30 * time.Minute
	ticketGone = 12 * time.Hour
	inboxLate  = time.Minute
)

// GetTenantHealth implements GET /v1/admin/tenants/{id}/health.
func (s *Server) GetTenantHealth(ctx context.Context, req oapi.GetTenantHealthRequestObject) (oapi.GetTenantHealthResponseObject, error) {
	id, err := s.existingTenant(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	h, err := s.Ledger.Health(ctx, id)
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	out := oapi.TenantHealth{
		CheckedAt:      now,
		Ticket:         oapi.TicketHealth{Kept: int32(h.Tickets), ReceivedAt: known(h.TicketReceivedAt), AgeSeconds: age(now, h.TicketReceivedAt)},
		ComponentToken: oapi.MerchantToken{State: componentState(h, now), ExpiresAt: utc(h.ComponentExpiresAt)},
		Merchants: oapi.MerchantCounts{Authorized: h.MerchantsAuthorized, NeedsReauthorization: h.MerchantsNeeding,
			Deauthorized: h.MerchantsDeauthorized, Disabled: h.MerchantsDisabled},
		MerchantTokens: oapi.TokenCounts{Fresh: h.TokensFresh, Refreshing: h.TokensRefreshing, Expired: h.TokensExpired, Invalid: h.TokensInvalid},
		Inbox:          oapi.InboxHealth{Waiting: h.InboxWaiting, Failed: h.InboxFailed, OldestAgeSeconds: age(now, h.InboxOldestAt)},
		Operations:     oapi.OperationCounts{Executing: h.OperationsExecuting, Reconciling: h.OperationsReconciling, NeedsAttention: h.OperationsAttention},
	}
	out.Status = healthStatus(h, now, out.ComponentToken.State)
	return oapi.GetTenantHealth200JSONResponse{Body: out}, nil
}

func healthStatus(h ledger.Health, now time.Time, component oapi.TokenState) oapi.HealthStatus {
	ticket := now.Sub(h.TicketReceivedAt)
	switch {
	case component != oapi.TokenStateFresh && component != oapi.TokenStateRefreshing && ticket > ticketGone:
		return oapi.HealthStatusFailing
	case ticket > ticketLate, component == oapi.TokenStateInvalid, h.MerchantsNeeding > 0, h.TokensInvalid > 0,
		h.InboxFailed > 0, h.InboxWaiting > 0 && now.Sub(h.InboxOldestAt) > inboxLate, h.OperationsAttention > 0:
		return oapi.HealthStatusDegraded
	}
	return oapi.HealthStatusOk
}

func componentState(h ledger.Health, now time.Time) oapi.TokenState {
	switch {
	case h.ComponentInvalidReason != nil:
		return oapi.TokenStateInvalid
	case h.ComponentRefreshing > 0:
		return oapi.TokenStateRefreshing
	case h.ComponentExpiresAt != nil && h.ComponentExpiresAt.After(now):
		return oapi.TokenStateFresh
	}
	return oapi.TokenStateExpired
}

// known is nil for the epoch, which stands for "never".
func known(t time.Time) *time.Time {
	if t.Unix() == 0 {
		return nil
	}
	return utc(&t)
}

func age(now, t time.Time) *int64 {
	if t.Unix() == 0 {
		return nil
	}
	return new(int64(now.Sub(t).Seconds()))
}

// RestartTicketPush implements POST /v1/admin/tenants/{id}/ticket-restarts.
func (s *Server) RestartTicketPush(ctx context.Context, req oapi.RestartTicketPushRequestObject) (oapi.RestartTicketPushResponseObject, error) {
	id, err := s.existingTenant(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.RestartTickets(ctx, id, 0); err != nil {
		return nil, err
	}
	h, err := s.Ledger.Health(ctx, id)
	if err != nil {
		return nil, err
	}
	return oapi.RestartTicketPush202JSONResponse{Body: oapi.TicketRestart{RequestedAt: time.Now().UTC(), LastTicketAt: known(h.TicketReceivedAt)}}, nil
}

func (s *Server) existingTenant(ctx context.Context, text string) (uuid.UUID, error) {
	id, err := typeid.Parse(typeid.Tenant, text)
	if err != nil {
		return id, problem.Of(problem.CodeNotFound).WithErr(err)
	}
	_, err = s.Tenants.Get(ctx, id)
	return id, err
}

// SyncMerchants implements POST /v1/merchants/sync.
func (s *Server) SyncMerchants(ctx context.Context, req oapi.SyncMerchantsRequestObject) (oapi.SyncMerchantsResponseObject, error) {
	who := CallerFrom(ctx)
	if who.Merchants != nil {
		return nil, problem.Of(problem.CodeMerchantNotAllowed) // it touches every merchant of the tenant
	}
	r, err := request(ctx, authorizer.Merchant{TenantID: who.TenantID}, req.Params.IdempotencyKey, "syncMerchants")
	if err != nil {
		return nil, err
	}
	op, again, err := s.Ledger.SyncMerchants(ctx, who, r.IdempotencyKey, r.Fingerprint)
	if err != nil {
		return nil, err
	}
	id := typeid.Format(typeid.Operation, op.ID)
	return oapi.SyncMerchants202JSONResponse{Body: operationToAPI(ctx, op), Headers: oapi.SyncMerchants202ResponseHeaders{
		Location: new("/v1/operations/" + id), OperationID: &id, IdempotencyReplayed: replayed(again)}}, nil
}
