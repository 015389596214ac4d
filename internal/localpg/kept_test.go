package localpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// keptDir can be passed by the server's user. It is in memory if there is room
// for all of them: initdb is twice as fast there.
func keptDir(t *testing.T) string {
	t.Helper()
	place := "/tmp"
	if free("/dev/shm") > 2<<30 {
		place = "/dev/shm"
	}
	return filepath.Join(openDirIn(t, place), "a", "b")
}

func TestKept(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	s := start(t, Options{DataDir: dir, Durable: true})
	if got := exec1(t, s.DSN(), "SELECT current_setting('fsync') || current_setting('autovacuum')"); got != "onon" {
		t.Errorf("fsync, autovacuum: %s", got)
	}
	exec1(t, s.DSN(), "CREATE TABLE kept (v text)")
	exec1(t, s.DSN(), "INSERT INTO kept VALUES ('yes')")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again := start(t, Options{DataDir: dir, Durable: true})
	if got := exec1(t, again.DSN(), "SELECT v FROM kept"); got != "yes" {
		t.Errorf("got %q", got)
	}
	if again.DSN() != s.DSN() {
		t.Errorf("the DSN changed from %s to %s", s.DSN(), again.DSN())
	}
	if !strings.Contains(again.Describe(), dir) {
		t.Errorf("%q does not say where the data lies", again.Describe())
	}
}

