package wechat

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// The daily quotas of the goods calls (document 004, each call's "Call
// frequency"). AddGoods and AuditGoods share one.
var (
	GoodsAuditQuota    = Bucket{"goods-audit", 500}
	GoodsWithdrawQuota = Bucket{"goods-withdraw", 500}
	GoodsDeleteQuota   = Bucket{"goods-delete", 1000}
	GoodsUpdateQuota   = Bucket{"goods-update", 1000}
	GoodsStatusQuota   = Bucket{"goods-status", 1000}
	GoodsListQuota     = Bucket{"goods-list", 10000}
)

// AddGoods adds an item of live broadcasts and submits it for audit (document
// 004 §1). Its ids are given once, and nothing works without them. Errcode
// 300021 says that the item was added and its audit not started: ids are read
// before the errcode is looked at.
var AddGoods = &Endpoint{
	Name: "goods.add", Method: http.MethodPost, Path: "/wxaapi/broadcast/goods/add",
	Sets: goodsSets, Family: FamilyGoods, Risk: Create, Quota: GoodsAuditQuota,
}

// AddGoodsRequest is AddGoods' body.
type AddGoodsRequest struct {
	GoodsInfo NewGoods `json:"goodsInfo"`
}

// NewGoods is an item as AddGoods takes it. Prices are JSON numbers in yuan.
type NewGoods struct {
	CoverImgURL     string      `json:"coverImgUrl"` // a media id, not a URL
	Name            string      `json:"name"`
	PriceType       int         `json:"priceType"` // PriceFixed, PriceRange, PriceDiscount
	Price           json.Number `json:"price"`
	Price2          json.Number `json:"price2,omitempty"` // left out with PriceFixed, required otherwise
	URL             string      `json:"url"`              // a path of the mini program
	ThirdPartyAppid string      `json:"thirdPartyAppid,omitempty"`
}

// The priceType of goods (document 004 §1).
const (
	PriceFixed    = 1 // price
	PriceRange    = 2 // from price to price2
	PriceDiscount = 3 // price before, price2 now
)

// AddGoodsReply is AddGoods' answer.
type AddGoodsReply struct {
	GoodsID ID `json:"goodsId"`
	AuditID ID `json:"auditId"`
}

// UnmarshalJSON takes goodsId and goods_id.
func (r *AddGoodsReply) UnmarshalJSON(b []byte) error {
	type plain AddGoodsReply
	return anyCase(b, (*plain)(r))
}

// ResetGoodsAudit withdraws an item from audit (document 004 §2). The quota
// that its submission took is not given back. Ids as strings are refused with
// 300009 (platform.md §11.1 no. 18).
var ResetGoodsAudit = &Endpoint{
	Name: "goods.reset_audit", Method: http.MethodPost, Path: "/wxaapi/broadcast/goods/resetaudit",
	Sets: goodsSets, Family: FamilyGoods, Risk: SelfFencing, Quota: GoodsWithdrawQuota,
}

// ResetGoodsAuditRequest is ResetGoodsAudit's body.
type ResetGoodsAuditRequest struct {
	AuditID json.Number `json:"auditId"`
	GoodsID json.Number `json:"goodsId"`
}

// AuditGoods submits an item again (document 004 §3).
var AuditGoods = &Endpoint{
	Name: "goods.audit", Method: http.MethodPost, Path: "/wxaapi/broadcast/goods/audit",
	Sets: goodsSets, Family: FamilyGoods, Risk: SelfFencing, Quota: GoodsAuditQuota,
}

// GoodsRef names an item in AuditGoods and DeleteGoods.
type GoodsRef struct {
	GoodsID json.Number `json:"goodsId"`
}

// AuditGoodsReply is AuditGoods' answer.
type AuditGoodsReply struct {
	AuditID ID `json:"auditId"`
}

// UnmarshalJSON takes auditId and audit_id.
func (r *AuditGoodsReply) UnmarshalJSON(b []byte) error {
	type plain AuditGoodsReply
	return anyCase(b, (*plain)(r))
}

// DeleteGoods deletes an item for good, also where it is on sale (document 004
// §4). Not while it is in audit (300014).
var DeleteGoods = &Endpoint{
	Name: "goods.delete", Method: http.MethodPost, Path: "/wxaapi/broadcast/goods/delete",
	Sets: goodsSets, Family: FamilyGoods, Risk: SelfFencing, Quota: GoodsDeleteQuota,
}

