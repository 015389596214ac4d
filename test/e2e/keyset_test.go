package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// keysetStatus is what `gateway keyset status -o json` says.
type keysetStatus struct {
	Keys []struct {
		ID     uint32
		Role   string
		Values int
		In     []struct {
			Column string
			Values int
		}
	}
	Processes []struct {
		Instance  string
		Serving   bool
		SealsWith uint32 `json:"seals_with"`
		Keys      []uint32
		SpoolKeys []uint32 `json:"spool_keys"`
	}
}

func keysetOf(w *world.World) (s keysetStatus) {
	w.JSON(&s, "keyset", "status", "-o", "json")
	return s
}

// by is which columns hold values that a key sealed.
func (s keysetStatus) by(id uint32) (columns []string) {
	for _, k := range s.Keys {
		for _, c := range k.In {
			if k.ID == id {
				columns = append(columns, c.Column)
			}
		}
	}
	slices.Sort(columns)
	return columns
}

// The keyset is rotated while two processes serve reads and writes: no request
// fails, everything that is sealed anywhere is sealed anew, the old key is kept
// as long as anything needs it, and afterwards it opens nothing.
func TestKeysetRotation(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	keyset := w.Env["GATEWAY_KEYSET_FILE"]
	a, b, dead := w.Start(nil), w.Start(nil), w.Start(nil)
	c := w.Demo(a)
	merchant := w.UUID(typeid.Merchant, c.Merchant)
	// A value in every column that is sealed.
	w.Run("tenant", "set-credentials", w.Tenant.ID, "--message-token", "anothertoken", "--encoding-aes-key", "anotherAnotheranotherAnotheranotherAnother1")
	w.Control("POST", "settings", map[string]bool{"rotate_refresh_tokens": true}, nil)
	c.Do("POST", "/v1/merchants/"+c.Merchant+"/token-refreshes", nil).Want(200)
	last := c.At(dead).Do("POST", "/v1/stores", w.NewStore(1)).Want(202)
	dead.Kill()
	w.Exec(`UPDATE keyset_holders SET seen_at = seen_at - interval '1 minute'`) // those who live are seen again at once

	var before keysetStatus
	w.Eventually("two processes serve", func() error {
		before = keysetOf(w)
		if n := serving(before); n != 2 {
			return fmt.Errorf("%d do", n)
		}
		return nil
	})
	var sealed []string
	for _, table := range postgres.SealedTables {
		for _, column := range table.All() {
			sealed = append(sealed, table.Name+"."+column)
		}
	}
	slices.Sort(sealed)
	old := before.Keys[0].ID
	if diff := cmp.Diff(sealed, before.by(old)); diff != "" || len(before.Keys) != 1 || len(before.Processes) != 3 {
		t.Fatalf("before: %+v\ncolumns that hold something (-want +got):\n%s", before, diff)
	}
	stale := filepath.Join(w.Dir, "stale.json")
	if b, err := os.ReadFile(keyset); err != nil || os.WriteFile(stale, b, 0o600) != nil {
		t.Fatal(err)
	}
	copied := w.Row(`SELECT access_ct FROM authorizer_tokens WHERE merchant_id = $1`, merchant)["access_ct"]

	stop := busy(t, w, c, a, b)
	w.Run("keyset", "rotate", "--wait", "20s")
	if out, err := w.Try("keyset", "rotate"); err == nil || !strings.Contains(err.Error(), "gateway keyset retire") {
		t.Errorf("rotated again at once: %v %s", err, out)
	}
	retire := func(because ...string) {
		t.Helper()
		_, err := w.Try("keyset", "retire", strconv.Itoa(int(old)))
		if err == nil {
			t.Fatalf("retired, in spite of %q", because)
		}
		for _, text := range because {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("retiring says %v, want %q", err, text)
			}
		}
	}
	everything := func() error {
		if s := keysetOf(w); len(s.by(old)) > 0 || len(s.Keys) != 2 || s.Keys[0].Role != "old" || s.Keys[1].Role != "seals" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	}
	world.Eventually(t, time.Minute, "everything is sealed anew", everything)
	now := keysetOf(w)
	if diff := cmp.Diff(sealed, now.by(now.Keys[1].ID)); diff != "" {
		t.Errorf("columns that the new key has sealed (-want +got):\n%s", diff)
	}
	// The one that was killed has records in its spool that the old key sealed.
	var left string
	for _, p := range now.Processes {
		if !p.Serving {
			left = p.Instance
		}
	}
	retire(left, "last seen", "cursors")
	if _, err := w.Try("keyset", "forget", now.Processes[0].Instance); err == nil {
		t.Error("a process that serves was forgotten")
	}
	dead = w.Start(map[string]string{"GATEWAY_SPOOL_DIR": filepath.Join(w.Dir, "spool-2")})
	w.Eventually("its spool is sealed anew", func() error {
		for _, p := range keysetOf(w).Processes {
			if p.SealsWith == old || slices.Contains(p.SpoolKeys, old) {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	c.At(dead).Do("GET", "/v1/stores/"+last.Get("id"), nil).Want(200)
	page := c.Do("GET", "/v1/stores?limit=1", nil).Want(200)
	retire("cursors of lists")
	w.Exec(`UPDATE keyset_holders SET seals_since = seals_since - interval '1 day'`)
	kept := w.Run("keyset", "retire", strconv.Itoa(int(old)))
	if name := keyset + ".with-" + strconv.Itoa(int(old)); !strings.Contains(kept, name) {
		t.Errorf("retired, and says %s", kept)
	} else if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the former keyset: %v, %v", fi, err)
	}
	w.Eventually("nobody holds the old key", func() error {
		for _, p := range keysetOf(w).Processes {
			if slices.Contains(p.Keys, old) {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	if n := stop(); n < 20 {
		t.Errorf("only %d requests were answered meanwhile", n)
	}
	c.Do("GET", "/v1/stores?limit=1&cursor="+page.Get("next_cursor"), nil).Want(200)

	// Whatever a table's key is, rows are found one by one as they are all at once.
	db, err := postgres.Open(t.Context(), postgres.Config{DSN: w.DSN})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, table := range postgres.SealedTables {
		of := w.UUID(typeid.Tenant, w.Tenant.ID)
		if table.OfNoTenant() {
			of = uuid.Nil
		}
		keys := func(n, limit int) (keys [][]string) {
			var after []string
			for len(keys) < limit {
				rows, err := db.SealedRows(t.Context(), of, table, []uint32{old}, after, n)
				if err != nil {
					t.Fatalf("%s: %v", table.Name, err)
				}
				if len(rows) == 0 {
					break
				}
				for _, r := range rows {
					keys = append(keys, r.Key)
				}
				after = keys[len(keys)-1]
			}
			return keys
		}
		if one, all := keys(1, 5), keys(5, 5); len(all) == 0 || !cmp.Equal(one, all) {
			t.Errorf("%s: one by one %v, at once %v", table.Name, one, all)
		}
	}
	// Memory proves nothing: a process that begins now opens it all.
	a.Stop()
	a = w.Start(map[string]string{"GATEWAY_SPOOL_DIR": filepath.Join(w.Dir, "spool-0"), "GATEWAY_ADDR": strings.TrimPrefix(w.PublicURL, "http://")})
	c.At(a).Do("GET", "/v1/stores?source=live", nil).Want(200)
	c.At(a).Until("/v1/stores/"+last.Get("id"), "active")
	if damaged := append(a.Logged("the spool holds damaged bytes"), dead.Logged("the spool holds damaged bytes")...); len(damaged) > 0 {
		t.Errorf("spools: %v", damaged)
	}
	if found, _ := doctor(t, w); found["signing key"].Status != "ok" || found["tenant credentials"].Status != "ok" || found["keyset"].Status != "ok" {
		t.Errorf("doctor: %v", found)
	}
	// With the keyset of before nobody begins.
	g := w.Launch(map[string]string{"GATEWAY_KEYSET_FILE": stale})
	g.WaitExit(20 * time.Second)
	if g.ExitCode() != 1 || !strings.Contains(g.Output(), fmt.Sprintf("lacks key %d", now.Keys[1].ID)) {
		t.Errorf("with the keyset of before: %s", g.Tail(3))
	}
	// Nor does a command seal what nobody else could open: one such signing key
	// would end every request.
	other := filepath.Join(w.Dir, "other.json")
	w.With("GATEWAY_KEYSET_FILE", other).Run("keyset", "create")
	for _, file := range []string{stale, other} {
		for _, command := range [][]string{{"key", "rotate-signing"}, {"key", "retire-signing", "sig_nobody"}, {"tenant", "create", "--name", "Sealed otherwise", "--component-appid", "wx5ab0d1c0ffee00b0",
			"--component-secret", "0b7ec7e70f5a4db0c5ec7e70f5a4db0c", "--message-token", "messagetokenOfB", "--encoding-aes-key", "tenantBtenantBtenantBtenantBtenantBtenantB1"}} {
			if out, err := w.With("GATEWAY_KEYSET_FILE", file).Try(command...); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("lacks key %d", now.Keys[1].ID)) {
				t.Errorf("%v with %s: %v %s", command, file, err, out)
			}
		}
	}
	// A row that was copied before is of no use to anybody.
	w.Exec(`UPDATE authorizer_tokens SET access_ct = $2, access_gen = access_gen + 1 WHERE merchant_id = $1`, merchant, copied)
	w.Eventually("the copied token is refused", func() error {
		if answer := c.At(a).Do("GET", "/v1/stores?source=live", nil); answer.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		return nil
	})
	changes := w.Query(`SELECT action FROM change_log WHERE action LIKE 'keyset.%' ORDER BY id`)
	if got := fmt.Sprint(changes); got != "[map[action:keyset.add_key] map[action:keyset.promote_key] map[action:keyset.remove_key]]" {
		t.Errorf("change_log: %s", got)
	}
	printed(t, w.Output.String(), "gateway keyset rotate", "gateway keyset status", "gateway keyset retire")
}

// printed holds what docs/operations.md shows of commands against what they have
// printed: line by line, whatever the numbers, names, times and places are.
func printed(t *testing.T, output string, commands ...string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	masks := []*regexp.Regexp{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`),
		regexp.MustCompile(`/\S+/keyset\.json`), regexp.MustCompile(`\d+`)}
	mask := func(line string) string {
		for _, m := range masks {
			line = m.ReplaceAllString(line, "…")
		}
		return strings.Join(strings.Fields(line), " ")
	}
	said := map[string]bool{}
	for line := range strings.Lines(output) {
		said[mask(line)] = true
	}
	for _, command := range commands {
		blocks := regexp.MustCompile("(?s)\n```text\n\\$ "+command+"[^\n]*\n(.*?)```\n").FindAllSubmatch(page, -1)
		if len(blocks) == 0 {
			t.Errorf("docs/operations.md doesn't show %q", command)
		}
		for _, block := range blocks {
			for line := range strings.Lines(string(block[1])) {
				if !said[mask(line)] {
					t.Errorf("docs/operations.md shows %q of %q, which never printed that", line, command)
				}
			}
		}
	}
}

func serving(s keysetStatus) (n int) {
	for _, p := range s.Processes {
		if p.Serving {
			n++
		}
	}
	return n
}

// busy reads and writes by each gateway until stop, which returns how many
// requests were answered. Each that fails, fails the test.
func busy(t *testing.T, w *world.World, c *world.Client, gateways ...*world.Gateway) (stop func() int) {
	t.Helper()
	var stores []map[string]any
	for n := range 60 {
		stores = append(stores, w.NewStore(100+n))
	}
	end := make(chan struct{})
	var all sync.WaitGroup
	answered := make([]int, len(gateways))
	for i, g := range gateways {
		at := c.At(g)
		do := func(method, path string, body any, want int) *world.Answer {
			answer, err := at.Try(method, path, body)
			if err != nil {
				t.Errorf("%s %s: %v", method, path, err)
				return nil
			}
			if answer.Status != want {
				answer.Fail("while the keyset was rotated")
				return nil
			}
			answered[i]++
			return answer
		}
		mine := stores[i*len(stores)/len(gateways) : (i+1)*len(stores)/len(gateways)]
		all.Go(func() {
			for !t.Failed() {
				select {
				case <-end:
					return
				case <-time.After(150 * time.Millisecond):
				}
				if len(mine) > 0 {
					if made := do("POST", "/v1/stores", mine[0], 202); made != nil {
						do("GET", "/v1/stores/"+made.Get("id"), nil, 200)
					}
					mine = mine[1:]
				}
				do("GET", "/v1/stores?source=live&limit=1", nil, 200)
				if page := do("GET", "/v1/stores?limit=1", nil, 200); page != nil {
					do("GET", "/v1/stores?limit=1&cursor="+page.Get("next_cursor"), nil, 200)
				}
			}
		})
	}
	return func() (n int) {
		close(end)
		all.Wait()
		for _, k := range answered {
			n += k
		}
		return n
	}
}
