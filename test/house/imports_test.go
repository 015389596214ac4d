package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/mendian/mendian/"

// The house from the roof to the ground (docs/architecture.md): a package
// imports only what stands in a row below its own. A package inside another
// one's directory belongs to it, unless it has a place of its own.
var rows = [][]string{
	{"cmd/gateway"},
	{"internal/handlers"},
	{"internal/inbox", "internal/migration"},
	{"internal/ledger", "internal/reference"},
	{"internal/authorizer"},
	{"internal/quota"},
	{"internal/outbox", "internal/rotation"},
	{"internal/tenant", "internal/wechat"},
	{"internal/config", "internal/postgres", "internal/spool"},
	{"internal/fault", "internal/gcj02", "internal/memory", "internal/observe", "internal/problem", "internal/secret", "internal/typeid",
		"internal/wechat/msgcrypt", "migrations", "api"},
}

// The few that stand beside the house, each with all that it may import.
var beside = map[string][]string{
	// Written from WeChat's documents and from nothing of ours, so that a
	// mistake in a declaration is caught, not mirrored.
	"internal/sandbox": {"internal/wechat/msgcrypt"},
	"internal/localpg": {},

	"api/errgen": {"api"},
	"tools/sbom": {},
	"api/client": {}, // what others import: of the contract, nothing else

	"internal/pgtest":                      {"internal/localpg", "internal/postgres"},
	"internal/handlers/spectest":           {"api", "internal/problem"},
	"internal/handlers/spectest/speccheck": {"internal/handlers/spectest"},
}

// Nothing of ours, whatever stands below.
var onNothing = []string{"internal/wechat", "internal/problem", "internal/secret", "internal/typeid", "internal/fault",
	"internal/gcj02", "internal/memory", "internal/wechat/msgcrypt"}

// Only for tests: in no binary that we ship.
var onlyForTests = []string{"internal/pgtest", "internal/handlers/spectest", "test"}

// Imported by no package but these.
var onlyFor = map[string][]string{
	"internal/config":        {"cmd/gateway"}, // settings are handed down as values
	"internal/sandbox":       {"cmd/gateway"},
	"internal/rotation":      {"cmd/gateway"},
	"internal/handlers/oapi": {"internal/handlers"},
}

// What may know a library that we want to be able to leave.
var libraries = map[string][]string{
	"github.com/labstack/echo/v4": {"internal/handlers"},
	"github.com/swaggo/":          {"internal/handlers"},
	"github.com/tink-crypto/":     {"internal/secret"},
	"github.com/golang-jwt/":      {"internal/tenant"},
	"github.com/testcontainers/":  {"internal/localpg"},
	"github.com/fergusstrange/":   {"internal/localpg"},
	"github.com/spf13/cobra":      {"cmd/gateway"},
	"github.com/sethvargo/":       {"internal/config"},
	"github.com/prometheus/":      {"internal/observe"},
	"github.com/pressly/goose/":   {"internal/postgres"},
}

// Names that say nothing (style.md).
var emptyNames = []string{"util", "utils", "common", "helpers", "helper", "models", "types", "manager", "misc"}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// tree is what `go list` says of our packages. It parses and doesn't compile.
var tree = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = errors.New(string(exit.Stderr))
		}
		return nil, err
	}
	var list []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
})

func packages(t *testing.T) []pkg {
	t.Helper()
	list, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 20 {
		t.Fatalf("saw %d packages, which can't be all", len(list))
	}
	return list
}

// ours are the packages of this module among paths, without its prefix.
func ours(paths []string) []string {
	var out []string
	for _, p := range paths {
		if rel, ok := strings.CutPrefix(p, module); ok {
			out = append(out, rel)
		}
	}
	return out
}

func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func withinAny(name string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return within(name, d) })
}

// rowOf is the row that name stands in, counted from the roof, and the
// package there that it belongs to.
func rowOf(name string) (row int, owner string) {
	row = -1
	for i, names := range rows {
		for _, n := range names {
			if within(name, n) && len(n) > len(owner) {
				row, owner = i, n
			}
		}
	}
	return row, owner
}

