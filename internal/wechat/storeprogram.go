package wechat

import (
	"encoding/json"
	"net/http"
)

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
	ID       Int    `json:"id"`
	Name     string `json:"name"`
	Level    Int    `json:"level"`
	Father   Int    `json:"father"`
	Children []Int  `json:"children"`
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

// ApplyMerchant asks for a Store Mini Program (document 000 §4.2). The Official
// Account's administrator has to confirm it within 24 hours; the answer gives
// no audit_id, GetMerchantAuditInfo and the event do.
var ApplyMerchant = &Endpoint{
	Name: "store_program.apply", Method: http.MethodPost, Path: "/wxa/apply_merchant",
	Sets: storeSets, Family: FamilyStoreProgram, Risk: SelfFencing,
}

// ApplyMerchantRequest is ApplyMerchant's body. What is not given goes out as
// "", as in the documents' example.
type ApplyMerchantRequest struct {
	FirstCatID        json.Number `json:"first_catid"`
	SecondCatID       json.Number `json:"second_catid"`
	QualificationList MediaIDs    `json:"qualification_list"` // required where the category's SensitiveType is 1
	HeadimgMediaID    string      `json:"headimg_mediaid"`
	Nickname          string      `json:"nickname"`
	Intro             string      `json:"intro"`
	OrgCode           string      `json:"org_code"`    // a media id, required after errcode 85024
	OtherFiles        MediaIDs    `json:"other_files"` // likewise
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

// ModifyMerchant changes the Store Mini Program's picture and introduction
// (document 000 §4.4), some times a month (errcode 85049).
var ModifyMerchant = &Endpoint{
	Name: "store_program.modify", Method: http.MethodPost, Path: "/wxa/modify_merchant",
	Sets: storeSets, Family: FamilyStoreProgram, Risk: Overwrite,
}

// ModifyMerchantRequest is ModifyMerchant's body. Both members are always
// there; "" changes nothing.
type ModifyMerchantRequest struct {
	HeadimgMediaID string `json:"headimg_mediaid"`
	Intro          string `json:"intro"`
}
