package handlers

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// ListGoods implements GET /v1/goods.
func (s *Server) ListGoods(ctx context.Context, req oapi.ListGoodsRequestObject) (oapi.ListGoodsResponseObject, error) {
	p := req.Params
	if deref(p.Source) == "live" {
		return s.listLiveGoods(ctx, p)
	}
	merchants, m, err := s.reach(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	f := ledger.Filter{Status: deref(p.Status), ClientReference: deref(p.ClientReference), UpdatedAfter: p.UpdatedAfter, Numbers: valueOf(p.GoodsID)}
	rows, next, err := records(ctx, s, s.Ledger.Goods, "listGoods", merchants, f, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	out := oapi.GoodsList{Data: []oapi.Goods{}, HasMore: next != nil, NextCursor: next}
	if m != nil {
		out.SyncedAt = m.SyncedAt("goods")
	}
	for _, row := range rows {
		out.Data = append(out.Data, goodsToAPI(row))
	}
	return oapi.ListGoods200JSONResponse{Body: out, Headers: oapi.ListGoods200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// shownByWeChat are the states of goods that WeChat has a list of.
var shownByWeChat = []string{"unreviewed", "in_review", "approved", "rejected"}

// listLiveGoods asks WeChat for goods by their state, or by their numbers.
func (s *Server) listLiveGoods(ctx context.Context, p oapi.ListGoodsParams) (oapi.ListGoodsResponseObject, error) {
	m, err := s.acting(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	byNumber := p.GoodsID != nil
	if err := unfiltered(ctx, given{"client_reference", p.ClientReference != nil}, given{"updated_after", p.UpdatedAfter != nil},
		given{"status", byNumber && p.Status != nil}, given{"cursor", byNumber && p.Cursor != nil}); err != nil {
		return nil, err
	}
	var (
		goods []ledger.Live[ledger.GoodsFields]
		total int
		next  *string
	)
	if byNumber {
		if err := s.Authorizer.Check(m, wechat.GetGoodsWarehouse); err != nil {
			return nil, err
		}
		goods, err = s.Ledger.LiveGoodsOf(ctx, m, *p.GoodsID)
		total = len(goods)
	} else {
		status := deref(p.Status)
		if !slices.Contains(shownByWeChat, status) {
			return nil, badParameter(stateOf(ctx), "status", ruleLiveStatus, strings.Join(shownByWeChat, ", "))
		}
		if err := s.Authorizer.Check(m, wechat.GetApproved); err != nil {
			return nil, err
		}
		goods, total, next, err = livePage(s, m, "listGoods", p.Cursor, func(offset int) ([]ledger.Live[ledger.GoodsFields], int, error) {
			return s.Ledger.LiveGoods(ctx, m, status, offset, limitOf(p.Limit))
		}, status)
	}
	if err != nil {
		return nil, err
	}
	out := oapi.GoodsList{Data: []oapi.Goods{}, SyncedAt: m.SyncedAt("goods"), Total: new(int64(total)), HasMore: next != nil, NextCursor: next}
	for _, g := range goods {
		out.Data = append(out.Data, liveGoodsToAPI(m, g))
	}
	return oapi.ListGoods200JSONResponse{Body: out, Headers: oapi.ListGoods200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// CreateGoods implements POST /v1/goods.
func (s *Server) CreateGoods(ctx context.Context, req oapi.CreateGoodsRequestObject) (oapi.CreateGoodsResponseObject, error) {
	m, err := s.acting(ctx, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	pricing, err := goodsRules(ctx, &b.Name, &b.Path, &b.Pricing)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.AddGoods); err != nil {
		return nil, err
	}
	n := ledger.NewGoods{Name: b.Name, CoverMediaID: b.CoverMediaID, Pricing: *pricing, Path: b.Path, ThirdPartyAppid: deref(b.ThirdPartyAppid),
		ClientReference: deref(b.ClientReference)}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "createGoods", n)
	if err != nil {
		return nil, err
	}
	g, done, err := s.Ledger.CreateGoods(ctx, r, n)
	if err != nil {
		return nil, err
	}
	body := goodsToAPI(g)
	return oapi.CreateGoods202JSONResponse{Body: body, Headers: oapi.CreateGoods202ResponseHeaders{
		ETag: recordETag(g), IdempotencyReplayed: replayed(done.Replayed), Location: new("/v1/goods/" + *body.ID),
		Link: statusLink(body.Operation, body.Audit), OperationID: operationID(done)}}, nil
}

// GetGoods implements GET /v1/goods/{id}.
func (s *Server) GetGoods(ctx context.Context, req oapi.GetGoodsRequestObject) (oapi.GetGoodsResponseObject, error) {
	live := deref(req.Params.Source) == "live"
	g, m, number, err := toShow(ctx, s, s.Ledger.Goods, req.ID, req.Params.MerchantID, live)
	switch {
	case err != nil:
		return nil, err
	case live && number == "":
		// Refused, or on its way: WeChat can't be asked for what has no number.
		if g.Status == "failed" {
			return nil, problem.Of(problem.CodeGoodsNotFound)
		}
		return nil, problem.Of(problem.CodeOperationInProgress)
	case live:
		return s.getLiveGoods(ctx, m, number, g)
	}
	etag := recordETag(*g)
	if NotModified(req.Params.IfNoneMatch, *etag) {
		return oapi.GetGoods304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	return oapi.GetGoods200JSONResponse{Body: goodsToAPI(*g), Headers: oapi.GetGoods200ResponseHeaders{ETag: etag}}, nil
}

// getLiveGoods shows WeChat's view, on top of what only we know.
func (s *Server) getLiveGoods(ctx context.Context, m authorizer.Merchant, number string, ours *ledger.Goods) (oapi.GetGoodsResponseObject, error) {
	if err := s.Authorizer.Check(m, wechat.GetGoodsWarehouse); err != nil {
		return nil, err
	}
	goods, err := s.Ledger.LiveGoodsOf(ctx, m, []string{number})
	if err != nil {
		return nil, err
	}
	if len(goods) == 0 {
		return nil, problem.Of(problem.CodeGoodsNotFound)
	}
	body := liveGoodsToAPI(m, goods[0])
	if ours != nil {
		seen := goods[0].Known
		seen.Sent = ours.Known.Sent
		body.Pricing = pricingToAPI(seen.Pricing())
		own := goodsToAPI(*ours)
		body.ID, body.ClientReference, body.PreviousID, body.Audit, body.Operation = own.ID, own.ClientReference, own.PreviousID, own.Audit, own.Operation
		body.CoverMediaID, body.ThirdPartyAppid, body.CreatedAt, body.UpdatedAt = own.CoverMediaID, own.ThirdPartyAppid, own.CreatedAt, own.UpdatedAt
	}
	return oapi.GetGoods200JSONResponse{Body: body}, nil
}

// UpdateGoods implements PATCH /v1/goods/{id}.
func (s *Server) UpdateGoods(ctx context.Context, req oapi.UpdateGoodsRequestObject) (oapi.UpdateGoodsResponseObject, error) {
	found, m, err := recordOf(ctx, s, s.Ledger.Goods, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	change := ledger.GoodsChange{Name: b.Name, CoverMediaID: b.CoverMediaID, Path: b.Path, ThirdPartyAppid: b.ThirdPartyAppid}
	if change.Pricing, err = goodsRules(ctx, b.Name, b.Path, b.Pricing); err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.UpdateGoods); err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "updateGoods", found.ID, change)
	if err != nil {
		return nil, err
	}
	if change.IfVersion, err = IfMatch(req.Params.IfMatch); err != nil {
		return nil, err
	}
	g, done, err := s.Ledger.UpdateGoods(ctx, r, found.ID, change)
	if err != nil {
		return nil, err
	}
	body := goodsToAPI(g)
	if done.Operation.State == "succeeded" {
		return oapi.UpdateGoods200JSONResponse{Body: body, Headers: oapi.UpdateGoods200ResponseHeaders{
			ETag: recordETag(g), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	return oapi.UpdateGoods202JSONResponse{Body: body, Headers: oapi.UpdateGoods202ResponseHeaders{
		ETag: recordETag(g), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done),
		Location: new("/v1/goods/" + *body.ID), Link: statusLink(body.Operation, body.Audit)}}, nil
}

// DeleteGoods implements DELETE /v1/goods/{id}.
func (s *Server) DeleteGoods(ctx context.Context, req oapi.DeleteGoodsRequestObject) (oapi.DeleteGoodsResponseObject, error) {
	p := req.Params
	g, done, err := deletion(ctx, s, s.Ledger.Goods, wechat.DeleteGoods, s.Ledger.DeleteGoods, "deleteGoods", req.ID, p.MerchantID, p.IdempotencyKey, p.IfMatch)
	if err != nil {
		return nil, err
	}
	if done.Operation.State == "succeeded" {
		return oapi.DeleteGoods204Response{Headers: oapi.DeleteGoods204ResponseHeaders{IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	body := goodsToAPI(g)
	return oapi.DeleteGoods202JSONResponse{Body: body, Headers: oapi.DeleteGoods202ResponseHeaders{
		IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done), Location: new("/v1/goods/" + *body.ID),
		Link: statusLink(body.Operation, body.Audit)}}, nil
}

// CreateGoodsAudit implements POST /v1/goods/{id}/audits.
func (s *Server) CreateGoodsAudit(ctx context.Context, req oapi.CreateGoodsAuditRequestObject) (oapi.CreateGoodsAuditResponseObject, error) {
	found, m, err := recordOf(ctx, s, s.Ledger.Goods, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.AuditGoods); err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "createGoodsAudit", found.ID)
	if err != nil {
		return nil, err
	}
	g, done, err := s.Ledger.AuditGoods(ctx, r, found.ID)
	if err != nil {
		return nil, err
	}
	body := goodsToAPI(g)
	return oapi.CreateGoodsAudit202JSONResponse{Body: body, Headers: oapi.CreateGoodsAudit202ResponseHeaders{
		ETag: recordETag(g), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done),
		Location: new("/v1/goods/" + *body.ID), Link: statusLink(body.Operation, body.Audit)}}, nil
}

// WithdrawAudit implements POST /v1/audits/{id}/withdrawal.
func (s *Server) WithdrawAudit(ctx context.Context, req oapi.WithdrawAuditRequestObject) (oapi.WithdrawAuditResponseObject, error) {
	a, m, err := s.auditToWrite(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	if a.Kind != "goods" { // no permission set would change that
		return nil, problem.Of(problem.CodeAuditNotWithdrawable)
	}
	if err := s.Authorizer.Check(m, wechat.ResetGoodsAudit); err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "withdrawAudit", a.ID)
	if err != nil {
		return nil, err
	}
	a, done, err := s.Ledger.WithdrawAudit(ctx, r, a)
	if err != nil {
		return nil, err
	}
	body := auditToAPI(a)
	if body.Operation = openOperation(&done.Operation.Operation); body.Operation == nil {
		return oapi.WithdrawAudit200JSONResponse{Body: body, Headers: oapi.WithdrawAudit200ResponseHeaders{
			IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	return oapi.WithdrawAudit202JSONResponse{Body: body, Headers: oapi.WithdrawAudit202ResponseHeaders{
		IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done), Location: new("/v1/audits/" + body.ID),
		Link: statusLink(body.Operation, nil)}}, nil
}

func goodsToAPI(g ledger.Goods) oapi.Goods {
	out := goodsFieldsToAPI(g.Known)
	out.ID = new(typeid.Format(typeid.Goods, g.ID))
	out.MerchantID = typeid.Format(typeid.Merchant, g.MerchantID)
	out.ClientReference, out.PreviousID, out.GoodsID = g.ClientReference, idPointer(typeid.Goods, g.PreviousID), g.WechatID
	out.Status = oapi.GoodsStatus(g.Status)
	if g.Known.Tag == nil && g.Origin == "api" {
		out.Origin = "api" // ours, and WeChat wasn't asked yet
	}
	out.CreatedAt, out.UpdatedAt, out.SyncedAt = utc(&g.CreatedAt), utc(&g.UpdatedAt), utc(g.SyncedAt)
	out.Audit = auditSummary(g.Audit)
	out.Operation = openOperation(g.Operation)
	return out
}

func liveGoodsToAPI(m authorizer.Merchant, g ledger.Live[ledger.GoodsFields]) oapi.Goods {
	out := goodsFieldsToAPI(g.Known)
	out.ID, out.MerchantID, out.GoodsID = idPointer(typeid.Goods, g.ID), typeid.Format(typeid.Merchant, m.ID), &g.Number
	out.Status, out.SyncedAt = oapi.GoodsStatus(g.Status), new(time.Now().UTC())
	return out
}

func goodsFieldsToAPI(f ledger.GoodsFields) oapi.Goods {
	out := oapi.Goods{
		Name: optional(&f.Name), CoverMediaID: optional(&f.CoverMediaID), CoverImageURL: optional(&f.CoverImageURL), Path: optional(&f.Path),
		ThirdPartyAppid: optional(&f.ThirdPartyAppid), Origin: oapi.GoodsOrigin(f.Origin()), Pricing: pricingToAPI(f.Pricing()),
	}
	if u := f.Upstream; u != nil {
		out.UpstreamPrice = &oapi.UpstreamPrice{Price: u.Price, Price2: optional(&u.Price2)}
	}
	return out
}

func pricingToAPI(p *ledger.Pricing) *oapi.GoodsPricing {
	if p == nil {
		return nil
	}
	switch p.Type {
	case wechat.PriceFixed:
		return &oapi.GoodsPricing{Type: oapi.GoodsPricingTypeFixed, Amount: &p.Price}
	case wechat.PriceRange:
		return &oapi.GoodsPricing{Type: oapi.GoodsPricingTypeRange, Min: &p.Price, Max: &p.Price2}
	case wechat.PriceDiscount:
		return &oapi.GoodsPricing{Type: oapi.GoodsPricingTypeDiscount, Original: &p.Price, Current: &p.Price2}
	}
	return nil // a kind that the documents don't know
}
