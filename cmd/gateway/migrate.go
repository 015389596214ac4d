package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
)

func newMigrateCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "migrate", Short: "Bring the database to the newest schema", Args: cobra.NoArgs,
		Long: `Applies the migrations, makes the role mendian_app that serving processes drop
to, and, the first time, the key that signs API keys. Where GATEWAY_ENV is not
production it also makes the keyset file if there is none.

It works as the role of DATABASE_URL, which needs CREATEROLE unless it is a
superuser. Several may run at once; a second run changes nothing.`,
		Example: "  DATABASE_URL=postgres://… gateway migrate",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Context())
			if err != nil {
				return err
			}
			if err := migrate(cmd.Context(), cfg, slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
			current, target, err := postgres.MigrationStatus(cmd.Context(), cfg.DatabaseURL.Reveal())
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, map[string]int64{"version": current, "newest": target}, func(w io.Writer) {
				fmt.Fprintf(w, "the schema is at version %d, the newest\n", current)
			})
		},
	}
	outputFlag(cmd, &output)
	status := &cobra.Command{
		Use: "status", Short: "Say which schema the database has", Args: cobra.NoArgs,
		Example: "  gateway migrate status -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd.Context())
			if err != nil {
				return err
			}
			current, target, err := postgres.MigrationStatus(cmd.Context(), cfg.DatabaseURL.Reveal())
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, map[string]int64{"version": current, "newest": target}, func(w io.Writer) {
				fmt.Fprintf(w, "version %d of %d\n", current, target)
			})
		},
	}
	outputFlag(status, &output)
	cmd.AddCommand(status)
	return cmd
}

func loadConfig(ctx context.Context) (config.Config, error) {
	cfg, err := config.Load(ctx, os.LookupEnv)
	if err == nil && cfg.DatabaseURL.IsZero() {
		err = errors.New("DATABASE_URL is not set (or DATABASE_URL_FILE); to try the gateway without a database of your own, run `gateway dev`")
	}
	return cfg, err
}

// migrate brings the database and the keyset to where serving can begin.
func migrate(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	if !cfg.Production() {
		if _, err := os.Stat(cfg.KeysetFile); errors.Is(err, os.ErrNotExist) {
			if err := secret.CreateKeyset(cfg.KeysetFile); err != nil {
				return fmt.Errorf("make the keyset: %w", err)
			}
			log.Info("keyset made", "file", cfg.KeysetFile)
		}
	}
	keyset, err := secret.OpenKeyset(cfg.KeysetFile)
	if err != nil {
		return err
	}
	if err := postgres.Migrate(ctx, cfg.DatabaseURL.Reveal()); err != nil {
		return err
	}
	db, err := postgres.Open(ctx, postgres.Config{DSN: cfg.DatabaseURL.Reveal(), MaxConns: 2})
	if err != nil {
		return err
	}
	defer db.Close()
	tenants := tenant.New(tenant.Deps{DB: db, Keyset: keyset, Changes: db.NewChanges(log), Log: log, Production: cfg.Production()})
	return tenant.NewKeys(tenants).EnsureSigningKey(ctx)
}
