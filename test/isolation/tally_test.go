package isolation

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the table of attacks anew")

const tablePage = "../../docs/reference/attacks.md"

// tally is what was tried in this run: the rows of design security.md §12 that
// each test met, and the sizes of the matrices that are made from the contract.
var tally = struct {
	sync.Mutex
	rows     map[string]map[int]int // cases by test
	matrices map[string][2]int      // operations, cases
}{rows: map[string]map[int]int{}, matrices: map[string][2]int{}}

var (
	leading = regexp.MustCompile(`^\d+(, \d+)*`)
	number  = regexp.MustCompile(`\d+`)
)

// tried counts a case of the rows that its name begins with: "30, 31 NaN".
func tried(t testing.TB, name string) {
	test, _, _ := strings.Cut(t.Name(), "/")
	tally.Lock()
	defer tally.Unlock()
	if tally.rows[test] == nil {
		tally.rows[test] = map[int]int{}
	}
	for _, n := range number.FindAllString(leading.FindString(name), -1) {
		row, _ := strconv.Atoi(n) // it is digits
		tally.rows[test][row]++
	}
}

// counted keeps how large a matrix was.
func counted(t testing.TB, operations, cases int) {
	tally.Lock()
	defer tally.Unlock()
	tally.matrices[t.Name()] = [2]int{operations, cases}
}

// An attack is a row of attacks.yaml.
type attack struct {
	N                               int
	Input, Answer, Waiting, Changed string
	Shown                           []string
}

func attacks() ([]attack, error) {
	text, err := os.ReadFile("attacks.yaml")
	if err != nil {
		return nil, err
	}
	var list []attack
	in := yaml.NewDecoder(bytes.NewReader(text))
	in.KnownFields(true)
	err = in.Decode(&list)
	return list, err
}

// Each of the 94 rows of design security.md §12 is shown by tests that are
// there, or waits for a feature that isn't.
func TestEveryAttackIsShownOrWaits(t *testing.T) {
	t.Parallel()
	list, err := attacks()
	if err != nil {
		t.Fatal(err)
	}
	waiting := 0
	for i, a := range list {
		if a.N != i+1 || a.Input == "" || a.Answer == "" {
			t.Errorf("row %d is %+v", i+1, a)
		}
		if len(a.Shown) == 0 {
			waiting++
			if a.Waiting == "" {
				t.Errorf("row %d is neither shown nor waiting", a.N)
			}
		}
		for _, name := range a.Shown {
			dir, test := ".", name
			if where, other, ok := strings.Cut(name, " "); ok {
				if dir, test = "../"+where, other; strings.HasPrefix(where, "internal/") {
					dir = "../../" + where
				}
			}
			if !has(t, dir, "\nfunc "+test+"(t ") {
				t.Errorf("row %d names %s, which isn't there", a.N, name)
			}
		}
	}
	if len(list) != 94 || waiting != 12 {
		t.Errorf("%d rows, of which %d wait; want 94 and 12", len(list), waiting)
	}
	// What a row waits for is not there, or it would have to be tried.
	for _, op := range operationsOf(t) {
		if strings.Contains(op.path, "webhook") || strings.Contains(op.path, "import-jobs") || strings.Contains(op.path, "/stream") {
			t.Errorf("%s is there: rows that wait for it must be tried", op.path)
		}
	}
}

func has(t testing.TB, dir, text string) bool {
	files, err := filepath.Glob(dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(source, []byte(text))
	})
}

// After a run of everything: each test that a row names here has met the row,
// and each matrix every operation.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if filtered := flag.Lookup("test.run").Value.String() + flag.Lookup("test.skip").Value.String() + flag.Lookup("test.list").Value.String(); code == 0 && filtered == "" {
		if err := held(); err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func held() error {
	list, err := attacks()
	if err != nil {
		return err
	}
	var wrong []error
	for _, a := range list {
		for _, name := range a.Shown {
			if !strings.Contains(name, " ") && tally.rows[name][a.N] == 0 {
				wrong = append(wrong, fmt.Errorf("%s has met no case of row %d", name, a.N))
			}
		}
	}
	ops, err := contract()
	if err != nil {
		return err
	}
	total := 0
	for name := range matrices {
		size := tally.matrices[name]
		total += size[1]
		if size[0] != len(ops) {
			wrong = append(wrong, fmt.Errorf("%s met %d operations, of %d", name, size[0], len(ops)))
		}
	}
	if total < 10_000 || len(tally.matrices) != len(matrices) {
		wrong = append(wrong, fmt.Errorf("%d cases in %d matrices are made from the contract, want more than 10,000 in %d", total, len(tally.matrices), len(matrices)))
	}
	return errors.Join(wrong...)
}

