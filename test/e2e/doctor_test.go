package e2e

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/test/world"
)

// What `gateway doctor -o json` says of one thing that it looked at.
type finding struct {
	Check, Status, Detail, Advice string
}

// everyCheck is what doctor looks at, in order.
var everyCheck = []string{"settings", "keyset", "database", "schema", "role", "signing key", "tenant credentials", "spool", "wechat", "clock"}

// doctor runs it and returns what it found, by check, and its exit code.
func doctor(t *testing.T, w *world.World) (map[string]finding, int) {
	t.Helper()
	out, err := w.Try("doctor", "-o", "json")
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	var answer map[string][]map[string]string
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer) != 1 {
		t.Fatalf("not {\"checks\":[…]}: %v: %s", err, out)
	}
	found := map[string]finding{}
	var order []string
	failed := false
	for _, c := range answer["checks"] {
		f := finding{c["check"], c["status"], c["detail"], c["advice"]}
		_, advised := c["advice"]
		switch f.Status {
		case "ok", "skipped":
			if advised {
				t.Errorf("advice for what is %s: %v", f.Status, c)
			}
		case "warning", "failed":
			failed = failed || f.Status == "failed"
			if f.Advice == "" {
				t.Errorf("no advice: %v", c)
			}
		default:
			t.Errorf("status %q", f.Status)
		}
		if f.Detail == "" {
			t.Errorf("no detail: %v", c)
		}
		found[f.Check], order = f, append(order, f.Check)
	}
	if diff := cmp.Diff(everyCheck, order); diff != "" {
		t.Errorf("checks: %s", diff)
	}
	if failed != (code == 1) || code > 1 {
		t.Errorf("exit code %d, a check failed: %t", code, failed)
	}
	return found, code
}

