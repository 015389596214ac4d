package wechat

import (
	"net/http"
	"time"
)

// componentTimeout is the whole time of a call that a token's lease covers:
// it must stay well under the lease (design reliability.md §7).
const componentTimeout = 5 * time.Second

// The calls of the platform itself (platform.md §2 to §5). Success comes
// without errcode, and with what was asked for. All of them carry a secret or a token in their body: no
// body of theirs may be logged.
var (
	// StartPushTicket asks WeChat to push tickets again (platform.md §2.2).
	StartPushTicket = component("component.start_push_ticket", "api_start_push_ticket", Harmless, "errcode")
	// GetComponentToken makes a component token from a ticket (platform.md §3).
	GetComponentToken = component("component.token", "api_component_token", Overwrite, "component_access_token")
	// CreatePreAuthCode makes the code that opens one consent page (platform.md §4.1).
	CreatePreAuthCode = component("component.pre_auth_code", "api_create_preauthcode", Harmless, "pre_auth_code")
	// QueryAuth exchanges an authorization code, once (platform.md §5.1).
	QueryAuth = component("component.query_auth", "api_query_auth", SelfFencing, "authorization_info")
	// GetAuthorizerToken refreshes a merchant's token (platform.md §5.2).
	GetAuthorizerToken = component("component.authorizer_token", "api_authorizer_token", Overwrite, "authorizer_access_token")
	// GetAuthorizerInfo tells what an account is and what it granted (platform.md §5.3).
	GetAuthorizerInfo = component("component.authorizer_info", "api_get_authorizer_info", Read, "authorizer_info")
	// GetAuthorizerList pages through the authorised accounts (platform.md §5.4).
	GetAuthorizerList = component("component.authorizer_list", "api_get_authorizer_list", Read, "total_count")
)

func component(name, call string, risk Risk, proof string) *Endpoint {
	return &Endpoint{
		Name: name, Method: http.MethodPost, Path: "/cgi-bin/component/" + call,
		Family: FamilyComponent, Risk: risk, Timeout: componentTimeout, envelope: looseEnvelope, proof: proof,
	}
}

// StartPushTicketRequest is StartPushTicket's body: its secret has another
// name than in GetComponentToken.
type StartPushTicketRequest struct {
	ComponentAppID  string `json:"component_appid"`
	ComponentSecret string `json:"component_secret"`
}

// GetComponentTokenRequest is GetComponentToken's body.
type GetComponentTokenRequest struct {
	ComponentAppID        string `json:"component_appid"`
	ComponentAppSecret    string `json:"component_appsecret"`
	ComponentVerifyTicket string `json:"component_verify_ticket"`
}

// GetComponentTokenReply is GetComponentToken's answer.
type GetComponentTokenReply struct {
	ComponentAccessToken string `json:"component_access_token"`
	ExpiresIn            Int    `json:"expires_in"`
}

// ComponentRef is the body of CreatePreAuthCode.
type ComponentRef struct {
	ComponentAppID string `json:"component_appid"`
}

// CreatePreAuthCodeReply is CreatePreAuthCode's answer.
type CreatePreAuthCodeReply struct {
	PreAuthCode string `json:"pre_auth_code"`
	ExpiresIn   Int    `json:"expires_in"`
}

// QueryAuthRequest is QueryAuth's body.
type QueryAuthRequest struct {
	ComponentAppID    string `json:"component_appid"`
	AuthorizationCode string `json:"authorization_code"`
}

// QueryAuthReply is QueryAuth's answer. The tokens are absent when the account
// granted no API at all.
type QueryAuthReply struct {
	AuthorizationInfo AuthorizationInfo `json:"authorization_info"`
}

// AuthorizationInfo is what an account granted. GetAuthorizerInfo's has no
// access token.
type AuthorizationInfo struct {
	AuthorizerAppID        string     `json:"authorizer_appid"`
	AuthorizerAccessToken  string     `json:"authorizer_access_token"`
	ExpiresIn              Int        `json:"expires_in"`
	AuthorizerRefreshToken string     `json:"authorizer_refresh_token"`
	FuncInfo               []FuncInfo `json:"func_info"`
}

