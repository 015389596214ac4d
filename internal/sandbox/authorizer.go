package sandbox

import (
	"cmp"
	"net/http"
	"slices"
	"time"
)

// Codes, tokens and information of authorised accounts (platform.md §5).
func authorizerEndpoints() []endpoint {
	post := func(path string, token tokenKind, serve func(*call) (any, error)) endpoint {
		return endpoint{method: http.MethodPost, path: "/cgi-bin/component/" + path, token: token, serve: serve}
	}
	return []endpoint{
		post("api_query_auth", tokenComponent, queryAuth),
		post("api_authorizer_token", tokenComponent, authorizerToken),
		post("api_get_authorizer_info", tokenComponent, authorizerInfo),
		post("api_get_authorizer_list", tokenComponent, authorizerList),
		post("get_authorizer_option", tokenEither, getOption),
		post("api_get_authorizer_option", tokenEither, getOption),
		post("set_authorizer_option", tokenEither, setOption),
		post("api_set_authorizer_option", tokenEither, setOption),
	}
}

type funcInfo struct {
	Category struct {
		ID int `json:"id"`
	} `json:"funcscope_category"`
}

func funcInfos(sets []int) []funcInfo {
	out := make([]funcInfo, len(sets))
	for i, id := range sets {
		out[i].Category.ID = id
	}
	return out
}

// queryAuth is platform.md §5.1.
func queryAuth(c *call) (any, error) {
	value, _ := c.fields.text("authorization_code")
	code := c.st.codes.get(value)
	switch {
	case code == nil || code.Used:
		return nil, refuse(61009)
	case !c.at.Before(code.Expires):
		return nil, refuse(61010)
	}
	auth := c.st.auths.get(code.AppID)
	if auth == nil {
		return nil, refuse(61009) // withdrawn before the exchange
	}
	code.Used, auth.QueryAuthCalled = true, true
	c.st.codes.put(value, code)
	c.st.auths.put(auth.AppID, auth)

	type info struct {
		AppID        string     `json:"authorizer_appid"`
		AccessToken  string     `json:"authorizer_access_token"`
		ExpiresIn    int        `json:"expires_in"`
		RefreshToken string     `json:"authorizer_refresh_token"`
		FuncInfo     []funcInfo `json:"func_info"`
	}
	return struct {
		Info info `json:"authorization_info"`
	}{info{auth.AppID, c.issueToken(auth.AppID, auth.Seq), int(tokenLife.Seconds()), auth.RefreshToken, funcInfos(auth.Granted)}}, nil
}

// authorizerToken is platform.md §5.2.
func authorizerToken(c *call) (any, error) {
	_, auth, err := c.authorizer()
	if err != nil {
		return nil, err
	}
	sent, _ := c.fields.text("authorizer_refresh_token")
	old := auth.OldRefreshToken != "" && sent == auth.OldRefreshToken && c.at.Before(auth.OldUntil)
	if sent == "" || (sent != auth.RefreshToken && !old) {
		return nil, refuse(61023)
	}
	if c.st.Settings.RotateRefreshTokens && !old {
		auth.OldRefreshToken, auth.OldUntil = auth.RefreshToken, c.at.Add(tokenGrace)
		auth.RefreshToken = newRefreshToken()
		c.st.auths.put(auth.AppID, auth)
	}
	reply := struct {
		AccessToken  string  `json:"authorizer_access_token"`
		ExpiresIn    int     `json:"expires_in"`
		RefreshToken *string `json:"authorizer_refresh_token,omitempty"`
	}{c.issueToken(auth.AppID, auth.Seq), int(tokenLife.Seconds()), &auth.RefreshToken}
	if c.st.Settings.OmitRefreshTokenInReply {
		reply.RefreshToken = nil
	}
	return reply, nil
}

func newRefreshToken() string { return "refreshtoken@@@" + random(43) }

// listedRefreshToken is what the list and the info show: nothing before the first query_auth.
func (s *Server) listedRefreshToken(a *authorization) string {
	if !a.QueryAuthCalled || s.st.Settings.OmitRefreshTokenInList {
		return ""
	}
	return a.RefreshToken
}

// authorizerList is platform.md §5.4.
func authorizerList(c *call) (any, error) {
	offset, ok1 := c.fields.number("offset")
	count, ok2 := c.fields.number("count")
	switch {
	case !ok1 || !ok2 || offset < 0 || count < 0:
		return nil, refuse(40097)
	case count > 500:
		return nil, refuse(40170)
	}
	type entry struct {
		AppID        string `json:"authorizer_appid"`
		RefreshToken string `json:"refresh_token,omitempty"`
		AuthTime     int64  `json:"auth_time"`
	}
	all := c.st.auths.sorted(nil, bySeq)
	list := []entry{}
	for _, a := range all[min(int(offset), len(all)):] {
		if len(list) == int(count) {
			break
		}
		list = append(list, entry{a.AppID, c.listedRefreshToken(a), a.At.Unix()})
	}
	return struct {
		Total int     `json:"total_count"`
		List  []entry `json:"list"`
	}{len(all), list}, nil
}

type named struct {
	ID   int    `json:"id"`
	Name string `json:"name,omitempty"`
}

type miniProgramInfo struct {
	Network struct {
		RequestDomain   []string
		WsRequestDomain []string
		UploadDomain    []string
		DownloadDomain  []string
		BizDomain       []string
		UDPDomain       []string
		TCPDomain       []string
	} `json:"network"`
	Categories  []map[string]string `json:"categories"`
	VisitStatus int                 `json:"visit_status"`
}

