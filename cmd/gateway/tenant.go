package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

func newTenantCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tenant", Short: "Keep tenants: one is one third-party platform at WeChat",
		Long: `A tenant is one third-party platform: its component appid, AppSecret, message
token and EncodingAESKey. These commands work on the database directly, need the
keyset, and write what they change to the change log.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTenantCreateCmd(), newTenantListCmd(), newTenantShowCmd(), newTenantUpdateCmd(), newTenantDeleteCmd(), newTenantSetCredentialsCmd())
	return cmd
}

// tenantView is a tenant as the commands show it, in the words of the REST API.
type tenantView struct {
	ID                 string               `json:"id"`
	Ref                string               `json:"ref"`
	Name               string               `json:"name"`
	ComponentAppID     string               `json:"component_appid"`
	Status             string               `json:"status"`
	ReturnURLAllowList []string             `json:"return_url_allow_list"`
	CORSOrigins        []string             `json:"cors_origins"`
	ReleaseCheck       bool                 `json:"release_check"`
	Limits             tenant.Limits        `json:"limits"`
	PushURLs           map[string]string    `json:"push_urls"`
	Credentials        *tenant.Fingerprints `json:"component_credentials"`
	CreatedAt          time.Time            `json:"created_at"`
	UpdatedAt          time.Time            `json:"updated_at"`
}

func (s *stores) view(d tenant.Details) tenantView {
	component, messages := d.PushURLs(s.cfg.PublicURL)
	v := tenantView{
		ID: typeid.Format(typeid.Tenant, d.ID), Ref: d.Ref, Name: d.Name, ComponentAppID: d.ComponentAppID, Status: string(d.Status),
		ReturnURLAllowList: d.ReturnURLAllowList, CORSOrigins: d.CORSOrigins, ReleaseCheck: d.ReleaseCheck, Limits: d.Limits,
		PushURLs: map[string]string{"component": component, "messages": messages}, Credentials: d.Credentials, CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
	}
	if d.Status == tenant.Deleted {
		v.Status = "closed"
	}
	return v
}

func (v tenantView) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(tw, "%s\t%s\n", name, value) }
	line("id", v.ID)
	line("name", v.Name)
	line("status", v.Status)
	line("component appid", v.ComponentAppID)
	line("authorisation event URL", v.PushURLs["component"])
	line("message URL", v.PushURLs["messages"])
	if v.Credentials == nil {
		line("credentials", "none: set them with gateway tenant set-credentials")
	} else {
		secretLine := func(name string, f tenant.Fingerprint) {
			line(name, fmt.Sprintf("sha256 %s…, set %s", f.SHA256Prefix, f.SetAt.Format(time.RFC3339)))
		}
		secretLine("component secret", v.Credentials.Secret)
		secretLine("message token", v.Credentials.MessageToken)
		secretLine("EncodingAESKey", v.Credentials.EncodingAESKey)
	}
	line("return URLs", strings.Join(v.ReturnURLAllowList, " "))
	line("CORS origins", strings.Join(v.CORSOrigins, " "))
	line("release check", map[bool]string{true: "on", false: "off"}[v.ReleaseCheck])
	_ = tw.Flush()
}

// tenantFlags are the settings that create and update share.
type tenantFlags struct {
	name, releaseCheck             string
	returnURLs, origins            []string
	rate, keyRate                  float64
	keyBurst, all, inFlight, write int
}

func (f *tenantFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "a name for people, unique")
	flags.StringSliceVar(&f.returnURLs, "return-url-allow", nil, "origins, with or without the beginning of a path, that browsers may be sent back to after authorisation; replaces the list")
	flags.StringSliceVar(&f.origins, "cors-origin", nil, "exact origins whose pages may call the API; replaces the list")
	flags.StringVar(&f.releaseCheck, "release-check", "off", "on or off: answer the check that WeChat makes before a platform is released")
	flags.Float64Var(&f.rate, "requests-per-second", 0, "limit of all keys together; 0 is the gateway's default")
	flags.Float64Var(&f.keyRate, "key-requests-per-second", 0, "limit of each key; 0 is the gateway's default")
	flags.IntVar(&f.keyBurst, "key-burst", 0, "how much a key may do at once; 0 is the gateway's default")
	flags.IntVar(&f.all, "in-flight", 0, "calls to WeChat at the same time for all merchants together; 0 is the gateway's default")
	flags.IntVar(&f.inFlight, "merchant-in-flight", 0, "calls to WeChat at the same time for a merchant; 0 is the gateway's default")
	flags.IntVar(&f.write, "merchant-writes-in-flight", 0, "of these, writes; 0 is the gateway's default")
}

// limits sets those that were given on the command line.
func (f *tenantFlags) limits(flags *pflag.FlagSet, l *tenant.Limits) (changed bool) {
	set := func(name string, put func(zero bool)) {
		if flags.Changed(name) {
			changed = true
			put(flags.Lookup(name).Value.String() == "0")
		}
	}
	set("requests-per-second", func(zero bool) { l.RequestsPerSecond = unless(zero, f.rate) })
	set("key-requests-per-second", func(zero bool) { l.KeyRequestsPerSecond = unless(zero, f.keyRate) })
	set("key-burst", func(zero bool) { l.KeyBurst = unless(zero, f.keyBurst) })
	set("in-flight", func(zero bool) { l.InFlight = unless(zero, f.all) })
	set("merchant-in-flight", func(zero bool) { l.MerchantInFlight = unless(zero, f.inFlight) })
	set("merchant-writes-in-flight", func(zero bool) { l.MerchantWritesInFlight = unless(zero, f.write) })
	return changed
}

func unless[T any](zero bool, v T) *T {
	if zero {
		return nil
	}
	return &v
}

func onOff(s string) (bool, error) {
	switch s {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("--release-check %s: want on or off", s)
}

func newTenantCreateCmd() *cobra.Command {
	var f tenantFlags
	var appID, output string
	credentials := newCredentialFlags()
	cmd := &cobra.Command{
		Use: "create", Short: "Make a tenant", Args: cobra.NoArgs,
		Long: `Makes a tenant and shows the two push URLs that belong into WeChat's console.
