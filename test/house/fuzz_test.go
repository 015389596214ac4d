package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Fuzz targets that read what strangers send: what was found interesting in
// hours is kept, so that every `go test` tries it again.
var kept = []string{
	"internal/handlers FuzzCursor", "internal/spool FuzzRead", "internal/tenant FuzzVerify",
	"internal/wechat FuzzErrcodeReply", "internal/wechat FuzzErrorDataReply", "internal/wechat FuzzGoodsReply", "internal/wechat FuzzLooseReply", "internal/wechat FuzzStatusReply",
	"internal/wechat/msgcrypt FuzzDecrypt", "internal/wechat/msgcrypt FuzzParseEnvelope", "internal/wechat/msgcrypt FuzzParseMessage",
}

// Each fuzz target begins with seeds, and each corpus is a target's.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	t.Parallel()
	target := regexp.MustCompile(`(?ms)^func (Fuzz\w+)\(.*?^}`)
	seeds := regexp.MustCompile(`\bf\.Add\(|\bseed\(f\)`)
	var found []string
	err := filepath.WalkDir("../../internal", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range target.FindAllStringSubmatch(string(text), -1) {
			if !seeds.MatchString(m[0]) {
				t.Errorf("%s: %s has no seeds", path, m[1])
			}
			found = append(found, strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../../")+" "+m[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range kept {
		if !slices.Contains(found, name) {
			t.Errorf("there is no target %s", name)
		}
	}
	corpora, err := filepath.Glob("../../internal/*/testdata/fuzz/*")
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob("../../internal/*/*/testdata/fuzz/*")
	if err != nil {
		t.Fatal(err)
	}
	inputs := map[string]int{}
	for _, dir := range append(corpora, deeper...) {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		pkg, name, _ := strings.Cut(strings.TrimPrefix(filepath.ToSlash(dir), "../../"), "/testdata/fuzz/")
		inputs[pkg+" "+name] = len(files)
		if !slices.Contains(found, pkg+" "+name) {
			t.Errorf("%s is the corpus of no target: go test would not read it", dir)
		}
	}
	for _, name := range kept {
		if inputs[name] < 10 {
			t.Errorf("%s has a corpus of %d inputs", name, inputs[name])
		}
	}
}
