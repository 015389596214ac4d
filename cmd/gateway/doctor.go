package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// A finding is what one check of doctor says.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // ok, warning, failed, skipped
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"`
}

// A patient is what the checks look at. What an earlier check could not open
// is nil, and the checks that need it are skipped.
type patient struct {
	cfg     config.Config
	cfgErr  error
	keyset  *secret.Keyset
	db      *postgres.DB
	tenants *tenant.Tenants
	keys    *tenant.Keys
}

// errWarning marks a finding that doesn't keep the gateway from serving;
// errSkipped one that couldn't be looked at.
var (
	errWarning = errors.New("warning")
	errSkipped = errors.New("skipped")
)

// checks are what doctor looks at, in order. Each returns what it found, or an
// error, with advice on what to do about it.
var checks = []struct {
	name   string
	advice string
	look   func(ctx context.Context, p *patient) (string, error)
}{
	{"settings", "correct the environment; docs/reference/configuration.md lists every variable", checkSettings},
	{"keyset", "make one with `gateway keyset create`, or restore it from its backup", checkKeyset},
	{"database", "check DATABASE_URL and that the server runs", checkDatabase},
	{"schema", "run `gateway migrate`", checkSchema},
	{"role", "run `gateway migrate` as a role with CREATEROLE; the serving role must be bound by row-level security", checkRole},
	{"signing key", "run `gateway migrate`; if the keyset was replaced, restore the old one", checkSigningKey},
	{"tenant credentials", "set them with `gateway tenant set-credentials`; if they don't open, restore the keyset", checkCredentials},
	{"spool", "give GATEWAY_SPOOL_DIR a directory on a persistent disk that this user can write", checkSpool},
	{"wechat", "check GATEWAY_WECHAT_API_URL, DNS and the firewall; WeChat must also list this machine's address", checkWeChat},
	{"clock", "synchronise the clock (NTP): tokens and pushes carry times", checkClock},
}

func newDoctorCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check settings, keyset, database, spool, WeChat and clock", Args: cobra.NoArgs,
		Long: `Looks at everything that a serving gateway needs and says what to do about what is
wrong. It changes nothing. The exit code is 1 when a check failed; warnings alone
give 0.`,
		Example: "  gateway doctor\n  gateway doctor -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := examine(cmd.Context())
			err := show(cmd.OutOrStdout(), output, map[string]any{"checks": found}, func(w io.Writer) {
				for _, f := range found {
					fmt.Fprintf(w, "%-8s %-18s %s\n", f.Status, f.Check, f.Detail)
					if f.Advice != "" {
						fmt.Fprintf(w, "%-8s %-18s → %s\n", "", "", f.Advice)
					}
				}
			})
			for _, f := range found {
				if f.Status == "failed" {
					return errors.Join(err, errors.New("some checks failed"))
				}
			}
			return err
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func examine(ctx context.Context) []finding {
	p := &patient{}
	defer func() {
		if p.db != nil {
			p.db.Close()
		}
	}()
	var out []finding
	for _, c := range checks {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		detail, err := c.look(ctx, p)
		cancel()
		f := finding{Check: c.name, Status: "ok", Detail: detail}
		switch {
		case errors.Is(err, errSkipped):
			f.Status, f.Detail = "skipped", "needs an earlier check to pass"
		case errors.Is(err, errWarning):
			f.Status, f.Advice = "warning", c.advice
		case err != nil:
			f.Status, f.Detail, f.Advice = "failed", plain(err), c.advice
		}
		out = append(out, f)
	}
	return out
}

func checkSettings(ctx context.Context, p *patient) (string, error) {
	p.cfg, p.cfgErr = loadConfig(ctx)
	if p.cfgErr != nil {
		return "", p.cfgErr
	}
	unsafe := p.cfg.Unsafe()
	switch {
	case len(unsafe) > 0 && p.cfg.Production():
		return "", fmt.Errorf("production refuses: %q", unsafe)
	case len(unsafe) > 0:
		return fmt.Sprintf("production would refuse: %q", unsafe), errWarning
	}
	return "every variable can be used", nil
}

func checkKeyset(_ context.Context, p *patient) (string, error) {
	if p.cfg.KeysetFile == "" {
		return "", errSkipped
	}
	k, err := secret.OpenKeyset(p.cfg.KeysetFile)
	if err != nil {
		return "", err
	}
	fi, err := os.Stat(p.cfg.KeysetFile)
	if err != nil {
		return "", err
	}
	p.keyset = k
	if fi.Mode().Perm()&0o077 != 0 {
		return fmt.Sprintf("%s can be read by others: mode %04o", p.cfg.KeysetFile, fi.Mode().Perm()), errWarning
	}
	return fmt.Sprintf("%s, %d key(s)", p.cfg.KeysetFile, len(k.Keys())), nil
}

