package api

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// oapi-codegen is run again, by the version that tools/oapi.mod pins, and
// what it writes is what is committed.
func TestGeneratedCodeIsFresh(t *testing.T) {
	t.Parallel()
	for config, committed := range map[string]string{
		"oapi-server.yaml": "../internal/handlers/oapi/oapi.gen.go",
		"oapi-client.yaml": "client/client.gen.go",
	} {
		settings, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		out, elsewhere := filepath.Join(dir, "out.go"), filepath.Join(dir, config)
		settings = regexp.MustCompile(`(?m)^output: .*$`).ReplaceAll(settings, []byte("output: "+out))
		if err := os.WriteFile(elsewhere, settings, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=../tools/oapi.mod", "oapi-codegen",
			"--config="+elsewhere, "openapi.yaml")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // compiled as the gateway of the other tests is
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", config, err, text)
		}
		want, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(committed)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is stale; run `go generate ./api` (-want +got):\n%s", committed, diff)
		}
	}
}
