package isolation

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// The secrets that can be chosen say what they are.
var canaries = world.Component{AppID: sandbox.DefaultComponentAppID, Secret: "CANARYcomponentsecret5a4db0c5ec7", MessageToken: "CANARYmessagetoken",
	EncodingAESKey: "CANARYencodingAESkeyCANARYencodingAESkeyCA1"}

// What is put where everybody may read it, to show that it would be found.
const onPurpose = "CANARY_ON_PURPOSE"

// A canary is a secret that lives while the test runs.
type canary struct {
	what, value string
}

// A reply is one answer of a gateway, as it went over the wire.
type reply struct {
	method, path string
	status       int
	header, body string
}

// A recorder stands before a gateway and writes down whatever it answers, to
// whomever: callers of the REST API, browsers and WeChat.
type recorder struct {
	mu      sync.Mutex
	replies []reply
}

func (r *recorder) keep(one reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies = append(r.replies, one)
}

// all is everything that was answered.
func (r *recorder) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, one := range r.replies {
		b.WriteString(one.header)
		b.WriteString(one.body)
	}
	return b.String()
}

// RoundTrip sends as the default transport does.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	var header strings.Builder
	if err := res.Header.Write(&header); err != nil {
		return nil, err
	}
	r.keep(reply{req.Method, req.URL.Path, res.StatusCode, header.String(), string(body)})
	return res, nil
}

// before listens at addr, "" for any, and passes on to a gateway.
func (r *recorder) before(t *testing.T, addr, gateway string) string {
	t.Helper()
	to, err := url.Parse(gateway)
	if err != nil {
		t.Fatal(err)
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(to); p.Out.Host = p.In.Host },
		ModifyResponse: func(res *http.Response) error {
			body, err := io.ReadAll(res.Body)
			if err != nil {
				return err
			}
			res.Body = io.NopCloser(bytes.NewReader(body))
			var header strings.Builder
			if err := res.Header.Write(&header); err != nil {
				return err
			}
			r.keep(reply{res.Request.Method, res.Request.URL.Path, res.StatusCode, header.String(), string(body)})
			return nil
		},
	}
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of a gateway that has ended
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: proxy}}
	server.Start()
	t.Cleanup(server.Close)
	return "http://" + ln.Addr().String()
}

// No secret shows in what the gateway writes and answers over a whole run at
// debug level, with upstream timeouts, refused connections and rejected
// tokens in it.
func TestNoSecretShows(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{Component: canaries})
	var rec recorder
	g := w.Start(map[string]string{"GATEWAY_ADDR": world.FreeAddr(t)})
	g.URL = rec.before(t, strings.TrimPrefix(w.PublicURL, "http://"), g.URL)
	c := w.Demo(g)
	slow := timeouts(t, w, c) // ten seconds each, beside the rest
	store := everything(t, w, g, c)
	// It would take the others' jobs from them, so it comes last.
	lost := w.Start(map[string]string{"GATEWAY_WECHAT_API_URL": "http://" + world.FreeAddr(t)})
	lost.URL = rec.before(t, "", lost.URL)
	nowhere(t, w, c.At(lost), store)
	slow.Wait()
	tried(t, "81")
	metrics := get(t, g.AdminURL+"/metrics") + get(t, lost.AdminURL+"/metrics")
	g.Stop()
	lost.Stop()
	found := secretsOf(t, &rec, w)
	known(t, found, "component secret", "message token", "EncodingAESKey", "ticket", "component token", "authorizer token", "refresh token",
		"authorization code", "pre_auth_code", "API key", "keyset", "state of a link", "browser's cookie")
	noneShows(t, found,
		shelf{"stdout and stderr", g.Output() + lost.Output(), onPurpose},
		shelf{"/metrics", metrics, `route="/connect/:state/callback"`},
		shelf{"pg_dump", dump(t, w), onPurpose},
		shelf{"the spool", files(t, w.Dir, "spool-"), onPurpose})
	if !slices.ContainsFunc(rec.replies, func(r reply) bool { return strings.Contains(r.body, onPurpose) }) {
		t.Error("replies: what was put there on purpose is not found")
	}
	if strings.Contains(metrics, onPurpose) {
		t.Error("/metrics has a label that whoever sends a message can choose")
	}
	rec.holdsNone(t, found)
	// On the command line a key is shown by the command that makes it, once.
	said := w.Output.String()
	for _, s := range found {
		if n := strings.Count(said, s.value); n > 0 && (s.what != "API key" || n > 1) {
			t.Errorf("commands say %s %d times", s.what, n)
		}
	}
	if !strings.Contains(said, w.Key) {
		t.Error("`key create` did not show its key: the output of commands is not there")
	}
	t.Logf("%d secrets, %d replies", len(found), len(rec.replies))
}

// A shelf is where a secret could lie, with what lies there on purpose.
type shelf struct{ name, text, marker string }

// noneShows fails the test where a shelf holds a secret, or lacks what was put
// there to be found.
func noneShows(t *testing.T, secrets []canary, shelves ...shelf) {
	t.Helper()
	for _, s := range shelves {
		if holdsNone(s.text, append(slices.Clone(secrets), canary{"on purpose", s.marker})) {
			t.Errorf("%s: what was put there on purpose is not found in %d bytes", s.name, len(s.text))
		}
		noneIn(t, s.name, s.text, secrets)
	}
}

