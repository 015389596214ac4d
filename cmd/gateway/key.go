package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

func newKeyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "Make and end API keys, and change the key that signs them",
		Long: `An API key is a signed token that names one tenant and, if wanted, the merchants
it may act for. It is shown once, when it is made. Admin keys are for /v1/admin
and can be made only here. A key that is revoked, or signed by a retired signing
key, is refused within five seconds everywhere.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyCreateCmd(), newKeyListCmd(), newKeyRevokeCmd(), newKeyRotateCmd(), newSigningCmd(), newRotateSigningCmd(), newRetireSigningCmd())
	return cmd
}

// keyOwner says whose key a command is about.
type keyOwner struct {
	tenant string
	admin  bool
}

func (o *keyOwner) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.tenant, "tenant", "", "the tenant's id, ten_…")
	cmd.Flags().BoolVar(&o.admin, "admin", false, "an admin key, for /v1/admin")
}

// caller is who the command acts as; nil for admin keys.
func (o *keyOwner) caller() (*tenant.Caller, error) {
	switch {
	case o.admin && o.tenant != "":
		return nil, errors.New("--admin and --tenant exclude each other")
	case o.admin:
		return nil, nil
	case o.tenant == "":
		return nil, errors.New("name the tenant with --tenant ten_… (gateway tenant list shows them), or say --admin")
	}
	id, err := parseID(typeid.Tenant, "--tenant", o.tenant)
	who := tenant.CLI(id)
	return &who, err
}

// showToken answers with a new key. The token goes out here and nowhere else.
func showToken(cmd *cobra.Command, output string, k tenant.Key, token secret.Text) error {
	id := typeid.Format(typeid.Key, k.ID)
	return show(cmd.OutOrStdout(), output, map[string]string{"id": id, "token": token.Reveal()}, func(w io.Writer) {
		fmt.Fprintf(w, "%s, good until %s. The token, shown only now:\n%s\n", id, k.ExpiresAt.Format(time.RFC3339), token.Reveal())
	})
}

func newKeyCreateCmd() *cobra.Command {
	var owner keyOwner
	var name, expires, output string
	var scopes, merchants []string
	var rate tenant.RateLimit
	cmd := &cobra.Command{
		Use: "create", Short: "Make an API key, or with --admin an admin key", Args: cobra.NoArgs,
		Long: `Makes a key and shows its token, once.

Scopes are * for all of the tenant, or ` + strings.Join(tenant.Scopes, ", ") + `.

A tenant's key lives 24 hours unless --expires says otherwise, at most 365d; an
admin key 12h, which is also the most. Browsers should get keys of minutes for
one merchant, which the tenant's own server makes with POST /v1/api-keys.`,
		Example: `  gateway key create --tenant ten_01jd7jx5p0f3e4d5c6b7a8n9mp --scopes '*' -o json
  gateway key create --tenant ten_01jd7jx5p0f3e4d5c6b7a8n9mp --scopes stores:read,stores:write --merchants wx570bc396a51b8ff8 --expires 30d
  gateway key create --admin --expires 1h`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, err := owner.caller()
			if err != nil {
				return err
			}
			if expires == "" {
				expires = "24h"
				if owner.admin {
					expires = "12h"
				}
			}
			life, err := parseSpan(expires)
			if err != nil {
				return fmt.Errorf("--expires: %w", err)
			}
			n := tenant.NewKey{Name: name, Scopes: scopes, ExpiresAt: time.Now().Add(life)}
			if cmd.Flags().Changed("merchants") {
				n.Merchants = merchants
			}
			if rate != (tenant.RateLimit{}) {
				n.RateLimit = &rate
			}
			if owner.admin && (n.Scopes != nil || n.Merchants != nil || n.RateLimit != nil) {
				return errors.New("an admin key has no scopes, merchants or limit")
			}
			return withStores(cmd.Context(), func(s *stores) error {
				var k tenant.Key
				var token secret.Text
				if owner.admin {
					k, token, err = s.keys.IssueAdmin(cmd.Context(), operator, n.Name, n.ExpiresAt)
				} else {
					k, token, err = s.keys.Issue(cmd.Context(), *who, n)
				}
				if err != nil {
					return err
				}
				return showToken(cmd, output, k, token)
			})
		},
	}
	owner.register(cmd)
	cmd.Flags().StringVar(&name, "name", "made by the command line", "a name for people")
	cmd.Flags().StringSliceVar(&scopes, "scopes", nil, "what it may do: '*', or a list")
	cmd.Flags().StringSliceVar(&merchants, "merchants", nil, "the merchants it may act for, by mch_… or appid; without it all of the tenant")
	cmd.Flags().StringVar(&expires, "expires", "", "how long it lives: 15m, 24h, 30d")
	cmd.Flags().Float64Var(&rate.PerSecond, "requests-per-second", 0, "its own limit; needs --burst too")
	cmd.Flags().IntVar(&rate.Burst, "burst", 0, "how many requests it may make at once")
	outputFlag(cmd, &output)
	return cmd
}

// keyView is a key as the commands show it, in the words of the REST API.
type keyView struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Scopes      []string          `json:"scopes,omitempty"`
	Merchants   []string          `json:"merchant_ids"`
	Status      string            `json:"status"`
	RateLimit   *tenant.RateLimit `json:"rate_limit"`
	CreatedBy   string            `json:"created_by"`
	RotatedFrom *string           `json:"rotated_from"`
	CreatedAt   time.Time         `json:"created_at"`
	ExpiresAt   time.Time         `json:"expires_at"`
	RevokedAt   *time.Time        `json:"revoked_at"`
	LastUsedAt  *time.Time        `json:"last_used_at"`
}

