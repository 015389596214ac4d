package handlers

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/gcj02"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// ListMapPOIs implements GET /v1/map-pois: a search on Tencent Maps, or a list
// of what was proposed to it.
func (s *Server) ListMapPOIs(ctx context.Context, req oapi.ListMapPOIsRequestObject) (oapi.ListMapPOIsResponseObject, error) {
	p := req.Params
	var out oapi.MapPOIPage
	if p.Keyword != nil || p.DistrictID != nil {
		list, err := s.searchMap(ctx, p)
		if err != nil {
			return nil, err
		}
		err = out.FromMapPOISearchList(list)
		return oapi.ListMapPOIs200JSONResponse{Body: out}, err
	}
	merchants, _, err := s.reach(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	rows, next, err := records(ctx, s, s.Ledger.MapPOIs, "listMapPOIs", merchants, ledger.Filter{Status: deref(p.Status), ClientReference: deref(p.ClientReference),
		Numbers: oneOf(p.BaseID), MapPoiID: deref(p.MapPoiID), UpdatedAfter: p.UpdatedAfter}, p.Cursor, p.Limit)
	if err != nil {
		return nil, err
	}
	list := oapi.MapPOIList{Data: []oapi.MapPOI{}, HasMore: next != nil, NextCursor: next}
	for _, row := range rows {
		list.Data = append(list.Data, mapPOIToAPI(row))
	}
	err = out.FromMapPOIList(list)
	return oapi.ListMapPOIs200JSONResponse{Body: out, Headers: oapi.ListMapPOIs200ResponseHeaders{Link: NextLink(ctx, next)}}, err
}

func (s *Server) searchMap(ctx context.Context, p oapi.ListMapPOIsParams) (oapi.MapPOISearchList, error) {
	out := oapi.MapPOISearchList{Data: []oapi.MapPOISearchItem{}}
	for name, missing := range map[string]bool{"keyword": p.Keyword == nil, "district_id": p.DistrictID == nil} {
		if missing {
			return out, badParameter(stateOf(ctx), name, ruleRequired, "")
		}
	}
	if strings.TrimSpace(*p.Keyword) == "" {
		return out, badParameter(stateOf(ctx), "keyword", ruleBlank, "")
	}
	if err := unfiltered(ctx, given{"status", p.Status != nil}, given{"client_reference", p.ClientReference != nil}, given{"base_id", p.BaseID != nil},
		given{"map_poi_id", p.MapPoiID != nil}, given{"updated_after", p.UpdatedAfter != nil}, given{"limit", p.Limit != nil}, given{"cursor", p.Cursor != nil}); err != nil {
		return out, err
	}
	m, err := s.actingOn(ctx, p.MerchantID, wechat.SearchMapPOI)
	if err != nil {
		return out, err
	}
	reply, err := authorizer.Call[wechat.SearchMapPOIReply](ctx, s.Authorizer, m, wechat.SearchMapPOI, nil,
		wechat.SearchMapPOIRequest{DistrictID: json.Number(*p.DistrictID), Keyword: *p.Keyword})
	if err != nil {
		return out, err
	}
	for _, place := range reply.Data.Item {
		item := oapi.MapPOISearchItem{MapPoiID: string(place.SosomapPoiUID), Name: place.BranchName, Address: place.Address, Phones: orEmpty(place.Telephone),
			CategoryPath: orEmpty(place.Category), Photos: orEmpty(place.PicURLs), CardIds: orEmpty(place.CardIDList),
			DataSupply: new(int32(place.DataSupply))}
		if place.Latitude != "" && place.Longitude != "" {
			item.Location = &oapi.Location{Latitude: string(place.Latitude), Longitude: string(place.Longitude)}
		}
		out.Data = append(out.Data, item)
	}
	return out, nil
}

// CreateMapPOI implements POST /v1/map-pois.
func (s *Server) CreateMapPOI(ctx context.Context, req oapi.CreateMapPOIRequestObject) (oapi.CreateMapPOIResponseObject, error) {
	m, err := s.actingOn(ctx, req.Params.MerchantID, wechat.CreateMapPOI)
	if err != nil {
		return nil, err
	}
	b := *req.Body
	given := ledger.Location{Latitude: b.Location.Latitude, Longitude: b.Location.Longitude}
	system := deref(b.CoordinateSystem)
	if system == "" {
		system = "mars"
	}
	sent, err := toMars(given, system)
	if err != nil {
		return nil, err
	}
	r, err := request(ctx, m, req.Params.IdempotencyKey, "createMapPOI", b)
	if err != nil {
		return nil, err
	}
	poi, done, err := s.Ledger.CreateMapPOI(ctx, r, ledger.MapPOIFields{
		Name: b.Name, Location: &given, CoordinateSystem: system, MarsLocation: &sent, Province: b.Province, City: b.City, District: b.District,
		DistrictID: b.DistrictID, Address: b.Address, CategoryPath: b.CategoryPath, Phones: b.Phones, PhotoURL: b.PhotoURL, LicenseURL: b.LicenseURL,
		Introduction: b.Introduction, LegacyPoiID: b.LegacyPoiID,
	}, deref(b.ClientReference))
	if err != nil {
		return nil, err
	}
	body := mapPOIToAPI(poi)
	return oapi.CreateMapPOI202JSONResponse{Body: body, Headers: oapi.CreateMapPOI202ResponseHeaders{
		ETag: recordETag(poi), IdempotencyReplayed: replayed(done.Replayed), Location: new("/v1/map-pois/" + body.ID),
		Link: statusLink(body.Operation, body.Audit), OperationID: operationID(done)}}, nil
}

// toMars is the place in the coordinates that WeChat takes. Those that are so
// already keep every digit.
func toMars(l ledger.Location, system string) (ledger.Location, error) {
	if system == "mars" {
		return l, nil
	}
	var p gcj02.Point
	var err error
	if p.Latitude, err = strconv.ParseFloat(l.Latitude, 64); err != nil {
		return l, err
	}
	if p.Longitude, err = strconv.ParseFloat(l.Longitude, 64); err != nil {
		return l, err
	}
	if system == "gps" {
		p = gcj02.FromWGS84(p)
	} else {
		p = gcj02.FromBD09(p)
	}
	const digits = 6 // a tenth of a metre
	return ledger.Location{Latitude: strconv.FormatFloat(p.Latitude, 'f', digits, 64), Longitude: strconv.FormatFloat(p.Longitude, 'f', digits, 64)}, nil
}

// GetMapPOI implements GET /v1/map-pois/{id}.
func (s *Server) GetMapPOI(ctx context.Context, req oapi.GetMapPOIRequestObject) (oapi.GetMapPOIResponseObject, error) {
	poi, _, err := recordOf(ctx, s, s.Ledger.MapPOIs, req.ID, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	etag := recordETag(poi)
	if NotModified(req.Params.IfNoneMatch, *etag) {
		return oapi.GetMapPOI304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	return oapi.GetMapPOI200JSONResponse{Body: mapPOIToAPI(poi), Headers: oapi.GetMapPOI200ResponseHeaders{ETag: etag}}, nil
}

// mapAuditDays is how long Tencent takes, in business days (document 000 §4.7).
const mapAuditDays = 3

func mapPOIToAPI(r ledger.MapPOI) oapi.MapPOI {
	f := r.Known
	out := oapi.MapPOI{
		ID: typeid.Format(typeid.MapPOI, r.ID), MerchantID: typeid.Format(typeid.Merchant, r.MerchantID), ClientReference: r.ClientReference,
		PreviousID: idPointer(typeid.MapPOI, r.PreviousID), BaseID: r.WechatID, RichID: f.RichID, MapPoiID: r.MapPoiID,
		Name: f.Name, Location: locationToAPI(f.Location), CoordinateSystem: oapi.CoordinateSystem(f.CoordinateSystem), MarsLocation: locationToAPI(f.MarsLocation),
		Province: f.Province, City: f.City, District: f.District, DistrictID: f.DistrictID, Address: f.Address,
		CategoryPath: orEmpty(f.CategoryPath), Phones: orEmpty(f.Phones), PhotoURL: f.PhotoURL, LicenseURL: f.LicenseURL,
		Introduction: f.Introduction, LegacyPoiID: f.LegacyPoiID, Status: oapi.MapPOIStatus(r.Status), Remark: f.Remark,
		Operation: openOperation(r.Operation), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
	out.Audit = auditSummary(r.Audit)
	if r.Status == "in_review" {
		out.EstimatedDays = new(int32(mapAuditDays))
	}
	if r.Status == "approved" && f.Decided != nil {
		out.Approved = &oapi.MapPOIApproved{Name: f.Decided.Name, Address: f.Decided.Address, Location: locationToAPI(f.Decided.Location)}
	}
	return out
}

func locationToAPI(l *ledger.Location) *oapi.Location {
	if l == nil {
		return nil
	}
	return &oapi.Location{Latitude: l.Latitude, Longitude: l.Longitude}
}
