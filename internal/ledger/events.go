package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// An AuditEvent is WeChat's word on an audit.
type AuditEvent struct {
	Kind     string // of the audit: store_create, store_update
	AuditID  string // WeChat's
	Status   AuditStatus
	Reason   string
	PoiID    string // with an approved store_create
	Upgraded *int64 // is_upgrade, as WeChat wrote it
	InboxID  uuid.UUID
	At       time.Time // CreateTime
}

// auditSubjects are the kinds of audits that events move, and what their
// decision changes in the subject's rows.
var auditSubjects = map[string]struct {
	write  *Kind // that starts such an audit
	event  string
	decide func(ctx context.Context, l *Ledger, tx postgres.DBTX, a dbsqlc.Audit, ev AuditEvent) error
	// belongs, where set, asks WeChat whether an event that names its object
	// can be about what op would have made.
	belongs func(ctx context.Context, l *Ledger, op *Operation, ev AuditEvent) (bool, error)
}{
	"store_create": {storeCreate, outbox.StoreAuditDecided, applyStoreCreated, createdBy},
	"store_update": {storeUpdate, outbox.StoreAuditDecided, nil, nil}, // the store is read from WeChat afterwards
}

// ErrUnmatched is returned for an event whose audit nobody here knows yet: it
// came before our reply, or belongs to a submission that wasn't ours.
var ErrUnmatched = errors.New("no audit with this id is known yet")

// ApplyAuditEvent moves the audit that ev tells of and what hangs on it, in
// one transaction. It may be called any number of times, in any order.
// Errors: ErrUnmatched.
func (l *Ledger) ApplyAuditEvent(ctx context.Context, m authorizer.Merchant, ev AuditEvent) (dbsqlc.Audit, error) {
	a, err := l.applyAudit(ctx, m, ev)
	if !errors.Is(err, ErrUnmatched) {
		return a, err
	}
	adopted, aerr := l.adopt(ctx, m, ev)
	if aerr != nil || !adopted {
		return a, errors.Join(err, aerr)
	}
	return l.applyAudit(ctx, m, ev)
}

func (l *Ledger) applyAudit(ctx context.Context, m authorizer.Merchant, ev AuditEvent) (a dbsqlc.Audit, _ error) {
	subject := auditSubjects[ev.Kind]
	err := l.DB.InTenant(ctx, m.TenantID, func(tx postgres.DBTX) error {
		var err error
		a, err = l.q.AuditByWechatID(ctx, tx, dbsqlc.AuditByWechatIDParams{TenantID: m.TenantID, MerchantID: m.ID, Kind: ev.Kind, WechatAuditID: &ev.AuditID})
		if postgres.IsNotFound(err) {
			a, err = l.anonymousAudit(ctx, tx, m, ev)
		}
		if err != nil {
			return err
		}
		for _, id := range []ID{{AuditID, ev.AuditID}, {PoiID, ev.PoiID}} {
			if id.Value == "" {
				continue
			}
			if err := l.q.WechatIDRecord(ctx, tx, dbsqlc.WechatIDRecordParams{TenantID: m.TenantID, MerchantID: m.ID, IDType: id.Type,
				WechatID: id.Value, Source: FromEvent, OperationID: a.OperationID}); err != nil {
				return err
			}
		}
		moved, err := l.q.AuditAdvance(ctx, tx, dbsqlc.AuditAdvanceParams{Status: string(ev.Status), StatusRank: ev.Status.rank(), Reason: optional(ev.Reason),
			Source: FromEvent, WechatAuditID: &ev.AuditID, DecidedAt: &ev.At, TenantID: m.TenantID, ID: a.ID})
		if postgres.IsNotFound(err) {
			return nil // it was as far already
		}
		if err != nil {
			return err
		}
		previous := a.Status
		a = moved
		if err := l.q.AuditHistoryInsert(ctx, tx, dbsqlc.AuditHistoryInsertParams{TenantID: m.TenantID, AuditID: a.ID, Status: a.Status, Source: FromEvent, InboxID: nullable(ev.InboxID)}); err != nil {
			return err
		}
		err = outbox.Add(ctx, tx, m.TenantID, outbox.Event{Type: subject.event, MerchantID: m.ID, PreviousStatus: previous, Object: map[string]any{
			"id": typeid.Format(typeid.Audit, a.ID), "kind": a.Kind, "status": a.Status, "reason": a.Reason, "wechat_audit_id": a.WechatAuditID,
			"subject": map[string]string{"type": a.SubjectType, "id": typeid.Format(typeid.Store, a.SubjectID)},
		}})
		if err != nil || subject.decide == nil {
			return err
		}
		return subject.decide(ctx, l, tx, a, ev)
	})
	return a, err
}

