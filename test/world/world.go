// Package world builds what the end-to-end tests live in: the gateway's own
// binary in processes of the operating system, a real database, and the
// simulator of WeChat over real HTTP.
//
// Nothing here reaches into the gateway: what a test does, a stranger with the
// documentation could do.
package world

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/sandbox"
)

var builds sync.Map // by name: func() (path string, err error)

// Binary builds cmd/gateway with these build tags and returns its path. All
// test binaries of a checkout share it, so that it is linked once a change.
func Binary(t testing.TB, tags ...string) string {
	t.Helper()
	name := strings.Join(append([]string{"gateway"}, tags...), "-")
	once, _ := builds.LoadOrStore(name, sync.OnceValues(func() (string, error) { return build(name, tags) }))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatalf("build the gateway: %v", err)
	}
	return path
}

func build(name string, tags []string) (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(root)
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("mendian-test-bin-%d-%x", os.Geteuid(), sum[:4]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	// go build leaves a file alone that is up to date. Linking is quicker
	// without DWARF.
	cmd := exec.Command("go", "build", "-ldflags=-w", "-tags", strings.Join(tags, ","), "-o", path, "github.com/mendian/mendian/cmd/gateway")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// A World is a database, a simulator, a tenant, and gateways.
type World struct {
	t testing.TB

	logDir string

	Dir    string // keyset, spools
	DSN    string // of the database's owner
	Binary string
	Env    map[string]string // of every process; set before Start

	Sandbox    *sandbox.Server
	SandboxURL string
	Component  Component

	PublicURL string // of the first gateway, where WeChat pushes
	Tenant    Tenant
	Key       string // of all of the tenant

	Gateways []*Gateway
	Output   *bytes.Buffer // of commands
}

// Tenant is what `gateway tenant create -o json` answers.
type Tenant struct {
	ID  string `json:"id"`
	Ref string `json:"ref"`
}

// Options vary a World.
type Options struct {
	Tags      []string // of the binary: "faults"
	Binary    string   // "": this checkout, built with Tags
	Sandbox   sandbox.Config
	Component Component // zero: the simulator's own
	Env       map[string]string
	DSN       string // "": a new database
	LogDir    string // where each gateway's output goes; "": memory, shown when the test fails
}

// A Component is a third-party platform as WeChat knows it.
type Component struct {
	AppID          string `json:"appid"`
	Secret         string `json:"secret"`
	MessageToken   string `json:"message_token"`
	EncodingAESKey string `json:"encoding_aes_key"`
}

// New makes the database, the simulator and the tenant with its key, and no
// gateway yet: Start does. All of it ends with the test.
func New(t testing.TB, o Options) *World {
	t.Helper()
	w := &World{t: t, Dir: t.TempDir(), Binary: o.Binary, DSN: o.DSN, Output: &bytes.Buffer{}, logDir: o.LogDir}
	if w.Binary == "" {
		w.Binary = Binary(t, o.Tags...)
	}
	if w.DSN == "" {
		w.DSN = pgtest.DSN(t)
	}
	w.startSandbox(o.Sandbox)
	addr := FreeAddr(t)
	w.PublicURL = "http://" + addr
	w.Env = map[string]string{
		"DATABASE_URL": w.DSN, "GATEWAY_KEYSET_FILE": filepath.Join(w.Dir, "keyset.json"), "GATEWAY_PUBLIC_URL": w.PublicURL,
		"GATEWAY_WECHAT_API_URL": w.SandboxURL, "GATEWAY_WECHAT_MP_URL": w.SandboxURL, "GATEWAY_WECHAT_OPEN_URL": w.SandboxURL,
		"GATEWAY_LOG_LEVEL": "debug", "GATEWAY_DRAIN_DELAY": "0s", "GATEWAY_DB_MAX_CONNS": "10",
	}
	for k, v := range o.Env {
		w.Env[k] = v
	}
	if w.Component = o.Component; w.Component == (Component{}) {
		w.Component = Component{sandbox.DefaultComponentAppID, sandbox.DefaultComponentSecret, sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey}
	}
	w.Run("migrate")
	w.Tenant = w.NewTenant("World", w.Component)
	w.Key = w.NewKey("--scopes", "*")
	w.Serve(w.Component, w.PublicURL+"/wechat/"+w.Tenant.Ref)
	return w
}

// On is the same world for a part of a test: what fails there fails that part.
// Gateways are started on the whole.
func (w *World) On(t testing.TB) *World {
	part := *w
	part.t = t
	return &part
}

// NewTenant makes a tenant that is this platform.
func (w *World) NewTenant(name string, c Component) (t Tenant) {
	w.t.Helper()
	w.JSON(&t, "tenant", "create", "--name", name, "--component-appid", c.AppID, "--component-secret", c.Secret,
		"--message-token", c.MessageToken, "--encoding-aes-key", c.EncodingAESKey, "-o", "json")
	return t
}

// Serve makes the simulator serve this platform, and push there.
func (w *World) Serve(c Component, pushURL string) {
	w.t.Helper()
	w.Control("POST", "component", map[string]any{"appid": c.AppID, "secret": c.Secret, "message_token": c.MessageToken,
		"encoding_aes_key": c.EncodingAESKey, "push_url": pushURL}, nil)
}

// Simulate is a World of which there is only a simulator: one more WeChat,
// beside the first one's.
func Simulate(t testing.TB, c sandbox.Config) *World {
	t.Helper()
	w := &World{t: t}
	w.startSandbox(c)
	return w
}

// Bare is a World of which there is only the binary.
func Bare(t testing.TB) *World {
	t.Helper()
	return &World{t: t, Dir: t.TempDir(), Binary: Binary(t), Env: map[string]string{}, Output: &bytes.Buffer{}}
}

func (w *World) startSandbox(c sandbox.Config) {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	if c.TicketInterval == 0 {
		c.TicketInterval = time.Second
	}
	if c.AuditDelay == 0 {
		c.AuditDelay = 300 * time.Millisecond
	}
	if c.RetryInterval == 0 {
		c.RetryInterval = 200 * time.Millisecond
	}
	c.BaseURL = "http://" + ln.Addr().String()
	if w.Sandbox, err = sandbox.New(c); err != nil {
		w.t.Fatal(err)
	}
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: w.Sandbox.Handler(), ReadHeaderTimeout: time.Second}}
	server.Start()
	w.SandboxURL = c.BaseURL
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.Sandbox.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done; w.Sandbox.Close(); server.CloseClientConnections(); server.Close() })
}

