package tenant

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
)

const (
	maxName    = 100
	maxOrigins = 50
)

// platform.md §1: an appid is wx and 16 lower-case hexadecimal digits.
var appidPattern = regexp.MustCompile(`^wx[0-9a-f]{16}$`)

// check lists what breaks a rule in a tenant's row.
func (t *Tenants) check(row dbsqlc.Tenant, limits Limits) []problem.Field {
	fields := checkName(row.Name)
	if !appidPattern.MatchString(row.ComponentAppid) {
		fields = append(fields, problem.Field{Pointer: "/component_appid", Code: "invalid", Detail: "wx and 16 lower-case hexadecimal digits"})
	}
	lists := []struct {
		pointer string
		values  []string
		parse   func(string, bool) error
	}{{"/return_url_allow_list", row.ReturnURLAllowList, checkReturnURL}, {"/cors_origins", row.CorsOrigins, checkOrigin}}
	for _, l := range lists {
		if len(l.values) > maxOrigins {
			fields = append(fields, problem.Field{Pointer: l.pointer, Code: "too_many", Detail: fmt.Sprintf("at most %d", maxOrigins)})
		}
		for i, v := range l.values {
			if err := l.parse(v, t.Production); err != nil {
				fields = append(fields, problem.Field{Pointer: l.pointer + "/" + strconv.Itoa(i), Code: "invalid", Detail: err.Error()})
			}
		}
	}
	for name, bad := range map[string]bool{
		"requests_per_second":       limits.RequestsPerSecond != nil && !(*limits.RequestsPerSecond > 0),
		"key_requests_per_second":   limits.KeyRequestsPerSecond != nil && !(*limits.KeyRequestsPerSecond > 0),
		"key_burst":                 limits.KeyBurst != nil && *limits.KeyBurst < 1,
		"in_flight":                 limits.InFlight != nil && *limits.InFlight < 1,
		"merchant_in_flight":        limits.MerchantInFlight != nil && *limits.MerchantInFlight < 1,
		"merchant_writes_in_flight": limits.MerchantWritesInFlight != nil && *limits.MerchantWritesInFlight < 1,
	} {
		if bad {
			fields = append(fields, problem.Field{Pointer: "/limits/" + name, Code: "too_small", Detail: "must be over 0"})
		}
	}
	return fields
}

func checkName(name string) []problem.Field {
	n := utf8.RuneCountInString(name)
	switch {
	case n == 0:
		return []problem.Field{{Pointer: "/name", Code: "required", Detail: "a name for people"}}
	case n > maxName:
		return []problem.Field{{Pointer: "/name", Code: "too_long", Detail: fmt.Sprintf("max %d, got %d", maxName, n)}}
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return []problem.Field{{Pointer: "/name", Code: "invalid", Detail: "no control characters"}}
	}
	return nil
}

func invalid(fields []problem.Field) error {
	return problem.Of(problem.CodeValidationFailed).WithFields(fields...)
}

// checkOrigin accepts exactly what a browser sends as Origin.
func checkOrigin(s string, production bool) error {
	u, err := url.Parse(s)
	if err != nil || s != u.Scheme+"://"+u.Host {
		return fmt.Errorf("an exact origin like https://shop.example, without path, query, user or *")
	}
	return checkHost(u, production)
}

// checkReturnURL accepts an origin, with or without the beginning of a path.
func checkReturnURL(s string, production bool) error {
	u, err := url.Parse(s)
	if err != nil || s != u.Scheme+"://"+u.Host+u.Path || strings.ContainsAny(u.Path, `\%`) || (u.Path != "" && !cleanPath(u.Path)) {
		return fmt.Errorf("an origin like https://shop.example, with or without the beginning of a path")
	}
	return checkHost(u, production)
}

// cleanPath reports whether p holds no //, . or .. segment.
func cleanPath(p string) bool { return path.Clean(p) == strings.TrimSuffix(p, "/") || p == "/" }

var hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)

func checkHost(u *url.URL, production bool) error {
	host, port := u.Hostname(), u.Port()
	if len(host) > 253 || !hostPattern.MatchString(host) && !isIP(host) {
		return fmt.Errorf("the host must be a lower-case name (punycode) or an address")
	}
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port) || strings.HasSuffix(u.Host, ":") {
		return fmt.Errorf("the port must be 1 to 65535")
	}
	switch {
	case u.Scheme == "https" && port == "443", u.Scheme == "http" && port == "80":
		return fmt.Errorf("leave out the default port: browsers don't send it")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && isLocalhost(host) && !production:
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("must be https (http only for localhost, and not in production)")
	}
	return fmt.Errorf("must be https")
}

func isIP(host string) bool { _, err := netip.ParseAddr(host); return err == nil }

func isLocalhost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.IsLoopback()
}

// ReturnURL says where a browser may be sent back to: raw itself, serialised
// anew, when the tenant's list allows it. An entry without a path allows every
// path of its origin; one with a path allows that path and what lies below.
// (security.md §6; nothing that browsers and net/url read differently passes.)
func (t Tenant) ReturnURL(raw string) (string, bool) {
	if len(raw) > 2048 || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == '\\' || r > '~' }) {
		return "", false
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.User != nil || u.Host == "" || strings.ContainsAny(u.Path, "\\\r\n\x00") || u.Path != "" && !cleanPath(u.Path) {
		return "", false
	}
	ok := slices.ContainsFunc(t.ReturnURLAllowList, func(allowed string) bool {
		a, err := url.Parse(allowed)
		if err != nil || u.Scheme != a.Scheme || u.Host != a.Host {
			return false
		}
		prefix := strings.TrimSuffix(a.Path, "/")
		return u.Path == prefix || strings.HasPrefix(u.Path, prefix+"/")
	})
	return u.String(), ok
}

// AllowsOrigin reports whether a browser page of this origin may call with the tenant's keys.
func (t Tenant) AllowsOrigin(origin string) bool { return slices.Contains(t.CORSOrigins, origin) }
