package wechat

import (
	"encoding/json"
	"net/http"
)

// AddPoi submits a legacy store for audit (document 001 §3.2). The reply gives
// the poi_id at once, before the audit (update history V2.1). WeChat checks no
// sid for uniqueness, but gives it back: it proves an unknown outcome.
var AddPoi = &Endpoint{
	Name: "legacy_store.add", Method: http.MethodPost, Path: "/cgi-bin/poi/addpoi",
	Sets: storeSets, Family: FamilyLegacyStore, Risk: Create,
}

// AddPoiRequest is AddPoi's body.
type AddPoiRequest struct {
	Business baseInfo[NewLegacyStore] `json:"business"`
}

// NewAddPoiRequest wraps s as WeChat wants it.
func NewAddPoiRequest(s NewLegacyStore) AddPoiRequest {
	return AddPoiRequest{baseInfo[NewLegacyStore]{s}}
}

// Store is what it submits.
func (r AddPoiRequest) Store() NewLegacyStore { return r.Business.Of }

// A NewLegacyStore is a store as AddPoi takes it. District may be "" where the
// city has none; optional fields that are empty are left out.
type NewLegacyStore struct {
	Sid          string           `json:"sid,omitempty"`
	BusinessName string           `json:"business_name"`
	BranchName   string           `json:"branch_name"`
	Province     string           `json:"province"`
	City         string           `json:"city"`
	District     string           `json:"district"`
	Address      string           `json:"address"`
	Telephone    string           `json:"telephone"` // one number
	Categories   []LegacyCategory `json:"categories"`
	OffsetType   int              `json:"offset_type"` // 1 Mars … 6 Sogou Mercator
	Longitude    json.Number      `json:"longitude"`
	Latitude     json.Number      `json:"latitude"`
	PhotoList    []Photo          `json:"photo_list,omitempty"`
	Recommend    string           `json:"recommend,omitempty"`
	Special      string           `json:"special,omitempty"`
	Introduction string           `json:"introduction,omitempty"`
	OpenTime     string           `json:"open_time,omitempty"`
	AvgPrice     int              `json:"avg_price,omitempty"` // above 0
}

// AddPoiReply is AddPoi's answer.
type AddPoiReply struct {
	PoiID ID `json:"poi_id"`
}

// GetPoi reads a legacy store (document 001 §3.4).
var GetPoi = &Endpoint{
	Name: "legacy_store.get", Method: http.MethodPost, Path: "/cgi-bin/poi/getpoi",
	Sets: storeSets, Family: FamilyLegacyStore,
}

// PoiRef names a legacy store in GetPoi and DelPoi.
type PoiRef struct {
	PoiID string `json:"poi_id"`
}

// GetPoiReply is GetPoi's answer.
type GetPoiReply struct {
	Business shownLegacyStore `json:"business"`
}

// Store is what it tells.
func (r GetPoiReply) Store() LegacyStore { return r.Business.store() }

// GetPoiList reads a page of legacy stores (document 001 §3.5, document 000 §4.13).
var GetPoiList = &Endpoint{
	Name: "legacy_store.list", Method: http.MethodPost, Path: "/cgi-bin/poi/getpoilist",
	Sets: storeSets, Family: FamilyLegacyStore,
}

// MaxPoiPage is the largest limit of GetPoiList.
const MaxPoiPage = 50

// GetPoiListRequest is GetPoiList's body.
type GetPoiListRequest struct {
	Begin int `json:"begin"`
	Limit int `json:"limit"`
}

// GetPoiListReply is GetPoiList's answer.
type GetPoiListReply struct {
	BusinessList []shownLegacyStore `json:"business_list"`
	TotalCount   Int                `json:"total_count"`
}

// Stores are what it tells, in WeChat's order.
func (r GetPoiListReply) Stores() []LegacyStore { return stores(r.BusinessList) }

