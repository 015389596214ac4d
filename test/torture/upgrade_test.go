//go:build torture

package torture

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

var upgrade = flag.Int("upgrade", 1, "writes of each kind while the version before is upgraded to this one")

// upgradeFigures are what an upgrade amounts to.
type upgradeFigures struct {
	Figures
	From             string // a commit
	Migrate, Restart int64  // requests that callers had to repeat until both versions ran, and while the old one was replaced
}

func (f upgradeFigures) String() string {
	return fmt.Sprintf("upgrade from %s: requests repeated %d while it migrated and ran beside, %d while processes were replaced, %s", f.From, f.Migrate, f.Restart, f.Figures)
}

// Processes of the version before the newest migration write. This version
// migrates their database under them, runs beside them, and replaces them one
// by one on their spool directories: callers notice only that an address was
// closed for a moment, and nothing is lost.
func TestUpgrade(t *testing.T) {
	f := upgradeFigures{}
	figures(t, arenaOf{binary: func() (binary string) { f.From, binary = previous(t); return binary }}, func(a *Arena, r *rand.Rand) fmt.Stringer {
		old, beside := a.Slots[:len(a.Slots)-1], a.Slots[len(a.Slots)-1]
		var urls []string
		for _, s := range old {
			s.Up(nil)
			urls = append(urls, s.URL())
		}
		writes := a.Prepare(*upgrade, Kinds...)
		r.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
		third := len(writes) / 3
		a.Hold(true)
		before := a.schema()
		a.Binary = world.Binary(t, "faults")
		a.during(writes[:third], urls, r, func() { a.Run("migrate") })
		urls = append(urls, beside.URL())
		a.during(writes[third:2*third], urls[:len(old)], r, func() { beside.Up(nil) })
		f.Migrate = a.repeats.Swap(0)
		a.during(writes[2*third:], urls, r, func() {
			for _, s := range old {
				s.g.Stop()
				s.Up(nil)
			}
		})
		f.Restart = a.repeats.Load()
		a.Settled.Stop()
		a.Settled = a.Start(map[string]string{"GATEWAY_ADDR": strings.TrimPrefix(a.PublicURL, "http://"), "GATEWAY_SPOOL_DIR": filepath.Join(a.Dir, "spool-0")})
		if now := a.schema(); f.From != thisOne && now <= before {
			t.Errorf("the schema was at %d, and is at %d", before, now)
		}
		if f.Migrate > 0 {
			t.Errorf("callers had to repeat %d requests while nothing was stopped", f.Migrate)
		}
		a.Quiesce(&f.Figures)
		a.Check(writes, &f.Figures, false)
		a.Release()
		a.Check(writes, &f.Figures, true)
		return f
	})
}

// schema is the version of the database's.
func (a *Arena) schema() int64 {
	return a.Row(`SELECT max(version_id) AS version FROM goose_db_version WHERE is_applied`)["version"].(int64)
}

// during makes these writes, spread over a second and more, while something
// else is done.
func (a *Arena) during(writes []*Write, urls []string, r *rand.Rand, do func()) {
	var wait sync.WaitGroup
	for _, w := range writes {
		own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		wait.Go(func() {
			time.Sleep(time.Duration(own.IntN(1500)) * time.Millisecond)
			a.drive(w, urls, own)
		})
	}
	do()
	wait.Wait()
}

// thisOne stands for the version before where there is none.
const thisOne = "this version, for want of history"

// previous builds the newest commit that changed migrations/ but one, whose
// schema is older than ours, from what git has of it. A clone without history
// has no such commit: then this version stands for it, and what is left of the
// suite is that a migration that changes nothing and replacing processes hurt
// nobody.
func previous(t *testing.T) (commit, binary string) {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) []byte {
		out, err := exec.Command("git", append([]string{"-C", strings.TrimSpace(string(root))}, args...)...).Output()
		if err != nil {
			t.Logf("git %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	commits := strings.Fields(string(git("log", "-2", "--format=%h", "--", "migrations/*.sql")))
	if len(commits) < 2 {
		t.Logf("no history of migrations/: the version before the newest migration can't be built")
		return thisOne, ""
	}
	dir := t.TempDir()
	binary = filepath.Join(dir, "gateway")
	unpack := exec.Command("tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(git("archive", commits[1]))
	build := exec.Command("go", "build", "-ldflags=-w", "-tags", "faults", "-o", binary, "./cmd/gateway")
	build.Dir, build.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{unpack, build} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v: %s", commits[1], err, out)
		}
	}
	return commits[1], binary
}
