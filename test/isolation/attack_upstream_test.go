package isolation

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// A rude server stands where WeChat should be. It passes on to the simulator
// what it doesn't answer itself.
type rude struct {
	URL  string
	lure *httptest.Server // where it would like the gateway to go

	lured atomic.Int32
	mu    sync.Mutex
	to    http.Handler
	mine  func(path, body string) http.HandlerFunc // nil, or its nil, is passed on
}

func newRude(t *testing.T) *rude {
	t.Helper()
	r := &rude{}
	r.lure = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { r.lured.Add(1) }))
	t.Cleanup(r.lure.Close)
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

func (r *rude) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the gateway hung up
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	r.mu.Lock()
	reply := r.to
	if r.mine != nil {
		if own := r.mine(req.URL.Path, string(body)); own != nil {
			reply = own
		}
	}
	r.mu.Unlock()
	reply.ServeHTTP(w, req)
}

// says makes it answer by mine, which is called for one request at a time.
func (r *rude) says(mine func(path, body string) http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mine = mine
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, s)
	}
}

func redirect(status int, to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to+r.URL.RequestURI())
		w.WriteHeader(status)
	}
}

func zipped(n int) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(bytes.Repeat([]byte(" "), n)) // into memory
	_ = z.Close()
	return b.Bytes()
}

const rudeWords = `bad\u0000\u001b[31m\r\nSet-Cookie: x=1\r\n<script>alert(1)</script>\u202e`

// namesCase finds in a call's body which case of TestRudeWeChat it is of: a read
// asks for so many stores, a write brings a credential (world.NewStore).
var namesCase = map[string]*regexp.Regexp{
	"/wxa/get_store_list": regexp.MustCompile(`"limit":(\d+)`),
	"/wxa/add_store":      regexp.MustCompile(`91440101TEST(\d{4})`),
}