// anonymousAudit is the open audit of the kind whose id WeChat gave in an
// answer that never arrived: that of the very store, where the event names
// one, or the only one that there is.
func (l *Ledger) anonymousAudit(ctx context.Context, tx postgres.DBTX, m authorizer.Merchant, ev AuditEvent) (dbsqlc.Audit, error) {
	if ev.PoiID != "" {
		a, err := l.auditOfPoi(ctx, tx, m, ev)
		if err == nil || !postgres.IsNotFound(err) {
			return a, err
		}
	}
	rows, err := l.q.AuditsWithoutWechatID(ctx, tx, dbsqlc.AuditsWithoutWechatIDParams{TenantID: m.TenantID, MerchantID: m.ID, Kind: ev.Kind})
	if err != nil {
		return dbsqlc.Audit{}, err
	}
	if len(rows) != 1 {
		return dbsqlc.Audit{}, ErrUnmatched
	}
	// The row was made when the outcome became known; what was sent before
	// may have been decided before.
	since := rows[0].SubmittedAt
	if id := rows[0].OperationID; id != nil {
		op, err := l.q.OperationGet(ctx, tx, dbsqlc.OperationGetParams{TenantID: m.TenantID, ID: *id})
		if err != nil {
			return dbsqlc.Audit{}, err
		}
		since = op.CreatedAt
	}
	if ev.At.Before(since.Add(-clockSkew)) {
		return dbsqlc.Audit{}, ErrUnmatched
	}
	if ev.PoiID != "" {
		s, err := l.q.StoreGet(ctx, tx, dbsqlc.StoreGetParams{TenantID: m.TenantID, ID: rows[0].SubjectID})
		if err != nil {
			return dbsqlc.Audit{}, err
		}
		if s.PoiID != nil && *s.PoiID != ev.PoiID {
			return dbsqlc.Audit{}, ErrUnmatched // another store's
		}
	}
	return rows[0], nil
}

// auditOfPoi is the open audit, its id unknown, of the store that ev names.
// Errors: pgx.ErrNoRows.
func (l *Ledger) auditOfPoi(ctx context.Context, tx postgres.DBTX, m authorizer.Merchant, ev AuditEvent) (dbsqlc.Audit, error) {
	s, err := l.q.StoreByPoi(ctx, tx, dbsqlc.StoreByPoiParams{TenantID: m.TenantID, MerchantID: m.ID, PoiID: &ev.PoiID})
	if err != nil || s.AuditID == nil {
		return dbsqlc.Audit{}, errors.Join(err, pgx.ErrNoRows)
	}
	a, err := l.q.AuditGet(ctx, tx, dbsqlc.AuditGetParams{TenantID: m.TenantID, ID: *s.AuditID})
	if err == nil && (a.Kind != ev.Kind || a.WechatAuditID != nil || AuditStatus(a.Status).Final()) {
		err = pgx.ErrNoRows
	}
	return a, err
}

// clockSkew is how far WeChat's clock may be behind ours.
const clockSkew = time.Minute

// adopt gives the event to the one operation of its kind whose outcome is
// unknown: the event proves that it was executed, and brings the id that the
// lost reply held.
func (l *Ledger) adopt(ctx context.Context, m authorizer.Merchant, ev AuditEvent) (bool, error) {
	subject := auditSubjects[ev.Kind]
	var open []dbsqlc.Operation
	b := l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.OperationOpenOf, dbsqlc.OperationOpenOfParams{TenantID: m.TenantID, MerchantID: &m.ID, Kind: subject.write.Name}, &open)
	if err := l.DB.Run(ctx, b); err != nil {
		return false, err
	}
	// One that is executing has its own reply to wait for.
	if len(open) != 1 || open[0].State == "executing" || ev.At.Before(open[0].CreatedAt.Add(-clockSkew)) {
		return false, nil
	}
	op, err := l.load(ctx, m.TenantID, open[0].ID, nil)
	if err != nil {
		return false, err
	}
	op.Merchant = m
	if ev.PoiID != "" && subject.belongs != nil {
		if ours, err := subject.belongs(ctx, l, op, ev); err != nil || !ours {
			return false, err
		}
	}
	ids := []ID{{AuditID, ev.AuditID}}
	if ev.PoiID != "" {
		ids = append(ids, ID{PoiID, ev.PoiID})
	}
	return true, l.settle(ctx, op, Outcome{Class: wechat.Executed, Source: FromEvent, IDs: ids}, nil)
}
