package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Gateway is a `gateway serve` process.
type Gateway struct {
	t        testing.TB
	cmd      *exec.Cmd
	exited   chan struct{}
	URL      string // REST and pushes
	AdminURL string

	mu     sync.Mutex
	output bytes.Buffer
}

// Start starts a gateway with a spool of its own, and waits until it is ready.
// The first one listens where WeChat pushes.
func (w *World) Start(env map[string]string) *Gateway {
	w.t.Helper()
	g := w.Launch(env)
	g.WaitReady()
	return g
}

// Launch is Start without the waiting, for processes that are to die early.
// env may give GATEWAY_SPOOL_DIR to take over a dead one's spool, and
// GATEWAY_ADDR.
func (w *World) Launch(env map[string]string) *Gateway {
	w.t.Helper()
	all := map[string]string{"GATEWAY_ADDR": FreeAddr(w.t), "GATEWAY_ADMIN_ADDR": FreeAddr(w.t),
		"GATEWAY_SPOOL_DIR": filepath.Join(w.Dir, "spool-"+strconv.Itoa(len(w.Gateways)))}
	if len(w.Gateways) == 0 {
		all["GATEWAY_ADDR"] = strings.TrimPrefix(w.PublicURL, "http://")
	}
	for k, v := range env {
		all[k] = v
	}
	g := &Gateway{t: w.t, exited: make(chan struct{}), URL: "http://" + all["GATEWAY_ADDR"], AdminURL: "http://" + all["GATEWAY_ADMIN_ADDR"]}
	g.cmd = exec.Command(w.Binary, "serve")
	g.cmd.Env, g.cmd.Dir = w.environ(all), w.Dir
	g.cmd.Stdout, g.cmd.Stderr = g, g
	if w.logDir != "" {
		log, err := os.Create(filepath.Join(w.logDir, fmt.Sprintf("%05d.log", len(w.Gateways))))
		if err != nil {
			w.t.Fatal(err)
		}
		defer log.Close() // the process has its own
		g.cmd.Stdout, g.cmd.Stderr = log, log
	}
	if err := g.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = g.cmd.Wait()
		close(g.exited)
	}()
	w.Gateways = append(w.Gateways, g)
	w.t.Cleanup(func() {
		g.Kill()
		if w.t.Failed() && w.logDir == "" {
			w.t.Logf("gateway %s said:\n%s", g.URL, g.Tail(60))
		}
	})
	return g
}

// Write keeps what the process says.
func (g *Gateway) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.output.Write(b)
}

// Output is all that the process has written.
func (g *Gateway) Output() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.output.String()
}

// Tail is its last n lines.
func (g *Gateway) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(g.Output(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Logged returns the log records whose msg is message.
func (g *Gateway) Logged(message string) []map[string]any {
	var out []map[string]any
	for line := range strings.SplitSeq(g.Output(), "\n") {
		var rec map[string]any
		if json.Unmarshal([]byte(line), &rec) == nil && rec["msg"] == message {
			out = append(out, rec)
		}
	}
	return out
}

// WaitReady waits for /readyz, and fails the test when the process ends before.
func (g *Gateway) WaitReady() {
	g.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case <-g.exited:
			g.t.Fatalf("gateway ended before it was ready:\n%s", g.Tail(30))
		default:
		}
		resp, err := http.Get(g.URL + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	g.t.Fatalf("gateway not ready within 30 s:\n%s", g.Tail(30))
}

// Signal sends sig to the process.
func (g *Gateway) Signal(sig syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		g.t.Fatal(err)
	}
}

// Kill ends the process with SIGKILL and waits. It may be called again.
func (g *Gateway) Kill() {
	_ = g.cmd.Process.Kill()
	<-g.exited
}

// WaitExit waits for the process to end by itself, or by its own signal.
func (g *Gateway) WaitExit(within time.Duration) {
	g.t.Helper()
	if !g.ExitsWithin(within) {
		g.t.Fatalf("gateway still runs after %s:\n%s", within, g.Tail(30))
	}
}

// ExitsWithin reports whether the process ends by itself in that time.
func (g *Gateway) ExitsWithin(d time.Duration) bool {
	select {
	case <-g.exited:
		return true
	case <-time.After(d):
		return false
	}
}

// ExitCode is what the process ended with, after WaitExit.
func (g *Gateway) ExitCode() int { return g.cmd.ProcessState.ExitCode() }

// Stop ends the process as an orchestrator does, with SIGTERM, and fails the
// test unless it exits with 0.
func (g *Gateway) Stop() {
	g.t.Helper()
	g.Signal(syscall.SIGTERM)
	g.WaitExit(40 * time.Second)
	if code := g.cmd.ProcessState.ExitCode(); code != 0 {
		g.t.Fatalf("exit code %d after SIGTERM:\n%s", code, g.Tail(30))
	}
}
