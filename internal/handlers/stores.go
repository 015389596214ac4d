package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
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
	who := CallerFrom(ctx)
	scope := ListScope{Operation: "listStores", Tenant: who.TenantID, Filters: []string{"local", fmt.Sprint(merchants), deref(p.Status),
		deref(p.ClientReference), deref(p.PoiID), deref(p.MapPoiID), formatTime(p.UpdatedAfter)}}
	at, _, err := DecodeCursor[position](s.cursors, scope, p.Cursor)
	if err != nil {
		return nil, err
	}
	limit := limitOf(p.Limit)
	filter := ledger.Filter{Merchants: merchants, Status: deref(p.Status), ClientReference: deref(p.ClientReference), Numbers: oneOf(p.PoiID),
		MapPoiID: deref(p.MapPoiID), UpdatedAfter: p.UpdatedAfter, Limit: limit + 1}
	if at.Before != uuid.Nil {
		filter.Before = &at.Before
	}
	rows, err := s.Ledger.Stores.List(ctx, who.TenantID, filter)
	if err != nil {
		return nil, err
	}
	out := oapi.StoreList{Data: []oapi.Store{}}
	if m != nil {
		out.SyncedAt = m.SyncedAt("store")
	}
	if out.HasMore = len(rows) > limit; out.HasMore {
		rows = rows[:limit]
		next, err := EncodeCursor(s.cursors, scope, position{rows[limit-1].ID})
		if err != nil {
			return nil, err
		}
		out.NextCursor = &next
	}
	for _, row := range rows {
		out.Data = append(out.Data, storeToAPI(row))
	}
	return oapi.ListStores200JSONResponse{Body: out, Headers: oapi.ListStores200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

func (s *Server) listLiveStores(ctx context.Context, p oapi.ListStoresParams) (oapi.ListStoresResponseObject, error) {
	m, err := s.acting(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	for name, given := range map[string]bool{"status": p.Status != nil, "client_reference": p.ClientReference != nil,
		"poi_id": p.PoiID != nil, "map_poi_id": p.MapPoiID != nil, "updated_after": p.UpdatedAfter != nil} {
		if given {
			return nil, problem.Of(problem.CodeInvalidParameter).WithFields(problem.Field{Pointer: name, Code: "not_allowed", Detail: "WeChat's list has no filters; use source=local"})
		}
	}
	if err := s.Authorizer.Check(m, wechat.GetStoreList); err != nil {
		return nil, err
	}
	scope := ListScope{Operation: "listStores", Tenant: m.TenantID, Merchant: m.ID, Filters: []string{"live"}}
	at, _, err := DecodeCursor[offset](s.cursors, scope, p.Cursor)
	if err != nil {
		return nil, err
	}
	stores, total, err := s.Ledger.LiveStores(ctx, m, at.Offset, limitOf(p.Limit))
	if err != nil {
		return nil, err
	}
	out := oapi.StoreList{Data: []oapi.Store{}, SyncedAt: m.SyncedAt("store"), Total: new(int64(total))}
	for _, st := range stores {
		out.Data = append(out.Data, liveToAPI(m, st))
	}
	if next := at.Offset + len(stores); len(stores) > 0 && next < total {
		cursor, err := EncodeCursor(s.cursors, scope, offset{next})
		if err != nil {
			return nil, err
		}
		out.HasMore, out.NextCursor = true, &cursor
	}
	return oapi.ListStores200JSONResponse{Body: out, Headers: oapi.ListStores200ResponseHeaders{Link: NextLink(ctx, out.NextCursor)}}, nil
}

// CreateStore implements POST /v1/stores.
func (s *Server) CreateStore(ctx context.Context, req oapi.CreateStoreRequestObject) (oapi.CreateStoreResponseObject, error) {
	m, err := s.acting(ctx, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	if b.CompanyName != nil && (b.QualificationMediaIds == nil || len(*b.QualificationMediaIds) == 0) {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(problem.Field{Pointer: "/qualification_media_ids", Code: "required",
			Detail: "is required when company_name is given"})
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
	if b.QualificationMediaIds != nil {
		n.QualificationMediaIDs = *b.QualificationMediaIds
	}
	st, done, err := s.Ledger.CreateStore(ctx, r, n)
	if err != nil {
		return nil, err
	}
	body := storeToAPI(st)
	return oapi.CreateStore202JSONResponse{Body: body, Headers: oapi.CreateStore202ResponseHeaders{
		ETag: storeETag(st), IdempotencyReplayed: replayed(done.Replayed), Location: new("/v1/stores/" + *body.ID),
		Link: statusLink(body), OperationID: operationID(done)}}, nil
}

// GetStore implements GET /v1/stores/{id}.
func (s *Server) GetStore(ctx context.Context, req oapi.GetStoreRequestObject) (oapi.GetStoreResponseObject, error) {
	live := deref(req.Params.Source) == "live"
	if m, poi, ok, err := s.byNumber(ctx, req.ID, req.Params.MerchantID); ok || err != nil {
		if err != nil {
			return nil, err
		}
		if live {
			return s.getLiveStore(ctx, m, poi, nil)
		}
		id, err := s.Ledger.Stores.ByNumber(ctx, m, poi)
		if err != nil {
			return nil, err
		}
		return s.getStore(ctx, m, id, req.Params)
	}
	st, m, err := s.storeByID(ctx, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if !live {
		return storeResponse(st, req.Params.IfNoneMatch), nil
	}
	if st.WechatID == nil {
		return nil, problem.Of(problem.CodeStoreStateUnknown)
	}
	return s.getLiveStore(ctx, m, *st.WechatID, &st)
}

func (s *Server) getStore(ctx context.Context, m authorizer.Merchant, id uuid.UUID, p oapi.GetStoreParams) (oapi.GetStoreResponseObject, error) {
	st, err := s.Ledger.Stores.Get(ctx, m.TenantID, id)
	if err != nil {
		return nil, err
	}
	return storeResponse(st, p.IfNoneMatch), nil
}

func storeResponse(st ledger.Store, ifNoneMatch *oapi.IfNoneMatch) oapi.GetStoreResponseObject {
	etag := storeETag(st)
	if NotModified(ifNoneMatch, *etag) {
		return oapi.GetStore304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}
	}
	return oapi.GetStore200JSONResponse{Body: storeToAPI(st), Headers: oapi.GetStore200ResponseHeaders{ETag: etag}}
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
	body := liveToAPI(m, st)
	if ours != nil {
		own := storeToAPI(*ours)
		body.Audit, body.Operation, body.MapPoiID, body.ClientReference, body.PreviousID = own.Audit, own.Operation, own.MapPoiID, own.ClientReference, own.PreviousID
		body.LegacyPoiID, body.Upgraded, body.CreatedAt, body.UpdatedAt, body.CardID, body.ID = own.LegacyPoiID, own.Upgraded, own.CreatedAt, own.UpdatedAt, own.CardID, own.ID
	}
	return oapi.GetStore200JSONResponse{Body: body}, nil
}

// UpdateStore implements PATCH /v1/stores/{id}.
func (s *Server) UpdateStore(ctx context.Context, req oapi.UpdateStoreRequestObject) (oapi.UpdateStoreResponseObject, error) {
	m, id, err := s.storeToWrite(ctx, req.ID, req.Params.MerchantID)
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
	if b.Photos != nil {
		change.Photos = *b.Photos
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "updateStore", id, b)
	if err != nil {
		return nil, err
	}
	st, done, err := s.Ledger.UpdateStore(ctx, r, id, change)
	if err != nil {
		return nil, err
	}
	body := storeToAPI(st)
	if done.Operation.State == "succeeded" && (st.Audit == nil || st.Audit.OperationID == nil || *st.Audit.OperationID != done.Operation.ID) {
		return oapi.UpdateStore200JSONResponse{Body: body, Headers: oapi.UpdateStore200ResponseHeaders{
			ETag: storeETag(st), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	return oapi.UpdateStore202JSONResponse{Body: body, Headers: oapi.UpdateStore202ResponseHeaders{
		ETag: storeETag(st), IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done),
		Location: new("/v1/stores/" + *body.ID), Link: statusLink(body)}}, nil
}

// DeleteStore implements DELETE /v1/stores/{id}.
func (s *Server) DeleteStore(ctx context.Context, req oapi.DeleteStoreRequestObject) (oapi.DeleteStoreResponseObject, error) {
	m, id, err := s.storeToWrite(ctx, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	if err := s.Authorizer.Check(m, wechat.DelStore); err != nil {
		return nil, err
	}
	version, err := IfMatch(req.Params.IfMatch)
	if err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "deleteStore", id)
	if err != nil {
		return nil, err
	}
	st, done, err := s.Ledger.DeleteStore(ctx, r, id, version)
	if err != nil {
		return nil, err
	}
	if done.Operation.State == "succeeded" {
		return oapi.DeleteStore204Response{Headers: oapi.DeleteStore204ResponseHeaders{IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done)}}, nil
	}
	body := storeToAPI(st)
	return oapi.DeleteStore202JSONResponse{Body: body, Headers: oapi.DeleteStore202ResponseHeaders{
		IdempotencyReplayed: replayed(done.Replayed), OperationID: operationID(done), Location: new("/v1/stores/" + *body.ID), Link: statusLink(body)}}, nil
}

// byNumber reads a path segment that is WeChat's number of a store; it repeats
// over merchants, so one must act.
func (s *Server) byNumber(ctx context.Context, segment string, header *string) (m authorizer.Merchant, poi string, ok bool, err error) {
	if !wechatNumber.MatchString(segment) {
		return m, "", false, nil
	}
	m, err = s.acting(ctx, header)
	return m, segment, true, err
}

// oneOf is a filter by one value, or none.
func oneOf(v *string) []string {
	if v == nil {
		return nil
	}
	return []string{*v}
}

var wechatNumber = regexp.MustCompile(`^[0-9]{1,20}$`)

// storeByID reads our record and its merchant, for a caller who may see both.
func (s *Server) storeByID(ctx context.Context, segment string, header *string) (ledger.Store, authorizer.Merchant, error) {
	who := CallerFrom(ctx)
	id, err := typeid.Parse(typeid.Store, segment)
	if err != nil {
		return ledger.Store{}, authorizer.Merchant{}, problem.Of(problem.CodeNotFound).WithErr(err)
	}
	acting, given, err := s.actingIfGiven(ctx, header)
	if err != nil {
		return ledger.Store{}, acting, err
	}
	st, err := s.Ledger.Stores.Get(ctx, who.TenantID, id)
	switch {
	case err != nil:
		return st, acting, err
	case given && header != nil && acting.ID != st.MerchantID:
		return st, acting, problem.Of(problem.CodeNotFound)
	case !who.MayActFor(st.MerchantID):
		return st, acting, problem.Of(problem.CodeMerchantNotAllowed)
	}
	m, err := s.Authorizer.MerchantByID(ctx, who.TenantID, st.MerchantID)
	if err == nil {
		NoteMerchant(ctx, typeid.Format(typeid.Merchant, m.ID))
	}
	return st, m, err
}

// storeToWrite finds the store and merchant of a PATCH or DELETE.
func (s *Server) storeToWrite(ctx context.Context, segment string, header *string) (authorizer.Merchant, uuid.UUID, error) {
	m, poi, ok, err := s.byNumber(ctx, segment, header)
	if err != nil {
		return m, uuid.Nil, err
	}
	if ok {
		id, err := s.Ledger.Stores.ByNumber(ctx, m, poi)
		return m, id, err
	}
	st, m, err := s.storeByID(ctx, segment, header)
	return m, st.ID, err
}

// hours writes what WeChat's documents show, two digits everywhere (000 §4.8).
func hours(ctx context.Context, h oapi.BusinessHours) string {
	from, to := twoDigits(h.Open), twoDigits(h.Close)
	if from >= to {
		warn(ctx, "/business_hours/close", ruleHours, "")
	}
	return from + "-" + to
}

func twoDigits(clock string) string {
	if len(clock) == len("9:00") {
		return "0" + clock
	}
	return clock
}

var oneInterval = regexp.MustCompile(`^\s*([0-9]{1,2}:[0-9]{2})\s*[-~]\s*([0-9]{1,2}:[0-9]{2})\s*$`)

func hoursToAPI(text string) *oapi.StoreHours {
	m := oneInterval.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	return &oapi.StoreHours{Open: m[1], Close: m[2]}
}

func fieldsToAPI(f ledger.StoreFields) oapi.Store {
	out := oapi.Store{
		ContactPhone: optional(f.ContactPhone), BusinessHoursText: optional(f.BusinessHoursText), BusinessHours: hoursToAPI(f.BusinessHoursText),
		Photos: append([]string{}, f.Photos...), CardID: f.CardID, CredentialNumber: optional(f.CredentialNumber), CompanyName: optional(f.CompanyName),
		QualificationMediaIds: append([]string{}, f.QualificationMediaIDs...), LegacyPoiID: f.LegacyPoiID,
		Name: f.Name, Address: f.Address, Province: f.Province, City: f.City, District: f.District,
	}
	if f.Location != nil {
		out.Location = &oapi.Location{Latitude: f.Location.Latitude, Longitude: f.Location.Longitude}
	}
	if f.Name != nil {
		out.Categories = new(append([]string{}, f.Categories...))
	}
	if f.Upgraded != nil {
		out.Upgraded = new(int32(*f.Upgraded))
	}
	return out
}

func storeToAPI(s ledger.Store) oapi.Store {
	out := fieldsToAPI(s.Known)
	out.ID = new(typeid.Format(typeid.Store, s.ID))
	out.MerchantID = typeid.Format(typeid.Merchant, s.MerchantID)
	out.ClientReference, out.PoiID, out.MapPoiID = s.ClientReference, s.WechatID, s.MapPoiID
	out.PreviousID = idPointer(typeid.Store, s.PreviousID)
	out.Status, out.UpstreamStatus = oapi.StoreStatus(s.Status), s.UpstreamStatus
	out.CreatedAt, out.UpdatedAt, out.SyncedAt = utc(&s.CreatedAt), utc(&s.UpdatedAt), utc(s.SyncedAt)
	if s.Audit != nil {
		out.Audit = auditSummary(*s.Audit)
	}
	if op := s.Operation; op != nil && open(op.State) {
		out.Operation = operationSummary(*op)
	}
	return out
}

// open reports whether an operation's end isn't known yet, which is when a
// resource shows it.
func open(state string) bool {
	return state == "pending" || state == "executing" || state == "reconciling" || state == "needs_attention"
}

func liveToAPI(m authorizer.Merchant, st ledger.LiveStore) oapi.Store {
	out := fieldsToAPI(st.Known)
	out.ID = idPointer(typeid.Store, st.ID)
	out.MerchantID = typeid.Format(typeid.Merchant, m.ID)
	out.PoiID, out.UpstreamStatus = &st.PoiID, new(int32(st.Status))
	out.Status = oapi.StoreStatus(ledger.StatusOfUpstream(st.Status))
	out.SyncedAt = new(time.Now().UTC())
	return out
}

func storeETag(s ledger.Store) *string {
	b, err := json.Marshal(struct {
		Fields    json.RawMessage
		Status    string
		Audit     *dbsqlc.Audit
		Operation any
	}{s.Fields, s.Status, s.Audit, storeToAPI(s).Operation})
	if err != nil {
		b = nil // the version alone still tells
	}
	return new(ETag(s.RowVersion, b))
}

func statusLink(st oapi.Store) *string {
	switch {
	case st.Operation != nil:
		return new("</v1/operations/" + st.Operation.ID + `>; rel="status"`)
	case st.Audit != nil:
		return new("</v1/audits/" + st.Audit.ID + `>; rel="status"`)
	}
	return nil
}

func operationID(d ledger.Done) *string {
	return new(typeid.Format(typeid.Operation, d.Operation.ID))
}
