package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The smallest of our commands that needs a module is made of that one, as
// go.mod has it, of our module and the standard library.
func TestSBOM(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "errgen")
	if said, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../api/errgen").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	var out, again bytes.Buffer
	if err := run([]string{binary}, &out); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{binary}, &again); err != nil || out.String() != again.String() {
		t.Errorf("the second document is another one, %v", err)
	}
	var doc document
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Format != "CycloneDX" || doc.Spec != "1.6" || doc.Version != 1 || doc.Metadata.Component.Name != "github.com/mendian/mendian" {
		t.Errorf("document: %s", out.String())
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`go\.yaml\.in/yaml/v3 (v\S+)`).FindSubmatch(mod)
	if version == nil {
		t.Fatal("go.mod has no yaml")
	}
	purl := "pkg:golang/go.yaml.in/yaml/v3@" + string(version[1])
	seen := map[string]component{}
	for _, c := range doc.Components {
		seen[c.Name] = c
	}
	lib := seen["go.yaml.in/yaml/v3"]
	if len(lib.Hashes) != 1 || len(lib.Hashes[0].Content) != 64 || lib.Hashes[0].Alg != "SHA-256" {
		t.Fatalf("yaml: %+v", lib)
	}
	lib.Hashes = nil
	if diff := cmp.Diff(component{Ref: purl, Type: "library", Name: "go.yaml.in/yaml/v3", Version: string(version[1]), PURL: purl}, lib); diff != "" {
		t.Errorf("yaml (-want +got):\n%s", diff)
	}
	if std := seen["std"]; !strings.HasPrefix(strings.TrimPrefix(runtime.Version(), "go"), std.Version) || std.Version == "" {
		t.Errorf("std: %+v", std)
	}
	if seen["github.com/jackc/pgx/v5"].Name != "" {
		t.Error("it lists what is not in the binary")
	}
}

func TestSBOMRefuses(t *testing.T) {
	t.Parallel()
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {text}, {text + "-missing"}, {text, text}} {
		if err := run(args, &bytes.Buffer{}); err == nil {
			t.Errorf("sbom %v is no error", args)
		}
	}
}
