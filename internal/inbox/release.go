package inbox

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/wechat"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// The full-network release check (platform.md §7.4): before a platform may
// serve everybody, two accounts of WeChat's own write to it as users would, and
// judge what it answers. Nobody else's messages are answered here.

const (
	releaseText  = "TESTCOMPONENT_MSG_TYPE_TEXT"
	releaseQuery = "QUERY_AUTH_CODE:"
)

// answer is what the sender of a push is told once it is kept: success, if it
// isn't part of a release check that the tenant wants answered.
func (in *Inbox) answer(p received) Answer {
	user, ok := wechat.ReleaseTester(p.row.Appid)
	if !ok || !p.tenant.ReleaseCheck || p.msg.Get("ToUserName") != user {
		return success
	}
	content := p.msg.Get("Content")
	switch code, query := strings.CutPrefix(content, releaseQuery); {
	case p.msg.Get("MsgType") == "event":
		return p.say(p.msg.Get("Event") + "from_callback")
	case p.msg.Get("MsgType") != "text":
		return success
	case content == releaseText:
		return p.say(releaseText + "_callback")
	case query:
		in.Authorizer.SpeakAsTester(p.tenant.ID, p.row.Appid, secret.NewText(code), p.msg.Get("FromUserName"), code+"_from_api")
		return Answer{Type: plainText}
	}
	return success
}

// say is a passive reply: a text to the sender, sealed with what opened the
// push.
func (p received) say(text string) Answer {
	now := time.Now().Unix()
	msg := fmt.Sprintf("<xml><ToUserName>%s</ToUserName><FromUserName>%s</FromUserName><CreateTime>%d</CreateTime><MsgType><![CDATA[text]]></MsgType><Content>%s</Content></xml>",
		msgcrypt.CDATA(p.msg.Get("FromUserName")), msgcrypt.CDATA(p.msg.Get("ToUserName")), now, msgcrypt.CDATA(text))
	var random [16]byte
	rand.Read(random[:])
	return Answer{Type: "text/xml; charset=utf-8", Body: msgcrypt.BuildReply(p.key, p.token.Reveal(), p.appID, random, now, rand.Text(), []byte(msg))}
}