// noneIn fails the test where a text holds a secret.
func noneIn(t *testing.T, name, text string, secrets []canary) {
	t.Helper()
	if holdsNone(text, secrets) {
		return
	}
	for _, s := range secrets {
		if at := s.in(text); at >= 0 {
			t.Errorf("%s holds %s: …%s…", name, s.what, around(text, at))
		}
	}
}

// holdsNone fails the test where an answer holds a secret that it needn't.
func (r *recorder) holdsNone(t *testing.T, secrets []canary) {
	t.Helper()
	all := r.all() // nearly no secret is in any of thousands of answers
	if holdsNone(all, secrets) {
		return
	}
	for _, s := range secrets {
		if s.in(all) < 0 {
			continue
		}
		for _, one := range r.replies {
			if mustCarry(s, one) {
				continue
			}
			noneIn(t, fmt.Sprintf("the header of the answer to %s %s (%d)", one.method, one.path, one.status), one.header, []canary{s})
			noneIn(t, fmt.Sprintf("the answer to %s %s (%d)", one.method, one.path, one.status), one.body, []canary{s})
		}
	}
}

// mustCarry lists where a secret has to stand, because somebody can get it in
// no other way.
func mustCarry(s canary, r reply) bool {
	switch s.what {
	case "API key": // shown once, to whoever makes it
		return r.method == "POST" && r.status == http.StatusCreated && (r.path == "/v1/api-keys" || strings.HasSuffix(r.path, "/rotations"))
	case "state of a link": // the link itself; and redirect_uri, by which WeChat sends the browser back
		return r.method == "POST" && r.path == "/v1/authorization-links" || r.method == "POST" && strings.HasPrefix(r.path, "/connect/") && r.status == http.StatusSeeOther
	case "pre_auth_code": // the browser takes it to WeChat's page
		return r.method == "POST" && strings.HasPrefix(r.path, "/connect/") && r.status == http.StatusSeeOther
	case "browser's cookie":
		return strings.HasPrefix(r.path, "/connect/")
	}
	// An authorization code comes from WeChat by way of the browser, and goes
	// back to nobody.
	return false
}

// holdsNone looks for all forms of all secrets in one pass, for there are
// hundreds, and texts of megabytes.
func holdsNone(text string, secrets []canary) bool {
	const mark = "\x00a secret\x00" // no text has it
	var marked []string
	for _, s := range secrets {
		for _, form := range s.forms() {
			marked = append(marked, form, mark)
		}
	}
	return !strings.Contains(strings.NewReplacer(marked...).Replace(text), mark)
}

// forms are those that the secret takes in URLs, JSON, headers and columns of bytes.
func (s canary) forms() []string {
	b := []byte(s.value)
	return []string{s.value, hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b), url.QueryEscape(s.value)}
}

// in is where text holds the secret, in any form; -1: nowhere.
func (s canary) in(text string) int {
	for _, form := range s.forms() {
		if at := strings.Index(text, form); at >= 0 {
			return at
		}
	}
	return -1
}

func around(text string, at int) string {
	return text[max(0, at-100):min(len(text), at+100)]
}

func get(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v", address, resp.StatusCode, err)
	}
	return string(body)
}

// dump is the whole database as text.
func dump(t *testing.T, w *world.World) string {
	t.Helper()
	var dirs []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if path, err := filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"} {
		found, _ := filepath.Glob(pattern)
		slices.Reverse(found) // the newest first
		dirs = append(dirs, found...)
	}
	text := rows(t, w)
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "pg_dump")); err != nil {
			continue
		}
		out, err := exec.Command(filepath.Join(dir, "pg_dump"), "--dbname="+w.DSN).Output()
		if err != nil {
			t.Fatalf("pg_dump: %v", err)
		}
		return text + string(out)
	}
	return text // a server without its tools
}

// rows is every row of every table, for where there is no pg_dump.
func rows(t *testing.T, w *world.World) string {
	t.Helper()
	var b strings.Builder
	for _, table := range w.Query(`SELECT relname::text AS name FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace`) {
		for _, row := range w.Query(fmt.Sprintf(`SELECT to_jsonb(x)::text AS row FROM %s x`, table["name"])) {
			fmt.Fprintln(&b, table["name"], row["row"])
		}
	}
	return b.String()
}

// files is what lies in directories whose name begins so, and one file more
// that is put there to be found.
func files(t *testing.T, dir, prefix string) string {
	t.Helper()
	var b strings.Builder
	n := 0
	dirs, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no %s* in %s: %v", prefix, dir, err)
	}
	if err := os.WriteFile(filepath.Join(dirs[0], "on-purpose"), []byte(onPurpose), 0o600); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err != nil || d.IsDir() || !strings.HasPrefix(rel, prefix) {
			return err
		}
		n++
		content, err := os.ReadFile(path)
		b.Write(content)
		return err
	})
	if err != nil || n < 2 {
		t.Fatalf("%d files in %s*, %v: nothing to look at", n, prefix, err)
	}
	return b.String()
}
