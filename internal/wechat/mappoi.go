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
	BranchName    string  `json:"branch_name"`
	Address       string  `json:"address"`
	Longitude     Decimal `json:"longitude"`
	Latitude      Decimal `json:"latitude"`
	Telephone     string  `json:"telephone"`
	Category      string  `json:"category"`
	SosomapPoiUID ID      `json:"sosomap_poi_uid"`
	DataSupply    Int     `json:"data_supply"`
	PicURLs       Texts   `json:"pic_urls"`
	CardIDList    Texts   `json:"card_id_list"`
}

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
	Cidx []int `json:"cidx"` // first and last index of the children, both inclusive
}

// GetMerchantCategory reads the categories of the Store Mini Program
// (document 000 §4.1).
var GetMerchantCategory = &Endpoint{
	Name: "category.list", Method: http.MethodGet, Path: "/wxa/get_merchant_category",
	Sets: storeNearbySets, Family: FamilyMerchantCategory, MaxReply: 8 << 20,
}

// GetMerchantCategoryReply is GetMerchantCategory's answer.
type GetMerchantCategoryReply struct {
	Data struct {
		AllCategoryInfo struct {
			Categories []Category `json:"categories"`
		} `json:"all_category_info"`
	} `json:"data"`
}

// A Category is a row of the tree; id 0 is its root.
type Category struct {
	ID       int64   `json:"id"`
	Name     string  `json:"name"`
	Level    int     `json:"level"`
	Father   int64   `json:"father"`
	Children []int64 `json:"children"`
	Qualify  struct {
		ExterList []struct {
			InnerList []struct {
				Name string `json:"name"`
			} `json:"inner_list"`
		} `json:"exter_list"`
	} `json:"qualify"`
	Scene         Int `json:"scene"`
	SensitiveType Int `json:"sensitive_type"` // 1: certificates are required
}

// GetMerchantAuditInfo reads the audit of the Store Mini Program itself
// (document 000 §4.3): no parameters, GET without a body.
var GetMerchantAuditInfo = &Endpoint{
	Name: "store_program.audit", Method: http.MethodGet, Path: "/wxa/get_merchant_audit_info",
	Sets: storeSets, Family: FamilyStoreProgram,
}

// GetMerchantAuditInfoReply is GetMerchantAuditInfo's answer.
type GetMerchantAuditInfoReply struct {
	Data struct {
		AuditID ID     `json:"audit_id"`
		Status  Int    `json:"status"`
		Reason  string `json:"reason"`
	} `json:"data"`
}

// The status in GetMerchantAuditInfo (platform.md §11.2).
const (
	MerchantNotSubmitted = 0
	MerchantApproved     = 1
	MerchantInAudit      = 2
	MerchantFailed       = 3
	MerchantAdminRefused = 4
)
