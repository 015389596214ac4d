package authorizer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// A bundle is a simulator, a database, and one or more gateways' authorizers
// over it, with the routes for browsers and pushes that handlers will have.
type bundle struct {
	t      *testing.T
	sim    string // URL of the simulator
	front  *httptest.Server
	dsn    string
	keyset *secret.Keyset
	log    *safeBuffer
	tenant uuid.UUID
	ref    string
	node   []*node

	mu     sync.Mutex
	target int // the node that pushes and browsers reach
	events []event
}

type event struct {
	msg msgcrypt.Message
	at  time.Time
	err error
}

// A node is what one process has.
type node struct {
	*Authorizer
	db      *postgres.DB
	tenants *tenant.Tenants
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var operator = tenant.Caller{Actor: "cli"}

func start(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{t: t, log: new(safeBuffer)}
	b.startSandbox()
	b.dsn = pgtest.DSN(t)
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := secret.CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.keyset, err = secret.OpenKeyset(path); err != nil {
		t.Fatal(err)
	}
	b.front = httptest.NewServer(b.routes())
	t.Cleanup(b.front.Close)
	b.addNode(b.sim)
	d, err := b.node[0].tenants.Create(t.Context(), operator, tenant.NewTenant{
		Name: "demo", ComponentAppID: sandbox.DefaultComponentAppID, ReturnURLAllowList: []string{"https://good.com"},
		Credentials: &tenant.NewCredentials{
			Secret: secret.NewText(sandbox.DefaultComponentSecret), MessageToken: secret.NewText(sandbox.DefaultMessageToken),
			EncodingAESKey: secret.NewText(sandbox.DefaultEncodingAESKey),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.tenant, b.ref = d.ID, d.Ref
	b.control("POST", "component", map[string]any{"push_url": b.front.URL + "/wechat/" + d.Ref}, nil)
	b.until("a ticket came", func() bool { return b.heard("component_verify_ticket", "") > 0 })
	return b
}

func (b *bundle) startSandbox() {
	srv := httptest.NewUnstartedServer(nil)
	sim, err := sandbox.New(sandbox.Config{
		Addr: srv.Listener.Addr().String(), TicketInterval: time.Hour, RetryInterval: 20 * time.Millisecond, PushTimeout: 3 * time.Second,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	srv.Config.Handler = sim.Handler()
	srv.Start()
	b.sim = srv.URL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sim.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		<-done
		sim.Close()
		srv.Close()
	})
}

// addNode adds what another process on the same database would have, calling
// WeChat at wechatURL.
func (b *bundle) addNode(wechatURL string) *node {
	t := b.t
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: b.dsn, MaxConns: 6})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	changes := db.NewChanges(log)
	ctx, cancel := context.WithCancel(context.Background())
	var listening sync.WaitGroup
	listening.Go(func() { changes.Run(ctx) })
	tenants := tenant.New(tenant.Deps{DB: db, Keyset: b.keyset, Changes: changes, Log: log})
	client := wechat.NewClient(wechatURL, nil)
	records, err := spool.Open(t.TempDir(), b.keyset)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{db: db, tenants: tenants, Authorizer: New(Deps{
		DB: db, Keyset: b.keyset, Tenants: tenants, WeChat: client, Changes: changes, Spool: records, Log: log, Background: observe.NewBackground(log, observe.NewMetrics()),
		Config: Config{PublicURL: b.front.URL, MPURL: b.sim, OpenURL: b.sim, Instance: fmt.Sprintf("node-%d", len(b.node))},
	})}
	b.node = append(b.node, n)
	t.Cleanup(func() {
		n.Close()
		client.Close()
		if err := records.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		listening.Wait()
		db.Close()
	})
	return n
}

// reach sends pushes and browsers to node i from now on.
func (b *bundle) reach(i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.target = i
}

func (b *bundle) a() *node {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.node[b.target]
}

// routes are the public ones, as plainly as can be.
func (b *bundle) routes() http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, err error) {
		p, _ := problem.As(Problem(err))
		if p == nil {
			p = problem.Of(problem.CodeInternal)
		}
		http.Error(w, p.Code, p.Kind.Status())
	}
	mux.HandleFunc("GET /connect/{state}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := b.a().Show(r.Context(), r.PathValue("state")); err != nil {
			fail(w, err)
			return
		}
		name, _ := b.a().BrowserCookie()
		http.SetCookie(w, &http.Cookie{Name: name, Value: NewBrowser(), Path: "/", HttpOnly: true})
		fmt.Fprint(w, `<form method="post" action="/connect/`+r.PathValue("state")+`"><button>Go</button></form>`)
	})
	mux.HandleFunc("POST /connect/{state}", func(w http.ResponseWriter, r *http.Request) {
		name, _ := b.a().BrowserCookie()
		c, err := r.Cookie(name)
		if err != nil {
			c = &http.Cookie{}
		}
		to, err := b.a().Click(r.Context(), r.PathValue("state"), c.Value, r.Header.Get("X-Mobile") != "")
		if err != nil {
			fail(w, err)
			return
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
	mux.HandleFunc("GET /connect/{state}/callback", func(w http.ResponseWriter, r *http.Request) {
		name, _ := b.a().BrowserCookie()
		browser := ""
		if c, err := r.Cookie(name); err == nil {
			browser = c.Value
		}
		back, err := b.a().Callback(r.Context(), r.PathValue("state"), r.URL.Query().Get("auth_code"), browser)
		if err != nil {
			fail(w, err)
			return
		}
		fmt.Fprint(w, back.Status, " ", back.ReturnTo)
	})
	mux.HandleFunc("POST /wechat/{ref}/component", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		msg, err := b.open(body, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		at := time.Now()
		err = b.a().ApplyComponentEvent(r.Context(), b.tenant, msg, at)
		b.mu.Lock()
		b.events = append(b.events, event{msg, at, err})
		b.mu.Unlock()
		if err != nil && !errors.Is(err, ErrUnknownInfoType) && !errors.Is(err, ErrNotOurs) {
			http.Error(w, "again", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "success")
	})
	return mux
}

func (b *bundle) open(body []byte, r *http.Request) (msgcrypt.Message, error) {
	e, err := msgcrypt.ParseEnvelope(body)
	if err != nil {
		return msgcrypt.Message{}, err
	}
	q := r.URL.Query()
	if !msgcrypt.VerifySignature(q.Get("msg_signature"), sandbox.DefaultMessageToken, q.Get("timestamp"), q.Get("nonce"), e.Encrypt) {
		return msgcrypt.Message{}, errors.New("signature")
	}
	key, err := msgcrypt.ParseKey(sandbox.DefaultEncodingAESKey)
	if err != nil {
		return msgcrypt.Message{}, err
	}
	plain, err := key.Decrypt(e.Encrypt, sandbox.DefaultComponentAppID)
	if err != nil {
		return msgcrypt.Message{}, err
	}
	return msgcrypt.ParseMessage(plain)
}

// heard counts the pushes of a type for an account that were applied.
func (b *bundle) heard(infoType, appid string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, e := range b.events {
		if e.err == nil && e.msg.Get("InfoType") == infoType && (appid == "" || e.msg.Get("AuthorizerAppid") == appid) {
			n++
		}
	}
	return n
}

// control calls the simulator's control API.
func (b *bundle) control(method, path string, body, into any) {
	b.t.Helper()
	var in io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			b.t.Fatal(err)
		}
		in = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, b.sim+"/_sandbox/"+path, in)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, _ := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		b.t.Fatalf("control %s %s: %d %s", method, path, resp.StatusCode, out)
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			b.t.Fatal(err)
		}
	}
}

