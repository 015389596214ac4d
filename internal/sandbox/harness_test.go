package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// bundle is a running simulator and a receiver of its pushes, which stands where the gateway would.
type bundle struct {
	t      *testing.T
	sim    *Server
	base   string
	pushes *receiver
	stop   func()
}

func start(t *testing.T, alter ...func(*Config)) *bundle {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	cfg := Config{
		Addr: srv.Listener.Addr().String(), TicketInterval: time.Hour, RetryInterval: 10 * time.Millisecond,
		PushTimeout: 2 * time.Second, Seed: 1,
	}
	for _, f := range alter {
		f(&cfg)
	}
	if cfg.StateFile == "" {
		cfg.StateFile = filepath.Join(t.TempDir(), "state")
	}
	sim, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = sim.Handler()
	srv.Start()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sim.Run(ctx) }()
	b := &bundle{t: t, sim: sim, base: srv.URL, pushes: newReceiver(t)}
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run() = %v", err)
		}
		// Whatever a test did must be in the file: nothing may be changed without being marked.
		want := sim.snapshot(t)
		sim.Close()
		srv.Close()
		kept, err := openState(cfg.StateFile)
		if err != nil {
			t.Errorf("openState() = %v", err)
			return
		}
		if d := cmp.Diff(want, (&Server{st: kept}).snapshot(t)); d != "" {
			t.Errorf("changed but not written:\n%s", d)
		}
		if err := kept.close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// connected is a simulator that pushes to the receiver.
func connected(t *testing.T, alter ...func(*Config)) *bundle {
	t.Helper()
	b := start(t, alter...)
	b.control("POST", "component", `{"push_url":"`+b.pushes.url+`/wechat/ref"}`, nil)
	return b
}

// authorized is a simulator with a ticket, a component token and the demo account's access token.
func authorized(t *testing.T, alter ...func(*Config)) (*bundle, string) {
	t.Helper()
	b := connected(t, alter...)
	return b, b.accessToken(DemoOfficialAccount)
}

func (b *bundle) componentToken() string {
	b.t.Helper()
	token := b.askComponentToken()
	if token == "" {
		b.t.Fatal("no component token")
	}
	return token
}

// askComponentToken is empty where the newest ticket that has come is too old.
func (b *bundle) askComponentToken() string {
	b.t.Helper()
	ticket := b.pushes.wait("component_verify_ticket", nil).Get("ComponentVerifyTicket")
	var out struct {
		Token string `json:"component_access_token"`
	}
	b.post("/cgi-bin/component/api_component_token", obj{
		"component_appid": DefaultComponentAppID, "component_appsecret": DefaultComponentSecret, "component_verify_ticket": ticket,
	}, &out)
	return out.Token
}

// accessToken has the account authorise in the console and exchanges the code.
func (b *bundle) accessToken(appid string) string {
	b.t.Helper()
	comp := b.componentToken()
	b.control("POST", "accounts/"+appid+"/authorize", ``, nil)
	code := b.pushes.wait("authorized", func(p received) bool { return p.Get("AuthorizerAppid") == appid }).Get("AuthorizationCode")
	var out struct {
		Info struct {
			Token string `json:"authorizer_access_token"`
		} `json:"authorization_info"`
	}
	b.post("/cgi-bin/component/api_query_auth?access_token="+comp, obj{"component_appid": DefaultComponentAppID, "authorization_code": code}, &out)
	if out.Info.Token == "" {
		b.t.Fatal("no access token")
	}
	return out.Info.Token
}

type obj map[string]any

// without is a copy that lacks some members, with is one that has others.
func (o obj) without(names ...string) obj {
	c := o.with(nil)
	for _, n := range names {
		delete(c, n)
	}
	return c
}

func (o obj) with(more obj) obj {
	c := obj{}
	for k, v := range o {
		c[k] = v
	}
	for k, v := range more {
		c[k] = v
	}
	return c
}