func TestKeptIsHeldByOne(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	start(t, Options{DataDir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Start(ctx, Options{DataDir: dir, Getenv: environment("GATEWAY_POSTGRES", "local")})
	if want := fmt.Sprintf("held by process %d", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}

// Each way in which a run can end, and the next one finds everything.
func TestKeptAfter(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, h *helper){
		"Ctrl-C": func(t *testing.T, h *helper) {
			h.interrupt(t)
			if pids := serversOn(filepath.Join(h.DataDir, "data")); len(pids) > 0 {
				t.Errorf("processes %v still run", pids)
			}
		},
		"kill -9": func(t *testing.T, h *helper) { h.kill(t) },
		"kill -9 with a busy server": func(t *testing.T, h *helper) {
			pid := postmasterPID(filepath.Join(h.DataDir, "data"))
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // it can't obey yet
				t.Fatal(err)
			}
			h.kill(t)
			time.AfterFunc(300*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		},
		"kill -9 of both": func(t *testing.T, h *helper) {
			pid := postmasterPID(filepath.Join(h.DataDir, "data"))
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			h.kill(t)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		"kill -9 of both, and its process id is another's": func(t *testing.T, h *helper) {
			data := filepath.Join(h.DataDir, "data")
			pid := postmasterPID(data)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			h.kill(t)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			reusePID(t, data)
		},
		"kill -9 in the middle of initdb": func(t *testing.T, h *helper) {
			h.kill(t)
			if err := os.MkdirAll(filepath.Join(h.DataDir, "data.new", "base"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := jobDir + keptDir(t)
			h := startHelper(t, job, "/")
			exec1(t, h.DSN, "CREATE TABLE kept (v text)")
			exec1(t, h.DSN, "INSERT INTO kept VALUES ('yes')")
			end(t, h)
			again := startHelper(t, job, "/")
			if got := exec1(t, again.DSN, "SELECT v FROM kept"); got != "yes" {
				t.Errorf("got %q", got)
			}
			again.interrupt(t)
		})
	}
}

// reusePID makes postmaster.pid name a living process of the server's user,
// which PostgreSQL itself would take for a running server.
func reusePID(t *testing.T, data string) {
	t.Helper()
	who, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	stranger := command(who, "/", syscall.SIGKILL, "/bin/sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	file := filepath.Join(data, "postmaster.pid")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d\n%s", stranger.Process.Pid, rest), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A server that nobody holds any more, as where the kernel does not end it with
// its parent.
func TestKeptWithARunningServer(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	s := start(t, Options{DataDir: dir})
	exec1(t, s.DSN(), "CREATE TABLE kept (v text)")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	who, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	b, err := findBinaries(who, 0)
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	pgctl := exec.Command(b.path("pg_ctl"), "-D", data, "-o", "-h '' -k "+data, "-l", filepath.Join(data, "l"), "-w", "start")
	pgctl.Dir = data
	pgctl.SysProcAttr = &syscall.SysProcAttr{Credential: who.cred}
	if out, err := pgctl.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	orphan := postmasterPID(data)

	again := start(t, Options{DataDir: dir})
	if got := exec1(t, again.DSN(), "SELECT count(*)::text FROM kept"); got != "0" {
		t.Errorf("got %q", got)
	}
	if slices.Contains(serversOn(data), orphan) {
		t.Error("two servers on the same data")
	}
}

func TestKeptOfAnotherVersion(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	s := start(t, Options{DataDir: dir})
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{DataDir: dir, Getenv: environment("GATEWAY_POSTGRES", "local")})
	if err == nil || !strings.Contains(err.Error(), "version 99") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

// A directory that the server can't reach is refused in words; as an ordinary
// user, one that can't be written.
func TestKeptOutOfReach(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Options{DataDir: filepath.Join(dir, "pg"), Getenv: environment("GATEWAY_POSTGRES", "local")})
	want := "may not pass"
	if os.Geteuid() != 0 {
		want = "permission denied"
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q in it", err, want)
	}
}

// firstThatRuns is the first of the wrappers that this machine and user allow:
// a container often forbids a new network, and an ordinary user is already what
// setpriv would make of root. Without one the case runs unwrapped.
func firstThatRuns(t *testing.T, wrappers ...[]string) []string {
	t.Helper()
	for _, w := range wrappers {
		err := exec.Command(w[0], append(w[1:len(w):len(w)], "true")...).Run()
		if err == nil {
			return w
		}
		t.Logf("%v: %v", w, err)
	}
	return nil
}

// Where `gateway dev` must start: without a network, as nobody, below a
// directory of mode 0700, without a home; fresh, on the data of the first run,
// and after a kill -9.
func TestDefaultDataDirEverywhere(t *testing.T) {
	t.Parallel()
	noNetwork := firstThatRuns(t, []string{"unshare", "-n"}, []string{"unshare", "--map-current-user", "-n"})
	nobody := firstThatRuns(t, []string{"setpriv", "--reuid=nobody", "--clear-groups"})
	for name, tc := range map[string]struct {
		wrap   []string
		closed bool // the working directory is below one of mode 0700
	}{
		"plain":               {},
		"closed":              {closed: true},
		"no network":          {wrap: noNetwork},
		"no network, closed":  {wrap: noNetwork, closed: true},
		"nobody":              {wrap: nobody},
		"nobody, closed":      {wrap: nobody, closed: true},
		"nobody, no network":  {wrap: append(noNetwork[:len(noNetwork):len(noNetwork)], nobody...)},
		"all of them at once": {wrap: append(noNetwork[:len(noNetwork):len(noNetwork)], nobody...), closed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := openDir(t)
			wd := filepath.Join(parent, "clone")
			if err := os.Mkdir(wd, 0o755); err != nil {
				t.Fatal(err)
			}
			if tc.closed {
				if err := os.Chmod(parent, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			first := startHelper(t, jobDefault, wd, tc.wrap...)
			t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(first.DataDir)) })
			exec1(t, first.DSN, "CREATE TABLE kept (v text)")
			exec1(t, first.DSN, "INSERT INTO kept VALUES ('yes')")
			first.interrupt(t)
			second := startHelper(t, jobDefault, wd, tc.wrap...)
			if got := exec1(t, second.DSN, "SELECT v FROM kept"); got != "yes" {
				t.Errorf("after a restart: %q", got)
			}
			second.kill(t)
			third := startHelper(t, jobDefault, wd, tc.wrap...)
			if got := exec1(t, third.DSN, "SELECT v FROM kept"); got != "yes" {
				t.Errorf("after kill -9: %q", got)
			}
			third.interrupt(t)
		})
	}
}