// UpdateGoods changes an item (document 004 §5): an approved one's price only,
// one in audit not at all, any other wholly.
var UpdateGoods = &Endpoint{
	Name: "goods.update", Method: http.MethodPost, Path: "/wxaapi/broadcast/goods/update",
	Sets: goodsSets, Family: FamilyGoods, Risk: Overwrite, Quota: GoodsUpdateQuota,
}

// UpdateGoodsRequest is UpdateGoods' body.
type UpdateGoodsRequest struct {
	GoodsInfo GoodsChange `json:"goodsInfo"`
}

// GoodsChange names the item and what changes; what is empty stays.
type GoodsChange struct {
	CoverImgURL     string      `json:"coverImgUrl,omitempty"`
	Name            string      `json:"name,omitempty"`
	PriceType       int         `json:"priceType,omitempty"`
	Price           json.Number `json:"price,omitempty"`
	Price2          json.Number `json:"price2,omitempty"`
	URL             string      `json:"url,omitempty"`
	ThirdPartyAppid string      `json:"thirdPartyAppid,omitempty"`
	GoodsID         json.Number `json:"goodsId"`
}

// GetGoodsWarehouse reads items by their ids (document 004 §6).
var GetGoodsWarehouse = &Endpoint{
	Name: "goods.status", Method: http.MethodPost, Path: "/wxa/business/getgoodswarehouse",
	Sets: goodsSets, Family: FamilyGoods, Quota: GoodsStatusQuota,
}

// MaxGoodsStatus is how many ids GetGoodsWarehouse takes (platform.md §11.3).
const MaxGoodsStatus = 20

// GetGoodsWarehouseRequest is GetGoodsWarehouse's body.
type GetGoodsWarehouseRequest struct {
	GoodsIDs []json.Number `json:"goods_ids"`
}

// GetApproved reads a page of items of one status (document 004 §7): a GET,
// and its parameters in the query. A body is refused with "status is invalid".
var GetApproved = &Endpoint{
	Name: "goods.list", Method: http.MethodGet, Path: "/wxaapi/broadcast/goods/getapproved",
	Sets: goodsSets, Family: FamilyGoods, Quota: GoodsListQuota,
}

// MaxGoodsPage is the largest limit of GetApproved.
const MaxGoodsPage = 100

// GetApprovedRequest is GetApproved's query.
type GetApprovedRequest struct {
	Offset int
	Limit  int // 0: WeChat's default, 30
	Status int // GoodsUnreviewed … GoodsRejected
}

// Query is what goes into the URL.
func (r GetApprovedRequest) Query() url.Values {
	q := url.Values{"offset": {strconv.Itoa(r.Offset)}, "status": {strconv.Itoa(r.Status)}}
	if r.Limit != 0 {
		q.Set("limit", strconv.Itoa(r.Limit))
	}
	return q
}

// GoodsReply is the answer of GetGoodsWarehouse and GetApproved. Total is how
// many there are in all; GetGoodsWarehouse's example says 0 of one.
type GoodsReply struct {
	Goods []Goods `json:"goods"`
	Total Int     `json:"total"`
}

// Goods is an item as WeChat shows it.
type Goods struct {
	GoodsID       ID      `json:"goodsId"`
	CoverImgURL   string  `json:"coverImgUrl"`
	Name          string  `json:"name"`
	Price         Decimal `json:"price"` // in which unit is UNVERIFIED (platform.md §11.3): kept as it came
	Price2        Decimal `json:"price2"`
	URL           string  `json:"url"`
	PriceType     Int     `json:"priceType"`
	AuditStatus   *Int    `json:"auditStatus"`   // GoodsUnreviewed … GoodsRejected; GetApproved doesn't tell
	ThirdPartyTag *Int    `json:"thirdPartyTag"` // 1 and 2: made by API; others: in the console; nil: WeChat told none
}

// UnmarshalJSON takes both spellings of the members: GetGoodsWarehouse writes
// goods_id, GetApproved goodsId.
func (g *Goods) UnmarshalJSON(b []byte) error {
	type plain Goods
	return anyCase(b, (*plain)(g))
}

// The audit_status of goods (document 004 §6), and the status that GetApproved
// asks for.
const (
	GoodsUnreviewed = 0
	GoodsInAudit    = 1
	GoodsApproved   = 2
	GoodsRejected   = 3
)
