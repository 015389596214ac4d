package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/config"
	"github.com/mendian/mendian/internal/secret"
)

// keysetView describes a keyset without its keys.
type keysetView struct {
	File string           `json:"file"`
	Keys []secret.KeyInfo `json:"keys"`
}

func newKeysetCmd() *cobra.Command {
	var output, file string
	cmd := &cobra.Command{
		Use: "keyset", Short: "Make, describe or rotate the keyset that seals what lies at rest",
		Long: `Secrets, tokens and message bodies lie in the database and in the spool only as
ciphertext; the keyset opens them. Whoever has the database and the keyset has
everything, and without the keyset a backup of the database is of no use: keep
it in a secret store or in a file of mode 0600, and back it up apart.

To rotate it: gateway keyset rotate, then, when gateway keyset status shows that
nothing lies sealed with the old key, gateway keyset retire.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	path := func(cmd *cobra.Command) (string, error) {
		if file != "" {
			return file, nil
		}
		cfg, err := config.Load(cmd.Context(), os.LookupEnv)
		return cfg.KeysetFile, err
	}
	describe := func(cmd *cobra.Command, path string) error {
		k, err := secret.OpenKeyset(path)
		if err != nil {
			return err
		}
		v := keysetView{path, k.Keys()}
		return show(cmd.OutOrStdout(), output, v, func(w io.Writer) {
			fmt.Fprintln(w, v.File)
			for _, key := range v.Keys {
				fmt.Fprintf(w, "  key %d: %s, %s\n", key.ID, key.Status, roleText[key.Role])
			}
		})
	}
	create := &cobra.Command{
		Use: "create", Short: "Make a keyset file; an existing one is never overwritten", Args: cobra.NoArgs,
		Example: "  GATEWAY_KEYSET_FILE=/etc/mendian/keyset.json gateway keyset create",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := path(cmd)
			if err != nil {
				return err
			}
			if err := secret.CreateKeyset(path); err != nil {
				return err
			}
			return describe(cmd, path)
		},
	}
	info := &cobra.Command{
		Use: "show", Short: "Describe a keyset, never its keys", Args: cobra.NoArgs,
		Example: "  gateway keyset show -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := path(cmd)
			if err != nil {
				return err
			}
			return describe(cmd, path)
		},
	}
	for _, c := range []*cobra.Command{create, info} {
		c.Flags().StringVar(&file, "file", "", "the file; without it GATEWAY_KEYSET_FILE")
		outputFlag(c, &output)
		cmd.AddCommand(c)
	}
	cmd.AddCommand(newKeysetRotateCmd(), newKeysetStatusCmd(), newKeysetRetireCmd(), newKeysetForgetCmd())
	return cmd
}

var roleText = map[secret.Role]string{secret.RoleNext: "opens, and doesn't seal yet", secret.RoleSeals: "seals", secret.RoleOld: "only opens", "": "not in the file"}
