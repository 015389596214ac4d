package handlers

import (
	"context"
	"encoding/json"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/reference"
	"github.com/mendian/mendian/internal/wechat"
)

var aDay = new("private, max-age=86400")

var districtLevels = []oapi.DistrictLevel{"province", "city", "district"}

// ListDistricts implements GET /v1/districts.
func (s *Server) ListDistricts(ctx context.Context, req oapi.ListDistrictsRequestObject) (oapi.ListDistrictsResponseObject, error) {
	p := req.Params
	tree, err := s.districts(ctx, p.MerchantID)
	if err != nil {
		return nil, err
	}
	etag := new(ETag(0, []byte(tree.Version+deref(p.Level)+" "+deref(p.ParentID))))
	if NotModified(p.IfNoneMatch, *etag) {
		return oapi.ListDistricts304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	out := oapi.DistrictList{Data: []oapi.District{}, Stale: tree.Stale, SyncedAt: tree.At}
	for _, d := range tree.Rows {
		if p.Level != nil && districtLevels[d.Level-1] != *p.Level || p.ParentID != nil && d.ParentID != *p.ParentID {
			continue
		}
		out.Data = append(out.Data, districtToAPI(d))
	}
	return oapi.ListDistricts200JSONResponse{Body: out, Headers: oapi.ListDistricts200ResponseHeaders{CacheControl: aDay, ETag: etag}}, nil
}

// GetDistrict implements GET /v1/districts/{id}.
func (s *Server) GetDistrict(ctx context.Context, req oapi.GetDistrictRequestObject) (oapi.GetDistrictResponseObject, error) {
	tree, err := s.districts(ctx, req.Params.MerchantID)
	if err != nil {
		return nil, err
	}
	for _, d := range tree.Rows {
		if d.ID != req.ID {
			continue
		}
		etag := new(ETag(0, []byte(tree.Version+d.ID)))
		if NotModified(req.Params.IfNoneMatch, *etag) {
			return oapi.GetDistrict304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
		}
		return oapi.GetDistrict200JSONResponse{Body: districtToAPI(d), Headers: oapi.GetDistrict200ResponseHeaders{CacheControl: aDay, ETag: etag}}, nil
	}
	return nil, problem.Of(problem.CodeNotFound)
}

func (s *Server) districts(ctx context.Context, header *string) (t reference.Tree[reference.District], err error) {
	m, err := s.actingOn(ctx, header, wechat.GetDistrict)
	if err != nil {
		return t, err
	}
	return s.Reference.Districts(ctx, m)
}

// actingOn is acting for a call that the merchant's authorisation must open.
func (s *Server) actingOn(ctx context.Context, header *string, e *wechat.Endpoint) (authorizer.Merchant, error) {
	m, err := s.acting(ctx, header)
	if err == nil {
		err = s.Authorizer.Check(m, e)
	}
	return m, err
}

func districtToAPI(d reference.District) oapi.District {
	out := oapi.District{ID: d.ID, FullName: d.FullName, Level: districtLevels[d.Level-1], Name: optional(&d.Name), ParentID: optional(&d.ParentID)}
	if d.Pinyin != nil {
		out.Pinyin = &d.Pinyin
	}
	if d.Latitude != "" && d.Longitude != "" {
		out.Location = &oapi.Location{Latitude: d.Latitude, Longitude: d.Longitude}
	}
	return out
}

// ListCategories implements GET /v1/categories.
func (s *Server) ListCategories(ctx context.Context, req oapi.ListCategoriesRequestObject) (oapi.ListCategoriesResponseObject, error) {
	p := req.Params
	endpoint, read := wechat.GetMerchantCategory, s.Reference.Categories
	if p.Scheme == "legacy_store" {
		endpoint, read = wechat.GetWXCategory, s.Reference.LegacyCategories
		for name, given := range map[string]bool{"parent_id": p.ParentID != nil, "sensitive": p.Sensitive != nil} {
			if given {
				return nil, badParameter(stateOf(ctx), name, ruleOtherScheme, "")
			}
		}
	}
	m, err := s.actingOn(ctx, p.MerchantID, endpoint)
	if err != nil {
		return nil, err
	}
	tree, err := read(ctx, m)
	if err != nil {
		return nil, err
	}
	filters, err := json.Marshal([]any{p.Scheme, p.ParentID, p.Level, p.Sensitive})
	if err != nil {
		return nil, err
	}
	etag := new(ETag(0, append([]byte(tree.Version), filters...)))
	if NotModified(p.IfNoneMatch, *etag) {
		return oapi.ListCategories304Response{Headers: oapi.NotModifiedResponseHeaders{ETag: etag}}, nil
	}
	out := oapi.CategoryList{Data: []oapi.Category{}, Stale: tree.Stale, SyncedAt: tree.At}
	for _, c := range tree.Rows {
		if p.ParentID != nil && c.ParentID != *p.ParentID || p.Level != nil && c.Level != int(*p.Level) || p.Sensitive != nil && c.Sensitive != *p.Sensitive {
			continue
		}
		row := oapi.Category{ID: optional(&c.ID), Name: c.Name, Path: orEmpty(c.Path), Level: int32(c.Level), ParentID: optional(&c.ParentID), ChildrenIds: orEmpty(c.Children),
			Sensitive: c.Sensitive, RequiredCertificates: append([][]string{}, c.RequiredCertificates...), Scene: c.Scene}
		out.Data = append(out.Data, row)
	}
	return oapi.ListCategories200JSONResponse{Body: out, Headers: oapi.ListCategories200ResponseHeaders{CacheControl: aDay, ETag: etag}}, nil
}
