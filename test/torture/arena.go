package torture

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// An Arena is a WeChat, a Postgres with fsync on, and gateway processes that
// reach both through proxies of their own.
type Arena struct {
	*world.World
	t       testing.TB
	Cluster *Cluster
	Slots   []*Slot
	Settled *world.Gateway // never hurt by itself: it prepares, and reads what is known
	front   *Proxy         // its way and the harness's to the database, wherever that is
	logs    string

	starting sync.Mutex
	accounts int          // made so far
	serial   int          // names made so far
	repeats  atomic.Int64 // requests that callers had to repeat
}

// A Slot is the place of one process: its spool directory, its address, its
// links. Processes die and come back there.
type Slot struct {
	arena      *Arena
	name       string
	spool      string
	addr       string
	DB, WeChat *Proxy
	Sabotage   string // what its processes do wrong

	mu sync.Mutex
	g  *world.Gateway // nil while nobody is there
}

func dsn(addr string) string { return "postgres://postgres@" + addr + "/postgres" }

// environment of every process: looks of the reconciler come fifty times as
// fast as in production, and nobody is limited.
func environment() map[string]string {
	return map[string]string{
		"GATEWAY_FAULT_SCHEDULE": "0.02", "GATEWAY_KEY_RATE": "100000", "GATEWAY_KEY_BURST": "100000", "GATEWAY_TENANT_RATE": "100000",
		"GATEWAY_LOG_LEVEL": "info",
	}
}

// NewArena has this many slots, all empty. env is added to every process'. The
// processes are of this binary, or of this checkout's if that is "".
func NewArena(t testing.TB, slots int, env map[string]string, binary string) *Arena {
	t.Helper()
	cluster := NewCluster(t)
	logs, err := os.MkdirTemp("", "mendian-torture-logs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the processes said is in %s", logs)
		} else {
			os.RemoveAll(logs)
		}
	})
	all := environment()
	maps.Copy(all, env)
	front := NewProxy(t, cluster.Addr)
	a := &Arena{t: t, Cluster: cluster, front: front, logs: logs, World: world.New(t, world.Options{Tags: []string{"faults"}, Binary: binary, Env: all, DSN: dsn(front.Addr), LogDir: logs,
		Sandbox: sandbox.Config{AuditDelay: 100 * time.Millisecond}})}
	a.Run("tenant", "update", a.Tenant.ID, "--merchant-writes-in-flight", "1000", "--merchant-in-flight", "1000")
	a.Settled = a.Start(nil)
	a.WaitTicket(a.Settled)
	for i := range slots {
		s := &Slot{arena: a, name: fmt.Sprintf("slot %d", i), spool: filepath.Join(a.Dir, fmt.Sprintf("slot-%d", i)), addr: world.FreeAddr(t),
			DB: NewProxy(t, cluster.Addr), WeChat: NewProxy(t, strings.TrimPrefix(a.SandboxURL, "http://"))}
		a.Slots = append(a.Slots, s)
	}
	return a
}

// environ is what a process of the slot is started with.
func (s *Slot) environ(more map[string]string) map[string]string {
	wechat := "http://" + s.WeChat.Addr
	env := map[string]string{"GATEWAY_SPOOL_DIR": s.spool, "GATEWAY_ADDR": s.addr, "DATABASE_URL": dsn(s.DB.Addr),
		"GATEWAY_WECHAT_API_URL": wechat, "GATEWAY_WECHAT_MP_URL": wechat, "GATEWAY_WECHAT_OPEN_URL": wechat}
	if s.Sabotage != "" {
		env["GATEWAY_SABOTAGE"] = s.Sabotage
	}
	maps.Copy(env, more)
	return env
}

// Launch starts a process without waiting for it.
func (s *Slot) Launch(env map[string]string) *world.Gateway {
	s.arena.starting.Lock()
	g := s.arena.World.Launch(s.environ(env))
	s.arena.starting.Unlock()
	s.mu.Lock()
	s.g = g
	s.mu.Unlock()
	return g
}

// Up starts a process and waits until it is ready.
func (s *Slot) Up(env map[string]string) *world.Gateway {
	g := s.Launch(env)
	g.WaitReady()
	return g
}

// MoveDatabase leads everyone to another server.
func (a *Arena) MoveDatabase(to *Cluster) {
	a.Cluster = to
	a.front.Lead(to.Addr)
	for _, s := range a.Slots {
		s.DB.Lead(to.Addr)
	}
}

// Kill ends the slot's process with SIGKILL.
func (s *Slot) Kill() {
	s.mu.Lock()
	g := s.g
	s.g = nil
	s.mu.Unlock()
	if g != nil {
		g.Kill()
	}
}

// WaitReady waits for the slot's process.
func (s *Slot) WaitReady() {
	s.mu.Lock()
	g := s.g
	s.mu.Unlock()
	g.WaitReady()
}

// URL is where the slot's processes listen, also while there is none.
func (s *Slot) URL() string { return "http://" + s.addr }

// name makes a name that was never used in this arena.
func (a *Arena) name(prefix string) string {
	a.serial++
	return fmt.Sprintf("%s%05d", prefix, a.serial)
}
