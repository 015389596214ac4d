package faults

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// keysetStatus is what `gateway keyset status -o json` says.
type keysetStatus struct {
	Keys []struct {
		ID     uint32
		Role   string
		Values int
	}
	Processes []holder
}

type holder struct {
	SealsWith uint32   `json:"seals_with"`
	SpoolKeys []uint32 `json:"spool_keys"`
}

// A rotation goes on where it was, whoever is killed in it and when: the command
// between its steps, and a process while it seals its spool and the database
// anew. What lay in the spool alone is not lost.
func TestKilledInARotation(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.Hold(true)
	p.restart("after_spool:kill")
	store := p.newStore()
	p.dying("POST", "/v1/stores", store, "spooled")
	audits := issued(p.World, "audit_id", fmt.Sprint(store["map_poi_id"]))
	if len(audits) != 1 {
		t.Fatalf("WeChat gave the spooled store the audits %v", audits)
	}
	known := func() int {
		return len(query(p.World, `SELECT source FROM wechat_id_ledger WHERE id_type = 'audit_id' AND source = 'spool' AND wechat_id = $1`, audits[0]))
	}
	if known() != 0 {
		t.Fatal("the audit is not in the spool alone")
	}

	status := func() (s keysetStatus) {
		t.Helper()
		p.JSON(&s, "keyset", "status", "-o", "json")
		return s
	}
	roles := func(want ...string) {
		t.Helper()
		var got []string
		for _, k := range status().Keys {
			got = append(got, k.Role)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("the keys are %v, want %v", got, want)
		}
	}
	p.Exec(`UPDATE keyset_holders SET seen_at = seen_at - interval '1 minute'`) // or the command waits for the dead one
	roles("seals")
	old := status().Keys[0].ID
	for _, step := range []struct {
		point string
		then  []string
	}{{"key_added", []string{"seals", "next"}}, {"key_promoted", []string{"old", "seals"}}} {
		if out, err := p.With("GATEWAY_FAILPOINT", step.point+":kill").Try("keyset", "rotate"); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("the command outlived %s: %v %s", step.point, err, out)
		}
		roles(step.then...)
	}
	if _, err := p.Try("keyset", "rotate"); err == nil || !strings.Contains(err.Error(), "gateway keyset retire "+strconv.Itoa(int(old))) {
		t.Errorf("rotated again: %v", err)
	}

	die := func(failpoint string) {
		t.Helper()
		p.g = p.Launch(p.environ(failpoint))
		p.g.WaitExit(30 * time.Second)
		if damaged := p.g.Logged("the spool holds damaged bytes"); len(damaged) > 0 {
			t.Errorf("after %s: %v", failpoint, damaged)
		}
	}
	die("spool_resealed:power")
	if known() != 1 {
		t.Error("the spooled audit was not replayed before its process died")
	}
	die("rows_resealed:kill:2")
	if s := status(); s.Keys[0].Values == 0 || s.Keys[1].Values == 0 {
		t.Errorf("it was not killed in the middle: %+v", s)
	}
	p.start("")
	p.Hold(false)
	world.Eventually(t, time.Minute, "everything is sealed anew", func() error {
		s := status()
		if s.Keys[0].Values > 0 || slices.ContainsFunc(s.Processes, func(h holder) bool { return h.SealsWith == old || slices.Contains(h.SpoolKeys, old) }) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	p.Exec(`UPDATE keyset_holders SET seals_since = seals_since - interval '1 day'`) // cursors
	p.Run("keyset", "retire", strconv.Itoa(int(old)))

	// Nothing but the new key is there, and nothing is missing.
	p.restart("")
	roles("seals")
	if damaged := p.g.Logged("the spool holds damaged bytes"); len(damaged) > 0 || known() != 1 {
		t.Errorf("afterwards: %v, %d", damaged, known())
	}
	p.c.Do("POST", "/v1/stores", store, "Idempotency-Key", "spooled").Want(http.StatusAccepted)
	if n := effects(p.World, p.creation().effect, fmt.Sprint(store["map_poi_id"])); n != 1 {
		t.Errorf("the spooled store was made %d times", n)
	}
}
