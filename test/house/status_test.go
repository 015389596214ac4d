package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/status.md says which test shows what: each of those tests is there. A
// name that ends in … stands for all that begin like it.
func TestStatusNamesTests(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/status.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	err = filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		source.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)(…?)(?:/[^`]*)?`").FindAllStringSubmatch(string(page), -1)
	if len(names) < 50 {
		t.Fatalf("found only %d names", len(names))
	}
	for _, name := range names {
		function := "\nfunc " + name[1] + "("
		if name[2] != "" {
			function = strings.TrimSuffix(function, "(")
		}
		if !strings.Contains(source.String(), function) {
			t.Errorf("docs/status.md names %s%s, which no file has", name[1], name[2])
		}
	}
	for _, file := range regexp.MustCompile("`(\\w+_test\\.go)`").FindAllStringSubmatch(string(page), -1) {
		if found, _ := filepath.Glob("../../test/*/" + file[1]); len(found) == 0 {
			t.Errorf("docs/status.md names %s, which isn't there", file[1])
		}
	}
}
