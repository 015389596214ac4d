package torture

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/test/world"
)

// A Cluster is a Postgres of the suite's own, as production has it: fsync on,
// and a commit that was confirmed is on the disk.
type Cluster struct {
	t    testing.TB
	bin  string
	dir  string
	Addr string
	cmd  *exec.Cmd
	done chan struct{}
}

// NewCluster makes a data directory and starts its server.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	c := newCluster(t)
	c.run("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	c.Start()
	return c
}

func newCluster(t testing.TB) *Cluster {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if path, err := exec.LookPath("postgres"); err == nil {
		path, _ = filepath.EvalSymlinks(path)
		bins = append(bins, filepath.Dir(path))
	}
	if len(bins) == 0 {
		t.Fatal("no server binaries of PostgreSQL: apt-get install postgresql")
	}
	dir, err := os.MkdirTemp("", "mendian-torture-pg-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, bin: bins[len(bins)-1], dir: dir, Addr: world.FreeAddr(t)}
	if who := c.who(); who != nil {
		if err := os.Chown(dir, int(who.Uid), int(who.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		c.Kill()
		os.RemoveAll(dir)
	})
	return c
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// DSN names the database as a role that owns it and may make others.
func (c *Cluster) DSN() string { return dsn(c.Addr) }

// who is another user where we are root, as whom PostgreSQL refuses to run.
func (c *Cluster) who() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.ParseUint(u.Uid, 10, 32)
			gid, _ := strconv.ParseUint(u.Gid, 10, 32)
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	c.t.Fatal("PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody")
	return nil
}

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.who(), Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (c *Cluster) run(name string, args ...string) {
	c.t.Helper()
	if out, err := c.command(name, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// Start starts the server on what its directory holds, and waits until it
// answers.
func (c *Cluster) Start(settings ...string) {
	c.t.Helper()
	host, port, _ := strings.Cut(c.Addr, ":")
	args := []string{"-D", c.data(), "-k", c.dir, "-h", host, "-p", port, "-c", "max_connections=200"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	c.launch(args)
	world.Eventually(c.t, time.Minute, "PostgreSQL to answer", func() error {
		select {
		case <-c.done:
			said, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			said = said[max(0, len(said)-2000):]
			if !bytes.Contains(said, []byte("pre-existing shared memory block")) {
				c.t.Fatalf("PostgreSQL ended: %s", said)
			}
			c.launch(args) // a process of the one that was killed is still dying
		default:
		}
		return c.Exec("SELECT 1")
	})
}

func (c *Cluster) launch(args []string) {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	c.cmd, c.done = c.command("postgres", args...), make(chan struct{})
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) { _ = cmd.Wait(); close(done) }(c.cmd, c.done)
}

// Exec runs a statement as the superuser.
func (c *Cluster) Exec(sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql, args...)
	return err
}

// Kill ends the postmaster and all of its processes with SIGKILL: the server
// has to recover from its log.
func (c *Cluster) Kill() {
	if c.cmd == nil {
		return
	}
	pid := strconv.Itoa(c.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	_ = c.cmd.Process.Kill()
	<-c.done
	for child := range strings.FieldsSeq(string(children)) {
		if n, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL) // each has a session of its own
		}
	}
	c.cmd = nil
}

// Standby is a copy of a running server that follows it. From then on a commit
// on the first one is confirmed when the copy has it on its disk.
func (c *Cluster) Standby() *Cluster {
	c.t.Helper()
	s := newCluster(c.t)
	name := "standby" + strings.ReplaceAll(s.Addr, ":", "_")
	name = strings.ReplaceAll(name, ".", "_")
	host, port, _ := strings.Cut(c.Addr, ":")
	s.run("pg_basebackup", "-D", s.data(), "-h", host, "-p", port, "-U", "postgres", "-X", "stream", "-c", "fast", "--no-sync")
	if err := os.WriteFile(filepath.Join(s.data(), "standby.signal"), nil, 0o600); err != nil {
		c.t.Fatal(err)
	}
	if who := c.who(); who != nil {
		if err := os.Chown(filepath.Join(s.data(), "standby.signal"), int(who.Uid), int(who.Gid)); err != nil {
			c.t.Fatal(err)
		}
	}
	// The copied postgresql.auto.conf must not make the standby wait for one itself.
	s.Start(fmt.Sprintf("primary_conninfo=host=%s port=%s user=postgres application_name=%s", host, port, name), "synchronous_standby_names=")
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = '" + name + "'", "SELECT pg_reload_conf()"} {
		if err := c.Exec(sql); err != nil {
			c.t.Fatal(err)
		}
	}
	world.Eventually(c.t, time.Minute, "the standby to be synchronous", func() error {
		return c.Exec("SELECT 1 / count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND application_name = '" + name + "'")
	})
	return s
}

// Promote makes a standby the primary.
func (c *Cluster) Promote() {
	c.t.Helper()
	if err := c.Exec("SELECT pg_promote(false)"); err != nil {
		c.t.Fatal(err)
	}
	world.Eventually(c.t, time.Minute, "the standby to be the primary", func() error {
		return c.Exec("SELECT 1 / (NOT pg_is_in_recovery())::int")
	})
}
