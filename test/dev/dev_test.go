// Package dev starts `gateway dev` as newcomers do: with no network, as root
// and as nobody, below a directory that only its owner may enter, fresh, on
// the first one's data, and after kill -9.
package dev

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// readyWithin is what the README promises after the build; a machine that runs
// other tests beside gets more.
const readyWithin = 90 * time.Second

func TestThreeStarts(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"", "nobody"} {
		t.Run("as "+map[string]string{"": "this user", "nobody": "nobody"}[user], func(t *testing.T) {
			t.Parallel()
			dir := privateDir(t, user)
			if user != "" && os.Geteuid() != 0 {
				user = "" // an ordinary user can't become another: it is one already
			}
			binary := reachableBinary(t)
			args := []string{"dev", "--addr", "127.0.0.1:18480", "--sandbox-addr", "127.0.0.1:18481", "--admin-addr", "127.0.0.1:18490"}
			var stores []string
			for i, end := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL, syscall.SIGINT} {
				p := start(t, dir, user, binary, args)
				p.wait(t)
				if shown := merchant.FindAllString(p.said(), -1); len(shown) != 5 {
					t.Errorf("start %d: merchants %q, want four and the one whose stores wait for migration", i+1, shown)
				}
				list := p.curlStores(t)
				if len(list) < 4 {
					t.Fatalf("start %d: stores %v, want the simulator's three and the demo's own", i+1, list)
				}
				if stores != nil && strings.Join(stores, " ") != strings.Join(list, " ") {
					t.Errorf("start %d: stores %v, before %v: data was lost", i+1, list, stores)
				}
				stores = list
				// Commands know this gateway by what it wrote, as docs/development.md says.
				status := p.inside(t, "cd '"+dir+"' && set -a && . ./.env.dev && '"+binary+"' keyset status && '"+binary+"' tenant list -o json && '"+binary+"' doctor -o json || true")
				for _, want := range []string{": seals; ", ": serves, seals with ", "Mendian Demo", `"check":"wechat","status":"ok"`} {
					if !strings.Contains(status, want) {
						t.Errorf("start %d: commands with .env.dev say %s, want %q", i+1, status, want)
					}
				}
				p.end(t, end)
			}
			out, err := command(dir, user, binary, "dev", "reset").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "removed") {
				t.Errorf("gateway dev reset: %v: %s", err, out)
			}
		})
	}
}

// A port that is taken is named before anything else happens, with its flag.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	binary := world.Binary(t)
	for _, flag := range []string{"--addr", "--sandbox-addr", "--admin-addr"} {
		ctx, cancel := context.WithTimeout(t.Context(), readyWithin)
		cmd := exec.CommandContext(ctx, binary, "dev", "--ephemeral",
			"--addr", "127.0.0.1:0", "--sandbox-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", flag, taken.Addr().String())
		cmd.Dir, cmd.WaitDelay = t.TempDir(), time.Second
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), flag) || !strings.Contains(string(out), taken.Addr().String()) {
			t.Errorf("%s %s, which is taken: %v: %s", flag, taken.Addr(), err, out)
		}
	}
}

// privateDir is a directory below one of mode 0700.
func privateDir(t *testing.T, user string) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "mendian-private-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir := filepath.Join(parent, "clone")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if user != "" && os.Geteuid() == 0 {
		const nobody = 65534
		for _, d := range []string{parent, dir} {
			if err := os.Chown(d, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// reachableBinary is a copy of the binary that any user may run.
func reachableBinary(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(world.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "mendian-dev-bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "gateway")
	if err := os.WriteFile(path, b, 0o755); err != nil { //nolint:gosec // any user is to run it
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // likewise
		t.Fatal(err)
	}
	return path
}

// command runs in a network namespace of its own with loopback up, where that
// is allowed, and as user.
func command(dir, user, binary string, args ...string) *exec.Cmd {
	inner := append([]string{binary}, args...)
	if user != "" {
		inner = append([]string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env", "HOME=/nonexistent"}, inner...)
	}
	if exec.Command("unshare", "-n", "true").Run() == nil {
		// The port in the namespace is our own: the two users don't meet.
		inner = append([]string{"unshare", "-n", "sh", "-c", `ip link set lo up && exec "$@"`, "sh"}, inner...)
	}
	cmd := exec.Command(inner[0], inner[1:]...)
	cmd.Dir = dir
	return cmd
}

type process struct {
	cmd    *exec.Cmd
	ended  chan error
	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func start(t *testing.T, dir, user, binary string, args []string) *process {
	t.Helper()
	p := &process{cmd: command(dir, user, binary, args...), ended: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

func (p *process) wait(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(readyWithin)
	for time.Now().Before(deadline) {
		if strings.Contains(p.said(), "Stop with Ctrl-C") {
			return
		}
		select {
		case err := <-p.ended:
			t.Fatalf("gateway dev ended: %v\n%s", err, p.said())
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("not ready within %s:\n%s", readyWithin, p.said())
}

var (
	curl = regexp.MustCompile(`(?m)^curl -s \S+/v1/stores \\\n  -H '(Authorization: Bearer \S+)' \\\n  -H '(Merchant-Id: \S+)' \\\n  -H 'Idempotency-Key: \S+' \\\n  -H 'Content-Type: application/json' \\\n  -d '.*'$`)
	id   = regexp.MustCompile(`"id":"(sto_[0-9a-z]+)"`)

	merchant = regexp.MustCompile(`(?m)^    mch_[0-9a-z]{26}  wx5ab0d1c0ffee0a0[1-5]  \[.*$`)
)

// curlStores runs the curl that the box shows, word for word, inside the
// process's own network, and then lists the stores.
func (p *process) curlStores(t *testing.T) []string {
	t.Helper()
	shown := curl.FindStringSubmatch(p.said())
	if shown == nil {
		t.Fatalf("no curl in\n%s", p.said())
	}
	list := "curl -s 'http://127.0.0.1:18480/v1/stores?limit=100' -H '" + shown[1] + "' -H '" + shown[2] + "'"
	created := p.inside(t, shown[0])
	if !strings.Contains(created, `"id":"sto_`) {
		t.Fatalf("the curl of the box printed %s", created)
	}
	var ids []string
	for _, m := range id.FindAllStringSubmatch(p.inside(t, list), -1) {
		ids = append(ids, m[1])
	}
	return ids
}

// inside runs a shell line in the network namespace of the process.
func (p *process) inside(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	if exec.Command("unshare", "-n", "true").Run() == nil {
		cmd = exec.Command("nsenter", "--net", "--target", strconv.Itoa(p.cmd.Process.Pid), "sh", "-c", line)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

func (p *process) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		if sig != syscall.SIGKILL && err != nil {
			t.Errorf("after %v: %v\n%s", sig, err, p.said())
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("still runs after %v:\n%s", sig, p.said())
	}
}