// Attack 82 and OWASP's API10: whatever answers in WeChat's place, callers get
// a bounded answer of ours, the gateway goes nowhere else, and goes on.
func TestRudeWeChat(t *testing.T) {
	t.Parallel()
	r := newRude(t)
	a := newArena(t, world.Options{Env: map[string]string{"GATEWAY_WECHAT_API_URL": r.URL}}, func(w *world.World) {
		to, err := url.Parse(w.SandboxURL)
		if err != nil {
			t.Fatal(err)
		}
		r.to = httputil.NewSingleHostReverseProxy(to)
	})
	a.broken = []string{"wechat_unreachable", "wechat_unknown_error"}
	// So much is answered that the rude replies don't pause the calls.
	for range 100 {
		a.c.Do("GET", "/v1/stores?source=live", nil).Want(http.StatusOK)
	}
	bomb := zipped(100 << 20)
	item := func(poi string) string {
		return `{"errcode":0,"errmsg":"ok","business_list":[{"base_info":{"poi_id":` + poi + `,"business_name":"n","status":1}}],"total_count":1}`
	}
	replies := map[string]http.HandlerFunc{
		"302 to another": redirect(http.StatusFound, r.lure.URL),
		"307 to another": redirect(http.StatusTemporaryRedirect, r.lure.URL),
		"308 to itself":  redirect(http.StatusPermanentRedirect, r.URL),
		"ten MiB":        text(`{"errcode":0,"x":"` + strings.Repeat("x", 10<<20) + `"}`),
		"without an end": func(w http.ResponseWriter, _ *http.Request) { endless(w) },
		"a gzip bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		},
		"a gzip bomb that says JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bomb) },
		"headers of two MiB": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2<<20))
			w.WriteHeader(http.StatusOK)
		},
		"502 of a proxy": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
		},
		"HTML":                         text("<html><script>alert(1)</script></html>"),
		"nothing":                      text(""),
		"half":                         text(`{"errcode":0,"data":{"audit_`),
		"null":                         text("null"),
		"a list":                       text("[]"),
		"a byte order mark":            text("\ufeff{\"errcode\":40097,\"errmsg\":\"x\"}"),
		"errcode is text, 0":           text(`{"errcode":"0","errmsg":"ok"}`),
		"errcode is text, 40097":       text(`{"errcode":"40097","errmsg":"x"}`),
		"errcode is null":              text(`{"errcode":null,"errmsg":null}`),
		"errcode is an object":         text(`{"errcode":{"a":1}}`),
		"errcode is endless":           text(`{"errcode":` + strings.Repeat("9", 400) + `}`),
		"errcode 1e400":                text(`{"errcode":1e400}`),
		"errcode twice":                text(`{"errcode":0,"errcode":40097,"errmsg":"x"}`),
		"brackets":                     text(`{"errcode":0,"data":` + strings.Repeat("[", 100_000)),
		"data is text":                 text(`{"errcode":0,"errmsg":"ok","data":"x","business_list":"x","total_count":"x"}`),
		"words that break out":         text(`{"errcode":40097,"errmsg":"` + rudeWords + `"}`),
		"words of a code nobody knows": text(`{"errcode":987654,"errmsg":"` + rudeWords + strings.Repeat("x", 5000) + `"}`),
		"bytes that are no UTF-8":      text("{\"errcode\":40097,\"errmsg\":\"\xff\xfe\xc3\x28\"}"),
		"bytes that are no UTF-8, ok":  text("{\"errcode\":0,\"errmsg\":\"\xff\",\"data\":{\"audit_id\":\"\xff\"}}"),
		"NUL in an id":                 text(`{"errcode":0,"errmsg":"ok","data":{"audit_id":"12\u00003"},"business_list":[{"base_info":{"poi_id":"12\u00003","business_name":"a\u0000b","telephone":"\u0000"}}],"total_count":1}`),
		"a negative id":                text(`{"errcode":0,"errmsg":"ok","data":{"audit_id":-5},"business_list":[{"base_info":{"poi_id":-5}}],"total_count":-1}`),
		"an id of 400 digits":          text(`{"errcode":0,"errmsg":"ok","data":{"audit_id":` + strings.Repeat("9", 400) + `},"business_list":[{"base_info":{"poi_id":` + strings.Repeat("9", 400) + `}}],"total_count":1}`),
		"an id with a fraction":        text(`{"errcode":0,"errmsg":"ok","data":{"audit_id":1.5},"business_list":[{"base_info":{"poi_id":1e3}}],"total_count":1}`),
		"an id that is an object":      text(`{"errcode":0,"errmsg":"ok","data":{"audit_id":{"a":1}},"business_list":[{"base_info":{"poi_id":{}}}],"total_count":1}`),
	}
	names := slices.Sorted(maps.Keys(replies))
	asked, turn := map[string]int{}, 0
	r.says(func(path, body string) http.HandlerFunc {
		named, ok := namesCase[path]
		if !ok {
			return nil
		}
		if m := named.FindStringSubmatch(body); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil && n <= len(names) {
				asked[path+": "+names[n-1]]++
				return replies[names[n-1]]
			}
		}
		// Looking for the fate of the writes meets one reply after the other.
		turn++
		return replies[names[turn%len(names)]]
	})
	check := func(path, name string, got *world.Answer, most int) {
		t.Helper()
		tried(t, "82")
		name = path + ": " + name
		a.civil(t, name, got)
		if got.Code() == "upstream_circuit_open" {
			t.Errorf("%s: calls are paused", name)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := asked[name]; n < 1 || n > most {
			t.Errorf("%s: %d calls, want at most %d", name, n, most)
		}
	}
	reads := make([]func() *world.Answer, len(names))
	for i := range names {
		reads[i] = a.c.Begin("GET", fmt.Sprint("/v1/stores?source=live&limit=", i+1), nil)
	}
	for i, name := range names {
		check("/wxa/get_store_list", name, reads[i](), 3) // one that got no answer is made again
	}
	for i, name := range names {
		check("/wxa/add_store", name, a.c.Do("POST", "/v1/stores", a.NewStore(i+1)), 1)
	}
	// Numbers that no float holds are texts, and stay what they are.
	const big = "9223372036854775809" // 2^63+1
	says := func(path, reply string) {
		r.says(func(p, _ string) http.HandlerFunc {
			if p != path {
				return nil
			}
			return text(reply)
		})
	}
	says("/wxa/get_store_list", item(big))
	if got := a.c.Do("GET", "/v1/stores?source=live", nil).Want(http.StatusOK); got.Get("data", "0", "poi_id") != big {
		t.Errorf("poi_id of 2^63+1: %s", got.Body)
	}
	says("/wxa/add_store", `{"errcode":0,"errmsg":"ok","data":{"audit_id":`+big+`}}`)
	if got := a.c.Do("POST", "/v1/stores", a.NewStore(len(names)+1)).Want(http.StatusAccepted); got.Get("audit", "wechat_audit_id") != big {
		t.Errorf("audit_id of 2^63+1: %s", got.Body)
	}
	r.says(nil)
	if n := r.lured.Load(); n != 0 {
		t.Errorf("the gateway followed %d redirects", n)
	}
	a.c.Do("GET", "/v1/stores?source=live", nil).Want(http.StatusOK)
	// Each write has an outcome that was written down, or waits to be found out.
	world.Eventually(t, 30*time.Second, "no write is left in the middle", func() error {
		if rows := a.sql(t, `SELECT id, kind, state, error FROM operations WHERE state IN ('pending', 'executing')`); len(rows) > 0 {
			return fmt.Errorf("%d: %v", len(rows), rows)
		}
		return nil
	})
	a.civil(t, "operations", a.c.Do("GET", "/v1/operations?limit=100", nil).Want(http.StatusOK))
	for _, line := range strings.Split(a.g.Output(), "\n") {
		if strings.ContainsAny(line, "\x1b\r\x00") || len(line) > 64<<10 {
			t.Fatalf("a log line of %d bytes breaks out: %.300q", len(line), line)
		}
	}
}

