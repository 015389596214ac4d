// Package config is the one place where settings are read: environment
// variables, their defaults, their _FILE twins, and what is wrong with them.
//
// Nothing else may read the environment, and nothing here may print a secret.
package config

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/mendian/mendian/internal/secret"
)

// Config is everything that a gateway process can be told. The names are a
// contract (docs/reference/configuration.md): scripts rely on them.
type Config struct {
	DatabaseURL     secret.Text   `env:"DATABASE_URL"`
	Env             string        `env:"GATEWAY_ENV"`
	Addr            string        `env:"GATEWAY_ADDR, default=:8080"`
	AdminAddr       string        `env:"GATEWAY_ADMIN_ADDR, default=127.0.0.1:9090"`
	PublicURL       string        `env:"GATEWAY_PUBLIC_URL, default=http://localhost:8080"`
	WeChatAPIURL    string        `env:"GATEWAY_WECHAT_API_URL, default=https://api.weixin.qq.com"`
	WeChatMPURL     string        `env:"GATEWAY_WECHAT_MP_URL, default=https://mp.weixin.qq.com"`
	WeChatOpenURL   string        `env:"GATEWAY_WECHAT_OPEN_URL, default=https://open.weixin.qq.com"`
	KeysetFile      string        `env:"GATEWAY_KEYSET_FILE, default=./keyset.json"`
	SpoolDir        string        `env:"GATEWAY_SPOOL_DIR, default=./spool"`
	LogLevel        string        `env:"GATEWAY_LOG_LEVEL, default=info"`
	TrustedProxy    []string      `env:"GATEWAY_TRUSTED_PROXIES"`
	DBMaxConns      int32         `env:"GATEWAY_DB_MAX_CONNS, default=20"`
	DrainDelay      time.Duration `env:"GATEWAY_DRAIN_DELAY, default=5s"`
	KeyRate         float64       `env:"GATEWAY_KEY_RATE, default=100"`
	KeyBurst        int           `env:"GATEWAY_KEY_BURST, default=200"`
	TenantRate      float64       `env:"GATEWAY_TENANT_RATE, default=1000"`
	MaxInFlight     int           `env:"GATEWAY_MAX_IN_FLIGHT, default=512"`
	CachedMerchants int           `env:"GATEWAY_CACHED_MERCHANTS, default=20000"`
	Docs            bool          `env:"GATEWAY_DOCS, default=true"`

	// CORSLocalhost allows browsers on any localhost origin. Only `gateway dev` sets it.
	CORSLocalhost bool
}

// Production reports whether unsafe settings are refusals rather than warnings.
func (c Config) Production() bool { return c.Env == "production" }

// Load reads the environment through lookup (os.LookupEnv in the binary) and
// validates it. The error names every problem at once.
func Load(ctx context.Context, lookup func(string) (string, bool)) (Config, error) {
	var errs []error
	unread := map[string]bool{}
	for {
		var c Config
		err := envconfig.ProcessWith(ctx, &envconfig.Config{Target: &c, Lookuper: fileLookuper(func(name string) (string, bool) {
			if unread[strings.TrimSuffix(name, "_FILE")] {
				return "", false
			}
			return lookup(name)
		})})
		if err == nil {
			return c, errors.Join(append(errs, missingFiles(lookup), c.Validate())...)
		}
		// It stops at the first value that it can't read, and names our field.
		field, why, _ := strings.Cut(err.Error(), ": ")
		f, ok := reflect.TypeFor[Config]().FieldByName(field)
		name := variable(f)
		if !ok || unread[name] {
			return c, errors.Join(append(errs, err)...)
		}
		unread[name] = true
		errs = append(errs, fmt.Errorf("%s: %s", name, why))
	}
}

// variable is the name of the environment variable that a field of Config holds.
func variable(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
	return name
}

// fileLookuper serves NAME from the file that NAME_FILE names, for every
// variable: secrets are mounted as files.
type fileLookuper func(string) (string, bool)

func (f fileLookuper) Lookup(name string) (string, bool) {
	if v, ok := f(name); ok {
		return v, true
	}
	path, ok := f(name + "_FILE")
	if !ok {
		return "", false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", false // missingFiles says so
	}
	return strings.TrimRight(string(b), "\r\n"), true
}

