package config

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	c, err := Load(context.Background(), lookup(nil))
	if err != nil || c.Addr != ":8080" || c.SpoolDir != "./spool" || c.Production() {
		t.Errorf("Load() = %+v, %v", c, err)
	}
}

func TestFileTwins(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(path, []byte("postgres://x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(context.Background(), lookup(map[string]string{"DATABASE_URL_FILE": path}))
	if err != nil || c.DatabaseURL.Reveal() != "postgres://x" {
		t.Errorf("DATABASE_URL from its file = %q, %v", c.DatabaseURL.Reveal(), err)
	}
	if _, err := Load(context.Background(), lookup(map[string]string{"DATABASE_URL_FILE": path + "-missing"})); err == nil || !strings.Contains(err.Error(), "DATABASE_URL_FILE") {
		t.Errorf("a missing file = %v, want an error that names DATABASE_URL_FILE", err)
	}
}

// Every problem is named at once.
func TestValidateNamesAll(t *testing.T) {
	t.Parallel()
	_, err := Load(context.Background(), lookup(map[string]string{
		"GATEWAY_PUBLIC_URL": "ftp://x", "GATEWAY_LOG_LEVEL": "loud", "GATEWAY_ENV": "prod", "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8,x",
		"GATEWAY_DB_MAX_CONNS": "1", "GATEWAY_KEY_RATE": "0", "GATEWAY_DRAIN_DELAY": "2h", "GATEWAY_WECHAT_API_URL": "https://u:p@h",
	}))
	for _, name := range []string{"GATEWAY_PUBLIC_URL", "GATEWAY_LOG_LEVEL", "GATEWAY_ENV", "GATEWAY_TRUSTED_PROXIES", "GATEWAY_DB_MAX_CONNS",
		"GATEWAY_KEY_RATE", "GATEWAY_DRAIN_DELAY", "GATEWAY_WECHAT_API_URL"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error doesn't name %s: %v", name, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "u:p") {
		t.Error("the error quotes a URL with its password")
	}
	for _, name := range []string{"GATEWAY_KEY_RATE", "GATEWAY_TENANT_RATE", "GATEWAY_DRAIN_DELAY", "GATEWAY_DB_MAX_CONNS", "GATEWAY_DOCS"} {
		for _, value := range []string{"NaN", "Inf", "some"} {
			_, err := Load(context.Background(), lookup(map[string]string{name: value, "GATEWAY_KEY_BURST": "many", "GATEWAY_ENV": "prod"}))
			for _, want := range []string{name, "GATEWAY_KEY_BURST", "GATEWAY_ENV"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s=%s: error doesn't name %s: %v", name, value, want, err)
				}
			}
		}
	}
}

func TestUnsafe(t *testing.T) {
	t.Parallel()
	keyset := filepath.Join(t.TempDir(), "keyset.json")
	if err := os.WriteFile(keyset, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	safe := map[string]string{"GATEWAY_PUBLIC_URL": "https://x", "DATABASE_URL": "postgres://h/d?sslmode=verify-full", "GATEWAY_KEYSET_FILE": keyset}
	c, err := Load(context.Background(), lookup(safe))
	if err != nil || len(c.Unsafe()) != 0 {
		t.Fatalf("Unsafe() = %q, %v, want none", c.Unsafe(), err)
	}
	for name, value := range map[string]string{"GATEWAY_PUBLIC_URL": "http://x", "GATEWAY_WECHAT_API_URL": "http://x", "GATEWAY_LOG_LEVEL": "debug",
		"DATABASE_URL": "postgres://h/d", "GATEWAY_ADMIN_ADDR": ":9090"} {
		env := map[string]string{name: value}
		for k, v := range safe {
			if k != name {
				env[k] = v
			}
		}
		c, err := Load(context.Background(), lookup(env))
		if u := c.Unsafe(); err != nil || len(u) != 1 || !strings.Contains(u[0], name) {
			t.Errorf("%s=%s: Unsafe() = %q, %v, want one that names it", name, value, u, err)
		}
	}
	if err := os.Chmod(keyset, 0o644); err != nil {
		t.Fatal(err)
	}
	if u := c.Unsafe(); len(u) != 1 || !strings.Contains(u[0], "GATEWAY_KEYSET_FILE") {
		t.Errorf("a keyset that others can read: Unsafe() = %q", u)
	}
}

// The page that lists the settings is right: each variable, its default, and
// nothing else.
func TestDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (?:`([^`]*)`|–) \\|").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2]
	}
	typ := reflect.TypeOf(Config{})
	for i := range typ.NumField() {
		tag := typ.Field(i).Tag.Get("env")
		if tag == "" {
			continue
		}
		name, rest, _ := strings.Cut(tag, ",")
		want := strings.TrimPrefix(strings.TrimSpace(rest), "default=")
		if got, ok := documented[name]; !ok || got != want {
			t.Errorf("docs/reference/configuration.md says %q is the default of %s (there: %v), want %q", got, name, ok, want)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/reference/configuration.md lists %s, which nothing reads", name)
	}
}
