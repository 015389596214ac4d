// Package readme runs what README.md and the tutorials show: `gateway dev` as a
// newcomer starts it, then every command of a page's blocks marked console, in
// their order, and compares what they print. … stands for ids, times and what
// doesn't matter. Each page begins anew.
package readme

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// A step is a command and what its page says that it prints.
type step struct {
	command string
	output  string
}

// steps reads the blocks marked console: lines that begin with "$ " are
// commands, "> " goes on with one, the rest is output.
func steps(doc string) []step {
	var out []step
	for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllStringSubmatch(doc, -1) {
		inCommand := false
		for line := range strings.Lines(block[1]) {
			switch {
			case strings.HasPrefix(line, "$ "):
				out = append(out, step{command: line[2:]})
				inCommand = true
			case inCommand && strings.HasPrefix(line, "> "):
				out[len(out)-1].command += line[2:]
			default:
				inCommand = false
				out[len(out)-1].output += line
			}
		}
	}
	return out
}

// pattern is an expected output as a regular expression.
func pattern(output string) *regexp.Regexp {
	parts := strings.Split(strings.TrimSpace(output), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*?") + `$`)
}

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		shown, printed string
		want           bool
	}{
		{`{"id":"sto_…","a":1}`, `{"id":"sto_01","a":1}`, true},
		{`{"id":"sto_…","a":1}`, `{"id":"sto_01","a":2}`, false},
		{`{"a":1}`, `{"a":1,"b":2}`, false},
		{`{"a":1…`, `{"a":1,"b":2}`, true},
	} {
		if got := pattern(tc.shown).MatchString(tc.printed); got != tc.want {
			t.Errorf("%s matches %s = %v, want %v", tc.shown, tc.printed, got, tc.want)
		}
	}
}

func TestREADME(t *testing.T) {
	t.Parallel()
	run(t, "../../README.md", 8)
}

func TestTutorials(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/tutorials/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("%d tutorials, %v", len(pages), err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			run(t, page, 3)
		})
	}
}

// run does what a page shows, of which it must hold so many commands at least.
func run(t *testing.T, page string, least int) {
	t.Helper()
	doc, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	name, all := filepath.Base(page), steps(string(doc))
	if len(all) < least {
		t.Fatalf("%s has %d commands in console blocks: is it read rightly?", name, len(all))
	}
	dir := t.TempDir()
	startDev(t, dir)

	// One shell for all of them, as the reader has.
	var script strings.Builder
	for i, s := range all {
		script.WriteString("printf '\\n@@@ " + strconv.Itoa(i) + "\\n'\n" + s.command)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // pages wait with until
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script.String())
	cmd.WaitDelay = time.Second
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the commands of %s: %v\n%s", name, err, out)
	}
	printed := regexp.MustCompile(`\n@@@ \d+\n`).Split(string(out), -1)
	if len(printed) != len(all)+1 {
		t.Fatalf("%d outputs for %d commands:\n%s", len(printed)-1, len(all), out)
	}
	for i, s := range all {
		got := strings.TrimSpace(printed[i+1])
		if !pattern(s.output).MatchString(got) {
			t.Errorf("%s shows\n$ %s%s\nand it prints\n%s", name, s.command, s.output, got)
		}
	}
}

// startDev runs `gateway dev` in dir, with ports of the system's, until the
// test ends.
func startDev(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(world.Binary(t), "dev", "--ephemeral", "--addr", "127.0.0.1:0", "--sandbox-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("gateway dev after Ctrl-C: %v\n%s", err, out.String())
			}
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("gateway dev didn't end after Ctrl-C:\n%s", out.String())
		}
	})
	// .env.dev is written when all is ready.
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if _, err := os.Stat(filepath.Join(dir, ".env.dev")); err == nil {
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("gateway dev ended: %v\n%s", err, out.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("gateway dev isn't ready after a minute:\n%s", out.String())
}