// A world that nothing is wrong with, production's rules included: WeChat is
// reached over TLS, by a proxy in front of the simulator.
func TestDoctorAllOK(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	simulator, err := url.Parse(w.SandboxURL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(simulator))
	t.Cleanup(front.Close)
	roots := filepath.Join(w.Dir, "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	good := w.With("GATEWAY_ENV", "production", "GATEWAY_LOG_LEVEL", "info", "GATEWAY_PUBLIC_URL", "https://gateway.example", "GATEWAY_WECHAT_API_URL", front.URL, "SSL_CERT_FILE", roots)
	found, code := doctor(t, good)
	for _, name := range everyCheck {
		f := found[name]
		// A server that DATABASE_URL gave to the tests may speak plain TCP.
		if name == "settings" && strings.Contains(f.Detail, "DATABASE_URL") && !strings.Contains(f.Detail, ",") {
			continue
		}
		if f.Status != "ok" {
			t.Errorf("%v", f)
		}
	}
	if found["settings"].Status == "ok" && code != 0 {
		t.Errorf("exit code %d", code)
	}
	if text, err := good.Try("doctor"); found["settings"].Status == "ok" && (err != nil || strings.Count(text, "ok ") < len(everyCheck)) {
		t.Errorf("as text: %v %s", err, text)
	}
}

func TestDoctorFindings(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	w.Start(nil)
	if found, code := doctor(t, w); code != 0 || found["settings"].Status != "warning" || !strings.Contains(found["settings"].Detail, "GATEWAY_PUBLIC_URL is not https") {
		t.Errorf("outside production unsafe settings are a warning: exit code %d, %v", code, found["settings"])
	}
	// wants runs doctor and looks for the finding; also is what fails or is
	// skipped because of it.
	wants := func(w *world.World, check, detail, advice string, also ...string) {
		t.Helper()
		found, code := doctor(t, w)
		if f := found[check]; code != 1 || f.Status != "failed" || !strings.Contains(f.Detail, detail) || !strings.Contains(f.Advice, advice) {
			t.Errorf("exit code %d, %v, want %q and %q", code, f, detail, advice)
		}
		ill := map[string]bool{check: true}
		for _, name := range also {
			ill[name] = true
		}
		for _, f := range found {
			if bad := f.Status == "failed" || f.Status == "skipped"; bad != ill[f.Check] {
				t.Errorf("%s failed, and %v", check, f)
			}
			if strings.Contains(f.Detail, "hunter2") {
				t.Errorf("a password shows: %v", f)
			}
		}
	}
	dropped := func(value string) []string { return []string{"DATABASE_URL", value} }
	ofDatabase := []string{"schema", "role", "signing key", "tenant credentials", "clock"}

	wants(w.With("GATEWAY_LOG_LEVEL", "loud", "GATEWAY_DRAIN_DELAY", "1h"), "settings", "GATEWAY_LOG_LEVEL", "environment")
	wants(w.With("GATEWAY_ENV", "production"), "settings", "GATEWAY_LOG_LEVEL is debug", "environment")
	wants(w.With(dropped("")...), "settings", "DATABASE_URL is not set", "environment", append([]string{"database"}, ofDatabase...)...)
	wants(w.With("GATEWAY_KEYSET_FILE", filepath.Join(w.Dir, "none.json")), "keyset", "none.json", "gateway keyset create", "signing key", "tenant credentials")
	wants(w.With(dropped("postgres://somebody:hunter2@127.0.0.1:1/nothing?connect_timeout=2")...), "database", "", "DATABASE_URL", ofDatabase...)
	wants(w.With("GATEWAY_SPOOL_DIR", filepath.Join(w.Dir, "keyset.json", "spool")), "spool", "not a directory", "GATEWAY_SPOOL_DIR")
	wants(w.With("GATEWAY_WECHAT_API_URL", "http://127.0.0.1:1"), "wechat", "doesn't answer", "GATEWAY_WECHAT_API_URL")

	other := filepath.Join(w.Dir, "other.json")
	w.Run("keyset", "create", "--file", other)
	wants(w.With("GATEWAY_KEYSET_FILE", other), "signing key", "can't be opened", "restore the old one", "tenant credentials")
	if err := os.Chmod(other, 0o644); err != nil {
		t.Fatal(err)
	}
	if found, _ := doctor(t, w.With("GATEWAY_KEYSET_FILE", other)); found["keyset"].Status != "warning" || !strings.Contains(found["keyset"].Detail, "0644") {
		t.Errorf("a keyset that others can read: %v", found["keyset"])
	}

	w.Exec(`UPDATE signing_keys SET state = 'retired' WHERE state = 'active'`)
	wants(w, "signing key", "no key signs", "gateway migrate")
	w.Exec(`UPDATE signing_keys SET state = 'active' WHERE state = 'retired'`)

	w.JSON(new(world.Tenant), "tenant", "create", "--name", "Half", "--component-appid", "wx9c3a8f2e4b6d1075", "-o", "json")
	wants(w, "tenant credentials", `"Half"`, "gateway tenant set-credentials")
	w.Exec(`UPDATE tenants SET status = 'deleted' WHERE name = 'Half'`)

	// A role of its own, which may not become mendian_app.
	cfg, err := pgx.ParseConfig(w.DSN)
	if err != nil {
		t.Fatal(err)
	}
	poor := pgx.Identifier{cfg.Database + "_poor"}.Sanitize()
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	run := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run(`CREATE ROLE ` + poor + ` LOGIN PASSWORD 'hunter2'; GRANT SELECT ON goose_db_version TO ` + poor)
	wants(w.With(dropped(asUser(w.DSN, cfg.Database+"_poor", "hunter2"))...), "role", "gateway migrate", "CREATEROLE", "signing key", "tenant credentials", "clock")
	run(`DROP OWNED BY ` + poor + `; DROP ROLE ` + poor)

	// The database's clock, seen by our connections alone, is an hour slow.
	db := pgx.Identifier{cfg.Database}.Sanitize()
	run(`CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$;
		ALTER DATABASE ` + db + ` SET search_path = public, pg_catalog`)
	wants(w, "clock", "apart", "NTP")
	run(`ALTER DATABASE ` + db + ` RESET search_path; DROP FUNCTION public.clock_timestamp()`)

	run(`DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	wants(w, "schema", "this binary knows", "gateway migrate")
	w.Wipe()
	wants(w, "schema", "version 0", "gateway migrate", "signing key", "tenant credentials")
	var tables int
	if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace`).Scan(&tables); err != nil || tables != 0 {
		t.Errorf("doctor made %d things in an empty database, %v", tables, err)
	}
	if resp, err := http.Get(w.Gateways[0].URL + "/healthz"); err != nil || resp.StatusCode != 200 {
		t.Errorf("healthz: %v %v", resp, err)
	}
}

// asUser is the DSN with another user.
func asUser(dsn, user, password string) string {
	if !strings.Contains(dsn, "://") {
		return dsn + " user=" + user + " password=" + password
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return dsn
	}
	u.User = url.UserPassword(user, password)
	q := u.Query()
	q.Del("user")
	q.Del("password")
	u.RawQuery = q.Encode()
	return u.String()
}
