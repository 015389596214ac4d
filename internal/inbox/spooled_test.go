package inbox

import (
	"crypto/sha256"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/typeid"
)

// opened is a database with a tenant, and a keyset and its file.
func opened(t *testing.T) (db *postgres.DB, keyset *secret.Keyset, file string, tenant uuid.UUID) {
	t.Helper()
	db, file, tenant = pgtest.New(t), filepath.Join(t.TempDir(), "keyset.json"), typeid.New()
	if err := secret.CreateKeyset(file); err != nil {
		t.Fatal(err)
	}
	keyset, err := secret.OpenKeyset(file)
	if err != nil {
		t.Fatal(err)
	}
	err = db.InTenant(t.Context(), tenant, func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, 'Inbox', 'inbox', 'wx0000000000000001')`, tenant)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return db, keyset, file, tenant
}

// A push that lay in the spool while the keyset was rotated is opened without
// the key by which it was sealed when it came.
func TestSpooledPushOutlivesItsKey(t *testing.T) {
	t.Parallel()
	db, keyset, file, tenant := opened(t)
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	start := func() *Inbox {
		s, err := spool.Open(dir, keyset)
		must(err)
		return New(Deps{DB: db, Keyset: keyset, Spool: s, Log: slog.New(slog.DiscardHandler)})
	}
	payload := []byte("<xml>what WeChat told</xml>")
	sum := sha256.Sum256(payload)
	row := dbsqlc.EventInboxInsertParams{TenantID: tenant, ID: typeid.New(), Appid: "wx0000000000000002", FromUser: "od1", CreateTime: 1_800_000_000,
		Event: "add_store_audit_info", PayloadSha256: sum[:]}

	in := start()
	in.spool(row, payload)
	old := keyset.SealsWith()
	next, err := secret.AddKey(file, func(uint32) error { return nil })
	must(err)
	must(secret.Promote(file, next))
	_, err = keyset.Reload()
	must(err)
	if left, err := in.Spool.Reseal(); err != nil || len(left) > 0 {
		t.Fatalf("left %v, %v", left, err)
	}
	_, err = secret.RemoveKey(file, old)
	must(err)
	_, err = keyset.Reload()
	must(err)
	must(in.Spool.Close())

	in = start()
	defer in.Spool.Close()
	records, damaged, err := in.Spool.Pending()
	if err != nil || len(records) != 1 || damaged > 0 {
		t.Fatalf("%d records, %d damaged, %v", len(records), damaged, err)
	}
	in.Left(records[0])
	must(in.KeepSpooled(t.Context()))
	var kept dbsqlc.EventInbox
	b := db.NewBatch(tenant)
	postgres.QueueOne(b, dbsqlc.EventInboxByID, dbsqlc.EventInboxByIDParams{TenantID: tenant, Ids: []uuid.UUID{row.ID}}, &kept)
	must(db.Run(t.Context(), b))
	if got, err := keyset.Open(payloadPlace(tenant, row.ID), kept.PayloadCt); err != nil || string(got) != string(payload) {
		t.Errorf("%q, %v", got, err)
	}
}
