package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/mendian/mendian/internal/localpg"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// size is how much is seeded.
type size struct{ tenants, merchants, keys int }

// A world is a durable Postgres with a migrated, seeded database, and the
// upstream stub.
type world struct {
	root, dir string // of the repository; of all files of this run
	gateway   string // the binary
	pg        *localpg.Server
	pgPID     int
	dsn       string
	keyset    *secret.Keyset
	upstream  *proc
	stubAddr  string

	size      size
	tenants   []seededTenant
	merchants []seededMerchant
	keys      []seededKey
}

type seededTenant struct {
	id    uuid.UUID
	ref   string
	appid string // of the component
}

type seededMerchant struct {
	tenant int
	id     uuid.UUID
	name   string // mch_…
	appid  string
}

type seededKey struct {
	tenant int
	token  string
}

const (
	messageToken = "benchmessagetoken"
	aesKey       = "benchBenchBenchBenchBenchBenchBenchBenchBeE"
)

// newWorld makes a world. close ends it and removes everything.
func newWorld(ctx context.Context, root, gateway string, n size) (_ *world, err error) {
	w := &world{root: root, gateway: gateway, size: n}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.dir, err = os.MkdirTemp("", "mendian-bench-"); err != nil {
		return w, err
	}
	if err = os.Chmod(w.dir, 0o711); err != nil { // Postgres runs as another user where we are root
		return w, err
	}
	w.pg, err = localpg.Start(ctx, localpg.Options{DataDir: filepath.Join(w.dir, "pg"), Durable: true, MaxConnections: 200, Logf: logf,
		Getenv: func(name string) string {
			if name == "GATEWAY_POSTGRES" {
				return "local" // pgbench is measured on the very same server
			}
			return ""
		}})
	if err != nil {
		return w, err
	}
	pid, err := os.ReadFile(filepath.Join(w.dir, "pg", "data", "postmaster.pid"))
	if err != nil {
		return w, err
	}
	first, _, _ := strings.Cut(string(pid), "\n")
	if w.pgPID, err = strconv.Atoi(first); err != nil {
		return w, err
	}
	w.dsn = w.pg.DSN()
	if err = w.run("migrate"); err != nil {
		return w, err
	}
	if w.keyset, err = secret.OpenKeyset(w.keysetFile()); err != nil {
		return w, err
	}
	if err = w.seed(ctx); err != nil {
		return w, fmt.Errorf("seed: %w", err)
	}
	return w, w.startStub()
}

