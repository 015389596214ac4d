package wechat

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The replies of platform.md §3 to §5: success has no errcode.
func TestComponentReplies(t *testing.T) {
	t.Parallel()
	read := func(e *Endpoint, body string) Reply {
		r := Reply{Status: 200, Body: []byte(body)}
		if class, err := Classify(e, r); class != Executed {
			t.Errorf("%s: %s is %s: %v", e.Name, body, class, err)
		}
		return r
	}
	token, err := Decode[GetComponentTokenReply](GetComponentToken, read(GetComponentToken, `{"component_access_token":"tok","expires_in":7200}`))
	if err != nil || token.ComponentAccessToken != "tok" || token.ExpiresIn != 7200 {
		t.Errorf("token = %+v, %v", token, err)
	}
	code, err := Decode[CreatePreAuthCodeReply](CreatePreAuthCode, read(CreatePreAuthCode, `{"pre_auth_code":"preauthcode@@@x","expires_in":"1800"}`))
	if err != nil || code.PreAuthCode != "preauthcode@@@x" || code.ExpiresIn != 1800 {
		t.Errorf("pre-auth code = %+v, %v", code, err)
	}
	auth, err := Decode[QueryAuthReply](QueryAuth, read(QueryAuth, `{"authorization_info":{
		"authorizer_appid":"wx1","authorizer_access_token":"a","expires_in":7200,"authorizer_refresh_token":"r",
		"func_info":[{"funcscope_category":{"id":1,"type":2,"name":"n"},"confirm_info":{"need_confirm":0}},{"funcscope_category":{"id":13}},{"funcscope_category":{"id":13}},{"funcscope_category":{}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{1, 13}, auth.AuthorizationInfo.PermissionSets()); diff != "" {
		t.Error(diff)
	}
	list, err := Decode[GetAuthorizerListReply](GetAuthorizerList, read(GetAuthorizerList, `{"total_count":33,"list":[{"authorizer_appid":"wx1","refresh_token":"r","auth_time":1558000607},{"authorizer_appid":"wx2","auth_time":1558000608}]}`))
	if err != nil || list.TotalCount != 33 || len(list.List) != 2 || list.List[1].RefreshToken != "" || list.List[0].AuthTime != 1558000607 {
		t.Errorf("list = %+v, %v", list, err)
	}
	read(StartPushTicket, `{"errcode":0,"errmsg":"ok"}`)
	for _, e := range []*Endpoint{StartPushTicket, GetComponentToken, CreatePreAuthCode, QueryAuth, GetAuthorizerToken, GetAuthorizerInfo, GetAuthorizerList} {
		if class, _ := Classify(e, Reply{Status: 200, Body: []byte(`{}`)}); class != Ambiguous {
			t.Errorf("%s: {} is %s", e.Name, class)
		}
	}
}

// The only mark of a Mini Program is the presence of MiniProgramInfo.
func TestAccountKind(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{
		`{"authorizer_info":{"nick_name":"n","user_name":"gh_1","verify_type_info":{"id":-1}},"authorization_info":{}}`:                     false,
		`{"authorizer_info":{"nick_name":"n","MiniProgramInfo":{"network":{"RequestDomain":[]},"visit_status":0}},"authorization_info":{}}`: true,
		`{"authorizer_info":{"MiniProgramInfo":null},"authorization_info":{}}`:                                                              false,
	} {
		info, err := Decode[GetAuthorizerInfoReply](GetAuthorizerInfo, Reply{Status: 200, Body: []byte(body)})
		if err != nil || info.AuthorizerInfo.IsMiniProgram() != want {
			t.Errorf("%s: mini program %v, %v", body, info.AuthorizerInfo.IsMiniProgram(), err)
		}
	}
}

// What the component's calls refuse with, and what is done about it.
func TestComponentErrcodes(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]Class{
		`{"errcode":61023,"errmsg":"refresh_token is invalid"}`: Refused,
		`{"errcode":61003,"errmsg":"not authorized"}`:           Refused,
		`{"errcode":61009,"errmsg":"code is invalid"}`:          Refused,
		`{"errcode":61006,"errmsg":"ticket is invalid"}`:        TicketRefused,
		`{"errcode":61005,"errmsg":"ticket is expired"}`:        TicketRefused,
		`{"errcode":42006,"errmsg":"expired"}`:                  TokenRejected,
		`{"errcode":40001,"errmsg":"invalid credential"}`:       TokenRejected,
		`{"errcode":-1,"errmsg":"system error"}`:                Ambiguous,
		`<html>bad gateway</html>`:                              Ambiguous,
		``:                                                      Ambiguous,
	} {
		if got, _ := Classify(GetAuthorizerToken, Reply{Status: 200, Body: []byte(body)}); got != want {
			t.Errorf("%s is %s, want %s", body, got, want)
		}
	}
	for _, e := range []*Endpoint{StartPushTicket, GetComponentToken, CreatePreAuthCode, QueryAuth, GetAuthorizerToken, GetAuthorizerInfo, GetAuthorizerList} {
		if e.Deadline() != componentTimeout || len(e.Sets) != 0 {
			t.Errorf("%s: deadline %s, sets %v", e.Name, e.Deadline(), e.Sets)
		}
	}
}
