package localpg

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// binaries is one installation of the server.
type binaries struct {
	dir     string
	version string // 15.18
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// installed are the places where packages put the server. Debian and Homebrew
// keep it out of PATH.
var installed = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/libexec/postgresql*",
	"/opt/homebrew/opt/postgresql@*/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// findBinaries returns the installation to use: the one in PATH, else the
// newest. With only > 0 it must be of that major version.
func findBinaries(who account, only int) (binaries, error) {
	var found []binaries
	var refused []string
	for i, dir := range candidateDirs() {
		b, err := inspect(who, dir)
		if err != nil {
			refused = append(refused, err.Error())
			continue
		}
		if only == 0 && i == 0 && inPath(dir) {
			return b, nil
		}
		if only == 0 || major(b.version) == only {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		want := fmt.Sprintf("no server of version %d or newer", oldest)
		if only > 0 {
			want = fmt.Sprintf("no server of version %d, which made the data,", only)
		}
		reason := fmt.Sprintf("%s in PATH, %s and the usual places of packages", want, installed[0])
		if len(refused) > 0 {
			reason += " (" + strings.Join(refused, "; ") + ")"
		}
		return binaries{}, &unavailable{reason}
	}
	return slices.MaxFunc(found, func(a, b binaries) int { return major(a.version) - major(b.version) }), nil
}

func candidateDirs() []string {
	var dirs []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if path, err := filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	patterns := slices.Clone(installed)
	for _, dir := range downloadDirs() { // what was downloaded once is installed
		patterns = append(patterns, filepath.Join(dir, downloadName+"*", "bin"))
	}
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern)
		for _, dir := range matches {
			if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

func inPath(dir string) bool {
	initdb, err := exec.LookPath("initdb")
	if err != nil {
		return false
	}
	path, err := filepath.EvalSymlinks(initdb)
	return err == nil && filepath.Dir(path) == dir
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\S+)`)

// inspect asks an installation for its version.
func inspect(who account, dir string) (binaries, error) {
	if blocked := who.reaches(dir); blocked != "" {
		return binaries{}, fmt.Errorf("%s: the server's user may not pass %s", dir, blocked)
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return binaries{}, fmt.Errorf("%s: %w", dir, err)
	}
	m := versionText.FindSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("%s: unknown version %q", dir, out)
	}
	if v := string(m[1]); major(v) < oldest {
		return binaries{}, fmt.Errorf("%s: version %s is too old", dir, v)
	}
	return binaries{dir: dir, version: string(m[1])}, nil
}
