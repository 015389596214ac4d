package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/rotation"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// stores is what the commands that keep tenants and keys work on. They go
// straight to the database; running gateways hear of the change within seconds.
type stores struct {
	cfg     config.Config
	db      *postgres.DB
	tenants *tenant.Tenants
	keys    *tenant.Keys
}

func openStores(ctx context.Context) (*stores, error) {
	cfg, err := loadConfig(ctx)
	if err != nil {
		return nil, err
	}
	keyset, err := secret.OpenKeyset(cfg.KeysetFile)
	if err != nil {
		return nil, err
	}
	db, err := openMigrated(ctx, postgres.Config{DSN: cfg.DatabaseURL.Reveal(), MaxConns: 2})
	if err != nil {
		return nil, err
	}
	if err := rotation.Check(ctx, db, keyset, ""); err != nil {
		db.Close()
		return nil, fmt.Errorf("GATEWAY_KEYSET_FILE: %w", err)
	}
	log := slog.New(slog.DiscardHandler)
	s := &stores{cfg: cfg, db: db}
	s.tenants = tenant.New(tenant.Deps{DB: db, Keyset: keyset, Changes: db.NewChanges(log), Log: log, Production: cfg.Production()})
	s.keys = tenant.NewKeys(s.tenants)
	return s, nil
}

// openMigrated opens a database that has the schema this binary needs. A newer
// one will do: the others of a rolling update have migrated.
func openMigrated(ctx context.Context, cfg postgres.Config) (*postgres.DB, error) {
	current, needed, err := postgres.MigrationStatus(ctx, cfg.DSN)
	if err != nil {
		return nil, err
	}
	if current < needed {
		return nil, fmt.Errorf("the schema is at version %d and this binary needs %d: run `gateway migrate`", current, needed)
	}
	return postgres.Open(ctx, cfg)
}

// withStores runs fn on the stores and closes them.
func withStores(ctx context.Context, fn func(*stores) error) error {
	s, err := openStores(ctx)
	if err != nil {
		return err
	}
	defer s.db.Close()
	return fn(s)
}

// operator is who the command line acts as where no tenant is concerned.
var operator = tenant.CLI(uuid.Nil)

func parseID(prefix typeid.Prefix, what, s string) (uuid.UUID, error) {
	id, err := typeid.Parse(prefix, s)
	if err != nil {
		return uuid.Nil, fmt.Errorf("%s: %w", what, err)
	}
	return id, nil
}

// parseSpan reads a Go duration, or days: "90m", "24h", "30d".
func parseSpan(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 100_000 {
			return 0, fmt.Errorf("%q is no duration like 24h or 30d", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration like 24h or 30d", s)
	}
	return d, nil
}

// secretFlag is a secret that a command takes by value, or better from a file,
// since a value can be seen in the list of processes.
type secretFlag struct {
	name        string
	value, file string
}

type stringFlags interface {
	StringVar(p *string, name, value, usage string)
}

func (f *secretFlag) register(flags stringFlags, usage string) {
	flags.StringVar(&f.value, f.name, "", usage)
	flags.StringVar(&f.file, f.name+"-file", "", "read it from this file; - is standard input")
}

func (f *secretFlag) read(stdin io.Reader) (secret.Text, error) {
	switch {
	case f.file == "":
		return secret.NewText(f.value), nil
	case f.value != "":
		return secret.Text{}, fmt.Errorf("--%s and --%s-file exclude each other", f.name, f.name)
	}
	var b []byte
	var err error
	if f.file == "-" {
		b, err = io.ReadAll(io.LimitReader(stdin, 4096))
	} else {
		b, err = os.ReadFile(f.file)
	}
	text := strings.TrimRight(string(b), "\r\n")
	if err == nil && text == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return secret.Text{}, fmt.Errorf("--%s-file: %w", f.name, err)
	}
	return secret.NewText(text), nil
}

// credentialFlags are the three values from the console of WeChat's open platform.
type credentialFlags struct{ secret, token, key secretFlag }

func newCredentialFlags() *credentialFlags {
	return &credentialFlags{secretFlag{name: "component-secret"}, secretFlag{name: "message-token"}, secretFlag{name: "encoding-aes-key"}}
}

func (f *credentialFlags) register(flags stringFlags) {
	f.secret.register(flags, "the platform's AppSecret")
	f.token.register(flags, "the token that pushes are signed with, 3 to 32 letters or digits")
	f.key.register(flags, "the EncodingAESKey, 43 characters")
}

func (f *credentialFlags) read(stdin io.Reader) (n tenant.NewCredentials, err error) {
	if f.secret.file == "-" && (f.token.file == "-" || f.key.file == "-") || f.token.file == "-" && f.key.file == "-" {
		return n, errors.New("only one secret can come from standard input")
	}
	if n.Secret, err = f.secret.read(stdin); err != nil {
		return n, err
	}
	if n.MessageToken, err = f.token.read(stdin); err != nil {
		return n, err
	}
	n.EncodingAESKey, err = f.key.read(stdin)
	return n, err
}

// everything reads all pages of a list.
func everything[T any](page func(tenant.Page) ([]T, bool, error), id func(T) uuid.UUID) ([]T, error) {
	var all []T
	p := tenant.Page{Limit: 100}
	for {
		list, more, err := page(p)
		all = append(all, list...)
		if err != nil || !more {
			return all, err
		}
		last := id(list[len(list)-1])
		p.Before = &last
	}
}
