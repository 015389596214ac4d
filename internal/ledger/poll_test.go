package ledger

import (
	"testing"
	"time"

	"github.com/google/uuid"

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
		other := *b
		other.merchant.TenantID, other.merchant.ID = typeid.New(), typeid.New()
		other.merchant.AppID = other.merchant.ID.String()
		err := b.db.InTenant(t.Context(), other.merchant.TenantID, func(tx postgres.DBTX) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1, $2, $2, $2)`, other.merchant.TenantID, other.merchant.TenantID.String()); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `INSERT INTO merchants (tenant_id, id, appid, status) VALUES ($1, $2, $3, 'authorized')`,
				other.merchant.TenantID, other.merchant.ID, other.merchant.AppID)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		other.due(t, "infinity") // which no time.Time can hold
	}
	if err := b.ledgers[0].PollDue(t.Context()); err == nil {
		t.Error("what could not be read is not told")
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
