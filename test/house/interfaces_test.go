package house

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// docs/reference/interfaces.md names each of WeChat's calls once, as it is
// declared, and REST operations that exist.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "internal/wechat/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	declaration := regexp.MustCompile(`Method: http\.Method(\w+), Path: "([^"]+)"`)
	for _, file := range files {
		rel, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		// What acts for the platform itself, not for a merchant's resources.
		if base := filepath.Base(file); strings.HasSuffix(base, "_test.go") || base == "component.go" || base == "account.go" {
			continue
		}
		for _, m := range declaration.FindAllStringSubmatch(read(t, rel), -1) {
			declared = append(declared, strings.ToUpper(m[1])+" "+m[2])
		}
	}
	spec := read(t, "api/openapi.yaml")
	var documented []string
	row := regexp.MustCompile(`(?m)^\| ((?:GET|POST) /\S+) \| (GET|POST|PUT|PATCH|DELETE) (/\S+) \|`)
	for _, m := range row.FindAllStringSubmatch(read(t, "docs/reference/interfaces.md"), -1) {
		documented = append(documented, m[1])
		_, after, found := strings.Cut(spec, "\n  "+m[3]+":\n")
		path, _, _ := strings.Cut(after, "\n  /")
		if !found || !strings.Contains("\n"+path, fmt.Sprintf("\n    %s:\n", strings.ToLower(m[2]))) {
			t.Errorf("%s %s is not in the contract", m[2], m[3])
		}
	}
	slices.Sort(declared)
	slices.Sort(documented)
	if diff := cmp.Diff(declared, documented); diff != "" || len(declared) != 29 {
		t.Errorf("%d calls are declared; those that the page names (-declared +page):\n%s", len(declared), diff)
	}
}
