package authorizer

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// SpeakAsTester exchanges an authorization code of WeChat's test account appid
// and sends text to the user in the account's name: the part of the release
// check that takes a token (platform.md §7.4). It returns at once. The account
// becomes no merchant, and its token is forgotten: what is lost is lost to one
// run of the check, which its operator repeats.
func (a *Authorizer) SpeakAsTester(tenantID uuid.UUID, appid string, code secret.Text, toUser, text string) {
	a.beside("answer the release check", func(ctx context.Context) (err error) {
		defer problem.Wrap(&err, "authorizer.SpeakAsTester(%q)", appid)
		reply, err := ask[wechat.QueryAuthReply](ctx, a, tenantID, wechat.QueryAuth, nil, func(creds tenant.Credentials) any {
			return wechat.QueryAuthRequest{ComponentAppID: creds.AppID, AuthorizationCode: code.Reveal()}
		})
		if err != nil {
			return err
		}
		info := reply.AuthorizationInfo
		if info.AuthorizerAppID != appid || info.AuthorizerAccessToken == "" {
			return errors.New("the code gave no token of this account")
		}
		_, err = send[struct{}](ctx, a, tenantID, wechat.SendCustomMessage, wechat.AuthorizerToken(info.AuthorizerAccessToken),
			wechat.SendCustomMessageRequest{ToUser: toUser, MsgType: "text", Text: wechat.CustomText{Content: text}})
		return err
	})
}
