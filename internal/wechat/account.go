package wechat

import "net/http"

// releaseTesters are the accounts through which WeChat tries a platform before
// its release (platform.md §7.4).
var releaseTesters = map[string]string{
	"wx570bc396a51b8ff8": "gh_3c884a361561", // an Official Account
	"wxd101a85aa106f53e": "gh_8dad206e9538", // a Mini Program
}

// ReleaseTester reports whether appid is one of the two accounts of WeChat's
// own that try a platform before its release, and the user name that it has in
// messages. They authorise every platform that is tried: they are nobody's
// merchants.
func ReleaseTester(appid string) (userName string, ok bool) {
	userName, ok = releaseTesters[appid]
	return userName, ok
}

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