func checkDatabase(ctx context.Context, p *patient) (string, error) {
	if p.cfg.DatabaseURL.IsZero() {
		return "", errSkipped
	}
	v, err := postgres.ServerVersion(ctx, p.cfg.DatabaseURL.Reveal())
	if err != nil {
		return "", err
	}
	if v < 150000 {
		return "", fmt.Errorf("the server is version %d.%d; 15 or newer is needed", v/10000, v%10000)
	}
	return fmt.Sprintf("PostgreSQL %d.%d", v/10000, v%10000), nil
}

func checkSchema(ctx context.Context, p *patient) (string, error) {
	if p.cfg.DatabaseURL.IsZero() {
		return "", errSkipped
	}
	current, newest, err := postgres.MigrationStatus(ctx, p.cfg.DatabaseURL.Reveal())
	if err != nil {
		return "", err
	}
	if current != newest {
		return "", fmt.Errorf("the schema is at version %d, this binary knows %d", current, newest)
	}
	return fmt.Sprintf("version %d, the newest", current), nil
}

func checkRole(ctx context.Context, p *patient) (string, error) {
	if p.cfg.DatabaseURL.IsZero() {
		return "", errSkipped
	}
	db, err := postgres.Open(ctx, postgres.Config{DSN: p.cfg.DatabaseURL.Reveal(), MaxConns: 2})
	if err != nil {
		return "", err
	}
	p.db = db
	if p.keyset != nil {
		log := slog.New(slog.DiscardHandler)
		p.tenants = tenant.New(tenant.Deps{DB: db, Keyset: p.keyset, Changes: db.NewChanges(log), Log: log})
		p.keys = tenant.NewKeys(p.tenants)
	}
	return "serves as " + postgres.AppRole + ", which row-level security binds", nil
}

func checkSigningKey(ctx context.Context, p *patient) (string, error) {
	if p.keys == nil {
		return "", errSkipped
	}
	keys, err := p.keys.SigningKeys(ctx)
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		if k.State == "active" {
			if _, err := p.keys.JWKS(ctx); err != nil { // opens every key that counts
				return "", err
			}
			return k.ID + " signs", nil
		}
	}
	return "", errors.New("no key signs API keys")
}

func checkCredentials(ctx context.Context, p *patient) (string, error) {
	if p.tenants == nil {
		return "", errSkipped
	}
	n, after := 0, (*uuid.UUID)(nil)
	for {
		list, more, err := p.tenants.List(ctx, tenant.Filter{}, tenant.Page{Before: after, Limit: 100})
		if err != nil {
			return "", err
		}
		for _, t := range list {
			if t.Status != tenant.Active {
				continue
			}
			switch _, err := p.tenants.Credentials(ctx, t.ID); {
			case problem.HasCode(err, problem.CodeNotFound):
				return "", fmt.Errorf("tenant %q has none", t.Name)
			case err != nil:
				return "", fmt.Errorf("tenant %q: %s", t.Name, plain(err))
			}
			n++
		}
		if !more || len(list) == 0 {
			return fmt.Sprintf("of %d active tenant(s), can be opened", n), nil
		}
		after = &list[len(list)-1].ID
	}
}

func checkSpool(_ context.Context, p *patient) (string, error) {
	if p.cfg.SpoolDir == "" {
		return "", errSkipped
	}
	if err := os.MkdirAll(p.cfg.SpoolDir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(p.cfg.SpoolDir, ".doctor-")
	if err != nil {
		return "", err
	}
	start := time.Now()
	_, err = f.Write(make([]byte, 512))
	err = errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
	if err != nil {
		return "", err
	}
	path, err := filepath.Abs(p.cfg.SpoolDir)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, a synced write took %s", path, time.Since(start).Round(10*time.Microsecond)), nil
}

// checkWeChat asks for something that needs no rights: any answer will do.
func checkWeChat(ctx context.Context, p *patient) (string, error) {
	if p.cfg.WeChatAPIURL == "" {
		return "", errSkipped
	}
	c := wechat.NewClient(p.cfg.WeChatAPIURL, nil)
	defer c.Close()
	start := time.Now()
	if _, err := c.Do(ctx, &wechat.Endpoint{Name: "doctor", Method: http.MethodGet, Path: "/"}, wechat.NoToken, nil, nil); err != nil {
		return "", fmt.Errorf("%s doesn't answer: %w", p.cfg.WeChatAPIURL, err)
	}
	return fmt.Sprintf("%s answers in %s", p.cfg.WeChatAPIURL, time.Since(start).Round(time.Millisecond)), nil
}

func checkClock(ctx context.Context, p *patient) (string, error) {
	if p.db == nil {
		return "", errSkipped
	}
	skew, err := p.db.ClockSkew(ctx)
	if err != nil {
		return "", err
	}
	if skew.Abs() > 5*time.Second {
		return "", fmt.Errorf("this machine's clock and the database's are %s apart", skew.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s from the database's", skew.Round(time.Millisecond)), nil
}