func viewKey(k tenant.Key) keyView {
	v := keyView{
		ID: typeid.Format(typeid.Key, k.ID), Name: k.Name, Scopes: k.Scopes, Status: k.Status(time.Now()), RateLimit: k.RateLimit,
		CreatedBy: k.CreatedBy, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, RevokedAt: k.RevokedAt, LastUsedAt: k.LastUsedAt,
	}
	for _, m := range k.Merchants {
		v.Merchants = append(v.Merchants, typeid.Format(typeid.Merchant, m))
	}
	if k.RotatedFrom != nil {
		from := typeid.Format(typeid.Key, *k.RotatedFrom)
		v.RotatedFrom = &from
	}
	return v
}

func newKeyListCmd() *cobra.Command {
	var owner keyOwner
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List a tenant's keys, or with --admin the admin keys, newest first", Args: cobra.NoArgs,
		Example: "  gateway key list --tenant ten_01jd7jx5p0f3e4d5c6b7a8n9mp",
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, err := owner.caller()
			if err != nil {
				return err
			}
			return withStores(cmd.Context(), func(s *stores) error {
				list, err := everything(func(p tenant.Page) ([]tenant.Key, bool, error) {
					if owner.admin {
						return s.keys.ListAdmin(cmd.Context(), p)
					}
					return s.keys.List(cmd.Context(), *who, "", p)
				}, func(k tenant.Key) uuid.UUID { return k.ID })
				if err != nil {
					return err
				}
				views := make([]keyView, len(list))
				for i, k := range list {
					views[i] = viewKey(k)
				}
				return show(cmd.OutOrStdout(), output, views, func(w io.Writer) {
					tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(tw, "ID\tNAME\tSTATUS\tEXPIRES\tLAST USED\tSCOPES\tMERCHANTS")
					for _, v := range views {
						used, merchants := "never", "all"
						if v.LastUsedAt != nil {
							used = v.LastUsedAt.Format(time.RFC3339)
						}
						if v.Merchants != nil {
							merchants = strings.Join(v.Merchants, " ")
						}
						fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, v.Name, v.Status, v.ExpiresAt.Format(time.RFC3339), used, strings.Join(v.Scopes, " "), merchants)
					}
					_ = tw.Flush()
				})
			})
		},
	}
	owner.register(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func newKeyRevokeCmd() *cobra.Command {
	var owner keyOwner
	var output string
	cmd := &cobra.Command{
		Use: "revoke KEY", Short: "End a key at once", Args: cobra.ExactArgs(1),
		Long:    "The key is refused within five seconds everywhere. Revoking twice is no error.",
		Example: "  gateway key revoke key_01jd7jz0m1f2c3d4e5f6g7h8jk --tenant ten_01jd7jx5p0f3e4d5c6b7a8n9mp",
		RunE: func(cmd *cobra.Command, args []string) error {
			who, err := owner.caller()
			if err != nil {
				return err
			}
			id, err := parseID(typeid.Key, "KEY", args[0])
			if err != nil {
				return err
			}
			return withStores(cmd.Context(), func(s *stores) error {
				if owner.admin {
					err = s.keys.RevokeAdmin(cmd.Context(), operator, id)
				} else {
					err = s.keys.Revoke(cmd.Context(), *who, id)
				}
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), output, map[string]string{"id": args[0], "status": "revoked"}, func(w io.Writer) {
					fmt.Fprintf(w, "%s is revoked\n", args[0])
				})
			})
		},
	}
	owner.register(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func newKeyRotateCmd() *cobra.Command {
	var ten, overlap, expires, output string
	cmd := &cobra.Command{
		Use: "rotate KEY", Short: "Replace a key by a new one with the same rights", Args: cobra.ExactArgs(1),
		Long: `Makes a new key with the same name, scopes and merchants, and shows its token,
once. The old one goes on working for --overlap, so that the token can be changed
everywhere without a gap; gateway key list shows when it was last used.`,
		Example: "  gateway key rotate key_01jd7jz0m1f2c3d4e5f6g7h8jk --tenant ten_01jd7jx5p0f3e4d5c6b7a8n9mp --overlap 3d",
		RunE: func(cmd *cobra.Command, args []string) error {
			who, err := (&keyOwner{tenant: ten}).caller()
			if err != nil {
				return err
			}
			id, err := parseID(typeid.Key, "KEY", args[0])
			if err != nil {
				return err
			}
			keep, err := parseSpan(overlap)
			if err != nil {
				return fmt.Errorf("--overlap: %w", err)
			}
			var end time.Time
			if expires != "" {
				life, err := parseSpan(expires)
				if err != nil {
					return fmt.Errorf("--expires: %w", err)
				}
				end = time.Now().Add(life)
			}
			return withStores(cmd.Context(), func(s *stores) error {
				k, token, err := s.keys.Rotate(cmd.Context(), *who, id, keep, end)
				if err != nil {
					return err
				}
				return showToken(cmd, output, k, token)
			})
		},
	}
	cmd.Flags().StringVar(&ten, "tenant", "", "the tenant's id, ten_…")
	cmd.Flags().StringVar(&overlap, "overlap", "24h", "how long the old key goes on working, at most 7d; 0s revokes it at once")
	cmd.Flags().StringVar(&expires, "expires", "", "how long the new key lives; without it as long as the old one was given")
	outputFlag(cmd, &output)
	require(cmd, "tenant")
	return cmd
}
