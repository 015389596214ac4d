package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/handlers"
	"github.com/mendian/mendian/internal/rotation"
)

// withRotation runs fn on the keyset and the database of the settings.
func withRotation(cmd *cobra.Command, fn func(rotation.Steps) error) error {
	return withStores(cmd.Context(), func(s *stores) error {
		return fn(rotation.Steps{DB: s.db, Path: s.cfg.KeysetFile, Who: operator, CursorLife: handlers.CursorLife})
	})
}

// showRotation writes how far the rotation is.
func showRotation(cmd *cobra.Command, s rotation.Steps, output string) error {
	st, err := s.Status(cmd.Context())
	if err != nil {
		return err
	}
	return show(cmd.OutOrStdout(), output, st, func(w io.Writer) {
		for _, k := range st.Keys {
			fmt.Fprintf(w, "key %d: %s; %d values\n", k.ID, roleText[k.Role], k.Values)
			for _, v := range k.In {
				fmt.Fprintf(w, "  %8d  %s\n", v.N, v.Column)
			}
		}
		for _, p := range st.Processes {
			state := "serves"
			if !p.Serving {
				state = "last seen " + p.SeenAt.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "process %s: %s, seals with %d, holds %d, in its spool %d\n", p.Instance, state, p.SealsWith, p.Keys, p.SpoolKeys)
		}
	})
}

func newKeysetRotateCmd() *cobra.Command {
	var output, wait string
	cmd := &cobra.Command{
		Use: "rotate", Short: "Let a new key seal, while everything serves", Args: cobra.NoArgs,
		Long: `Adds a key to GATEWAY_KEYSET_FILE that opens and doesn't seal yet, waits until
every serving process holds it, lets it seal, and waits until every one does.
Nobody is restarted: each process looks at its file every two seconds.

Where processes have copies of the file, such as a Secret of Kubernetes, bring
the file there when this command says so, and run it again: it goes on where it
was: once for the new key, once for the key that seals. Bring it as well to where
commands are run. The processes that serve are counted: one that is missing is of
a version without this command, and must be replaced before.

Then a serving process seals anew what the old key has sealed, in all tables of
all tenants, and each process its spool. gateway keyset status shows how far that
is. It may be cut off at any moment. When nothing is left: gateway keyset retire.

The file is replaced in one step, written and synced before. This command only
adds to it, so it keeps no copy; back the file up afterwards.`,
		Example: "  gateway keyset rotate\n  gateway keyset status\n  gateway keyset retire 1394847463",
		RunE: func(cmd *cobra.Command, _ []string) error {
			patience, err := parseSpan(wait)
			if err != nil {
				return fmt.Errorf("--wait: %w", err)
			}
			return withRotation(cmd, func(s rotation.Steps) error {
				err := s.Rotate(cmd.Context(), patience, func(format string, args ...any) {
					fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
				})
				if err != nil {
					return err
				}
				return showRotation(cmd, s, output)
			})
		},
	}
	cmd.Flags().StringVar(&wait, "wait", "1m", "how long to wait for processes that don't have the file yet")
	outputFlag(cmd, &output)
	return cmd
}

func newKeysetStatusCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Say what lies sealed with which key, and which process holds which", Args: cobra.NoArgs,
		Long: `Counts every sealed value of the database, which reads all of its rows, and shows
which keys each process holds and its spool needs. Processes that no longer
serve stay listed, because their spools may hold what the database doesn't know.`,
		Example: "  gateway keyset status -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withRotation(cmd, func(s rotation.Steps) error { return showRotation(cmd, s, output) })
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newKeysetRetireCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "retire KEY", Short: "Take a key out of the keyset that nothing is sealed with", Args: cobra.ExactArgs(1),
		Long: `Refused, with the reasons, while a row of the database, the spool of any process,
a process that doesn't seal with the new key yet, or a cursor that a caller may
still come back with needs the key. Cursors are good for a day, so that a key can
be retired a day after the rotation.

The file as it was is kept beside the new one, under the name that is shown, mode
0600: what was backed up before the rotation is opened with that one only. Keep it
with those backups, and take it away from here.`,
		Example: "  gateway keyset retire 1394847463",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil {
				return fmt.Errorf("KEY: %q is not the number of a key: gateway keyset show", args[0])
			}
			return withRotation(cmd, func(s rotation.Steps) error {
				kept, err := s.Retire(cmd.Context(), uint32(id))
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), output, map[string]any{"retired": id, "kept": kept}, func(w io.Writer) {
					fmt.Fprintf(w, "key %d is retired; the file with it is kept as %s\n", id, kept)
				})
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func newKeysetForgetCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "forget INSTANCE", Short: "Strike a process off the list whose spool is gone for good", Args: cobra.ExactArgs(1),
		Long: `For gateway keyset retire, which waits for every process that ever served: start it
once more, and its spool is replayed and sealed anew. Only if its disk is gone
for good, forget it. One that serves is not forgotten.`,
		Example: "  gateway keyset forget 3f1d7a52-8c5e-4f0e-9d8e-0f6a6f0c2b11",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withRotation(cmd, func(s rotation.Steps) error {
				if err := s.Forget(cmd.Context(), args[0]); err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), output, map[string]string{"forgotten": args[0]}, func(w io.Writer) {
					fmt.Fprintf(w, "%s is forgotten\n", args[0])
				})
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
