package wechat

import "net/http"

// AddStore submits a store for audit (documents 000 §4.8 and 002). The reply
// gives the audit_id once; the poi_id comes with the audit's event.
var AddStore = &Endpoint{
	Name: "store.add", Method: http.MethodPost, Path: "/wxa/add_store",
	Sets: storeSets, Family: FamilyStore, Risk: SelfFencing,
}

// AddStoreRequest is AddStore's body. Hour is required though the documents'
// example leaves it out; CardID may be empty but must be there.
type AddStoreRequest struct {
	PoiID             string   `json:"poi_id"`
	MapPoiID          string   `json:"map_poi_id"`
	PicList           PicList  `json:"pic_list"`
	ContractPhone     string   `json:"contract_phone"`
	Hour              string   `json:"hour"`
	Credential        string   `json:"credential"`
	CompanyName       string   `json:"company_name,omitempty"`
	QualificationList MediaIDs `json:"qualification_list,omitempty"`
	CardID            string   `json:"card_id"`
}

// AddStoreReply is AddStore's answer.
type AddStoreReply struct {
	Data struct {
		AuditID ID `json:"audit_id"`
	} `json:"data"`
}

// UpdateStore overwrites a store's pictures, phone and hours (documents 000
// §4.9 and 003). New pictures are audited, the same ones are not.
var UpdateStore = &Endpoint{
	Name: "store.update", Method: http.MethodPost, Path: "/wxa/update_store",
	Sets: storeSets, Family: FamilyStore, Risk: Overwrite,
}

// UpdateStoreRequest is UpdateStore's body: every field each time. An empty
// CardID changes nothing.
type UpdateStoreRequest struct {
	MapPoiID      string  `json:"map_poi_id,omitempty"`
	PoiID         string  `json:"poi_id"`
	Hour          string  `json:"hour"`
	ContractPhone string  `json:"contract_phone"`
	PicList       PicList `json:"pic_list"`
	CardID        string  `json:"card_id"`
}

// UpdateStoreReply is UpdateStore's answer.
type UpdateStoreReply struct {
	Data struct {
		HasAuditID Int `json:"has_audit_id"` // 1: an audit follows
		AuditID    ID  `json:"audit_id"`
	} `json:"data"`
}

// DelStore deletes a store (document 000 §4.12). There -1 means "not deleted".
var DelStore = &Endpoint{
	Name: "store.delete", Method: http.MethodPost, Path: "/wxa/del_store",
	Sets: storeSets, Family: FamilyStore, Risk: SelfFencing,
}

// StoreRef names a store in DelStore and GetStoreInfo.
type StoreRef struct {
	PoiID string `json:"poi_id"`
}

// GetStoreInfo reads one store (document 000 §4.10).
var GetStoreInfo = &Endpoint{
	Name: "store.get", Method: http.MethodPost, Path: "/wxa/get_store_info",
	Sets: storeSets, Family: FamilyStore,
}

// GetStoreInfoReply is GetStoreInfo's answer.
type GetStoreInfoReply struct {
	Business shownStore `json:"business"`
}

// Store is what it tells.
func (r GetStoreInfoReply) Store() Store { return r.Business.store() }

// GetStoreList reads a page of stores (document 000 §4.11). Offset must be
// below the total, except that 0 of 0 is allowed; at most 50 a page.
var GetStoreList = &Endpoint{
	Name: "store.list", Method: http.MethodPost, Path: "/wxa/get_store_list",
	Sets: storeSets, Family: FamilyStore,
	whole: func(body []byte) (answer, any, error) {
		v, err := unmarshal[storeListAnswer](body)
		return v.answer, v.GetStoreListReply, err
	},
}

type storeListAnswer struct {
	answer
	GetStoreListReply
}

// MaxStorePage is the largest limit of GetStoreList.
const MaxStorePage = 50

// GetStoreListRequest is GetStoreList's body.
type GetStoreListRequest struct {
	Offset int `json:"offset"`
	Limit  int `json:"limit"`
}

// GetStoreListReply is GetStoreList's answer.
type GetStoreListReply struct {
	BusinessList []shownStore `json:"business_list"`
	TotalCount   Int          `json:"total_count"`
}

// Stores are what it tells, in WeChat's order.
func (r GetStoreListReply) Stores() []Store { return stores(r.BusinessList) }

// A Store is a store as WeChat shows it.
type Store struct {
	BusinessName      string  `json:"business_name"`
	Address           string  `json:"address"`
	Telephone         string  `json:"telephone"`
	Categories        Texts   `json:"categories"`
	Province          string  `json:"province"`
	City              string  `json:"city"`
	District          string  `json:"district"`
	Longitude         Decimal `json:"longitude"`
	Latitude          Decimal `json:"latitude"`
	PhotoList         []Photo `json:"photo_list"`
	OpenTime          string  `json:"open_time"`
	PoiID             ID      `json:"poi_id"`
	Status            Int     `json:"status"` // StoreApproved, StoreInAudit, StoreFailed
	QualificationList Texts   `json:"qualification_list"`
	QualificationNum  string  `json:"qualification_num"`
	QualificationName string  `json:"qualification_name"`
}

// A Photo is one picture of a store.
type Photo struct {
	PhotoURL string `json:"photo_url"`
}

// A store's status in GetStoreInfo and GetStoreList (platform.md §11.2).
const (
	StoreApproved = 1
	StoreInAudit  = 2
	StoreFailed   = 3
)
