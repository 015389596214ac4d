package inbox

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/typeid"
)

// A listener works the jobs of pushes and says which ones came.
type listener struct {
	river.WorkerDefaults[ApplyArgs]
	worked chan river.Job[ApplyArgs]
	fail   func(attempt int) error
}

func (l *listener) Work(_ context.Context, job *river.Job[ApplyArgs]) error {
	l.worked <- *job
	return l.fail(job.Attempt)
}

func (l *listener) NextRetry(*river.Job[ApplyArgs]) time.Time { return time.Now() }

// The statement that keeps a push writes its job as a raw row, as River's
// clients for other languages do. A change of River's schema must fail here:
// River works the row, tries again what failed, and a repeated push makes no
// second job.
func TestRiverWorksTheRowOfAPush(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tenant := typeid.New()
	err := db.InTenant(t.Context(), tenant, func(tx postgres.DBTX) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, 'Raw', 'raw', 'wx0000000000000001')`, tenant)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	push := func() uuid.UUID {
		t.Helper()
		row := dbsqlc.EventInboxInsertParams{TenantID: tenant, ID: typeid.New(), Appid: "wx0000000000000002", FromUser: "od1", CreateTime: 1_800_000_000,
			Event: "add_store_audit_info", PayloadSha256: make([]byte, 32), PayloadCt: []byte("sealed")}
		b := db.NewBatch(tenant)
		b.Queue(dbsqlc.EventInboxInsert, row)
		if err := db.Run(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		return row.ID
	}
	first := push()
	for range 3 {
		push()
	}

	l := &listener{worked: make(chan river.Job[ApplyArgs], 8), fail: func(attempt int) error {
		if attempt == 1 {
			return errors.New("not this time")
		}
		return nil
	}}
	workers := river.NewWorkers()
	river.AddWorker(workers, l)
	client, err := db.NewRiver(&river.Config{
		Queues: map[string]river.QueueConfig{Queue: {MaxWorkers: 2}}, Workers: workers, Logger: slog.New(slog.DiscardHandler),
		FetchCooldown: 20 * time.Millisecond, FetchPollInterval: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	done, unsubscribe := client.Subscribe(river.EventKindJobCompleted)
	defer unsubscribe()
	if err := client.Start(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	for attempt := 1; attempt <= 2; attempt++ {
		select {
		case job := <-l.worked:
			if job.Args.TenantID != tenant || job.Args.InboxID != first || job.Attempt != attempt || job.Queue != Queue || job.Kind != (ApplyArgs{}).Kind() {
				t.Errorf("attempt %d works %+v %+v", attempt, job.Args, job.JobRow)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("attempt %d never came", attempt)
		}
	}
	select {
	case e := <-done:
		if e.Job.Attempt != 2 || len(e.Job.Errors) != 1 {
			t.Errorf("completed as %+v", e.Job)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the job was never completed")
	}
	var jobs int
	err = db.InSystem(t.Context(), func(tx postgres.DBTX) error {
		return tx.QueryRow(t.Context(), `SELECT count(*) FROM river_job`).Scan(&jobs)
	})
	if err != nil || jobs != 1 {
		t.Errorf("%d jobs for a push that came four times, %v", jobs, err)
	}
}
