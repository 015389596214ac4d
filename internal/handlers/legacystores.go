package handlers

import (
	"context"
	"slices"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// ListLegacyStores implements GET /v1/legacy-stores.
func (s *Server) ListLegacyStores(ctx context.Context, req oapi.ListLegacyStoresRequestObject) (oapi.ListLegacyStoresResponseObject, error) {
	p := req.Params
	if deref(p.Source) == "live" {
		return s.listLiveLegacyStores(ctx, p)
	}
	merchants, m, err := s.reach(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	rows, next, err := records(ctx, s, s.Ledger.LegacyStores, "listLegacyStores", merchants, ledger.Filter{Status: deref(p.Status),
		ClientReference: deref(p.ClientReference), Numbers: oneOf(p.PoiID), UpdatedAfter: p.UpdatedAfter}, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	out := oapi.LegacyStoreList{Data: []oapi.LegacyStore{}, HasMore: next != nil, NextCursor: next}
	if m != nil {
		out.SyncedAt = m.SyncedAt("legacy_store")
	}
	for _, row := range rows {
		out.Data = append(out.Data, legacyToAPI(row))
	}
	return oapi.ListLegacyStores200JSONResponse{Body: out, Headers: oapi.ListLegacyStores200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

func (s *Server) listLiveLegacyStores(ctx context.Context, p oapi.ListLegacyStoresParams) (oapi.ListLegacyStoresResponseObject, error) {
	m, err := s.acting(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := unfiltered(ctx, given{"status", p.Status != nil}, given{"client_reference", p.ClientReference != nil}, given{"poi_id", p.PoiID != nil},
		given{"updated_after", p.UpdatedAfter != nil}); err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.GetPoiList); err != nil {
		return nil, err
	}
	stores, total, next, err := livePage(s, m, "listLegacyStores", p.Cursor, func(begin int) ([]ledger.Live[ledger.LegacyFields], int, error) {
		return s.Ledger.LiveLegacyStores(ctx, m, begin, limitOf(p.Limit))
	})
	if err != nil {
		return nil, err
	}
	out := oapi.LegacyStoreList{Data: []oapi.LegacyStore{}, SyncedAt: m.SyncedAt("legacy_store"), Total: new(int64(total)), HasMore: next != nil, NextCursor: next}
	for _, st := range stores {
		out.Data = append(out.Data, liveLegacyToAPI(m, st))
	}
	return oapi.ListLegacyStores200JSONResponse{Body: out, Headers: oapi.ListLegacyStores200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// CreateLegacyStore implements POST /v1/legacy-stores.
func (s *Server) CreateLegacyStore(ctx context.Context, req oapi.CreateLegacyStoreRequestObject) (oapi.CreateLegacyStoreResponseObject, error) {
	m, err := s.acting(ctx, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	if broken := legacyStoreRules(stateOf(ctx), b); len(broken) > 0 {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(broken...)
	}
	if err := s.Authorizer.Check(m, wechat.AddPoi); err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "createLegacyStore", b)
	if err != nil {
		return nil, err
	}
	f := ledger.LegacyFields{BusinessName: b.BusinessName, BranchName: b.BranchName, Province: b.Province, City: b.City, District: b.District, Address: b.Address,
		Phone: b.Phone, CategoryPath: b.CategoryPath, OffsetType: slices.Index(coordinateSystems, b.CoordinateSystem) + 1,
		Location:       &ledger.Location{Latitude: b.Location.Latitude, Longitude: b.Location.Longitude},
		Recommendation: deref(b.Recommendation), Special: deref(b.Special), Introduction: deref(b.Introduction)}
	f.Photos = valueOf(b.Photos)
	if b.BusinessHours != nil {
		f.BusinessHoursText = hours(ctx, *b.BusinessHours)
	}
	if b.AveragePrice != nil {
		f.AveragePrice = int(*b.AveragePrice)
	}
	st, done, err := s.Ledger.CreateLegacyStore(ctx, r, f, deref(b.ClientReference))
	if err != nil {
		return nil, err
	}
	body := legacyToAPI(st)
	return oapi.CreateLegacyStore202JSONResponse{Body: body, Headers: oapi.CreateLegacyStore202ResponseHeaders{
		ETag: recordETag(st), IdempotencyReplayed: replayed(done.Replayed), Location: new("/v1/legacy-stores/" + *body.ID),
		Link: statusLink(body.Operation, body.Audit), OperationID: operationID(done)}}, nil
}

// GetLegacyStore implements GET /v1/legacy-stores/{id}.
func (s *Server) GetLegacyStore(ctx context.Context, req oapi.GetLegacyStoreRequestObject) (oapi.GetLegacyStoreResponseObject, error) {
	live := deref(req.Params.Source) == "live"
	st, m, number, err := toShow(ctx, s, s.Ledger.LegacyStores, req.ID, req.Params.MerchantID, live)
	switch {
	case err != nil:
		return nil, err
	case live && number == "":
		return nil, problem.Of(problem.CodeStoreStateUnknown)
	case live:
		return s.getLiveLegacyStore(ctx, m, number, st)
	}
	etag := recordETag(*st)
	if NotModified(req.Params.IfNoneMatch, *etag) {
		return oapi.GetLegacyStore304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	return oapi.GetLegacyStore200JSONResponse{Body: legacyToAPI(*st), Headers: oapi.GetLegacyStore200ResponseHeaders{ETag: etag}}, nil
}

// getLiveLegacyStore shows WeChat's view, on top of what only we know, or only
// WeChat's list shows.
func (s *Server) getLiveLegacyStore(ctx context.Context, m authorizer.Merchant, poi string, ours *ledger.LegacyStore) (oapi.GetLegacyStoreResponseObject, error) {
	if err := s.Authorizer.Check(m, wechat.GetPoi); err != nil {
		return nil, err
	}
	st, err := s.Ledger.LiveLegacyStore(ctx, m, poi)
	if err != nil {
		return nil, err
	}
	body := liveLegacyToAPI(m, st)
	if ours != nil {
		own := legacyToAPI(*ours)
		body.ID, body.ClientReference, body.PreviousID, body.Audit, body.Operation = own.ID, own.ClientReference, own.PreviousID, own.Audit, own.Operation
		body.District, body.Upgrade, body.CreatedAt, body.UpdatedAt = own.District, own.Upgrade, own.CreatedAt, own.UpdatedAt
	}
	return oapi.GetLegacyStore200JSONResponse{Body: body}, nil
}

// UpdateLegacyStore implements PATCH /v1/legacy-stores/{id}.
func (s *Server) UpdateLegacyStore(ctx context.Context, req oapi.UpdateLegacyStoreRequestObject) (oapi.UpdateLegacyStoreResponseObject, error) {
	found, m, err := recordOf(ctx, s, s.Ledger.LegacyStores, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	if broken := legacyServiceRules(stateOf(ctx), b.Recommendation, b.Special, b.Introduction); len(broken) > 0 {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(broken...)
	}
	if err := s.Authorizer.Check(m, wechat.UpdatePoi); err != nil {
		return nil, err
	}
	change := ledger.LegacyChange{Phone: b.Phone, Recommendation: b.Recommendation, Special: b.Special, Introduction: b.Introduction}
	if change.IfVersion, err = IfMatch(req.Params.IfMatch); err != nil {
		return nil, err
	}
	change.Photos = valueOf(b.Photos)
	if b.BusinessHours != nil {
		change.Hours = new(hours(ctx, *b.BusinessHours))
	}
	if b.AveragePrice != nil {
		change.AveragePrice = new(int(*b.AveragePrice))
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "updateLegacyStore", found.ID, b)
	if err != nil {
		return nil, err
	}
	st, done, err := s.Ledger.UpdateLegacyStore(ctx, r, found.ID, change)
	if err != nil {
		return nil, err
	}
	body := legacyToAPI(st)
	return oapi.UpdateLegacyStore202JSONResponse{Body: body, Headers: oapi.UpdateLegacyStore202ResponseHeaders{
		ETag: recordETag(st), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done),
		Location: new("/v1/legacy-stores/" + *body.ID), Link: statusLink(body.Operation, body.Audit)}}, nil
}

// DeleteLegacyStore implements DELETE /v1/legacy-stores/{id}.
func (s *Server) DeleteLegacyStore(ctx context.Context, req oapi.DeleteLegacyStoreRequestObject) (oapi.DeleteLegacyStoreResponseObject, error) {
	p := req.Params
	st, done, err := deletion(ctx, s, s.Ledger.LegacyStores, wechat.DelPoi, s.Ledger.DeleteLegacyStore, "deleteLegacyStore", req.ID, p.MerchantID, p.IdempotencyKey, p.IfMatch)
	if err != nil {
		return nil, err
	}
	if done.Operation.State == "succeeded" {
		return oapi.DeleteLegacyStore204Response{Headers: oapi.DeleteLegacyStore204ResponseHeaders{IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	body := legacyToAPI(st)
	return oapi.DeleteLegacyStore202JSONResponse{Body: body, Headers: oapi.DeleteLegacyStore202ResponseHeaders{
		IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done), Location: new("/v1/legacy-stores/" + *body.ID),
		Link: statusLink(body.Operation, body.Audit)}}, nil
}

// coordinateSystems are the values of offset_type, from 1 on (document 001 §3.2).
var coordinateSystems = []oapi.LegacyCoordinateSystem{"mars", "sogou", "baidu", "mapbar", "gps", "sogou_mercator"}

// upgradeStatuses are the values of upgrade_status (document 000 §4.13).
var upgradeStatuses = []oapi.LegacyUpgradeStatus{"pending", "failed", "running", "done", "not_allowed"}

func legacyFieldsToAPI(f ledger.LegacyFields) oapi.LegacyStore {
	out := oapi.LegacyStore{
		Sid: optional(&f.Sid), BusinessName: optional(&f.BusinessName), BranchName: optional(&f.BranchName), Province: optional(&f.Province), City: optional(&f.City),
		District: optional(&f.District), Address: optional(&f.Address), Phone: optional(&f.Phone), CategoryPath: orEmpty(f.CategoryPath),
		Photos: orEmpty(f.Photos), Recommendation: optional(&f.Recommendation), Special: optional(&f.Special), Introduction: optional(&f.Introduction),
		BusinessHoursText: optional(&f.BusinessHoursText), BusinessHours: hoursToAPI(f.BusinessHoursText), UpdateInReview: f.UpdateInReview,
	}
	if n := f.OffsetType; n >= 1 && n <= len(coordinateSystems) {
		out.CoordinateSystem = new(string(coordinateSystems[n-1]))
	}
	if f.Location != nil {
		out.Location = &oapi.Location{Latitude: f.Location.Latitude, Longitude: f.Location.Longitude}
	}
	if f.AveragePrice > 0 {
		out.AveragePrice = new(int32(f.AveragePrice)) // #nosec G115 -- yuan
	}
	if u := f.Upgrade; u != nil && u.Status >= 0 && u.Status < len(upgradeStatuses) {
		out.Upgrade = &oapi.LegacyUpgrade{Status: upgradeStatuses[u.Status], Comment: optional(&u.Comment), MapPoiID: optional(&u.MapPoiID)}
	}
	return out
}

func legacyToAPI(s ledger.LegacyStore) oapi.LegacyStore {
	out := legacyFieldsToAPI(s.Known)
	out.ID = new(typeid.Format(typeid.LegacyStore, s.ID))
	out.MerchantID = typeid.Format(typeid.Merchant, s.MerchantID)
	out.ClientReference, out.PoiID, out.PreviousID = s.ClientReference, s.WechatID, idPointer(typeid.LegacyStore, s.PreviousID)
	out.Status = oapi.LegacyStoreStatus(s.Status)
	out.CreatedAt, out.UpdatedAt, out.SyncedAt = utc(&s.CreatedAt), utc(&s.UpdatedAt), utc(s.SyncedAt)
	out.Audit = auditSummary(s.Audit)
	out.Operation = openOperation(s.Operation)
	return out
}

func liveLegacyToAPI(m authorizer.Merchant, st ledger.Live[ledger.LegacyFields]) oapi.LegacyStore {
	out := legacyFieldsToAPI(st.Known)
	out.ID = idPointer(typeid.LegacyStore, st.ID)
	out.MerchantID = typeid.Format(typeid.Merchant, m.ID)
	out.PoiID, out.Status = optional(&st.Number), oapi.LegacyStoreStatus(st.Status)
	out.SyncedAt = new(time.Now().UTC())
	return out
}
