package handlers

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/handlers/oapi"
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
	f.After = valueOf(p.After)
	rows, err := outbox.List(ctx, s.DB, who.TenantID, f)
	if err != nil {
		return nil, err
	}
	out := oapi.EventList{NextAfter: f.After, HasMore: len(rows) >= f.Limit}
	if out.HasMore {
		rows = rows[:f.Limit-1]
	}
	if out.Data, err = s.eventsToAPI(ctx, rows); err != nil {
		return nil, err
	}
	if len(rows) > 0 {
		out.NextAfter = *rows[len(rows)-1].Sequence
	}
	return oapi.ListEvents200JSONResponse{Body: out}, nil
}

// GetEvent implements GET /v1/events/{id}.
func (s *Server) GetEvent(ctx context.Context, req oapi.GetEventRequestObject) (oapi.GetEventResponseObject, error) {
	who := CallerFrom(ctx)
	id, err := pathID(typeid.Event, req.ID)
	if err != nil {
		return nil, err
	}
	row, err := outbox.Get(ctx, s.DB, who.TenantID, id)
	if err != nil {
		return nil, err
	}
	if row == nil {
		kept, err := s.Inbox.Raw(ctx, who.TenantID, []uuid.UUID{id})
		if err != nil {
			return nil, err
		}
		raw, ok := kept[id]
		if !ok {
			return nil, problem.Of(problem.CodeNotFound)
		}
		row = &outbox.Numbered{ID: raw.ID, MerchantID: raw.MerchantID, Type: pushReceived, CreatedAt: raw.ReceivedAt}
		if row.Payload, err = json.Marshal(map[string]any{"object": raw.Object}); err != nil {
			return nil, err
		}
	}
	if who.Merchants != nil && (row.MerchantID == nil || !who.MayActFor(*row.MerchantID)) {
		return nil, problem.Of(problem.CodeMerchantNotAllowed)
	}
	events, err := s.eventsToAPI(ctx, []outbox.Numbered{*row})
	if err != nil {
		return nil, err
	}
	return oapi.GetEvent200JSONResponse{Body: events[0]}, nil
}

// pushReceived is the type under which a push that was applied is shown.
const pushReceived = "push.received"

// eventsToAPI puts into a push that is none of ours what WeChat sent, as long
// as that is kept.
func (s *Server) eventsToAPI(ctx context.Context, rows []outbox.Numbered) ([]oapi.Event, error) {
	who := CallerFrom(ctx)
	var pushes []uuid.UUID
	for _, row := range rows {
		if row.Type == outbox.PushOther {
			pushes = append(pushes, row.ID)
		}
	}
	kept, err := s.Inbox.Raw(ctx, who.TenantID, pushes)
	if err != nil {
		return nil, err
	}
	out := make([]oapi.Event, len(rows))
	for i, row := range rows {
		out[i] = oapi.Event{ID: typeid.Format(typeid.Event, row.ID), Type: row.Type, Timestamp: row.CreatedAt.UTC(), TenantID: typeid.Format(typeid.Tenant, who.TenantID),
			MerchantID: idPointer(typeid.Merchant, row.MerchantID), Sequence: row.Sequence}
		if err := json.Unmarshal(row.Payload, &out[i].Data); err != nil {
			return nil, err
		}
		if row.Type == outbox.PushOther {
			out[i].Data.Object["xml"] = kept[row.ID].Object["xml"]
		}
	}
	return out, nil
}
