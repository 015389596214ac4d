package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

const (
	pushAttempts = 4 // the first and three retries (platform.md §7.3)
	pushParallel = 8
	pushKept     = 500 // finished pushes that stay listed
	maxReply     = 64 << 10
)

// element is one element of a push; the samples say which are CDATA.
type element struct {
	name, value string
	cdata       bool
}

func (e element) String() string {
	if e.cdata {
		return "<" + e.name + ">" + msgcrypt.CDATA(e.value) + "</" + e.name + ">"
	}
	return "<" + e.name + ">" + e.value + "</" + e.name + ">"
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// componentXML is a component event in the shape of platform.md §2.1 and §6: a line per element, but
// none between InfoType and the AuthorizerAppid of `unauthorized`, as in the published vector.
func componentXML(appid, infoType string, extra ...element) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<xml>%s\n%s\n%s", element{"AppId", appid, true}, element{"CreateTime", unix(time.Now()), false}, element{"InfoType", infoType, true})
	if infoType == "unauthorized" {
		fmt.Fprintf(&b, "%s</xml>", extra[0])
		return b.String()
	}
	for _, e := range extra {
		fmt.Fprintf(&b, "\n%s", e)
	}
	b.WriteString("\n</xml>")
	return b.String()
}

// systemUser is the FromUserName of every sample in wechat/000.
const systemUser = "od1P50M-fNQI5Gcq-trm4a7apsU8"

// eventXML is a merchant's event in the shape of the samples of wechat/000.
func eventXML(toUser, event string, extra ...element) string {
	return messageXML(toUser, systemUser, "event", append([]element{{"Event", event, true}}, extra...)...)
}

// messageXML is whatever somebody sends to an account.
func messageXML(toUser, fromUser, msgType string, extra ...element) string {
	var b strings.Builder
	b.WriteString("<xml>")
	for _, e := range append([]element{
		{"ToUserName", toUser, true}, {"FromUserName", fromUser, true}, {"CreateTime", unix(time.Now()), false},
		{"MsgType", msgType, true},
	}, extra...) {
		fmt.Fprintf(&b, " \n  %s", e)
	}
	b.WriteString(" \n</xml>")
	return b.String()
}

// eventURL is where component events go, messageURL where those of a merchant go. "" is nowhere yet.
func (c *component) eventURL() string {
	switch base, ok := strings.CutSuffix(c.PushURL, "/messages/$APPID$"); {
	case c.EventURL != "":
		return c.EventURL
	case ok:
		return base + "/component"
	case c.PushURL == "" || strings.Contains(c.PushURL, "$APPID$"):
		return ""
	default:
		return strings.TrimSuffix(c.PushURL, "/") + "/component"
	}
}

func (c *component) messageURL(appid string) string {
	switch {
	case c.PushURL == "":
		return ""
	case strings.Contains(c.PushURL, "$APPID$"):
		return strings.ReplaceAll(c.PushURL, "$APPID$", appid)
	default:
		return strings.TrimSuffix(c.PushURL, "/") + "/messages/" + appid
	}
}

// queue adds a push, as often as the setting push_copies says.
func (s *Server) queue(appid, name, xml string) *push {
	var p *push
	for range max(1, s.st.Settings.PushCopies) {
		p = &push{ID: s.st.next("push", 1), AppID: appid, Name: name, XML: xml, Status: pushQueued, CreatedAt: time.Now(), NextAt: time.Now()}
		s.st.pushes.put(strconv.FormatInt(p.ID, 10), p)
	}
	return p
}

// dispatch starts the pushes that are due, oldest first, and says how long no other will be.
func (s *Server) dispatch(ctx context.Context, sends *sync.WaitGroup) time.Duration {
	wait := time.Hour
	now := time.Now()
	for _, p := range s.st.pushes.sorted(func(p *push) bool { return p.Status == pushQueued }, bySeq) {
		url := s.st.Component.eventURL()
		if p.AppID != "" {
			url = s.st.Component.messageURL(p.AppID)
		}
		switch {
		case s.sending[p.ID] || url == "" || (s.st.Hold && !p.Released):
		case now.Before(p.NextAt):
			wait = min(wait, p.NextAt.Sub(now))
		case len(s.sending) < pushParallel:
			s.sending[p.ID] = true
			seal := s.seal(p)
			sends.Go(func() { s.send(ctx, p.ID, url, seal) })
		}
	}
	return wait
}

