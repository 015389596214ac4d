package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// signingView is a key of the ring, without its private part.
type signingView struct {
	ID         string    `json:"kid"`
	State      string    `json:"state"`
	CreatedAt  time.Time `json:"created_at"`
	StateSince time.Time `json:"state_since"`
}

func newSigningCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "signing", Short: "Look at the keys that sign API keys",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var output string
	list := &cobra.Command{
		Use: "list", Short: "List the signing keys, newest first", Args: cobra.NoArgs,
		Long: `States: next is published and signs from the next rotation on; active signs;
retiring no longer signs, and what it signed is still good; what a retired key
signed is refused.`,
		Example: "  gateway key signing list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStores(cmd.Context(), func(s *stores) error { return showSigning(cmd, s, output) })
		},
	}
	outputFlag(list, &output)
	cmd.AddCommand(list)
	return cmd
}

func showSigning(cmd *cobra.Command, s *stores, output string) error {
	list, err := s.keys.SigningKeys(cmd.Context())
	if err != nil {
		return err
	}
	views := make([]signingView, len(list))
	for i, k := range list {
		views[i] = signingView{k.ID, string(k.State), k.CreatedAt, k.StateSince}
	}
	return show(cmd.OutOrStdout(), output, views, func(w io.Writer) {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "KID\tSTATE\tSINCE")
		for _, v := range views {
			fmt.Fprintf(tw, "%s\t%s\t%s\n", v.ID, v.State, v.StateSince.Format(time.RFC3339))
		}
		_ = tw.Flush()
	})
}

func newRotateSigningCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "rotate-signing", Short: "Let the next signing key sign", Args: cobra.NoArgs,
		Long: `The next key signs, the active one retires slowly, and a new next key is made.
No API key stops working: what a retiring key signed stays good until it expires.
Every running gateway follows within five seconds.`,
		Example: "  gateway key rotate-signing",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStores(cmd.Context(), func(s *stores) error {
				if _, err := s.keys.RotateSigning(cmd.Context(), operator); err != nil {
					return err
				}
				return showSigning(cmd, s, output)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newRetireSigningCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "retire-signing KID", Short: "In an emergency: end a signing key and every API key that it signed", Args: cobra.ExactArgs(1),
		Long: `For when a signing key may be known to others. Every API key and admin key that
it signed is refused within five seconds everywhere; make new ones. If it was the
active key the next one signs from then on.`,
		Example: "  gateway key retire-signing sig_01jd7jw2k3f4g5h6j7k8m9n0pq",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStores(cmd.Context(), func(s *stores) error {
				if err := s.keys.RetireSigning(cmd.Context(), operator, args[0]); err != nil {
					return err
				}
				return showSigning(cmd, s, output)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