func (w *world) close() error {
	var errs []error
	if w.upstream != nil {
		errs = append(errs, w.upstream.stop())
	}
	if w.pg != nil {
		errs = append(errs, w.pg.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

func (w *world) keysetFile() string { return filepath.Join(w.dir, "keyset.json") }

// run runs a command of the gateway.
func (w *world) run(args ...string) error {
	cmd := exec.Command(w.gateway, args...)
	cmd.Dir, cmd.Env = w.dir, append(os.Environ(), "DATABASE_URL="+w.dsn, "GATEWAY_KEYSET_FILE="+w.keysetFile())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("gateway %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (w *world) startStub() (err error) {
	if w.stubAddr, err = freeAddr(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if w.upstream, err = start(w.root, nil, self, "stub", w.stubAddr); err != nil {
		return err
	}
	return w.upstream.answers(func() error { return w.setDelay(0) })
}

// setDelay sets how long the upstream waits before it answers.
func (w *world) setDelay(d time.Duration) error {
	_, err := get(w.stubAddr, fmt.Sprintf("/_delay?ms=%d", d.Milliseconds()))
	return err
}

// seed makes tenants and keys as the gateway does, and merchants with valid
// tokens by COPY: nobody authorises a million of them one by one.
func (w *world) seed(ctx context.Context) error {
	log := slog.New(slog.DiscardHandler)
	db, err := postgres.Open(ctx, postgres.Config{DSN: w.dsn, MaxConns: 16})
	if err != nil {
		return err
	}
	defer db.Close()
	changes := db.NewChanges(log)
	tenants := tenant.New(tenant.Deps{DB: db, Keyset: w.keyset, Changes: changes, Log: log})
	keys := tenant.NewKeys(tenants)

	w.tenants, w.keys = make([]seededTenant, w.size.tenants), make([]seededKey, max(w.size.keys, w.size.tenants))
	var g errgroup.Group
	g.SetLimit(12) // their commits share fsyncs
	for i := range w.tenants {
		g.Go(func() error {
			appid := fmt.Sprintf("wxbe%014x", i)
			t, err := tenants.Create(ctx, tenant.CLI(uuid.Nil), tenant.NewTenant{Name: fmt.Sprintf("bench %d", i), ComponentAppID: appid,
				Credentials: &tenant.NewCredentials{Secret: secret.NewText(strings.Repeat("5", 32)), MessageToken: secret.NewText(messageToken), EncodingAESKey: secret.NewText(aesKey)}})
			if err != nil {
				return err
			}
			w.tenants[i] = seededTenant{t.ID, t.Ref, appid}
			for k := i; k < len(w.keys); k += len(w.tenants) {
				_, token, err := keys.Issue(ctx, tenant.CLI(t.ID), tenant.NewKey{Name: fmt.Sprintf("key %d", k), Scopes: []string{"*"}})
				if err != nil {
					return err
				}
				w.keys[k] = seededKey{i, token.Reveal()}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return w.seedMerchants(ctx)
}

func (w *world) seedMerchants(ctx context.Context) error {
	w.merchants = make([]seededMerchant, w.size.merchants)
	for i := range w.merchants {
		id := typeid.New()
		w.merchants[i] = seededMerchant{tenant: i % len(w.tenants), id: id, name: typeid.Format(typeid.Merchant, id), appid: fmt.Sprintf("wxac%014x", i)}
	}
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// As a restore does: nobody listens yet, and what the keys refer to is there.
	if _, err := conn.Exec(ctx, "SET session_replication_role = replica"); err != nil {
		return err
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"component_tokens"}, []string{"tenant_id", "access_ct", "access_gen", "access_expires_at"},
		pgx.CopyFromSlice(len(w.tenants), func(i int) ([]any, error) {
			t := w.tenants[i]
			ct, err := w.keyset.SealText(secret.Place{Table: "component_tokens", Column: "access_ct", Tenant: t.id}, secret.NewText(token(int64(i))))
			return []any{t.id, ct, 1, time.Now().Add(12 * time.Hour)}, err
		}))
	if err != nil {
		return fmt.Errorf("component_tokens: %w", err)
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"merchants"}, []string{"tenant_id", "id", "appid", "status", "permission_sets", "account_type", "user_name", "nickname"},
		pgx.CopyFromSlice(len(w.merchants), func(i int) ([]any, error) {
			m := w.merchants[i]
			return []any{w.tenants[m.tenant].id, m.id, m.appid, "authorized", []int32{8, 9, 10, 11, 13, 37, 52}, "official_account",
				fmt.Sprintf("gh_%012x", i), fmt.Sprintf("Merchant %d", i)}, nil
		}))
	if err != nil {
		return fmt.Errorf("merchants: %w", err)
	}
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"authorizer_tokens"}, []string{"tenant_id", "merchant_id", "access_ct", "access_gen", "access_expires_at", "refresh_token_ct"},
		pgx.CopyFromSlice(len(w.merchants), func(i int) ([]any, error) {
			m := w.merchants[i]
			place := secret.Place{Table: "authorizer_tokens", Column: "access_ct", Tenant: w.tenants[m.tenant].id, AppID: m.appid, Row: m.id.String()}
			access, err := w.keyset.SealText(place, secret.NewText(token(int64(i))))
			if err != nil {
				return nil, err
			}
			place.Column = "refresh_token_ct"
			refresh, err := w.keyset.SealText(place, secret.NewText(fmt.Sprintf("refreshtoken@@@%040d", i)))
			return []any{w.tenants[m.tenant].id, m.id, access, 1, time.Now().Add(12 * time.Hour), refresh}, err
		}))
	if err != nil {
		return fmt.Errorf("authorizer_tokens: %w", err)
	}
	if err := w.seedHistory(ctx, conn); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	_, err = conn.Exec(ctx, "VACUUM ANALYZE")
	return err
}

// seedHistory makes goods that were created, audited and settled long ago, by
// as many writes as a platform in use has behind it. Postgres plans by what its
// tables hold: what it plans while they are empty it looks at again a minute
// later, which is longer than a load lasts.
func (w *world) seedHistory(ctx context.Context, conn *pgx.Conn) error {
	const most, each = 20_000, 5 // merchants that have some, and how many
	_, err := conn.Exec(ctx, `
		CREATE TEMP TABLE past AS SELECT m.tenant_id, m.id AS merchant_id, gen_random_uuid() AS id, gen_random_uuid() AS operation_id,
			gen_random_uuid() AS audit_id, row_number() OVER () AS n, now() - interval '1 day' * (1 + random() * 300) AS at
		FROM (SELECT * FROM merchants LIMIT $1) m, generate_series(1, $2)`, most, each)
	for _, sql := range []string{
		`INSERT INTO operations (tenant_id, id, merchant_id, kind, subject_type, subject_id, audit_id, requested_by, idempotency_key, request_ct, match_key,
			baseline, state, attempt, sent_at, result, created_at, updated_at, finished_at)
		SELECT tenant_id, operation_id, merchant_id, 'goods.create', 'goods', id, audit_id, 'bench', 'bench ' || n, sha256(id::text::bytea), '{"natural": ""}',
			'null', 'succeeded', 1, at, '{}', at, at, at FROM past`,
		`INSERT INTO operation_attempts (tenant_id, operation_id, n, started_at, ended_at, outcome, response_ct)
		SELECT tenant_id, operation_id, 1, at, at, 'executed', sha256(id::text::bytea) FROM past`,
		`INSERT INTO idempotency_keys (tenant_id, merchant_id, key, fingerprint, operation_id)
		SELECT tenant_id, merchant_id, 'bench ' || n, sha256(id::text::bytea), operation_id FROM past`,
		`INSERT INTO wechat_id_ledger (tenant_id, merchant_id, id_type, wechat_id, source, operation_id, seen_at)
		SELECT tenant_id, merchant_id, 'goods_id', (600000000 + n)::text, 'response', operation_id, at FROM past`,
		`INSERT INTO audits (tenant_id, id, merchant_id, kind, subject_type, subject_id, operation_id, wechat_audit_id, status, status_rank, source,
			submitted_at, decided_at, updated_at)
		SELECT tenant_id, audit_id, merchant_id, 'goods', 'goods', id, operation_id, (700000000 + n)::text, 'approved', 90, 'event', at, at, at FROM past`,
		`INSERT INTO audit_history (tenant_id, audit_id, status, source, at) SELECT tenant_id, audit_id, 'approved', 'event', at FROM past`,
		`INSERT INTO resources (tenant_id, id, merchant_id, type, wechat_id, fields, status, audit_id, operation_id, created_at, updated_at, synced_at)
		SELECT tenant_id, id, merchant_id, 'goods', (600000000 + n)::text, '{}', 'approved', audit_id, operation_id, at, at, at FROM past`,
		`DROP TABLE past`,
	} {
		if err == nil {
			_, err = conn.Exec(ctx, sql)
		}
	}
	return err
}