// sealed is one attempt: its body and query are new each time, only the plaintext stays.
type sealed struct {
	body  []byte
	query url.Values
	err   error
}

// aesKey is the EncodingAESKey that pushes are encrypted with.
func (st *state) aesKey() string {
	if st.Settings.UsePreviousKey && st.Component.PreviousEncodingAESKey != "" {
		return st.Component.PreviousEncodingAESKey
	}
	return st.Component.EncodingAESKey
}

func (s *Server) seal(p *push) func() sealed {
	comp, aesKey := s.st.Component, s.st.aesKey()
	user := ""
	if acc := s.st.accounts.get(p.AppID); acc != nil {
		user = acc.UserName
	}
	xml := p.XML
	return func() sealed {
		key, err := msgcrypt.ParseKey(aesKey)
		if err != nil {
			return sealed{err: err}
		}
		encrypt := key.Encrypt([16]byte([]byte(random(16))), []byte(xml), comp.AppID)
		to := element{"AppId", comp.AppID, true}
		if user != "" {
			to = element{"ToUserName", user, true}
		}
		timestamp, nonce := unix(time.Now()), digits(9)
		return sealed{
			body: fmt.Appendf(nil, "<xml>%s%s</xml>", to, element{"Encrypt", encrypt, true}),
			query: url.Values{
				"signature": {msgcrypt.Signature(comp.MessageToken, timestamp, nonce, "")},
				"timestamp": {timestamp}, "nonce": {nonce}, "encrypt_type": {"aes"},
				"msg_signature": {msgcrypt.Signature(comp.MessageToken, timestamp, nonce, encrypt)},
			},
		}
	}
}

func digits(n int) string {
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
	v, _ := rand.Int(rand.Reader, limit) // never fails, by the contract of rand.Reader
	return fmt.Sprintf("%0*d", n, v)
}

// send makes one attempt and records how it went.
func (s *Server) send(ctx context.Context, id int64, to string, seal func() sealed) {
	err := s.post(ctx, to, seal())
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sending, id)
	p := s.st.pushes.get(strconv.FormatInt(id, 10))
	if p == nil || s.stopped || (err != nil && ctx.Err() != nil) {
		return // reset, or stopped: the attempt is made again by the next process
	}
	p.Attempts++
	p.LastError = ""
	switch {
	case err == nil:
		p.Status = pushDelivered
	case p.Attempts >= pushAttempts:
		p.Status, p.LastError = pushFailed, err.Error()
	default:
		p.LastError, p.NextAt = err.Error(), time.Now().Add(s.cfg.RetryInterval)
	}
	s.st.pushes.put(strconv.FormatInt(id, 10), p)
	s.forgetPushes()
	if err := s.commit(); err != nil {
		s.log.Error("sandbox: state not written", "err", err)
	}
}

// forgetPushes drops the oldest finished pushes.
func (s *Server) forgetPushes() {
	if len(s.st.pushes.rows) < 2*pushKept {
		return
	}
	done := s.st.pushes.sorted(func(p *push) bool { return p.Status != pushQueued }, bySeq)
	for _, p := range done[:max(0, len(done)-pushKept)] {
		s.st.pushes.del(strconv.FormatInt(p.ID, 10))
	}
}

func pushClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{MaxIdleConnsPerHost: pushParallel, IdleConnTimeout: 30 * time.Second},
	}
}

var errNotSuccess = errors.New("the receiver did not answer success")

// post is one delivery: only HTTP 200 with `success` or nothing stops the retries (platform.md §7.3).
func (s *Server) post(ctx context.Context, to string, m sealed) error {
	status, body, err := s.deliver(ctx, to, m)
	if err == nil && !accepted(status, body) {
		err = fmt.Errorf("%w: HTTP %d, %q", errNotSuccess, status, body[:min(len(body), 200)])
	}
	return err
}

func accepted(status int, body []byte) bool {
	return status == http.StatusOK && (len(body) == 0 || string(body) == "success")
}

// deliver sends a push and reads what the receiver answers.
func (s *Server) deliver(ctx context.Context, to string, m sealed) (status int, body []byte, err error) {
	if m.err != nil {
		return 0, nil, m.err
	}
	u, err := url.Parse(to)
	if err != nil {
		return 0, nil, err
	}
	u.RawQuery = m.query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(m.body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Header.Set("User-Agent", "Mozilla/4.0")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxReply))
	return resp.StatusCode, body, err
}
