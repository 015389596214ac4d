package isolation

import (
	"bytes"
	"cmp"
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
	if len(list) != 94 || waiting != 13 {
		t.Errorf("%d rows, of which %d wait; want 94 and 13", len(list), waiting)
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
// each matrix has met every operation, and the page of them is as the run was.
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
	for name, size := range tally.matrices {
		total += size[1]
		if size[0] != len(ops) {
			wrong = append(wrong, fmt.Errorf("%s met %d operations, of %d", name, size[0], len(ops)))
		}
	}
	if total < 5000 {
		wrong = append(wrong, fmt.Errorf("%d cases are made from the contract, want 5,000 at least", total))
	}
	if wrong != nil {
		return errors.Join(wrong...)
	}
	page := table(list, total)
	if *update {
		return os.WriteFile(tablePage, []byte(page), 0o644)
	}
	if is, err := os.ReadFile(tablePage); err != nil || string(is) != page {
		return cmp.Or(err, fmt.Errorf("%s is not what this run would write: make attack ARGS=-update", tablePage))
	}
	return nil
}

// table is the page of the attacks as this run met them.
func table(list []attack, total int) string {
	var b strings.Builder
	b.WriteString("# Attacks, and what they are answered\n\n" +
		"Written by `make attack ARGS=-update` from a run in which all of it passed; `make attack` and `make test` fail when it no longer fits.\n" +
		"Each case asserts the answer, and where nothing may happen that no call reached WeChat and no row of any table changed.\n" +
		"Tests without a package are those of `test/isolation`.\n\n" +
		"| # | attack | answer | shown by |\n|---|---|---|---|\n")
	var changed []attack
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
			changed = append(changed, a)
		}
		fmt.Fprintf(&b, "| %d%s | %s | %s | %s |\n", a.N, mark, a.Input, a.Answer, strings.Join(shown, ", "))
	}
	b.WriteString("\n")
	for _, a := range changed {
		fmt.Fprintf(&b, "\\* %d is answered otherwise than first designed: %s.\n", a.N, a.Changed)
	}
	b.WriteString("\n## Made from the contract\n\nEvery operation of `api/openapi.yaml` is in each of these; one that is added is tried the day it is added.\n\n" +
		"| matrix | operations | cases |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(tally.matrices)) {
		fmt.Fprintf(&b, "| `%s` | %d | %d |\n", name, tally.matrices[name][0], tally.matrices[name][1])
	}
	fmt.Fprintf(&b, "| together | | %d |\n", total)
	b.WriteString("\nBeside them `TestTenantsAreApart` tries what is another tenant's in every parameter and member that can name it, in some 4,800 requests a run,\n" +
		"with both guards, without row-level security, and without the queries' own predicates; and proves each time that it would see a leak.\n")
	return b.String()
}
