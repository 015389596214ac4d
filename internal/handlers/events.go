package handlers

import (
	"context"
	"encoding/json"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/inbox"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// ListEvents implements GET /v1/events.
func (s *Server) ListEvents(ctx context.Context, req oapi.ListEventsRequestObject) (oapi.ListEventsResponseObject, error) {
	p := req.Params
	merchants, err := s.reachFiltered(ctx, p.MerchantID, p.FilterMerchantID)
	if err != nil {
		return nil, err
	}
	who := CallerFrom(ctx)
	f := outbox.Filter{Merchants: merchants, Type: deref(p.Type), Limit: limitOf(p.Limit) + 1}
	if p.After != nil {
		f.After = *p.After
	}
	rows, err := outbox.List(ctx, s.Outbox, who.TenantID, f)
	if err != nil {
		return nil, err
	}
	out := oapi.EventList{Data: []oapi.Event{}, NextAfter: f.After, HasMore: len(rows) >= f.Limit}
	if out.HasMore {
		rows = rows[:f.Limit-1]
	}
	for _, row := range rows {
		e, err := s.eventToAPI(ctx, row)
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, e)
		out.NextAfter = *row.Sequence
	}
	return oapi.ListEvents200JSONResponse{Body: out}, nil
}

// GetEvent implements GET /v1/events/{id}.
func (s *Server) GetEvent(ctx context.Context, req oapi.GetEventRequestObject) (oapi.GetEventResponseObject, error) {
	who := CallerFrom(ctx)
	id, err := typeid.Parse(typeid.Event, req.ID)
	if err != nil {
		return nil, problem.Of(problem.CodeNotFound).WithErr(err)
	}
	row, err := outbox.Get(ctx, s.Outbox, who.TenantID, id)
	if err != nil {
		return nil, err
	}
	if row == nil {
		raw, err := s.Inbox.Raw(ctx, who.TenantID, id)
		if err != nil {
			return nil, err
		}
		row = &outbox.Numbered{ID: raw.ID, MerchantID: raw.MerchantID, Type: pushReceived, CreatedAt: raw.ReceivedAt}
		if row.Payload, err = json.Marshal(map[string]any{"object": raw.Object}); err != nil {
			return nil, err
		}
	}
	if who.Merchants != nil && (row.MerchantID == nil || !who.MayActFor(*row.MerchantID)) {
		return nil, problem.Of(problem.CodeMerchantNotAllowed)
	}
	e, err := s.eventToAPI(ctx, *row)
	if err != nil {
		return nil, err
	}
	return oapi.GetEvent200JSONResponse{Body: e}, nil
}

// pushReceived is the type under which a push that was applied is shown.
const pushReceived = "push.received"

func (s *Server) eventToAPI(ctx context.Context, row outbox.Numbered) (oapi.Event, error) {
	who := CallerFrom(ctx)
	out := oapi.Event{ID: typeid.Format(typeid.Event, row.ID), Type: row.Type, Timestamp: row.CreatedAt.UTC(), TenantID: typeid.Format(typeid.Tenant, who.TenantID),
		MerchantID: idPointer(typeid.Merchant, row.MerchantID), Sequence: row.Sequence}
	if err := json.Unmarshal(row.Payload, &out.Data); err != nil {
		return out, err
	}
	if row.Type == outbox.PushOther {
		raw, err := s.Inbox.Raw(ctx, who.TenantID, row.ID)
		switch {
		case problem.HasCode(err, problem.CodeNotFound):
			raw = inbox.RawPush{Object: map[string]any{"xml": nil}} // swept
		case err != nil:
			return out, err
		}
		out.Data.Object["xml"] = raw.Object["xml"]
	}
	return out, nil
}