func encode(t testing.TB, v any) string {
	t.Helper()
	if s, isText := v.(string); isText {
		return s
	}
	body, err := marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

type reply struct {
	ErrCode int    `json:"errcode"`
	ErrMsg  string `json:"errmsg"`
	Data    struct {
		AuditID    int64 `json:"audit_id"`
		HasAuditID int   `json:"has_audit_id"`
		BaseID     int64 `json:"base_id"`
	} `json:"data"`
	raw string
}

// post calls WeChat's API with a body, a JSON text or a value, and decodes into out as well.
func (b *bundle) post(path string, body, out any) reply {
	b.t.Helper()
	return b.call(http.MethodPost, path, encode(b.t, body), out)
}

func (b *bundle) get(path string, out any) reply {
	b.t.Helper()
	return b.call(http.MethodGet, path, "", out)
}

func (b *bundle) call(method, path, body string, out any) reply {
	b.t.Helper()
	status, raw := b.do(method, path, body)
	var r reply
	if status != http.StatusOK {
		b.t.Fatalf("%s %s = HTTP %d %s", method, path, status, raw)
	}
	if err := json.Unmarshal([]byte(raw), &r); err != nil {
		b.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(raw), out); err != nil {
			b.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	r.raw = raw
	return r
}

func (b *bundle) do(method, path, body string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

func (b *bundle) control(method, path, body string, out any) {
	b.t.Helper()
	status, raw := b.do(method, "/_sandbox/"+path, body)
	if status != http.StatusOK {
		b.t.Fatalf("%s %s = HTTP %d %s", method, path, status, raw)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(raw), out); err != nil {
			b.t.Fatalf("%s: %v in %s", path, err, raw)
		}
	}
}

// truth is what the truth log holds.
type truth struct {
	IDs     []truthID
	Effects []effect
}

func (b *bundle) truth() (out truth) {
	b.t.Helper()
	b.control("GET", "truth", "", &out)
	return out
}

// audits is the ones of a kind that wait for a decision, oldest first.
func (b *bundle) audits(kind auditKind) (out []audit) {
	b.t.Helper()
	var list struct{ Audits []audit }
	b.control("GET", "audits?status=pending", "", &list)
	for _, a := range list.Audits {
		if a.Kind == kind {
			out = append(out, a)
		}
	}
	return out
}

// received is one delivery, already verified and decrypted.
type received struct {
	msgcrypt.Message
	path, plain, encrypt string
	envelope             msgcrypt.Envelope
	query                url.Values
}

func (r received) name() string {
	if n := r.Get("InfoType"); n != "" {
		return n
	}
	return r.Get("Event")
}

// receiver verifies and keeps every push; answer, when set, decides what it says.
type receiver struct {
	t   *testing.T
	url string

	mu     sync.Mutex
	key    string
	got    []received
	news   chan struct{}
	answer func(attempt int, p received) (int, string)
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, key: DefaultEncodingAESKey, news: make(chan struct{}, 1)}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	r.url = srv.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Error(err)
		return
	}
	p, err := r.open(req, body)
	if err != nil {
		r.t.Errorf("push to %s: %v", req.URL, err)
		http.Error(w, "", http.StatusForbidden)
		return
	}
	r.mu.Lock()
	r.got = append(r.got, p)
	n, answer := 0, r.answer
	for _, q := range r.got {
		if q.plain == p.plain {
			n++
		}
	}
	r.mu.Unlock()
	select {
	case r.news <- struct{}{}:
	default:
	}
	status, text := http.StatusOK, "success"
	if answer != nil {
		status, text = answer(n, p)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

func (r *receiver) open(req *http.Request, body []byte) (received, error) {
	q := req.URL.Query()
	env, err := msgcrypt.ParseEnvelope(body)
	if err != nil {
		return received{}, err
	}
	switch {
	case req.Method != http.MethodPost, q.Get("encrypt_type") != "aes":
		return received{}, errors.New("not an encrypted POST")
	case !msgcrypt.VerifySignature(q.Get("msg_signature"), DefaultMessageToken, q.Get("timestamp"), q.Get("nonce"), env.Encrypt),
		!msgcrypt.VerifySignature(q.Get("signature"), DefaultMessageToken, q.Get("timestamp"), q.Get("nonce"), ""):
		return received{}, errors.New("wrong signature")
	}
	r.mu.Lock()
	key, err := msgcrypt.ParseKey(r.key)
	r.mu.Unlock()
	if err != nil {
		return received{}, err
	}
	plain, err := key.Decrypt(env.Encrypt, DefaultComponentAppID)
	if err != nil {
		return received{}, err
	}
	m, err := msgcrypt.ParseMessage(plain)
	return received{Message: m, path: req.URL.Path, plain: string(plain), encrypt: env.Encrypt, envelope: env, query: q}, err
}

func (r *receiver) all(name string) []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []received
	for _, p := range r.got {
		if name == "" || p.name() == name {
			out = append(out, p)
		}
	}
	return out
}

// wait is the last push of that name that accept takes, once there is one.
func (r *receiver) wait(name string, accept func(received) bool) received {
	r.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		list := r.all(name)
		for i := len(list) - 1; i >= 0; i-- {
			if accept == nil || accept(list[i]) {
				return list[i]
			}
		}
		select {
		case <-r.news:
		case <-deadline:
			r.t.Fatalf("no push %q", name)
		}
	}
}

// eventually polls a condition that no signal tells of.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if done() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !bytes.Contains([]byte(text), []byte(part)) {
		t.Errorf("%q is not in\n%s", part, text)
	}
}