Each secret has a twin ending in -file; with it nothing shows in the list of
processes, and - reads standard input.`,
		Example: `  gateway tenant create --name Demo --component-appid wx9c3a8f2e4b6d1075 \
    --component-secret-file ./secret --message-token-file ./token --encoding-aes-key-file ./key -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := tenant.NewTenant{Name: f.name, ComponentAppID: appID, ReturnURLAllowList: f.returnURLs, CORSOrigins: f.origins}
			c, err := credentials.read(cmd.InOrStdin())
			if err != nil {
				return err
			}
			if c != (tenant.NewCredentials{}) {
				n.Credentials = &c
			}
			if n.ReleaseCheck, err = onOff(f.releaseCheck); err != nil {
				return err
			}
			f.limits(cmd.Flags(), &n.Limits)
			return withStores(cmd.Context(), func(s *stores) error {
				d, err := s.tenants.Create(cmd.Context(), operator, n)
				if err != nil {
					return err
				}
				v := s.view(d)
				return show(cmd.OutOrStdout(), output, map[string]string{"id": v.ID, "ref": v.Ref}, v.print)
			})
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&appID, "component-appid", "", "the platform's appid: wx and 16 hexadecimal digits")
	credentials.register(cmd.Flags())
	outputFlag(cmd, &output)
	require(cmd, "name", "component-appid")
	return cmd
}

func require(cmd *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := cmd.MarkFlagRequired(f); err != nil {
			panic(err) // a flag that this command doesn't have
		}
	}
}

func newTenantListCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List tenants, newest first", Args: cobra.NoArgs,
		Example: "  gateway tenant list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStores(cmd.Context(), func(s *stores) error {
				list, err := everything(func(p tenant.Page) ([]tenant.Details, bool, error) {
					return s.tenants.List(cmd.Context(), tenant.Filter{}, p)
				}, func(d tenant.Details) uuid.UUID { return d.ID })
				if err != nil {
					return err
				}
				views := make([]tenantView, len(list))
				for i, d := range list {
					views[i] = s.view(d)
				}
				return show(cmd.OutOrStdout(), output, views, func(w io.Writer) {
					tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(tw, "ID\tNAME\tCOMPONENT APPID\tSTATUS")
					for _, v := range views {
						fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", v.ID, v.Name, v.ComponentAppID, v.Status)
					}
					_ = tw.Flush()
				})
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// newTenantVerb is a command on one tenant, which answers with the tenant.
func newTenantVerb(use, short, long, example string, run func(context.Context, *stores, *cobra.Command, uuid.UUID) (tenant.Details, error)) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: use + " TENANT", Short: short, Long: long, Example: example, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(typeid.Tenant, "TENANT", args[0])
			if err != nil {
				return err
			}
			return withStores(cmd.Context(), func(s *stores) error {
				d, err := run(cmd.Context(), s, cmd, id)
				if err != nil {
					return err
				}
				v := s.view(d)
				return show(cmd.OutOrStdout(), output, v, v.print)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newTenantShowCmd() *cobra.Command {
	return newTenantVerb("show", "Show a tenant, its secrets as fingerprints", "", "  gateway tenant show ten_01jd7jx5p0f3e4d5c6b7a8n9mp",
		func(ctx context.Context, s *stores, _ *cobra.Command, id uuid.UUID) (tenant.Details, error) {
			return s.tenants.Get(ctx, id)
		})
}

func newTenantUpdateCmd() *cobra.Command {
	var f tenantFlags
	var status string
	cmd := newTenantVerb("update", "Change a tenant",
		`Changes what is given and leaves the rest. A suspended tenant's keys are refused
within five seconds everywhere; WeChat's pushes are still taken.`,
		"  gateway tenant update ten_01jd7jx5p0f3e4d5c6b7a8n9mp --cors-origin https://shop.example --release-check on",
		func(ctx context.Context, s *stores, cmd *cobra.Command, id uuid.UUID) (tenant.Details, error) {
			var u tenant.Update
			flags := cmd.Flags()
			given := false
			flags.Visit(func(f *pflag.Flag) { given = given || f.Name != "output" })
			if !given {
				return tenant.Details{}, errors.New("nothing to change: name at least one setting, see gateway tenant update --help")
			}
			if flags.Changed("name") {
				u.Name = &f.name
			}
			if flags.Changed("status") {
				if status != string(tenant.Active) && status != string(tenant.Suspended) {
					return tenant.Details{}, fmt.Errorf("--status %s: want active or suspended; close a tenant with gateway tenant delete", status)
				}
				u.Status = (*tenant.Status)(&status)
			}
			if flags.Changed("return-url-allow") {
				u.ReturnURLAllowList = &f.returnURLs
			}
			if flags.Changed("cors-origin") {
				u.CORSOrigins = &f.origins
			}
			if flags.Changed("release-check") {
				on, err := onOff(f.releaseCheck)
				if err != nil {
					return tenant.Details{}, err
				}
				u.ReleaseCheck = &on
			}
			// Limits are replaced as a whole, so those not named are read first.
			now, err := s.tenants.Get(ctx, id)
			if err != nil {
				return tenant.Details{}, err
			}
			if f.limits(flags, &now.Limits) {
				u.Limits = &now.Limits
			}
			return s.tenants.Update(ctx, operator, id, u)
		})
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&status, "status", "", "active or suspended")
	return cmd
}

func newTenantDeleteCmd() *cobra.Command {
	return newTenantVerb("delete", "Close a tenant for good",
		`Its keys are refused within five seconds everywhere and its pushes have no
effect. Its records, and the ids that WeChat gave, are kept.`,
		"  gateway tenant delete ten_01jd7jx5p0f3e4d5c6b7a8n9mp",
		func(ctx context.Context, s *stores, _ *cobra.Command, id uuid.UUID) (tenant.Details, error) {
			if err := s.tenants.Delete(ctx, operator, id, nil); err != nil {
				return tenant.Details{}, err
			}
			return s.tenants.Get(ctx, id)
		})
}

func newTenantSetCredentialsCmd() *cobra.Command {
	credentials := newCredentialFlags()
	cmd := newTenantVerb("set-credentials", "Set a tenant's credentials at WeChat",
		`Sets what is given and leaves the rest; the first time all three are needed. The
message token and EncodingAESKey that were current stay good for receiving, so
that pushes under way are not lost: change them here first, then in WeChat's
console.`,
		"  gateway tenant set-credentials ten_01jd7jx5p0f3e4d5c6b7a8n9mp --encoding-aes-key-file ./key",
		func(ctx context.Context, s *stores, cmd *cobra.Command, id uuid.UUID) (tenant.Details, error) {
			n, err := credentials.read(cmd.InOrStdin())
			if err != nil {
				return tenant.Details{}, err
			}
			if n == (tenant.NewCredentials{}) {
				return tenant.Details{}, errors.New("nothing to set: give at least one secret, see gateway tenant set-credentials --help")
			}
			if _, err := s.tenants.SetCredentials(ctx, operator, id, n); err != nil {
				return tenant.Details{}, err
			}
			return s.tenants.Get(ctx, id)
		})
	credentials.register(cmd.Flags())
	return cmd
}
