package ledger

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// due is an audit to be polled in the bundle's merchant.
func (b *bundle) due(t *testing.T, deadline any) {
	t.Helper()
	b.texts(t, `INSERT INTO audits (tenant_id, id, merchant_id, kind, subject_type, subject_id, status, status_rank, source, next_poll_at, deadline_at)
		VALUES ($1, $2, $3, 'map_poi', 'map_poi', $2, 'in_review', 20, 'response', now(), $4::text::timestamptz) RETURNING ''`,
		b.merchant.TenantID, typeid.New(), b.merchant.ID, deadline)
}

// Audits of one tenant that can't be read keep nobody else's from being polled,
// and those have been when PollDue returns.
func TestPollDueBesideATenantThatCantBeRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.due(t, nil)
	for range 5 {
		b.another(t).due(t, "infinity") // which no time.Time can hold
	}
	var log bytes.Buffer
	d := b.ledgers[0].Deps
	d.Background = observe.NewBackground(slog.New(slog.NewTextHandler(&log, nil)), observe.NewMetrics())
	if err := New(d).PollDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := strings.Count(log.String(), "cannot scan"); told != 5 {
		t.Errorf("of 5 tenants that could not be read %d are told of: %s", told, &log)
	}
	if got := b.texts(t, `SELECT poll_n::text FROM audits`); got != "1" {
		t.Errorf("the other tenant's audit was polled %s times, want once", got)
	}
}

// What a poll tells of an audit that can't be told from another keeps nothing
// from the others that it tells of.
func TestUnmatchedAuditKeepsNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l, op := b.ledgers[0], b.began(t, "here")
	add := func(operation, wechatID any) {
		b.texts(t, `INSERT INTO audits (tenant_id, id, merchant_id, kind, subject_type, subject_id, operation_id, wechat_audit_id, status, status_rank, source, submitted_at, deadline_at)
			VALUES ($1, $2, $3, 'store_program', 'store_program', $2, $4, $5, 'awaiting_admin_confirmation', 10, 'response', now() - interval '2 days', now() - interval '1 day') RETURNING ''`,
			b.merchant.TenantID, typeid.New(), b.merchant.ID, operation, wechatID)
	}
	add(nil, nil) // these two are given up by their deadline, which names neither
	add(nil, nil)
	add(op.ID, "7")
	var audits []dbsqlc.Audit
	batch := b.db.NewBatch(b.merchant.TenantID)
	postgres.QueueMany(batch, `SELECT * FROM audits WHERE tenant_id = $1 ORDER BY wechat_audit_id NULLS FIRST`, struct{ TenantID uuid.UUID }{b.merchant.TenantID}, &audits)
	if err := b.db.Run(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var reply wechat.GetMerchantAuditInfoReply
	reply.Data.AuditID, reply.Data.Status = "7", wechat.MerchantApproved
	if err := l.decideProgram(t.Context(), b.merchant, audits, reply, time.Now()); err != nil {
		t.Errorf("decideProgram = %v", err)
	}
	if got := b.texts(t, `SELECT status FROM audits WHERE wechat_audit_id = '7'`); got != "approved" {
		t.Errorf("the audit that WeChat has decided: %s", got)
	}
}
