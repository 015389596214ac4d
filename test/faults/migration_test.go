package faults

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// A gateway is killed again and again in the middle of a migration, at another
// step each time. The next one on its spool directory goes on by itself, and in
// the end WeChat has taken each store once, and deleted the one that it had
// consent for once.
func TestMigrationSurvivesKills(t *testing.T) {
	t.Parallel()
	const stores, barred = 8, "460000999001"
	p := newPlace(t)
	var seeded struct {
		IDs []string `json:"poi_ids"`
	}
	p.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/legacy-stores",
		map[string]any{"count": stores, "stores": []any{map[string]any{"poi_id": barred, "upgrade_status": 4}}}, &seeded)
	var items []any
	for _, poi := range seeded.IDs {
		items = append(items, map[string]any{"legacy_poi_id": poi, "credential_number": "c" + poi})
	}
	run := map[string]any{"mode": "run", "items": items, "on_not_allowed": "delete", "concurrency": 2}

	p.restart("migration_claimed:kill")
	p.c.Do("POST", "/v1/store-migrations", run, "Idempotency-Key", "move").Want(202)
	p.g.WaitExit(20 * time.Second)
	for _, failpoint := range []string{"after_t1:kill", "after_upstream:kill", "after_spool:kill", "before_t2:kill:2", "migration_sent:kill:2"} {
		t.Logf("killed %s", failpoint)
		p.Launch(p.environ(failpoint)).WaitExit(time.Minute)
	}
	p.start("")

	id := p.c.Do("POST", "/v1/store-migrations", run, "Idempotency-Key", "move").Want(202).Get("id")
	var end *world.Answer
	world.Eventually(t, 90*time.Second, "the migration is completed", func() error {
		if end = p.c.Do("GET", "/v1/store-migrations/"+id, nil).Want(200); end.Get("status") != "completed" {
			return fmt.Errorf("%s", end.Body)
		}
		return nil
	})
	if end.Get("counts", "migrated") != fmt.Sprint(stores) || end.Get("counts", "deleted") != "1" {
		t.Errorf("completed: %s", end.Body)
	}
	_, all := p.Truth()
	done := map[string]int{}
	for _, e := range all {
		done[e.Kind+" "+e.Key]++
		done[e.Kind+" of "+e.ID]++
	}
	var list struct {
		Data []struct {
			Poi       string `json:"legacy_poi_id"`
			MapPoi    string `json:"map_poi_id"`
			Operation string `json:"operation_id"`
			Attempt   int
			Store     *string `json:"store_id"`
		}
	}
	p.c.Do("GET", "/v1/store-migrations/"+id+"/items?limit=100", nil).Want(200).Into(&list)
	if len(list.Data) != stores+1 {
		t.Fatalf("%d items", len(list.Data))
	}
	calls := map[string]int{}
	for _, r := range append(p.Journal("wxa/add_store"), p.Journal("cgi-bin/poi/delpoi")...) {
		var body struct {
			Poi string `json:"poi_id"`
		}
		if err := json.Unmarshal([]byte(r.Body), &body); err != nil {
			t.Fatal(err)
		}
		calls[body.Poi]++
	}
	query(p.World, `UPDATE audits SET next_poll_at = now() WHERE status_rank < 90 RETURNING id`) // an hour later
	for _, it := range list.Data {
		effect := "add_store " + it.MapPoi
		if it.Poi == barred {
			effect = "delpoi of " + barred
		}
		if done[effect] != 1 || calls[it.Poi] != 1 || it.Attempt != 1 {
			t.Errorf("%s: WeChat did it %d times in %d calls, in %d attempts of ours", effect, done[effect], calls[it.Poi], it.Attempt)
		}
		if op := p.settled(it.Operation); op.Get("status") != "succeeded" {
			t.Errorf("%s: %s", effect, op.Body)
		}
		if it.Poi == barred {
			continue
		}
		// The migration heard of it from WeChat's list; the store's own event may
		// have met no gateway, and then its audit is asked for.
		world.Eventually(t, time.Minute, "the store of "+it.Poi, func() error {
			if st := p.c.Do("GET", "/v1/stores/"+*it.Store, nil).Want(200); st.Get("poi_id") != it.Poi || st.Get("status") != "active" {
				return fmt.Errorf("%s", st.Body)
			}
			return nil
		})
	}
}