// authorizerInfo is platform.md §5.3.
func authorizerInfo(c *call) (any, error) {
	acc, auth, err := c.authorizer()
	if err != nil {
		return nil, err
	}
	type info struct {
		NickName        string           `json:"nick_name"`
		HeadImg         string           `json:"head_img"`
		ServiceTypeInfo named            `json:"service_type_info"`
		VerifyTypeInfo  named            `json:"verify_type_info"`
		UserName        string           `json:"user_name"`
		PrincipalName   string           `json:"principal_name"`
		Alias           string           `json:"alias"`
		BusinessInfo    map[string]int   `json:"business_info"`
		QRCodeURL       string           `json:"qrcode_url"`
		IDC             int              `json:"idc"`
		Signature       string           `json:"signature"`
		MiniProgramInfo *miniProgramInfo `json:",omitempty"`
		RegisterType    int              `json:"register_type"`
		AccountStatus   int              `json:"account_status"`
		BasicConfig     map[string]bool  `json:"basic_config"`
	}
	type authInfo struct {
		AppID        string     `json:"authorizer_appid"`
		RefreshToken string     `json:"authorizer_refresh_token,omitempty"`
		FuncInfo     []funcInfo `json:"func_info"`
	}
	i := info{
		NickName: acc.Nickname, HeadImg: "http://wx.qlogo.cn/mmopen/" + acc.UserName + "/0",
		ServiceTypeInfo: named{ID: 2}, VerifyTypeInfo: named{ID: 0}, UserName: acc.UserName, PrincipalName: acc.Principal,
		BusinessInfo: map[string]int{"open_store": 1, "open_scan": 0, "open_pay": 0, "open_card": 0, "open_shake": 0},
		QRCodeURL:    "http://mmbiz.qpic.cn/mmbiz_jpg/" + acc.UserName + "/0", IDC: 1, AccountStatus: 1,
		BasicConfig: map[string]bool{"is_phone_configured": true, "is_email_configured": true},
	}
	if acc.Kind == miniProgram {
		i.ServiceTypeInfo, i.Signature = named{ID: 0}, acc.Nickname
		i.MiniProgramInfo = &miniProgramInfo{Categories: []map[string]string{{"first": "Shopping", "second": "Convenience Store"}}}
	}
	return struct {
		Info info     `json:"authorizer_info"`
		Auth authInfo `json:"authorization_info"`
	}{i, authInfo{acc.AppID, c.listedRefreshToken(auth), funcInfos(auth.Granted)}}, nil
}

// options and the values they may have (platform.md §5.5).
var options = map[string][]string{
	"location_report":  {"0", "1", "2"},
	"voice_recognize":  {"0", "1"},
	"customer_service": {"0", "1"},
}

// optionAccount: sources differ on the token, so both pass; with the component's the body names the account.
func (c *call) optionAccount() (*account, string, error) {
	acc := c.acc
	if acc == nil {
		if err := c.checkComponentAppID(); err != nil {
			return nil, "", err
		}
		var err error
		if acc, _, err = c.authorizer(); err != nil {
			return nil, "", err
		}
	}
	name, _ := c.fields.text("option_name")
	if options[name] == nil {
		return nil, "", refuse(61012)
	}
	return acc, name, nil
}

func getOption(c *call) (any, error) {
	acc, name, err := c.optionAccount()
	if err != nil {
		return nil, err
	}
	return struct {
		Name  string `json:"option_name"`
		Value string `json:"option_value"`
	}{name, cmp.Or(acc.Options[name], "0")}, nil
}

func setOption(c *call) (any, error) {
	acc, name, err := c.optionAccount()
	if err != nil {
		return nil, err
	}
	value, isText := c.fields.text("option_value") // always a string, also where it looks like a number
	if !isText || !slices.Contains(options[name], value) {
		return nil, refuse(61013)
	}
	if acc.Options == nil {
		acc.Options = map[string]string{}
	}
	acc.Options[name] = value
	c.st.accounts.put(acc.AppID, acc)
	return ok, nil
}

// authorize is the administrator's consent to sets: it makes or changes the authorization, queues the
// event and gives the code. An update that changes no set sends no event (platform.md §6).
func (s *Server) authorize(acc *account, sets []int, preAuthCode string) string {
	name, changed := "authorized", true
	if auth := s.st.auths.get(acc.AppID); auth != nil {
		name, changed = "updateauthorized", !slices.Equal(auth.Granted, sets)
	}
	code := s.grant(acc, sets)
	if changed {
		s.queue("", name, componentXML(s.st.Component.AppID, name,
			element{"AuthorizerAppid", acc.AppID, true},
			element{"AuthorizationCode", code, true},
			element{"AuthorizationCodeExpiredTime", unix(time.Now().Add(codeLife)), false},
			element{"PreAuthCode", preAuthCode, true}))
	}
	return code
}

// grant makes or changes the authorization and gives the code; nobody is told.
func (s *Server) grant(acc *account, sets []int) string {
	auth := s.st.auths.get(acc.AppID)
	if auth == nil {
		auth = &authorization{Seq: s.st.next("authorization", 1), AppID: acc.AppID, RefreshToken: newRefreshToken(), At: time.Now()}
	}
	auth.Granted = slices.Clone(sets)
	s.st.auths.put(acc.AppID, auth)
	code := "queryauthcode@@@" + random(86)
	s.st.codes.put(code, &authCode{Seq: s.st.next("code", 1), AppID: acc.AppID, Expires: s.now().Add(codeLife)})
	return code
}

// unauthorize is the merchant's withdrawal in WeChat's console.
func (s *Server) unauthorize(appid string) {
	s.st.auths.del(appid)
	s.queue("", "unauthorized", componentXML(s.st.Component.AppID, "unauthorized", element{"AuthorizerAppid", appid, true}))
}
