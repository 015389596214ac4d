package wechat

import "net/http"

// SendCustomMessage sends a user a message of the account's customer service.
// WeChat's release check of a platform wants one (platform.md §7.4).
var SendCustomMessage = &Endpoint{
	Name: "message.send", Method: http.MethodPost, Path: "/cgi-bin/message/custom/send",
	Family: FamilyMessage, Risk: Create,
}

// SendCustomMessageRequest is SendCustomMessage's body.
type SendCustomMessageRequest struct {
	ToUser  string     `json:"touser"`
	MsgType string     `json:"msgtype"` // text
	Text    CustomText `json:"text"`
}

// CustomText is a message's text.
type CustomText struct {
	Content string `json:"content"`
}

// GetQuota reads what WeChat has counted of a call's daily quota (platform.md §10).
var GetQuota = &Endpoint{
	Name: "quota.get", Method: http.MethodPost, Path: "/cgi-bin/openapi/quota/get",
	Family: FamilyQuota, envelope: looseEnvelope, proof: "quota",
}

// GetQuotaRequest is GetQuota's body.
type GetQuotaRequest struct {
	CGIPath string `json:"cgi_path"` // "/wxa/add_store"
}

// GetQuotaReply is GetQuota's answer.
type GetQuotaReply struct {
	Quota struct {
		DailyLimit Int `json:"daily_limit"`
		Used       Int `json:"used"`
		Remain     Int `json:"remain"`
	} `json:"quota"`
}