// missingFiles reports the _FILE twins that can't be read.
func missingFiles(lookup func(string) (string, bool)) error {
	var errs []error
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		name := variable(t.Field(i))
		if name == "" {
			continue
		}
		if _, set := lookup(name); set {
			continue
		}
		if path, ok := lookup(name + "_FILE"); ok {
			if _, err := os.ReadFile(path); err != nil {
				errs = append(errs, fmt.Errorf("%s_FILE: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Validate reports everything that makes c unusable.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, u := range []struct{ name, value string }{
		{"GATEWAY_PUBLIC_URL", c.PublicURL}, {"GATEWAY_WECHAT_API_URL", c.WeChatAPIURL},
		{"GATEWAY_WECHAT_MP_URL", c.WeChatMPURL}, {"GATEWAY_WECHAT_OPEN_URL", c.WeChatOpenURL},
	} {
		p, err := url.Parse(u.value)
		if err != nil || (p.Scheme != "http" && p.Scheme != "https") || p.Host == "" || p.User != nil || p.RawQuery != "" || p.Fragment != "" {
			bad("%s: want http(s)://host without query, user or fragment", u.name)
		}
	}
	switch c.LogLevel {
	case "debug", "info", "warn", "error":
	default:
		bad("GATEWAY_LOG_LEVEL: want debug, info, warn or error, got %q", c.LogLevel)
	}
	if c.Env != "" && c.Env != "production" && c.Env != "development" {
		bad("GATEWAY_ENV: want production, development or nothing, got %q", c.Env)
	}
	for _, p := range c.TrustedProxy {
		if _, err := netip.ParsePrefix(p); err != nil {
			bad("GATEWAY_TRUSTED_PROXIES: %q is no CIDR prefix", p)
		}
	}
	if c.DBMaxConns < 4 {
		bad("GATEWAY_DB_MAX_CONNS: want at least 4, got %d", c.DBMaxConns)
	}
	if c.CachedMerchants < 1 {
		bad("GATEWAY_CACHED_MERCHANTS must be over 0")
	}
	for name, rate := range map[string]float64{"GATEWAY_KEY_RATE": c.KeyRate, "GATEWAY_TENANT_RATE": c.TenantRate} {
		if math.IsNaN(rate) || math.IsInf(rate, 0) {
			bad("%s is no number", name)
		}
	}
	if c.KeyRate <= 0 || c.KeyBurst <= 0 || c.TenantRate <= 0 || c.MaxInFlight <= 0 {
		bad("GATEWAY_KEY_RATE, GATEWAY_KEY_BURST, GATEWAY_TENANT_RATE and GATEWAY_MAX_IN_FLIGHT must be over 0")
	}
	if c.DrainDelay < 0 || c.DrainDelay > time.Minute {
		bad("GATEWAY_DRAIN_DELAY: want 0s to 1m, got %s", c.DrainDelay)
	}
	return errors.Join(errs...)
}

// Unsafe lists settings that production refuses and other environments warn of.
func (c Config) Unsafe() []string {
	var out []string
	if !strings.HasPrefix(c.PublicURL, "https://") {
		out = append(out, "GATEWAY_PUBLIC_URL is not https")
	}
	if !strings.HasPrefix(c.WeChatAPIURL, "https://") {
		out = append(out, "GATEWAY_WECHAT_API_URL is not https")
	}
	if c.LogLevel == "debug" {
		out = append(out, "GATEWAY_LOG_LEVEL is debug")
	}
	if dsn := c.DatabaseURL.Reveal(); !localSocket(dsn) && !strings.Contains(dsn, "sslmode=verify-full") {
		out = append(out, "DATABASE_URL does not say sslmode=verify-full")
	}
	if host, _, err := net.SplitHostPort(c.AdminAddr); err != nil || host != "localhost" && !net.ParseIP(host).IsLoopback() {
		out = append(out, "GATEWAY_ADMIN_ADDR is not on loopback: metrics and pprof would be public")
	}
	if fi, err := os.Stat(c.KeysetFile); err == nil && fi.Mode().Perm()&0o077 != 0 {
		out = append(out, "GATEWAY_KEYSET_FILE can be read by others: chmod 600 it")
	}
	return out
}

func localSocket(dsn string) bool {
	return strings.Contains(dsn, "host=/") || strings.Contains(dsn, "host=%2F")
}
