package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func currentVersion() version {
	v := version{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func newVersionCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Say which build this is", Args: cobra.NoArgs,
		Example: "  gateway version -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := currentVersion()
			return show(cmd.OutOrStdout(), output, v, func(w io.Writer) {
				fmt.Fprintf(w, "gateway %s %s %s %s\n", v.Version, v.Revision, v.Go, v.Platform)
			})
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// outputFlag adds -o, which every command has whose answer a script may read.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "text or json")
}

// show writes v as JSON, or as text for people.
func show(w io.Writer, output string, v any, text func(io.Writer)) error {
	switch output {
	case "text":
		text(w)
		return nil
	case "json":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	return fmt.Errorf("-o %s: want text or json", output)
}