// docs/reference/attacks.md is written from attacks.yaml: go test
// ./test/isolation -run TestAttackTableIsFresh -update writes it anew.
func TestAttackTableIsFresh(t *testing.T) {
	t.Parallel()
	list, err := attacks()
	if err != nil {
		t.Fatal(err)
	}
	page := table(list)
	if *update {
		if err := os.WriteFile(tablePage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if is, err := os.ReadFile(tablePage); err != nil || string(is) != page {
		t.Errorf("%s is not what attacks.yaml says (%v): go test ./test/isolation -run TestAttackTableIsFresh -update", tablePage, err)
	}
}

// table is the page of the attacks.
func table(list []attack) string {
	var b strings.Builder
	b.WriteString("# Attacks, and what they are answered\n\n" +
		"Written from `test/isolation/attacks.yaml`. `make attack` runs the tests of `test/isolation`, which fail unless each has met the rows that name it; `make test` runs all of them.\n" +
		"Each case asserts the answer, and where nothing may happen that no call reached WeChat and no row of any table changed.\n" +
		"Tests without a package are those of `test/isolation`.\n\n" +
		"| # | attack | answer | shown by |\n|---|---|---|---|\n")
	var notes strings.Builder
	for _, a := range list {
		var shown []string
		for _, name := range a.Shown {
			where, test, other := strings.Cut(name, " ")
			if !other {
				where, test = "", name
			}
			shown = append(shown, strings.TrimSpace(where+" `"+test+"`"))
		}
		if a.Waiting != "" {
			shown = append(shown, "**waits** for "+a.Waiting)
		}
		mark := ""
		if a.Changed != "" {
			mark = "*"
			fmt.Fprintf(&notes, "\\* %d is answered otherwise than first designed: %s.\n", a.N, a.Changed)
		}
		fmt.Fprintf(&b, "| %d%s | %s | %s | %s |\n", a.N, mark, a.Input, a.Answer, strings.Join(shown, ", "))
	}
	b.WriteString("\n" + notes.String() + "\n## Made from the contract\n\n" +
		"Every operation of `api/openapi.yaml` is in each of these, so that one that is added is tried the day it is added. Together they are more\n" +
		"than 10,000 requests a run, and the run fails where one has not met every operation.\n\n" +
		"| matrix | every operation with |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(matrices)) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, matrices[name])
	}
	b.WriteString("\nBeside them `TestTenantsAreApart` puts what is another tenant's into every parameter and member that can name it, with both guards,\n" +
		"without row-level security, and without the queries' own predicates; and shows each time that it would see a leak.\n")
	return b.String()
}

// matrices are what is made from the contract.
var matrices = map[string]string{
	"TestEveryRouteRefuses/SpoiltBodies":     "bodies that can't be read, of every kind: none, null, a list, huge, deep, two values, repeated and unknown members, other encodings and types; a body where none is taken",
	"TestEveryRouteRefuses/BrokenRules":      "every member of its body of every wrong type, missing, and beyond each of its bounds: 422 that names it",
	"TestEveryRouteRefuses/BrokenParameters": "every parameter beyond its rules or twice, unknown ones, queries that can't be read: 400 that names it",
	"TestEveryRouteRefuses/BadKeys":          "keys that are missing, forged, expired, revoked, of nobody, of a tenant that is suspended or gone, before anything of the request is read",
	"TestEveryRouteRefuses/OddTexts":         "SQL, markup, control characters, odd Unicode, odd numbers and times wherever a text or a number stands: never a 5xx",
	"TestScopesOpenExactlyTheirRoutes":       "each scope alone, all of them, and none",
}