// A LegacyStore is a store as GetPoi and GetPoiList show it.
type LegacyStore struct {
	Sid            ID               `json:"sid"`
	PoiID          ID               `json:"poi_id"` // GetPoi's example has none
	BusinessName   string           `json:"business_name"`
	BranchName     string           `json:"branch_name"`
	Province       string           `json:"province"`
	City           string           `json:"city"`
	District       string           `json:"district"`
	Address        string           `json:"address"`
	Telephone      string           `json:"telephone"`
	Categories     []LegacyCategory `json:"categories"`
	OffsetType     Int              `json:"offset_type"`
	Longitude      Decimal          `json:"longitude"`
	Latitude       Decimal          `json:"latitude"`
	PhotoList      []Photo          `json:"photo_list"`
	Recommend      string           `json:"recommend"`
	Special        string           `json:"special"`
	Introduction   string           `json:"introduction"`
	OpenTime       string           `json:"open_time"`
	AvgPrice       Int              `json:"avg_price"`
	AvailableState Int              `json:"available_state"` // LegacyError … LegacyRejected
	UpdateStatus   Int              `json:"update_status"`   // 1: fields are under audit, no change is taken

	// While the account moves to the Store Mini Program (document 000 §4.13).
	UpgradeStatus  *Int   `json:"upgrade_status"` // UpgradePending … UpgradeNotAllowed; nil: WeChat told none
	UpgradeComment string `json:"upgrade_comment"`
	MapID          ID     `json:"mapid"`
}

// The available_state of a legacy store (document 001 §3.4).
const (
	LegacyError    = 1
	LegacyInAudit  = 2
	LegacyApproved = 3
	LegacyRejected = 4
)

// The upgrade_status of a legacy store (document 000 §4.13).
const (
	UpgradePending    = 0
	UpgradeFailed     = 1
	UpgradeRunning    = 2
	UpgradeDone       = 3
	UpgradeNotAllowed = 4
)

// UpdatePoi changes the service fields of a legacy store, which are audited
// for up to five business days without an event (document 001 §3.6).
var UpdatePoi = &Endpoint{
	Name: "legacy_store.update", Method: http.MethodPost, Path: "/cgi-bin/poi/updatepoi",
	Sets: storeSets, Family: FamilyLegacyStore, Risk: Overwrite,
}

// UpdatePoiRequest is UpdatePoi's body.
type UpdatePoiRequest struct {
	Business baseInfo[LegacyStoreChange] `json:"business"`
}

// NewUpdatePoiRequest wraps c as WeChat wants it.
func NewUpdatePoiRequest(c LegacyStoreChange) UpdatePoiRequest {
	return UpdatePoiRequest{baseInfo[LegacyStoreChange]{c}}
}

// Change is what it submits.
func (r UpdatePoiRequest) Change() LegacyStoreChange { return r.Business.Of }

// A LegacyStoreChange names the store and what changes; what is nil stays.
// PhotoList replaces all pictures.
type LegacyStoreChange struct {
	PoiID        string  `json:"poi_id"`
	Sid          string  `json:"sid,omitempty"`
	Telephone    *string `json:"telephone,omitempty"`
	PhotoList    []Photo `json:"photo_list,omitzero"`
	Recommend    *string `json:"recommend,omitempty"`
	Special      *string `json:"special,omitempty"`
	Introduction *string `json:"introduction,omitempty"`
	OpenTime     *string `json:"open_time,omitempty"`
	AvgPrice     *int    `json:"avg_price,omitempty"`
}

// DelPoi deletes a legacy store (document 001 §3.7).
var DelPoi = &Endpoint{
	Name: "legacy_store.delete", Method: http.MethodPost, Path: "/cgi-bin/poi/delpoi",
	Sets: storeSets, Family: FamilyLegacyStore, Risk: SelfFencing,
}

// GetWXCategory reads the categories of legacy stores (document 001 §4). Its
// success has no errcode.
var GetWXCategory = &Endpoint{
	Name: "legacy_category.list", Method: http.MethodGet, Path: "/cgi-bin/poi/getwxcategory",
	Sets: storeSets, Family: FamilyLegacyStore, envelope: looseEnvelope, proof: "category_list",
}

// GetWXCategoryReply is GetWXCategory's answer.
type GetWXCategoryReply struct {
	CategoryList []LegacyCategory `json:"category_list"`
}
