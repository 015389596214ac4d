package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// The full-network release check (platform.md §7.4): WeChat's two test accounts write to the platform
// as a fan would, and judge what it answers.

// tester is one of the test accounts, and the event that its fan causes.
type tester struct {
	appid, userName string
	kind            accountKind
	sets            []int
	event           string
}

var testers = []tester{
	{"wx570bc396a51b8ff8", "gh_3c884a361561", officialAccount, []int{1}, "LOCATION"},
	{"wxd101a85aa106f53e", "gh_8dad206e9538", miniProgram, []int{19}, "user_enter_tempsession"},
}

const (
	releaseText      = "TESTCOMPONENT_MSG_TYPE_TEXT"
	releaseTextReply = releaseText + "_callback"
	releaseQuery     = "QUERY_AUTH_CODE:"
	fromAPI          = "_from_api"
	fromCallback     = "from_callback"
)

// releaseReport is what one check found.
type releaseReport struct {
	Passed bool            `json:"passed"`
	Checks []releaseResult `json:"checks"`
}

type releaseResult struct {
	Check  string `json:"check"` // ticket, text, query_auth_code or event
	AppID  string `json:"appid,omitempty"`
	Sent   string `json:"sent"` // the content of the message, or the name of the event
	Want   string `json:"want"`
	Got    string `json:"got"`
	Passed bool   `json:"passed"`
	Reason string `json:"reason,omitempty"` // why it failed
}

// releaseRun is a check under way. What test accounts send by custom/send goes to said.
type releaseRun struct {
	*Server
	said map[string]chan customMessage // by appid
	made []string                      // accounts that are there for this run only
}

// controlReleaseCheck runs the check and answers with the report. It takes a minute at worst.
func (s *Server) controlReleaseCheck(r *http.Request) (any, error) {
	run := &releaseRun{Server: s, said: map[string]chan customMessage{}}
	if _, err := s.change(func() (any, error) {
		switch {
		case s.release != nil:
			return nil, problem(http.StatusConflict, "a release check is under way")
		case s.st.Component.PushURL == "" || s.st.Component.eventURL() == "":
			return nil, problem(http.StatusConflict, "the component has no push_url")
		}
		s.release = run
		run.begin()
		return nil, nil
	}); err != nil {
		return nil, err
	}
	results := make([][]releaseResult, len(testers)+1)
	var accounts sync.WaitGroup
	accounts.Go(func() { results[0] = []releaseResult{run.ticket(r.Context())} })
	for i, who := range testers {
		accounts.Go(func() { results[i+1] = run.account(r.Context(), who) })
	}
	accounts.Wait()

	report := releaseReport{Passed: true}
	for _, list := range results {
		for _, res := range list {
			report.Passed = report.Passed && res.Passed
			report.Checks = append(report.Checks, res)
		}
	}
	return s.change(func() (any, error) {
		run.end()
		s.release, s.released = nil, &report
		return report, nil
	})
}

// begin makes the test accounts, authorised without any event: a platform that goes live does not know them.
func (run *releaseRun) begin() {
	for _, who := range testers {
		run.said[who.appid] = make(chan customMessage, 1)
		if run.st.accounts.get(who.appid) == nil {
			acc := run.makeAccount(who.appid, who.kind, "WeChat's test account", who.sets)
			acc.UserName = who.userName
			run.st.accounts.put(acc.AppID, acc)
			run.made = append(run.made, who.appid)
		}
	}
}

// end takes the test accounts away again.
func (run *releaseRun) end() {
	for _, appid := range run.made {
		run.st.accounts.del(appid)
		run.st.auths.del(appid)
		for value, t := range run.st.tokens.rows {
			if t.AppID == appid {
				run.st.tokens.del(value)
			}
		}
		for value, code := range run.st.codes.rows {
			if code.AppID == appid {
				run.st.codes.del(value)
			}
		}
	}
}

// outcome is how the receiver answered one push, and what is needed to read it.
type outcome struct {
	status int
	body   []byte
	err    error
	comp   component
	key    string // EncodingAESKey
}

// push delivers one message now, once, although pushes may be held.
func (run *releaseRun) push(ctx context.Context, appid, openID, xml string) outcome {
	run.mu.Lock()
	out := outcome{comp: run.st.Component, key: run.st.aesKey()}
	to := out.comp.eventURL()
	if appid != "" {
		to = out.comp.messageURL(appid)
	}
	seal := run.seal(&push{AppID: appid, XML: xml})
	run.mu.Unlock()
	m := seal()
	if openID != "" {
		m.query.Set("openid", openID)
	}
	out.status, out.body, out.err = run.deliver(ctx, to, m)
	return out
}

func (o outcome) refused() string {
	switch {
	case o.err != nil:
		return "no answer: " + o.err.Error()
	case o.status != http.StatusOK:
		return fmt.Sprintf("HTTP %d", o.status)
	}
	return ""
}

// ticket: a ticket must be taken.
func (run *releaseRun) ticket(ctx context.Context) releaseResult {
	var xml string
	_, err := run.change(func() (any, error) {
		xml = run.newTicket()
		return nil, nil
	})
	res := releaseResult{Check: "ticket", Sent: "component_verify_ticket", Want: "success"}
	if err != nil {
		res.Reason = err.Error()
		return res
	}
	o := run.push(ctx, "", "", xml)
	res.Got, res.Reason = string(o.body), o.refused()
	if res.Reason == "" && !accepted(o.status, o.body) {
		res.Reason = "neither success nor an empty reply"
	}
	res.Passed = res.Reason == ""
	return res
}

