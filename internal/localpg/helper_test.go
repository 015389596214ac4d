package localpg

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// The test binary, started with this variable, is a small program that holds a
// server: what is tested is what happens when such a program is stopped, killed
// or run as somebody else.
const helperVariable = "LOCALPG_TEST_HELPER"

func TestMain(m *testing.M) {
	if job := os.Getenv(helperVariable); job != "" {
		if err := help(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if dir, err := helperDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// held is what the helper tells on its first line.
type held struct {
	DSN, Describe, DataDir string
	UID                    int
}

const (
	jobThrowaway = "throw-away"
	jobDefault   = "default"
	jobDir       = "dir:"
)

func help(job string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o := Options{Logf: func(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }}
	switch {
	case job == jobDefault:
		dir, err := DefaultDataDir("postgres")
		if err != nil {
			return err
		}
		o.DataDir, o.Durable = dir, true
	case strings.HasPrefix(job, jobDir):
		o.DataDir = strings.TrimPrefix(job, jobDir)
	}
	s, err := Start(ctx, o)
	if err != nil {
		return err
	}
	out, err := json.Marshal(held{s.DSN(), s.Describe(), o.DataDir, os.Geteuid()})
	if err != nil {
		return err
	}
	fmt.Println(string(out))
	<-ctx.Done()
	return s.Stop()
}

type helper struct {
	held
	cmd    *exec.Cmd
	stderr *bytes.Buffer
}

// startHelper runs the helper as `wrap… test-binary` and waits for its server.
func startHelper(t *testing.T, job, dir string, wrap ...string) *helper {
	t.Helper()
	h := &helper{stderr: new(bytes.Buffer)}
	bin, err := helperDir()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(wrap[:len(wrap):len(wrap)], filepath.Join(bin, "helper"))
	h.cmd = exec.Command(argv[0], argv[1:]...)
	h.cmd.Dir = dir
	h.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), helperVariable + "=" + job, "GATEWAY_POSTGRES=local", "HOME=/nonexistent"}
	h.cmd.Stderr = h.stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.cmd.Process.Kill(); _ = h.cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		_ = h.cmd.Wait()
		t.Fatalf("%v gave no server: %v\n%s", argv, err, h.stderr)
	}
	if err := json.Unmarshal(line, &h.held); err != nil {
		t.Fatal(err)
	}
	return h
}

// interrupt is a Ctrl-C; the helper must stop its server and end well.
func (h *helper) interrupt(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Wait(); err != nil {
		t.Fatalf("the helper ended badly: %v\n%s", err, h.stderr)
	}
}

func (h *helper) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = h.cmd.Wait() // killed, as wanted
}

// helperDir holds a copy of this test binary that every user can run.
var helperDir = sync.OnceValues(func() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("/tmp", "localpg-test-")
	if err != nil {
		return "", err
	}
	return dir, errors.Join(
		os.Chmod(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "helper"), b, 0o700),
		os.Chmod(filepath.Join(dir, "helper"), 0o755))
})

// openDir is a directory that every user can pass; t.TempDir is not.
func openDir(t *testing.T) string {
	t.Helper()
	return openDirIn(t, "/tmp")
}

func openDirIn(t *testing.T, place string) string {
	t.Helper()
	dir, err := os.MkdirTemp(place, "localpg-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func exec1(t *testing.T, dsn, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(got, ",")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Getenv == nil {
		o.Getenv = environment("GATEWAY_POSTGRES", "local")
	}
	if o.Logf == nil {
		o.Logf = t.Logf
	}
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func alive(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) == nil }