// refused says why name may not import other, or "".
func refused(name, other string) string {
	if within(name, "test") {
		return ""
	}
	if only, ok := onlyFor[other]; ok && !withinAny(name, only) {
		return "only " + strings.Join(only, ", ") + " may"
	}
	if withinAny(other, onlyForTests) && !withinAny(name, onlyForTests) {
		return "it is for tests only"
	}
	if may, ok := beside[name]; ok {
		if slices.Contains(may, other) {
			return ""
		}
		return "it may import only: " + strings.Join(may, ", ")
	}
	row, owner := rowOf(name)
	if row < 0 {
		return "it has no place in the house yet: give it one in test/house/imports_test.go"
	}
	if slices.Contains(onNothing, owner) && !within(other, owner) {
		return owner + " imports nothing of ours"
	}
	if _, ok := beside[other]; ok && !within(other, "api") && row == 0 {
		return "" // the roof may use what stands beside
	}
	below, otherOwner := rowOf(other)
	if owner == otherOwner || below > row {
		return ""
	}
	return "imports go down only"
}

func TestImportsGoDown(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, other := range ours(p.Imports) {
			if why := refused(name, other); why != "" {
				t.Errorf("%s imports %s: %s", name, other, why)
			}
		}
	}
}

// The rules can say no: each of these would be a mistake.
func TestImportRulesRefuse(t *testing.T) {
	t.Parallel()
	for _, bad := range [][2]string{
		{"internal/wechat", "internal/problem"},
		{"internal/wechat/msgcrypt", "internal/secret"},
		{"internal/problem", "internal/typeid"},
		{"internal/sandbox", "internal/wechat"},
		{"internal/sandbox", "internal/problem"},
		{"internal/ledger", "internal/inbox"},
		{"internal/spool", "internal/authorizer"},
		{"internal/authorizer", "internal/ledger"},
		{"internal/postgres", "internal/tenant"},
		{"internal/tenant", "internal/config"},
		{"internal/tenant", "internal/wechat"},
		{"internal/handlers", "internal/sandbox"},
		{"internal/inbox", "internal/handlers/oapi"},
		{"internal/inbox", "internal/localpg"},
		{"cmd/gateway", "internal/pgtest"},
		{"internal/novelty", "internal/problem"},
	} {
		if refused(bad[0], bad[1]) == "" {
			t.Errorf("%s may import %s", bad[0], bad[1])
		}
	}
}

// Also not by way of another package: what is shipped and what imitates
// WeChat are judged by everything that they pull in.
func TestWhatIsPulledIn(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		switch name := strings.TrimPrefix(p.ImportPath, module); name {
		case "internal/sandbox":
			if diff := cmp.Diff([]string{"internal/wechat/msgcrypt"}, ours(p.Deps)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		case "cmd/gateway":
			for _, dep := range ours(p.Deps) {
				if withinAny(dep, onlyForTests) {
					t.Errorf("%s pulls in %s, which is for tests only", name, dep)
				}
			}
		}
	}
}

// Tests may use what the package under test may, what is for tests, the
// simulator, and what stands below; they too never look up.
func TestTestsDoNotImportUpwards(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		row, owner := rowOf(name)
		if _, ok := beside[name]; ok || row < 0 {
			continue
		}
		for _, other := range ours(slices.Concat(p.TestImports, p.XTestImports)) {
			below, otherOwner := rowOf(other)
			if _, ok := beside[other]; ok || otherOwner == owner {
				continue
			}
			if below < row {
				t.Errorf("a test of %s imports %s, which stands above it", name, other)
			}
		}
	}
}

func TestLibrariesStayWhereTheyAreWrapped(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if within(name, "test") {
			continue
		}
		for _, dep := range p.Imports {
			for library, may := range libraries {
				if strings.HasPrefix(dep, library) && !withinAny(name, may) {
					t.Errorf("%s imports %s: only %s may", name, dep, strings.Join(may, ", "))
				}
			}
		}
	}
}

func TestPackageNamesSaySomething(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		base := p.ImportPath[strings.LastIndex(p.ImportPath, "/")+1:]
		if slices.Contains(emptyNames, base) {
			t.Errorf("%s: %q says nothing", p.ImportPath, base)
		}
	}
}