// account runs the three checks of one test account.
func (run *releaseRun) account(ctx context.Context, who tester) []releaseResult {
	fan := "o" + random(27)
	text := run.passive(ctx, who, fan, releaseResult{Check: "text", Sent: releaseText, Want: releaseTextReply},
		messageXML(who.userName, fan, "text", element{"Content", releaseText, true}, element{"MsgId", digits(18), false}))
	event := run.passive(ctx, who, fan, releaseResult{Check: "event", Sent: who.event, Want: who.event + fromCallback},
		messageXML(who.userName, fan, "event", element{"Event", who.event, true}))
	return []releaseResult{text, run.queryAuthCode(ctx, who, fan), event}
}

// passive expects an encrypted text in the reply to the push itself.
func (run *releaseRun) passive(ctx context.Context, who tester, fan string, res releaseResult, xml string) releaseResult {
	res.AppID = who.appid
	o := run.push(ctx, who.appid, fan, xml)
	if res.Reason = o.refused(); res.Reason != "" {
		return res
	}
	reply, err := o.open()
	if err != nil {
		res.Got, res.Reason = string(o.body), err.Error()
		return res
	}
	res.Got = reply.Get("Content")
	for _, check := range []struct{ name, want string }{
		{"ToUserName", fan}, {"FromUserName", who.userName}, {"MsgType", "text"}, {"Content", res.Want},
	} {
		if got := reply.Get(check.name); got != check.want {
			res.Reason = fmt.Sprintf("%s is %q, not %q", check.name, got, check.want)
			return res
		}
	}
	if reply.Get("CreateTime") == "" {
		res.Reason = "CreateTime is missing"
		return res
	}
	res.Passed = true
	return res
}

// open verifies and decrypts a passive reply (platform.md §7.3).
func (o outcome) open() (msgcrypt.Message, error) {
	envelope, err := msgcrypt.ParseMessage(o.body)
	if err != nil {
		return msgcrypt.Message{}, fmt.Errorf("the reply is no XML: %w", err)
	}
	encrypt := envelope.Get("Encrypt")
	if !msgcrypt.VerifySignature(envelope.Get("MsgSignature"), o.comp.MessageToken, envelope.Get("TimeStamp"), envelope.Get("Nonce"), encrypt) {
		return msgcrypt.Message{}, errors.New("the reply lacks an Encrypt with a valid MsgSignature")
	}
	key, err := msgcrypt.ParseKey(o.key)
	if err != nil {
		return msgcrypt.Message{}, err
	}
	plain, err := key.Decrypt(encrypt, o.comp.AppID)
	if err != nil {
		return msgcrypt.Message{}, fmt.Errorf("the reply can't be decrypted with the key of the push: %w", err)
	}
	return msgcrypt.ParseMessage(plain)
}

// queryAuthCode expects nothing in the reply, then the code exchanged and a text by custom/send.
func (run *releaseRun) queryAuthCode(ctx context.Context, who tester, fan string) releaseResult {
	var code string
	_, err := run.change(func() (any, error) {
		acc := run.st.accounts.get(who.appid)
		if acc == nil {
			return nil, errors.New("the simulator was reset")
		}
		code = run.grant(acc, who.sets)
		return nil, nil
	})
	res := releaseResult{Check: "query_auth_code", AppID: who.appid, Sent: releaseQuery + code, Want: code + fromAPI}
	if err != nil {
		res.Reason = err.Error()
		return res
	}
	o := run.push(ctx, who.appid, fan, messageXML(who.userName, fan, "text",
		element{"Content", res.Sent, true}, element{"MsgId", digits(18), false}))
	if res.Reason = o.refused(); res.Reason == "" && len(o.body) > 0 {
		res.Got, res.Reason = string(o.body), "the reply to the push must be empty"
	}
	if res.Reason != "" {
		return res
	}
	wait := time.NewTimer(2 * run.cfg.PushTimeout)
	defer wait.Stop()
	select {
	case m := <-run.said[who.appid]:
		switch res.Got = m.Text.Content; {
		case m.ToUser != fan:
			res.Reason = fmt.Sprintf("custom/send went to %q, not to %q", m.ToUser, fan)
		case m.Text.Content != res.Want:
			res.Reason = fmt.Sprintf("custom/send said %q", m.Text.Content)
		default:
			res.Passed = true
		}
	case <-wait.C:
		res.Reason = run.missing(code)
	case <-ctx.Done():
		res.Reason = "the check was broken off"
	case <-run.closed:
		res.Reason = "the simulator has stopped"
	}
	return res
}

// missing says how far a platform came that sent no message.
func (run *releaseRun) missing(code string) string {
	run.mu.Lock()
	defer run.mu.Unlock()
	if c := run.st.codes.get(code); c == nil || !c.Used {
		return "the code was not exchanged by api_query_auth"
	}
	return "the code was exchanged, but no message came by custom/send"
}

// customMessage is the request of custom/send.
type customMessage struct {
	ToUser  string `json:"touser"`
	MsgType string `json:"msgtype"`
	Text    struct {
		Content string `json:"content"`
	} `json:"text"`
}

// Messages to fans, of which the release check needs the text alone.
func messageEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodPost, path: "/cgi-bin/message/custom/send", token: tokenAuthorizer, sets: messageSets, serve: customSend},
	}
}

// customSend is platform.md §7.4; no document describes more of it.
func customSend(c *call) (any, error) {
	var m customMessage
	if json.Unmarshal(c.body, &m) != nil || m.ToUser == "" || m.MsgType != "text" || strings.TrimSpace(m.Text.Content) == "" {
		return nil, refuse(40097)
	}
	c.executed("custom_send", c.acc.AppID, m.ToUser, m.Text.Content)
	if c.release != nil {
		select {
		case c.release.said[c.acc.AppID] <- m:
		default: // nobody listens for this account, or it has spoken already
		}
	}
	return ok, nil
}
