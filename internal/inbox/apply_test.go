package inbox

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/typeid"
)

// A kept push is due at once, is applied by one process at a time, and is tried
// again later and later when that fails. One that comes again is not due again.
func TestPushIsTriedAgain(t *testing.T) {
	t.Parallel()
	db, keyset, _, tenant := opened(t)
	in := New(Deps{DB: db, Keyset: keyset, Log: slog.New(slog.DiscardHandler)})
	ask := func(sql string, args ...any) (out string) {
		t.Helper()
		err := db.InTenant(t.Context(), tenant, func(tx postgres.DBTX) error { return tx.QueryRow(t.Context(), sql, args...).Scan(&out) })
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var first uuid.UUID
	push := func() {
		t.Helper()
		row := dbsqlc.EventInboxInsertParams{TenantID: tenant, ID: typeid.New(), Appid: "wx0000000000000002", FromUser: "od1", CreateTime: 1_800_000_000,
			Event: "add_store_audit_info", PayloadSha256: make([]byte, 32), PayloadCt: []byte("nothing that could be opened")}
		if first == uuid.Nil {
			first = row.ID
		}
		b := db.NewBatch(tenant)
		b.Queue(dbsqlc.EventInboxInsert, row)
		if err := db.Run(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	push()
	const wait = `SELECT attempts || ' tries, ' || CASE WHEN next_at <= now() THEN 'due' ELSE 'in ' || ceil(extract(epoch FROM next_at - now())) END FROM event_inbox`
	if got := ask(wait); got != "0 tries, due" {
		t.Errorf("kept: %s", got)
	}
	d := postgres.Due{Tenant: tenant, ID: first}
	for _, want := range []string{"1 tries, in 1", "2 tries, in 16", "3 tries, in 81"} {
		due, err := db.Due(t.Context(), postgres.DueInbox, 10)
		if err != nil || len(due) != 1 || due[0] != d {
			t.Fatalf("due: %v, %v", due, err)
		}
		if err := in.try(t.Context(), d); err == nil {
			t.Fatal("it was applied")
		}
		if got := ask(wait); got != want {
			t.Errorf("failed: %s, want %s", got, want)
		}
		if err := in.try(t.Context(), d); err != nil || ask(wait) != want {
			t.Errorf("not due, and tried: %v, %s", err, ask(wait))
		}
		ask(`UPDATE event_inbox SET next_at = now() RETURNING ''`)
	}
	if got := retryAfter(25); got != time.Hour {
		t.Errorf("after many tries it waits %s", got)
	}
	ask(`UPDATE event_inbox SET state = 'applied', next_at = NULL RETURNING ''`)
	push()
	if got := ask(`SELECT count(*) || ' ' || count(next_at) FROM event_inbox`); got != "1 0" {
		t.Errorf("repeated: %s", got)
	}
}

// Of each tenant in turn, the oldest first, however many one of them has.
func TestDueInTurns(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	names := map[uuid.UUID]string{}
	for i, of := range []struct {
		tenant string
		pushes int
	}{{"flood", 500}, {"one", 1}, {"two", 2}} {
		id := typeid.New()
		names[id] = of.tenant
		err := db.InTenant(t.Context(), id, func(tx postgres.DBTX) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, $2, $2, $2)`, id, of.tenant); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `INSERT INTO event_inbox (tenant_id, id, appid, from_user, create_time, event, payload_sha256, payload_ct, next_at)
				SELECT $1, gen_random_uuid(), 'wx', 'od', n, 'e', '', '', now() + make_interval(secs => $3 - 1000 + n) FROM generate_series(1, $2) n`, id, of.pushes, i*100)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	due, err := db.Due(t.Context(), postgres.DueInbox, 6)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, d := range due {
		got += names[d.Tenant] + " "
	}
	if got != "flood one two flood two flood " {
		t.Errorf("in turns: %s", got)
	}
}
