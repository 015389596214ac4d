package postgres_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

// Ids come back as they were sent, in each form in which queries have them.
func TestUUIDs(t *testing.T) {
	t.Parallel()
	type ids struct {
		One  uuid.UUID
		None *uuid.UUID
		Some *uuid.UUID
		List []uuid.UUID
		Text string
	}
	type params struct {
		One        uuid.UUID
		None, Some *uuid.UUID
		List       []uuid.UUID
	}
	db := pgtest.New(t)
	a, b := uuid.New(), uuid.New()
	var got ids
	batch := db.NewBatch(uuid.Nil)
	postgres.QueueOne(batch, `SELECT $1::uuid, $2::uuid, $3::uuid, $4::uuid[], $1::uuid::text`, params{a, nil, &b, []uuid.UUID{a, b}}, &got)
	if err := db.Run(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ids{a, nil, &b, []uuid.UUID{a, b}, a.String()}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	batch = db.NewBatch(uuid.Nil)
	var one uuid.UUID
	batch.QueueRows(`SELECT $1::uuid`, struct{ None *uuid.UUID }{}, func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&one}, func() error { return nil })
		return err
	})
	if err := db.Run(t.Context(), batch); err == nil {
		t.Errorf("NULL became %s", one)
	}
}

func BenchmarkUUIDs(b *testing.B) {
	db := pgtest.New(b)
	tenant, other := uuid.New(), uuid.New()
	type params struct{ A, B, C, D, E, F, G, H uuid.UUID }
	b.ReportAllocs()
	for b.Loop() {
		var got params
		batch := db.NewBatch(tenant)
		postgres.QueueOne(batch, `SELECT $1::uuid, $2::uuid, $3::uuid, $4::uuid, $5::uuid, $6::uuid, $7::uuid, $8::uuid`,
			params{tenant, other, tenant, other, tenant, other, tenant, other}, &got)
		if err := db.Run(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}
