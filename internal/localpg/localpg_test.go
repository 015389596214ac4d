package localpg

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestThrowaway(t *testing.T) {
	t.Parallel()
	s := start(t, Options{MaxConnections: 33})
	if got := exec1(t, s.DSN(), "SELECT current_setting('max_connections') || current_setting('fsync') || current_user"); got != "33offpostgres" {
		t.Errorf("max_connections, fsync, user: %s", got)
	}
	if s.External() {
		t.Error("a server that we started is called external")
	}
	dir := throwawayDir(t, s.Describe())
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there", dir)
	}
	if pids := serversOn(filepath.Join(dir, "data")); len(pids) > 0 {
		t.Errorf("processes %v still run", pids)
	}
	if err := s.Stop(); err != nil {
		t.Error("the second Stop:", err)
	}
}

func throwawayDir(t *testing.T, describe string) string {
	t.Helper()
	_, dir, ok := strings.Cut(describe, "throw-away data in ")
	if !ok {
		t.Fatal(describe)
	}
	return dir
}

func TestThrowawayInParallel(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s, err := Start(t.Context(), Options{Getenv: environment("GATEWAY_POSTGRES", "local")})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Somebody who keeps only the DSN still has a server.
func TestServerOutlivesItsValue(t *testing.T) {
	t.Parallel()
	dsn := func() string {
		s, err := Start(t.Context(), Options{Getenv: environment("GATEWAY_POSTGRES", "local")})
		if err != nil {
			t.Fatal(err)
		}
		return s.DSN()
	}()
	for range 3 {
		runtime.GC()
	}
	if got := exec1(t, dsn, "SELECT 'there'"); got != "there" {
		t.Errorf("got %q", got)
	}
	running.Range(func(s, _ any) bool {
		if s, ok := s.(*Server); ok && s.DSN() == dsn {
			if err := s.Stop(); err != nil {
				t.Error(err)
			}
		}
		return true
	})
}

// A killed test binary leaves neither a process nor a file.
func TestThrowawayAfterKill(t *testing.T) {
	t.Parallel()
	h := startHelper(t, jobThrowaway, "/")
	dir := throwawayDir(t, h.Describe)
	pid := postmasterPID(filepath.Join(dir, "data"))
	if !alive(pid) {
		t.Fatalf("no server with process id %d", pid)
	}
	h.kill(t)
	eventually(t, "the server has ended", func() bool { return !alive(pid) })
	eventually(t, "its directory is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
}

// What the watchdog could not remove, because it was killed too, the next
// start removes; what belongs to a living process stays.
func TestSweep(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	mine, lock, err := claimDir(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	abandoned, lock2, err := claimDir(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	lock2.Close()
	unlocked := filepath.Join(base, "t-unlocked")
	if err := os.Mkdir(unlocked, 0o700); err != nil {
		t.Fatal(err)
	}
	fresh, old := filepath.Join(base, "c-fresh"), filepath.Join(base, "c-old")
	for _, cached := range []string{fresh, old} {
		if err := errors.Join(os.Mkdir(cached, 0o700), os.WriteFile(cached+".lock", nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := sweep(base); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{mine: true, abandoned: false, unlocked: false, fresh: true, old: false} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", dir, err == nil, want)
		}
	}
}

func TestGiven(t *testing.T) {
	t.Parallel()
	server := start(t, Options{})
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(server.DSN()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, getenv := range map[string]func(string) string{
		"variable": environment("DATABASE_URL", server.DSN()),
		"file":     environment("DATABASE_URL_FILE", file),
	} {
		s, err := Start(t.Context(), Options{Getenv: getenv})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !s.External() || s.DSN() != server.DSN() {
			t.Errorf("%s: external %v, DSN %s, want true, %s", name, s.External(), s.DSN(), server.DSN())
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if got := exec1(t, server.DSN(), "SELECT 'there'"); got != "there" {
			t.Error("Stop has stopped a server that is not ours")
		}
	}
}

// A shell that has read .env.dev still names the server of the last run.
func TestGivenOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	old := start(t, Options{})
	if err := old.Stop(); err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Getenv: environment("DATABASE_URL", old.DSN())})
	if s.External() {
		t.Error("it was taken for a server of somebody else's")
	}
}

func TestGivenThatFails(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]string{
		"no url":    "postgres://u:s3cret@[",
		"no server": "postgres://u:s3cret@127.0.0.1:1/db",
		"no socket": "postgres://u:s3cret@/db?host=/nonexistent/dir",
	} {
		_, err := Start(t.Context(), Options{Getenv: environment("DATABASE_URL", dsn)})
		if err == nil || !strings.Contains(err.Error(), "DATABASE_URL") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForced(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Getenv: environment("GATEWAY_POSTGRES", "local", "DATABASE_URL", "postgres://127.0.0.1:1/db")})
	if s.External() {
		t.Error("DATABASE_URL was taken although another way is forced")
	}
	_, err := Start(t.Context(), Options{Getenv: environment("GATEWAY_POSTGRES", "oracle")})
	if err == nil || !strings.Contains(err.Error(), `"oracle": it can be local, docker or download`) {
		t.Error(err)
	}
}

// Not parallel: the Docker client reads its own environment.
func TestNoDocker(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := Start(ctx, Options{Getenv: environment("GATEWAY_POSTGRES", "docker")})
	if err == nil {
		t.Fatal("a server without a daemon")
	}
	for _, want := range []string{"docker: no daemon answers", "set DATABASE_URL", "install the server", "start Docker", "let it be downloaded"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func TestMajor(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]int{"15.18": 15, "16beta1": 16, "18devel": 18, "17": 17, "": 0, "x": 0} {
		if got := major(version); got != want {
			t.Errorf("major(%q) = %d, want %d", version, got, want)
		}
	}
}