type obj = map[string]any

type journalled struct {
	Seq    int64
	Path   string
	Query  string
	Body   string
	Status int
	Reply  string
}

// calls are the requests that the simulator received for a call of the component.
func (b *bundle) calls(path string) []journalled {
	b.t.Helper()
	var out struct{ Requests []journalled }
	b.control("GET", "journal?path="+path, nil, &out)
	return out.Requests
}

const componentPath = "/cgi-bin/component/"

// until polls for what another goroutine brings about.
func (b *bundle) until(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain until %s\n%s", what, b.log)
		}
	}
}

// authorize has the account authorise in WeChat's console, without a link of
// ours, and returns the merchant.
func (b *bundle) authorize(appid string) Merchant {
	b.t.Helper()
	before := b.heard("authorized", appid)
	b.control("POST", "accounts/"+appid+"/authorize", nil, nil)
	b.until("the authorisation was applied", func() bool { return b.heard("authorized", appid) > before })
	return b.merchant(appid)
}

func (b *bundle) merchant(appid string) Merchant {
	b.t.Helper()
	m, err := b.a().Merchant(b.t.Context(), b.tenant, appid)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// sql runs a statement of the tenant past our own code.
func (b *bundle) sql(statement string, args ...any) {
	b.t.Helper()
	err := b.node[0].db.InTenant(b.t.Context(), b.tenant, func(tx postgres.DBTX) error {
		_, err := tx.Exec(b.t.Context(), statement, args...)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// scalar reads one value.
func scalar[T any](b *bundle, query string, args ...any) T {
	b.t.Helper()
	var v T
	err := b.node[0].db.InTenant(b.t.Context(), b.tenant, func(tx postgres.DBTX) error {
		return tx.QueryRow(b.t.Context(), query, args...).Scan(&v)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// expire ends the merchants' tokens as the database sees it, and the component's too if all.
func (b *bundle) expire(all bool) {
	b.t.Helper()
	b.sql(`UPDATE authorizer_tokens SET access_expires_at = now() - interval '1 second'`)
	if all {
		b.sql(`UPDATE component_tokens SET access_expires_at = now() - interval '1 second'`)
	}
	for _, n := range b.node {
		n.tokens.DropAll()
		n.components.DropAll()
	}
}

// read makes a call that needs the merchant's token.
func (b *bundle) read(n *node, m Merchant) error {
	_, err := Call[wechat.GetStoreListReply](b.t.Context(), n.Authorizer, m, wechat.GetStoreList, nil, wechat.GetStoreListRequest{Limit: 10})
	return err
}

func codeOf(err error) string {
	if err == nil {
		return ""
	}
	if p, ok := problem.As(err); ok {
		return p.Code
	}
	return "not a problem: " + err.Error()
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	if got := codeOf(err); got != want {
		t.Fatalf("code = %q, want %q (%v)", got, want, err)
	}
}

// consent walks a link as the account's administrator would.
func (b *bundle) consent(appid, link string) (status int, page string) {
	b.t.Helper()
	var out struct {
		Status int
		Page   string
	}
	b.control("POST", "authorizations", obj{"appid": appid, "url": link}, &out)
	return out.Status, strings.TrimSpace(out.Page)
}
