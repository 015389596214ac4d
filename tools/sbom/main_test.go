package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// This test's own binary is made of our module, the standard library, and
// go-cmp as go.sum has it.
func TestSBOM(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out, again bytes.Buffer
	if err := run([]string{self}, &out); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{self}, &again); err != nil || out.String() != again.String() {
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
	version := regexp.MustCompile(`github\.com/google/go-cmp (v\S+)`).FindSubmatch(mod)
	if version == nil {
		t.Fatal("go.mod has no go-cmp")
	}
	purl := "pkg:golang/github.com/google/go-cmp@" + string(version[1])
	seen := map[string]component{}
	for _, c := range doc.Components {
		seen[c.Name] = c
	}
	lib := seen["github.com/google/go-cmp"]
	if len(lib.Hashes) != 1 || len(lib.Hashes[0].Content) != 64 || lib.Hashes[0].Alg != "SHA-256" {
		t.Fatalf("go-cmp: %+v", lib)
	}
	lib.Hashes = nil
	if diff := cmp.Diff(component{Ref: purl, Type: "library", Name: "github.com/google/go-cmp", Version: string(version[1]), PURL: purl}, lib); diff != "" {
		t.Errorf("go-cmp (-want +got):\n%s", diff)
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
