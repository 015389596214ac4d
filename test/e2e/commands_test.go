package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/test/world"
)

// commandsOf are the commands below these, as help lists them.
func commandsOf(help string) (out []string) {
	_, list, found := strings.Cut(help, "Available Commands:\n")
	if !found {
		return nil
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+) `).FindAllStringSubmatch(list, -1) {
		if m[1] != "help" && m[1] != "completion" { // cobra's own
			out = append(out, m[1])
		}
	}
	return out
}

// tree walks all commands and returns the help of each that does something.
func tree(w *world.World, path []string, into map[string]string) {
	help := w.Run(append(path, "--help")...)
	below := commandsOf(help)
	for _, name := range below {
		tree(w, append(slices.Clone(path), name), into)
	}
	// dev and migrate have commands below them, and do something themselves.
	if len(path) > 0 && (len(below) == 0 || strings.Contains(help, "\nExamples:\n")) {
		into[strings.Join(path, " ")] = help
	}
}

// Every command says what it does, with an example; where a script may read
// the answer there is -o json.
func TestCommandHelp(t *testing.T) {
	t.Parallel()
	w := world.Bare(t)
	commands := map[string]string{}
	tree(w, nil, commands)
	spoken := []string{"serve", "dev", "dev reset", "sandbox"} // to people, or for ever
	for name, help := range commands {
		if !strings.Contains(help, "\nExamples:\n") || !strings.Contains(help, "gateway "+name) {
			t.Errorf("gateway %s --help has no example of it:\n%s", name, help)
		}
		if strings.Contains(help, "-o, --output") == slices.Contains(spoken, name) {
			t.Errorf("gateway %s: -o json is there: %t", name, strings.Contains(help, "-o, --output"))
		}
		if _, err := w.Try(append(strings.Fields(name), "--frobnicate")...); err == nil || !strings.Contains(err.Error(), "frobnicate") {
			t.Errorf("gateway %s takes a flag that it doesn't know: %v", name, err)
		}
	}
	for _, name := range []string{"serve", "migrate", "migrate status", "sandbox", "dev", "doctor", "errors", "version", "tenant create", "key create", "key signing list", "keyset create"} {
		if commands[name] == "" {
			t.Errorf("there is no gateway %s", name)
		}
	}

	if help := w.Run(); help != w.Run("help") || !strings.Contains(help, "gateway dev") {
		t.Errorf("gateway alone says %s", help)
	}
	for _, args := range [][]string{{"frobnicate"}, {"tenant", "frobnicate"}, {"key", "signing", "frobnicate"}, {"version", "frobnicate"}, {"serve", "frobnicate"}, {"migrate", "frobnicate"}} {
		out, err := w.Try(args...)
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.Contains(err.Error(), "frobnicate") || out != "" {
			t.Errorf("gateway %s: %v, %q", strings.Join(args, " "), err, out)
		}
	}
	if _, err := w.Try("version", "-o", "xml"); err == nil || !strings.Contains(err.Error(), "text or json") {
		t.Errorf("version -o xml: %v", err)
	}

	var version map[string]any
	w.JSON(&version, "version", "-o", "json")
	var members []string
	for name := range version {
		members = append(members, name)
	}
	slices.Sort(members)
	if diff := cmp.Diff([]string{"go", "modified", "platform", "revision", "version"}, members); diff != "" || !strings.HasPrefix(version["go"].(string), "go1.") {
		t.Errorf("version -o json: %s %v", diff, version)
	}
	if text := w.Run("version"); !regexp.MustCompile(`^gateway \S+ .*go1\.\S+ \S+/\S+\n$`).MatchString(text) {
		t.Errorf("version: %q", text)
	}
}

// What scripts read is JSON, and nothing else is on standard output.
func TestCommandsAnswerJSON(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	for _, args := range [][]string{{"tenant", "list"}, {"tenant", "show", w.Tenant.ID}, {"key", "list", "--tenant", w.Tenant.ID}, {"key", "list", "--admin"},
		{"key", "signing", "list"}, {"keyset", "show"}, {"migrate"}, {"migrate", "status"}, {"version"}} {
		var v any
		w.JSON(&v, append(args, "-o", "json")...)
		if text := w.Run(args...); json.Valid([]byte(text)) && text != "" {
			t.Errorf("gateway %s without -o json: %s", strings.Join(args, " "), text)
		}
	}
	for _, args := range [][]string{{"tenant", "show", "ten_1"}, {"tenant", "show", "ten_01jd7jx5p0f3e4d5c6b7a8n9mp"}, {"key", "create"}, {"key", "create", "--tenant", w.Tenant.ID},
		{"key", "revoke", "key_01jd7jz0m1f2c3d4e5f6g7h8jk", "--tenant", w.Tenant.ID}, {"tenant", "create", "--name", "World", "--component-appid", "wx9c3a8f2e4b6d1075"},
		{"tenant", "update", w.Tenant.ID}, {"keyset", "create"}} {
		out, err := w.Try(append(args, "-o", "json")...)
		if err == nil || out != "" {
			t.Errorf("gateway %s: %v, %q", strings.Join(args, " "), err, out)
		} else if text := err.Error(); strings.Contains(text, "goroutine") || strings.Contains(text, "Usage:") {
			t.Errorf("gateway %s says too much: %s", strings.Join(args, " "), text)
		}
	}
}

func TestPrintConfig(t *testing.T) {
	t.Parallel()
	w := world.Bare(t)
	file := filepath.Join(w.Dir, "dsn")
	if err := os.WriteFile(file, []byte("postgres://u:hunter2@db.example/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, env := range [][]string{{"DATABASE_URL", "postgres://u:hunter2@db.example/x"}, {"DATABASE_URL_FILE", file}} {
		out := w.With(append(env, "GATEWAY_KEY_RATE", "7")...).Run("serve", "--print-config")
		if strings.Contains(out, "hunter2") || !regexp.MustCompile(`(?m)^DATABASE_URL=\S+$`).MatchString(out) || !strings.Contains(out, "GATEWAY_KEY_RATE=7\n") {
			t.Errorf("%v: %s", env[0], out)
		}
		// As many as the page of settings lists.
		page, err := os.ReadFile("../../docs/reference/configuration.md")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
			if !strings.Contains(out, m[1]+"=") {
				t.Errorf("%s is not shown", m[1])
			}
		}
	}
	out, err := w.With("GATEWAY_LOG_LEVEL", "loud", "GATEWAY_DB_MAX_CONNS", "1").Try("serve", "--print-config")
	if err == nil || !strings.Contains(err.Error(), "GATEWAY_LOG_LEVEL") || !strings.Contains(err.Error(), "GATEWAY_DB_MAX_CONNS") || !strings.Contains(out, "GATEWAY_LOG_LEVEL=loud") {
		t.Errorf("settings that can't be used: %v %s", err, out)
	}
}

// Production refuses what elsewhere is a warning, and says all of it.
func TestProductionRefuses(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	keyset := w.Env["GATEWAY_KEYSET_FILE"]
	safe := w.With("GATEWAY_ENV", "production", "GATEWAY_LOG_LEVEL", "info", "GATEWAY_PUBLIC_URL", "https://gateway.example", "GATEWAY_WECHAT_API_URL", "https://api.weixin.qq.com",
		"GATEWAY_WECHAT_MP_URL", "https://mp.weixin.qq.com", "GATEWAY_WECHAT_OPEN_URL", "https://open.weixin.qq.com", "GATEWAY_ADDR", "127.0.0.1:1", "GATEWAY_ADMIN_ADDR", "127.0.0.1:0")
	// Port 1 belongs to root: it is either taken, or refused, or listened on for
	// as long as the test lets it; what matters is what is said before.
	for _, tc := range []struct{ name, value, says string }{
		{"GATEWAY_PUBLIC_URL", "http://gateway.example", "GATEWAY_PUBLIC_URL"},
		{"GATEWAY_WECHAT_API_URL", "http://api.weixin.qq.com", "GATEWAY_WECHAT_API_URL"},
		{"GATEWAY_LOG_LEVEL", "debug", "GATEWAY_LOG_LEVEL"},
		{"DATABASE_URL", "postgres://u:hunter2@db.example/x?sslmode=require", "DATABASE_URL"},
		{"GATEWAY_ADMIN_ADDR", ":9090", "GATEWAY_ADMIN_ADDR"},
		{"GATEWAY_ADMIN_ADDR", "0.0.0.0:9090", "GATEWAY_ADMIN_ADDR"},
		{"GATEWAY_ADMIN_ADDR", "[::]:9090", "GATEWAY_ADMIN_ADDR"},
	} {
		_, err := safe.With(tc.name, tc.value).Try("serve")
		if err == nil || !strings.Contains(err.Error(), "production") || !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s=%s: %v", tc.name, tc.value, err)
		}
	}
	if err := os.Chmod(keyset, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := safe.Try("serve"); err == nil || !strings.Contains(err.Error(), "GATEWAY_KEYSET_FILE") {
		t.Errorf("a keyset that others can read: %v", err)
	}
	all := safe.With("GATEWAY_PUBLIC_URL", "http://gateway.example", "GATEWAY_LOG_LEVEL", "debug")
	if _, err := all.Try("serve"); err == nil || !strings.Contains(err.Error(), "GATEWAY_PUBLIC_URL") || !strings.Contains(err.Error(), "GATEWAY_LOG_LEVEL") || !strings.Contains(err.Error(), "GATEWAY_KEYSET_FILE") {
		t.Errorf("not all at once: %v", err)
	}
	if err := os.Chmod(keyset, 0o600); err != nil {
		t.Fatal(err)
	}
	// It makes no keyset there: one that appears by itself would open nothing.
	none := filepath.Join(w.Dir, "none.json")
	if _, err := safe.With("GATEWAY_KEYSET_FILE", none).Try("migrate"); err == nil || !strings.Contains(err.Error(), "gateway keyset create") {
		t.Errorf("migrate without a keyset: %v", err)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("production made a keyset")
	}
	if _, err := w.With("GATEWAY_KEYSET_FILE", none).Try("serve"); err == nil || !strings.Contains(err.Error(), "gateway keyset create") {
		t.Errorf("serve without a keyset: %v", err)
	}
}

// What keeps a process from serving is said at once, and ends it.
func TestServeRefusesToStart(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	first := w.Start(nil)
	ends := func(g *world.Gateway, says ...string) {
		t.Helper()
		g.WaitExit(20 * time.Second)
		for _, s := range says {
			if g.ExitCode() != 1 || !strings.Contains(g.Output(), s) {
				t.Errorf("exit code %d, want %q in: %s", g.ExitCode(), s, g.Tail(5))
			}
		}
	}
	spool := filepath.Join(w.Dir, "spool-0")
	ends(w.Launch(map[string]string{"GATEWAY_SPOOL_DIR": spool}), "GATEWAY_SPOOL_DIR", spool)
	ends(w.Launch(map[string]string{"GATEWAY_ADDR": strings.TrimPrefix(first.URL, "http://")}), "GATEWAY_ADDR")
	ends(w.Launch(map[string]string{"GATEWAY_ADMIN_ADDR": strings.TrimPrefix(first.AdminURL, "http://")}), "GATEWAY_ADMIN_ADDR")
	ends(w.Launch(map[string]string{"DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/x"}), "127.0.0.1")
	first.Stop()
	ends(w.Launch(map[string]string{"DATABASE_URL": ""}), "DATABASE_URL is not set", "gateway dev")

	w.Exec(`DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	ends(w.Launch(nil), "run `gateway migrate`")
	if _, err := w.Try("tenant", "list"); err == nil || !strings.Contains(err.Error(), "run `gateway migrate`") {
		t.Errorf("commands on a schema of one version before: %v", err)
	}
}

// serve and the commands on an empty database.
func TestUnmigrated(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	w.Wipe()
	g := w.Launch(nil)
	g.WaitExit(20 * time.Second)
	if g.ExitCode() != 1 || !strings.Contains(g.Output(), "run `gateway migrate`") {
		t.Errorf("exit code %d: %s", g.ExitCode(), g.Tail(5))
	}
	for _, args := range [][]string{{"tenant", "list"}, {"key", "create", "--admin"}} {
		if _, err := w.Try(args...); err == nil || !strings.Contains(err.Error(), "gateway migrate") {
			t.Errorf("gateway %s: %v", strings.Join(args, " "), err)
		}
	}
	var v struct{ Version, Newest int64 }
	w.JSON(&v, "migrate", "status", "-o", "json")
	if v.Version != 0 || v.Newest == 0 {
		t.Errorf("status: %v", v)
	}
	w.JSON(&v, "migrate", "-o", "json")
	if v.Version != v.Newest {
		t.Errorf("after migrate: %v", v)
	}
	w.Start(nil)
}
