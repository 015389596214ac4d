package handlers

import (
	"context"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/wechat"
)

// GetStoreCard implements GET /v1/stores/{id}/card.
func (s *Server) GetStoreCard(ctx context.Context, req oapi.GetStoreCardRequestObject) (oapi.GetStoreCardResponseObject, error) {
	st, m, err := recordOf(ctx, s, s.Ledger.Stores, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.GetStoreCard); err != nil {
		return nil, err
	}
	card, err := s.Ledger.StoreCard(ctx, m, st)
	if err != nil {
		return nil, err
	}
	return oapi.GetStoreCard200JSONResponse{Body: oapi.StoreCard{CardID: optional(&card), Operation: openOperation(st.Operation)}}, nil
}

// SetStoreCard implements PUT /v1/stores/{id}/card.
func (s *Server) SetStoreCard(ctx context.Context, req oapi.SetStoreCardRequestObject) (oapi.SetStoreCardResponseObject, error) {
	found, m, err := recordOf(ctx, s, s.Ledger.Stores, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.SetStoreCard); err != nil {
		return nil, err
	}
	version, err := IfMatch(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "setStoreCard", found.ID, *req.Body)
	if err != nil {
		return nil, err
	}
	st, done, err := s.Ledger.SetStoreCard(ctx, r, found.ID, version, req.Body.CardID)
	if err != nil {
		return nil, err
	}
	body := oapi.StoreCard{CardID: st.Known.CardID, Operation: openOperation(st.Operation)}
	if done.Operation.State == "succeeded" {
		return oapi.SetStoreCard200JSONResponse{Body: body, Headers: oapi.SetStoreCard200ResponseHeaders{
			ETag: recordETag(st), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	return oapi.SetStoreCard202JSONResponse{Body: body, Headers: oapi.SetStoreCard202ResponseHeaders{
		ETag: recordETag(st), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done),
		Location: new("/v1/stores/" + *storeToAPI(&st).ID + "/card"), Link: statusLink(body.Operation, nil)}}, nil
}