// FreeAddr is a loopback address that nobody listens on, and that nobody else
// is given before the test's process listens, or while it is restarted: a port
// of 127.0.0.1 may be gone by then, if only as the near end of a connection. So
// each has a host of its own, where the system has all of 127/8, as Linux does.
func FreeAddr(t testing.TB) string {
	t.Helper()
	own := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	ln, err := net.Listen("tcp", own+":0")
	if err != nil {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// Run runs a command of the gateway and returns its standard output; any
// failure is the test's.
func (w *World) Run(args ...string) string {
	w.t.Helper()
	out, err := w.Try(args...)
	if err != nil {
		w.t.Fatalf("gateway %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// Try is Run where failing is part of the test. The error holds what the
// command said. A command that doesn't end is killed after two minutes.
func (w *World) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.Binary, args...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = w.environ(nil), w.Dir, time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	w.Output.Write(stdout.Bytes())
	w.Output.Write(stderr.Bytes())
	if err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// With is the same world whose commands run with further variables: name,
// value, name, value. An empty value takes the variable away.
func (w *World) With(env ...string) *World {
	other := *w
	other.Env = maps.Clone(w.Env)
	for i := 0; i+1 < len(env); i += 2 {
		if other.Env[env[i]] = env[i+1]; env[i+1] == "" {
			delete(other.Env, env[i])
		}
	}
	return &other
}

// JSON is Run with its output read into v.
func (w *World) JSON(v any, args ...string) {
	w.t.Helper()
	if out := w.Run(args...); json.Unmarshal([]byte(out), v) != nil {
		w.t.Fatalf("gateway %s: not JSON: %s", strings.Join(args, " "), out)
	}
}

// NewKey makes an API key of the world's tenant with these flags.
func (w *World) NewKey(flags ...string) string {
	w.t.Helper()
	var key struct{ Token string }
	w.JSON(&key, append([]string{"key", "create", "--tenant", w.Tenant.ID, "-o", "json"}, flags...)...)
	return key.Token
}

// AdminKey makes an admin key.
func (w *World) AdminKey() string {
	w.t.Helper()
	var key struct{ Token string }
	w.JSON(&key, "key", "create", "--admin", "-o", "json")
	return key.Token
}

func (w *World) environ(extra map[string]string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.Dir, "TMPDIR=" + os.TempDir()}
	for _, m := range []map[string]string{w.Env, extra} {
		for k, v := range m {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// usual is how long a test waits for what should come soon.
const usual = 20 * time.Second

// Eventually tries until check returns nil, or fails the test with its last error.
func (w *World) Eventually(what string, check func() error) {
	w.t.Helper()
	Eventually(w.t, usual, what, check)
}

// Eventually tries for as long as within says.
func Eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
