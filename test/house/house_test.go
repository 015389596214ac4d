// Package house tests the house rather than the code: who imports whom, what
// is generated, that the Makefile, the CI script, the container files and the
// licence say what the documents promise.
//
// It reads files and runs `go list`; it must never need the packages that it
// judges to compile, or generated code couldn't be repaired by generating it.
package house

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write internal/postgres/dbsqlc/MANIFEST; `make generate` does, after sqlc")

const root = "../.."

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
