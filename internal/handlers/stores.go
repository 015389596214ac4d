package handlers

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// ListStores implements GET /v1/stores.
func (s *Server) ListStores(ctx context.Context, req oapi.ListStoresRequestObject) (oapi.ListStoresResponseObject, error) {
	p := req.Params
	if deref(p.Source) == "live" {
		return s.listLiveStores(ctx, p)
	}
	merchants, m, err := s.reach(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	rows, next, err := records(ctx, s, s.Ledger.Stores, "listStores", merchants, ledger.Filter{Status: deref(p.Status), ClientReference: deref(p.ClientReference),
		Numbers: oneOf(p.PoiID), MapPoiID: deref(p.MapPoiID), UpdatedAfter: p.UpdatedAfter}, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	out := oapi.StoreList{Data: []oapi.Store{}, HasMore: next != nil, NextCursor: next}
	if m != nil {
		out.SyncedAt = m.SyncedAt("store")
	}
	for i := range rows {
		out.Data = append(out.Data, storeToAPI(&rows[i]))
	}
	return oapi.ListStores200JSONResponse{Body: out, Headers: oapi.ListStores200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

func (s *Server) listLiveStores(ctx context.Context, p oapi.ListStoresParams) (oapi.ListStoresResponseObject, error) {
	m, err := s.acting(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := unfiltered(ctx, given{"status", p.Status != nil}, given{"client_reference", p.ClientReference != nil},
		given{"poi_id", p.PoiID != nil}, given{"map_poi_id", p.MapPoiID != nil}, given{"updated_after", p.UpdatedAfter != nil}); err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.GetStoreList); err != nil {
		return nil, err
	}
	stores, total, next, err := livePage(s, m, "listStores", p.Cursor, func(offset int) ([]ledger.Live[ledger.StoreFields], int, error) {
		return s.Ledger.LiveStores(ctx, m, offset, limitOf(p.Limit))
	})
	if err != nil {
		return nil, err
	}
	out := oapi.StoreList{Data: liveStores(m.ID, stores), SyncedAt: m.SyncedAt("store"), Total: new(int64(total)), HasMore: next != nil, NextCursor: next}
	return oapi.ListStores200JSONResponse{Body: out, Headers: oapi.ListStores200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// CreateStore implements POST /v1/stores.
func (s *Server) CreateStore(ctx context.Context, req oapi.CreateStoreRequestObject) (oapi.CreateStoreResponseObject, error) {
	m, err := s.acting(ctx, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	if broken := companyFields(ctx, "", b.CompanyName, b.QualificationMediaIds); broken != nil {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(broken...)
	}
	if err := s.Authorizer.Check(m, wechat.AddStore); err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "createStore", b)
	if err != nil {
		return nil, err
	}
	n := ledger.NewStore{MapPoiID: b.MapPoiID, Photos: b.Photos, ContactPhone: b.ContactPhone, Hours: hours(ctx, b.BusinessHours),
		CredentialNumber: b.CredentialNumber, CompanyName: deref(b.CompanyName), CardID: deref(b.CardID), LegacyPoiID: deref(b.LegacyPoiID),
		ClientReference: deref(b.ClientReference)}
	n.QualificationMediaIDs = valueOf(b.QualificationMediaIds)
	st, done, err := s.Ledger.CreateStore(ctx, r, n)
	if err != nil {
		return nil, err
	}
	body := storeToAPI(&st)
	return oapi.CreateStore202JSONResponse{Body: body, Headers: oapi.CreateStore202ResponseHeaders{
		ETag: recordETag(st), IdempotencyReplayed: replayed(done.Replayed), Location: new("/v1/stores/" + *body.ID),
		Link: statusLink(body.Operation, body.Audit), OperationID: operationID(done)}}, nil
}

// GetStore implements GET /v1/stores/{id}.
func (s *Server) GetStore(ctx context.Context, req oapi.GetStoreRequestObject) (oapi.GetStoreResponseObject, error) {
	live := deref(req.Params.Source) == "live"
	st, m, number, err := toShow(ctx, s, s.Ledger.Stores, req.ID, req.Params.MerchantID, live)
	switch {
	case err != nil:
		return nil, err
	case live && number == "":
		return nil, problem.Of(problem.CodeStoreStateUnknown)
	case live:
		return s.getLiveStore(ctx, m, number, st)
	}
	etag := recordETag(*st)
	if NotModified(req.Params.IfNoneMatch, *etag) {
		return oapi.GetStore304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	return oapi.GetStore200JSONResponse{Body: storeToAPI(st), Headers: oapi.GetStore200ResponseHeaders{ETag: etag}}, nil
}

// getLiveStore shows WeChat's view, on top of what only we know.
func (s *Server) getLiveStore(ctx context.Context, m authorizer.Merchant, poi string, ours *ledger.Store) (oapi.GetStoreResponseObject, error) {
	if err := s.Authorizer.Check(m, wechat.GetStoreInfo); err != nil {
		return nil, err
	}
	st, err := s.Ledger.LiveStore(ctx, m, poi)
	if err != nil {
		return nil, err
	}
	body := liveStores(m.ID, []ledger.Live[ledger.StoreFields]{st})[0]
	if ours != nil {
		own := storeToAPI(ours)
		body.Audit, body.Operation, body.MapPoiID, body.ClientReference, body.PreviousID = own.Audit, own.Operation, own.MapPoiID, own.ClientReference, own.PreviousID
		body.LegacyPoiID, body.Upgraded, body.CreatedAt, body.UpdatedAt, body.CardID, body.ID = own.LegacyPoiID, own.Upgraded, own.CreatedAt, own.UpdatedAt, own.CardID, own.ID
	}
	return oapi.GetStore200JSONResponse{Body: body}, nil
}

// UpdateStore implements PATCH /v1/stores/{id}.
func (s *Server) UpdateStore(ctx context.Context, req oapi.UpdateStoreRequestObject) (oapi.UpdateStoreResponseObject, error) {
	found, m, err := recordOf(ctx, s, s.Ledger.Stores, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.UpdateStore); err != nil {
		return nil, err
	}
	b := *req.Body
	change := ledger.StoreChange{ContactPhone: b.ContactPhone, CardID: b.CardID}
	if change.IfVersion, err = IfMatch(req.Params.IfMatch); err != nil {
		return nil, err
	}
	if b.BusinessHours != nil {
		change.Hours = new(hours(ctx, *b.BusinessHours))
	}
	change.Photos = valueOf(b.Photos)
	r, err := request(ctx, m, req.Params.IdempotencyKey, "updateStore", found.ID, b)
	if err != nil {
		return nil, err
	}
	st, done, err := s.Ledger.UpdateStore(ctx, r, found.ID, change)
	if err != nil {
		return nil, err
	}
	body := storeToAPI(&st)
	if !reviewed(st, done) {
		return oapi.UpdateStore200JSONResponse{Body: body, Headers: oapi.UpdateStore200ResponseHeaders{
			ETag: recordETag(st), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	return oapi.UpdateStore202JSONResponse{Body: body, Headers: oapi.UpdateStore202ResponseHeaders{
		ETag: recordETag(st), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done),
		Location: new("/v1/stores/" + *body.ID), Link: statusLink(body.Operation, body.Audit)}}, nil
}

// DeleteStore implements DELETE /v1/stores/{id}.
func (s *Server) DeleteStore(ctx context.Context, req oapi.DeleteStoreRequestObject) (oapi.DeleteStoreResponseObject, error) {
	p := req.Params
	st, done, err := deletion(ctx, s, s.Ledger.Stores, wechat.DelStore, s.Ledger.DeleteStore, "deleteStore", req.ID, p.MerchantID, p.IdempotencyKey, p.IfMatch)
	if err != nil {
		return nil, err
	}
	if done.Operation.State == "succeeded" {
		return oapi.DeleteStore204Response{Headers: oapi.DeleteStore204ResponseHeaders{IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	body := storeToAPI(&st)
	return oapi.DeleteStore202JSONResponse{Body: body, Headers: oapi.DeleteStore202ResponseHeaders{
		IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done), Location: new("/v1/stores/" + *body.ID), Link: statusLink(body.Operation, body.Audit)}}, nil
}

func hours(ctx context.Context, h oapi.BusinessHours) string {
	text := ledger.Interval(h.Open, h.Close)
	if from, to, _ := strings.Cut(text, "-"); from >= to {
		warn(ctx, "/business_hours/close", ruleHours, "")
	}
	return text
}

func hoursToAPI(text string) *oapi.StoreHours {
	open, closed, ok := ledger.OneInterval(text)
	if !ok {
		return nil
	}
	return &oapi.StoreHours{Open: open, Close: closed}
}

func fieldsToAPI(f *ledger.StoreFields) oapi.Store {
	out := oapi.Store{
		ContactPhone: optional(&f.ContactPhone), BusinessHoursText: optional(&f.BusinessHoursText), BusinessHours: hoursToAPI(f.BusinessHoursText),
		Photos: orEmpty(f.Photos), CardID: f.CardID, CredentialNumber: optional(&f.CredentialNumber), CompanyName: optional(&f.CompanyName),
		QualificationMediaIds: orEmpty(f.QualificationMediaIDs), LegacyPoiID: f.LegacyPoiID,
		Name: f.Name, Address: f.Address, Province: f.Province, City: f.City, District: f.District,
	}
	if f.Location != nil {
		out.Location = &oapi.Location{Latitude: f.Location.Latitude, Longitude: f.Location.Longitude}
	}
	if f.Name != nil {
		out.Categories = new(orEmpty(f.Categories))
	}
	if f.Upgraded != nil {
		out.Upgraded = new(int32(*f.Upgraded))
	}
	return out
}

func storeToAPI(s *ledger.Store) oapi.Store {
	out := fieldsToAPI(&s.Known)
	out.ID = new(typeid.Format(typeid.Store, s.ID))
	out.MerchantID = typeid.Format(typeid.Merchant, s.MerchantID)
	out.ClientReference, out.PoiID, out.MapPoiID = s.ClientReference, s.WechatID, s.MapPoiID
	out.PreviousID = idPointer(typeid.Store, s.PreviousID)
	out.Status, out.UpstreamStatus = oapi.StoreStatus(s.Status), s.UpstreamStatus
	out.CreatedAt, out.UpdatedAt, out.SyncedAt = utc(&s.CreatedAt), utc(&s.UpdatedAt), utc(s.SyncedAt)
	out.Audit = auditSummary(s.Audit)
	out.Operation = openOperation(s.Operation)
	return out
}

// liveStores are a merchant's stores as WeChat has just shown them.
func liveStores(merchant uuid.UUID, shown []ledger.Live[ledger.StoreFields]) []oapi.Store {
	out := make([]oapi.Store, len(shown))
	id, now := typeid.Format(typeid.Merchant, merchant), time.Now().UTC()
	for i := range shown {
		st := &shown[i]
		out[i] = fieldsToAPI(&st.Known)
		out[i].ID = idPointer(typeid.Store, st.ID)
		out[i].MerchantID = id
		out[i].PoiID, out[i].UpstreamStatus = &st.Number, new(int32(st.Upstream))
		out[i].Status = oapi.StoreStatus(st.Status)
		out[i].SyncedAt = &now
	}
	return out
}
