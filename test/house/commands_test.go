package house

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// targets are those that the Makefile declares, each with its help or "".
func targets(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):[^=\n]*?(?:## (.*))?$`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		out[m[1]] = m[2]
	}
	return out
}

// `make help` names every target that is for people, and `make` is the same.
func TestMakeHelp(t *testing.T) {
	t.Parallel()
	help := run(t, "make", "help")
	if got := run(t, "make"); got != help {
		t.Errorf("make says something else than make help:\n%s", got)
	}
	want := []string{"attack", "bench", "bench-scale", "build", "check", "dev", "generate", "help", "sbom", "test", "torture"}
	var got []string
	for name, text := range targets(t) {
		if text == "" {
			continue
		}
		got = append(got, name)
		if !regexp.MustCompile(`(?m)^  ` + name + ` +` + regexp.QuoteMeta(text) + `$`).MatchString(help) {
			t.Errorf("make help does not show %s: %s", name, text)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("targets with a help text (-want +got):\n%s", diff)
	}
}

// Nothing that a target is called exists as a file that would stand in for it.
func TestMakeTargetsArePhony(t *testing.T) {
	t.Parallel()
	makefile := read(t, "Makefile")
	for _, name := range slices.Sorted(maps.Keys(targets(t))) {
		if !strings.Contains(makefile, "\n.PHONY: "+name+"\n") {
			t.Errorf("%s is not phony", name)
		}
	}
}

// What the Makefile would run, expanded by make itself.
func TestMakeRuns(t *testing.T) {
	t.Parallel()
	for target, wants := range map[string][]string{
		"build":       {"CGO_ENABLED=0 go build -o gateway ./cmd/gateway"},
		"dev":         {"go build", "./gateway dev --ephemeral"},
		"test":        {"go vet ", "go test ", "./test/...", "speccheck"},
		"attack":      {"go test ", "./test/isolation -args"},
		"bench":       {"go build -o gateway ./cmd/gateway", "go run ./test/bench"},
		"bench-scale": {"go build -o gateway ./cmd/gateway", "go run ./test/bench scale"},
		"sbom":        {"go build -o gateway ./cmd/gateway", "go run ./tools/sbom gateway"},
		"generate":    {"go generate ./api", "sqlc generate", "-update"},
		"check":       {"golangci-lint run", "sqlc diff", "go mod verify", "tools/vulncheck", "git diff --exit-code"},
	} {
		got := run(t, "make", "--dry-run", target, "ARGS=--ephemeral")
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("make %s does not run %q:\n%s", target, want, got)
			}
		}
	}
}

// Every tool is pinned in a module file of its own, outside our go.mod.
func TestToolsArePinned(t *testing.T) {
	t.Parallel()
	used := regexp.MustCompile(`\$\(call TOOL,(\w+)\) (\S+)`).FindAllStringSubmatch(read(t, "Makefile"), -1)
	used = append(used, regexp.MustCompile(`-modfile=(?:\.\./)?tools/(\w+)\.mod (\S+)`).FindAllStringSubmatch(read(t, "tools/vulncheck")+read(t, "api/generate.go"), -1)...)
	if len(used) < 4 {
		t.Fatalf("saw %d uses of tools, which can't be all", len(used))
	}
	for _, m := range used {
		if mod := read(t, "tools/"+m[1]+".mod"); !regexp.MustCompile(`(?m)^tool \S+/` + regexp.QuoteMeta(m[2]) + `$`).MatchString(mod) {
			t.Errorf("tools/%s.mod has no tool %s", m[1], m[2])
		}
		read(t, "tools/"+m[1]+".sum")
	}
	if regexp.MustCompile(`(?m)^tool `).MatchString(read(t, "go.mod")) {
		t.Error("go.mod has a tool: its modules would become ours")
	}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{".ci/run", "tools/vulncheck", "deploy/make-secrets"} {
		run(t, "bash", "-n", name)
		fi, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s can't be executed", name)
		}
	}
	ci := read(t, ".ci/run")
	for _, want := range []string{"set -euo pipefail", "CI=true", "</dev/null", "exec make test\n"} {
		if !strings.Contains(ci, want) {
			t.Errorf(".ci/run lacks %q", want)
		}
	}
}

func TestLicence(t *testing.T) {
	t.Parallel()
	text := read(t, "LICENSE")
	for _, want := range []string{
		"Apache License\n                           Version 2.0, January 2004", "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION",
		"9. Accepting Warranty or Additional Liability.", "END OF TERMS AND CONDITIONS",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("LICENSE lacks %q", want)
		}
	}
	if !strings.Contains(read(t, "Dockerfile"), `licenses="Apache-2.0"`) {
		t.Error("the image says another licence than LICENSE")
	}
}

// Commands and files that the documents for contributors name exist.
func TestContributorDocsNameWhatExists(t *testing.T) {
	t.Parallel()
	known := targets(t)
	for _, doc := range []string{"CONTRIBUTING.md", "docs/development.md", "docs/security.md"} {
		text := read(t, doc)
		for _, m := range regexp.MustCompile("(?m)(?:`|^)make ([a-z][a-z-]*)").FindAllStringSubmatch(text, -1) {
			if _, ok := known[m[1]]; !ok {
				t.Errorf("%s: there is no make %s", doc, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`((?:api|cmd|deploy|docs|internal|migrations|test|tools)/[A-Za-z0-9_./-]*)`").FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s: %v", doc, err)
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s: a link: %v", doc, err)
			}
		}
	}
}
