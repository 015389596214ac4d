package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Caches whose keys are no tenant's rows, each with its reason.
var otherKeys = map[string]string{
	"tenant verified":   "the digest of a token: who has the token is its key's owner",
	"handlers keys":     "an API key's own id, which no two tenants have",
	"handlers tenants":  "the tenant itself",
	"handlers failures": "the address that failed to authenticate: no tenant is known yet",
	"reference trees":   "the tenant itself",
	"reference tried":   "the tenant itself",
	"postgres entries":  "postgres.Key by its name inside the package",
}

// Whatever callers of several tenants share in a process, a cached row or an
// answer that is waited for together, is named by the tenant first.
func TestWhatIsSharedIsNamedByTheTenant(t *testing.T) {
	t.Parallel()
	used, flights := map[string]bool{}, 0
	err := filepath.WalkDir("../../internal", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		text := func(n ast.Node) string {
			var b bytes.Buffer
			if err := printer.Fprint(&b, set, n); err != nil {
				t.Fatal(err)
			}
			return b.String()
		}
		for _, m := range regexp.MustCompile(`(\w+):\s+memory\.New\[([^,]+),|&failures\{memory\.New\[([^,]+),`).FindAllStringSubmatch(text(file), -1) {
			name, key := m[1], m[2]
			if name == "" {
				name, key = "failures", m[3]
			}
			if key == "postgres.Key" {
				used[key] = true
				continue
			}
			if name = filepath.Base(filepath.Dir(path)) + " " + name; otherKeys[name] == "" {
				t.Errorf("%s: the cache %s has the key %s, which doesn't begin with the tenant", path, name, key)
			}
			used[name] = true
		}
		ast.Inspect(file, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				return true
			}
			named := map[string]ast.Expr{}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					if name, ok := n.Lhs[0].(*ast.Ident); ok && len(n.Lhs) == 1 {
						named[name.Name] = n.Rhs[0]
					}
				case *ast.CallExpr:
					if method, ok := n.Fun.(*ast.SelectorExpr); !ok || method.Sel.Name != "DoChan" {
						return true
					}
					key := n.Args[0]
					if name, ok := key.(*ast.Ident); ok && named[name.Name] != nil {
						key = named[name.Name]
					}
					flights++
					if !tenantFirst.MatchString(text(key)) {
						t.Errorf("%s: %s is waited for by a name that doesn't begin with the tenant", path, text(key))
					}
				}
				return true
			})
			return true
		})
		if strings.Contains(text(file), "lru.New") && !strings.Contains(path, "internal/memory") {
			t.Errorf("%s: caches are made by internal/memory", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range otherKeys {
		if !used[name] {
			t.Errorf("there is no cache %q", name)
		}
	}
	if flights < 4 || !used["postgres.Key"] {
		t.Errorf("saw %d names, which can't be all", flights)
	}
}

var tenantFirst = regexp.MustCompile(`^(strings\.Join\(\[\]string\{)?[\w.]*[tT]enant(ID)?\.String\(\)`)