// A FuncInfo names one granted permission set.
type FuncInfo struct {
	FuncscopeCategory struct {
		ID Int `json:"id"`
	} `json:"funcscope_category"`
}

// PermissionSets are the granted sets in WeChat's order, each once.
func (i AuthorizationInfo) PermissionSets() []int32 {
	out := make([]int32, 0, len(i.FuncInfo))
	seen := map[int32]bool{}
	for _, f := range i.FuncInfo {
		if id := int32(f.FuncscopeCategory.ID); id > 0 && !seen[id] { // #nosec G115 -- ids are small
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

// GetAuthorizerTokenRequest is GetAuthorizerToken's body.
type GetAuthorizerTokenRequest struct {
	ComponentAppID         string `json:"component_appid"`
	AuthorizerAppID        string `json:"authorizer_appid"`
	AuthorizerRefreshToken string `json:"authorizer_refresh_token"`
}

// GetAuthorizerTokenReply is GetAuthorizerToken's answer. The refresh token
// may be absent: the one that was sent then stays good.
type GetAuthorizerTokenReply struct {
	AuthorizerAccessToken  string `json:"authorizer_access_token"`
	ExpiresIn              Int    `json:"expires_in"`
	AuthorizerRefreshToken string `json:"authorizer_refresh_token"`
}

// AuthorizerRef is the body of GetAuthorizerInfo.
type AuthorizerRef struct {
	ComponentAppID  string `json:"component_appid"`
	AuthorizerAppID string `json:"authorizer_appid"`
}

// GetAuthorizerInfoReply is GetAuthorizerInfo's answer.
type GetAuthorizerInfoReply struct {
	AuthorizerInfo    AuthorizerInfo    `json:"authorizer_info"`
	AuthorizationInfo AuthorizationInfo `json:"authorization_info"`
}

// AuthorizerInfo describes an account.
type AuthorizerInfo struct {
	NickName       string `json:"nick_name"`
	HeadImg        string `json:"head_img"`
	UserName       string `json:"user_name"` // gh_…
	PrincipalName  string `json:"principal_name"`
	VerifyTypeInfo *struct {
		ID Int `json:"id"` // -1: not verified
	} `json:"verify_type_info"`
	AccountStatus   Int       `json:"account_status"` // 1 normal, 14 cancelled, 16 banned, 18 warned, 19 frozen
	MiniProgramInfo *struct{} `json:"MiniProgramInfo"`
}

// IsMiniProgram tells a Mini Program from an Official Account: there is no
// other mark of it (platform.md §5.3).
func (i AuthorizerInfo) IsMiniProgram() bool { return i.MiniProgramInfo != nil }

// MaxAuthorizerPage is the largest count of GetAuthorizerList.
const MaxAuthorizerPage = 500

// GetAuthorizerListRequest is GetAuthorizerList's body.
type GetAuthorizerListRequest struct {
	ComponentAppID string `json:"component_appid"`
	Offset         int    `json:"offset"`
	Count          int    `json:"count"`
}

// GetAuthorizerListReply is GetAuthorizerList's answer, in no documented order.
type GetAuthorizerListReply struct {
	TotalCount Int                `json:"total_count"`
	List       []ListedAuthorizer `json:"list"`
}

// A ListedAuthorizer is one row of GetAuthorizerList. Its refresh token is
// empty when no code of the authorisation was ever exchanged.
type ListedAuthorizer struct {
	AuthorizerAppID string `json:"authorizer_appid"`
	RefreshToken    string `json:"refresh_token"`
	AuthTime        Int    `json:"auth_time"`
}

// Errcodes that the component's calls answer with and that somebody acts on
// (platform.md §9.1).
const (
	CodeComponentTokenExpired = 42006
	CodePasswordChanged       = 42007
	CodeDeauthorized          = 61003
	CodeTicketExpired         = 61005
	CodeTicketInvalid         = 61006
	CodeSetNotGranted         = 61007
	CodeAuthCodeInvalid       = 61009
	CodeAuthCodeExpired       = 61010
	CodeRefreshTokenInvalid   = 61023
)
