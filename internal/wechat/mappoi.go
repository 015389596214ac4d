package wechat

import (
	"encoding/json"
	"net/http"
)

// SearchMapPOI finds places on Tencent Maps (document 000 §4.6).
var SearchMapPOI = &Endpoint{
	Name: "map_poi.search", Method: http.MethodPost, Path: "/wxa/search_map_poi",
	Sets: storeNearbySets, Family: FamilyMapPOI,
}

// SearchMapPOIRequest is SearchMapPOI's body. The district is a number here,
// and a string everywhere else.
type SearchMapPOIRequest struct {
	DistrictID json.Number `json:"districtid"`
	Keyword    string      `json:"keyword"`
}

// SearchMapPOIReply is SearchMapPOI's answer.
type SearchMapPOIReply struct {
	Data struct {
		Item []MapPOI `json:"item"`
	} `json:"data"`
}

// A MapPOI is a place on Tencent Maps.
type MapPOI struct {
	BranchName    string       `json:"branch_name"`
	Address       string       `json:"address"`
	Longitude     Decimal      `json:"longitude"`
	Latitude      Decimal      `json:"latitude"`
	Telephone     Phones       `json:"telephone"`
	Category      CategoryPath `json:"category"`
	SosomapPoiUID ID           `json:"sosomap_poi_uid"`
	DataSupply    Int          `json:"data_supply"`
	PicURLs       Texts        `json:"pic_urls"`
	CardIDList    Texts        `json:"card_id_list"`
}

// CreateMapPOI proposes a new place to Tencent Maps, which audits it for three
// business days (document 000 §4.7). Its answer has error and data where
// others have errcode; the audit's event names it by base_id.
var CreateMapPOI = &Endpoint{
	Name: "map_poi.create", Method: http.MethodPost, Path: "/wxa/create_map_poi",
	Sets: storeNearbySets, Family: FamilyMapPOI, Risk: Create, envelope: errorEnvelope,
}

// CreateMapPOIRequest is CreateMapPOI's body. Coordinates are strings here and
// numbers in SearchMapPOI's answer; the district is a string here and a number
// in SearchMapPOI's request.
type CreateMapPOIRequest struct {
	Name       string       `json:"name"`
	Longitude  string       `json:"longitude"`
	Latitude   string       `json:"latitude"`
	Province   string       `json:"province"`
	City       string       `json:"city"`
	District   string       `json:"district"`
	Address    string       `json:"address"`
	Category   CategoryPath `json:"category"`
	Telephone  Phones       `json:"telephone"`
	Photo      string       `json:"photo"`
	License    string       `json:"license"`
	Introduct  string       `json:"introduct"`
	DistrictID string       `json:"districtid"`
	PoiID      string       `json:"poi_id,omitempty"` // of the legacy store that moves here
}

// CreateMapPOIReply is CreateMapPOI's answer. BaseID comes back as the
// audit_id of the event create_map_poi_audit_info.
type CreateMapPOIReply struct {
	Data struct {
		BaseID ID `json:"base_id"`
		RichID ID `json:"rich_id"`
	} `json:"data"`
}

// The status in the event create_map_poi_audit_info: the inverse of every
// other one (document 000 §4.7).
const (
	MapPOIEventApproved = 0
	MapPOIEventFailed   = 1
)

// GetDistrict reads the whole tree of provinces, cities and districts
// (document 000 §4.5): thousands of rows, so it is cached for a day.
var GetDistrict = &Endpoint{
	Name: "district.list", Method: http.MethodGet, Path: "/wxa/get_district",
	Sets: storeNearbySets, Family: FamilyDistrict, MaxReply: 8 << 20, envelope: statusEnvelope,
}

// GetDistrictReply is GetDistrict's answer. Result[0] are provinces,
// Result[1] cities, Result[2] districts.
type GetDistrictReply struct {
	DataVersion ID           `json:"data_version"`
	Result      [][]District `json:"result"`
}

// A District is a row of the tree. The third level has neither Name nor
// Pinyin nor Cidx.
type District struct {
	ID       ID       `json:"id"`
	Name     string   `json:"name"`
	Fullname string   `json:"fullname"`
	Pinyin   []string `json:"pinyin"`
	Location struct {
		Lat Decimal `json:"lat"`
		Lng Decimal `json:"lng"`
	} `json:"location"`
	Cidx []Int `json:"cidx"` // first and last index of the children, both inclusive
}
