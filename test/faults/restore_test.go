package faults

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/localpg"
	"github.com/mendian/mendian/internal/sandbox"
)

// shell runs a block of docs/operations.md as it stands there.
func (p *place) shell(name string, env map[string]string) string {
	p.t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		p.t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)\n```sh " + name + "\n(.*?)```\n").FindSubmatch(page)
	if block == nil {
		p.t.Fatalf("docs/operations.md has no block %q", name)
	}
	bin := filepath.Join(p.Dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Symlink(p.Binary, filepath.Join(bin, "gateway")); err != nil && !os.IsExist(err) {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", string(block[1]))
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin") // where Debian puts what is not on PATH
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Env = []string{"PATH=" + strings.Join(append([]string{bin, os.Getenv("PATH")}, installed...), ":"), "HOME=" + p.Dir}
	for _, m := range []map[string]string{p.Env, env} {
		for k, v := range m {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("the block %q: %v (it needs pg_dump, pg_restore and psql)\n%s", name, err, out)
	}
	return string(out)
}

// newCluster is a server that has never heard of us: no role, no database.
func newCluster(t *testing.T) string {
	t.Helper()
	s, err := localpg.Start(t.Context(), localpg.Options{Getenv: func(name string) string {
		if strings.HasPrefix(name, "DATABASE_URL") {
			return "" // another one is wanted
		}
		return os.Getenv(name)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s.DSN()
}

// The drill of docs/operations.md: a database, a keyset and a spool are backed
// up while an answer of WeChat's is in the spool alone, life goes on, and all of
// it is lost. What is restored is whole: the answer is replayed with its id, and
// what came after the backup is found at WeChat.
func TestRestore(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	before := p.c.Do("POST", "/v1/stores", p.newStore()).Want(http.StatusAccepted).Get("id")
	p.c.Until("/v1/stores/"+before, "active")
	p.Hold(true)
	p.restart("after_spool:kill")
	spooled := p.newStore()
	p.dying("POST", "/v1/stores", spooled, "spooled")
	key := fmt.Sprint(spooled["map_poi_id"])

	ledger := func() []string {
		return query(p.World, `SELECT DISTINCT id_type || ' ' || wechat_id FROM wechat_id_ledger`)
	}
	known, _ := p.Truth()
	recorded := ledger()
	backup, apart := t.TempDir(), t.TempDir()
	p.shell("backup", map[string]string{"GATEWAY_SPOOL_DIR": p.spool, "BACKUP": backup, "KEYSET_BACKUP": apart})

	p.start("")
	p.Hold(false)
	later := p.c.Do("POST", "/v1/stores", p.newStore()).Want(http.StatusAccepted).Get("id")
	poi := p.c.Until("/v1/stores/"+later, "active").Get("poi_id")
	audits := issued(p.World, "audit_id", key)
	if len(audits) != 1 {
		t.Fatalf("WeChat gave the spooled store the audits %v", audits)
	}
	p.g.Kill()

	p.DSN = newCluster(t)
	p.Wipe()
	p.spool = filepath.Join(p.Dir, "restored")
	p.Env["DATABASE_URL"], p.Env["GATEWAY_KEYSET_FILE"] = p.DSN, filepath.Join(p.Dir, "restored.json")
	t.Log(p.shell("restore", map[string]string{"GATEWAY_SPOOL_DIR": p.spool, "BACKUP": backup, "KEYSET_BACKUP": apart}))
	if n := p.Row(`SELECT count(*) AS n FROM wechat_id_ledger WHERE wechat_id = $1`, audits[0])["n"]; n != int64(0) {
		t.Fatalf("the dump has the audit that only the spool should know: %v rows", n)
	}

	p.start("")
	row := p.Row(`SELECT source FROM wechat_id_ledger WHERE wechat_id = $1 AND id_type = 'audit_id' AND source = 'spool'`, audits[0])
	if row["source"] != "spool" {
		t.Errorf("the spooled audit: %v", row)
	}
	if s := p.c.Do("GET", "/v1/stores/"+before, nil).Want(http.StatusOK); s.Get("status") != "active" {
		t.Errorf("the store of before: %s", s.Body)
	}
	restored := ledger()
	for _, id := range known {
		if id.Type == "audit_id" && id.AppID == sandbox.DemoOfficialAccount {
			recorded = append(recorded, "audit_id "+id.ID)
		}
	}
	if len(recorded) < 3 || !slices.Contains(recorded, "audit_id "+audits[0]) {
		t.Errorf("too few ids were given before the backup: %v", recorded)
	}
	for _, id := range recorded {
		if !slices.Contains(restored, id) {
			t.Errorf("%s is lost, among %v", id, restored)
		}
	}
	// Every id that lists show is back, whenever it was given.
	p.Eventually("what came after the backup", func() error {
		var have []string
		for _, r := range p.Query(`SELECT DISTINCT wechat_id FROM wechat_id_ledger WHERE id_type = 'poi_id'`) {
			have = append(have, fmt.Sprint(r["wechat_id"]))
		}
		if !slices.Contains(have, poi) {
			return fmt.Errorf("%s is not among %v", poi, have)
		}
		all, _ := p.Truth()
		for _, id := range all {
			if id.Type == "poi_id" && id.AppID == sandbox.DemoOfficialAccount && !slices.Contains(have, id.ID) {
				return fmt.Errorf("%s is missing", id.ID)
			}
		}
		return nil
	})
	p.c.Do("DELETE", "/v1/stores/"+before, nil).Want(http.StatusNoContent) // and work goes on
}