func endless(w http.ResponseWriter) {
	for chunk := bytes.Repeat([]byte(" "), 64<<10); ; {
		if _, err := w.Write(chunk); err != nil {
			return // the gateway hung up
		}
	}
}

// civil holds an answer to what callers may rely on: never a 500, bounded, in
// plain text.
func (a *arena) civil(t *testing.T, name string, got *world.Answer) {
	t.Helper()
	if got.Status == http.StatusInternalServerError || got.Status > 299 && got.Code() == "" {
		t.Errorf("%s: %d %s", name, got.Status, got.Body)
	}
	if len(got.Body) > 128<<10 || !utf8.Valid(got.Body) {
		t.Errorf("%s: %d bytes, %.200q", name, len(got.Body), got.Body)
	}
	if words := got.Get("upstream", "errmsg"); len([]rune(words)) > 256 || strings.ContainsFunc(words, func(r rune) bool { return unicode.IsControl(r) || r == '\u202e' }) {
		t.Errorf("%s: WeChat's words are %q", name, words)
	}
	if strings.Contains(fmt.Sprint(got.Header), "Set-Cookie") {
		t.Errorf("%s: %v", name, got.Header)
	}
}

// Attack 83: a token's ciphertext that was moved to another row, of another
// merchant or another tenant, opens nowhere: 503, and nobody is called.
func TestMovedCiphertexts(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	a.broken = []string{"secret_unavailable"}
	second := a.Authorize(a.g, "wx5ab0d1c0ffee0a04")
	b := a.NewTenant("Other", componentB)
	bID := a.UUID(typeid.Tenant, b.ID)
	bKey := a.keyOf(b, "--scopes", "*")
	a.rest(t)
	from, to, copied := a.UUID(typeid.Merchant, a.c.Merchant), a.UUID(typeid.Merchant, second), uuid.New()
	a.owner(t, func(ctx context.Context, conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			for _, s := range []struct {
				tenant uuid.UUID
				sql    string
				args   []any
			}{
				{a.two.a.id, `UPDATE authorizer_tokens x SET access_ct = y.access_ct, refresh_token_ct = y.refresh_token_ct, access_gen = x.access_gen + 1
					FROM authorizer_tokens y WHERE x.merchant_id = $1 AND y.merchant_id = $2`, []any{to, from}},
				{bID, `INSERT INTO merchants (tenant_id, id, appid, status, permission_sets, account_type) VALUES ($1, $2, $3, 'authorized', '{8,11,13}', 'official_account')`,
					[]any{bID, copied, accountB1}},
				{bID, `INSERT INTO authorizer_tokens (tenant_id, merchant_id, access_ct, access_gen, access_expires_at, refresh_token_ct)
					SELECT $1, $2, access_ct, 1, now() + interval '1 hour', refresh_token_ct FROM authorizer_tokens WHERE merchant_id = $3`, []any{bID, copied, from}},
			} {
				if _, err := tx.Exec(ctx, `SELECT set_config('app.tenant_id', $1, true)`, s.tenant.String()); err != nil {
					return err
				}
				if tag, err := tx.Exec(ctx, s.sql, s.args...); err != nil || tag.RowsAffected() != 1 {
					return fmt.Errorf("%d rows, %w", tag.RowsAffected(), err)
				}
			}
			return nil
		})
	})
	for name, c := range map[string]*world.Client{
		"another merchant's": a.c.For(second),
		"another tenant's":   a.c.As(bKey).For(typeid.Format(typeid.Merchant, copied)),
	} {
		tried(t, "83")
		var got *world.Answer
		a.Eventually(name+" token is in the row", func() error { // caches hear of it; until then the former token is good
			a.calls = len(a.Journal(""))
			if got = c.Do("GET", "/v1/stores?source=live", nil); got.Status == http.StatusOK {
				return fmt.Errorf("%s", got.Body)
			}
			return nil
		})
		if got.Status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s, want 503", name, got.Status, got.Body)
		}
		if got = c.Do("POST", "/v1/stores", a.NewStore(1)); got.Status != http.StatusServiceUnavailable {
			t.Errorf("%s, write: %d %s, want 503", name, got.Status, got.Body)
		}
		for _, call := range a.Journal("")[a.calls:] {
			t.Errorf("a moved token was used for %s", call.Path)
		}
	}
	world.Eventually(t, 10*time.Second, "somebody is told", func() error {
		if !strings.Contains(a.g.Output(), "can't be opened here") {
			return fmt.Errorf("%s", a.g.Tail(5))
		}
		return nil
	})
}
