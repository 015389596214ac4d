package ledger

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
)

// An Audit is one of WeChat's audits and how it came to where it stands.
type Audit struct {
	dbsqlc.Audit
	History []dbsqlc.AuditHistory
}

// An AuditFilter narrows a list of audits; zero fields don't.
type AuditFilter struct {
	Merchants      []uuid.UUID
	Kind, Status   string
	Subject        *uuid.UUID
	WechatAuditID  string
	SubmittedAfter *time.Time
	Before         *uuid.UUID
	Limit          int
}

// Audit reads one. Errors: not_found.
func (l *Ledger) Audit(ctx context.Context, tenant, id uuid.UUID) (Audit, error) {
	var rows []dbsqlc.Audit
	var a Audit
	b := l.DB.NewSnapshot(tenant)
	postgres.QueueMany(b, dbsqlc.AuditGet, dbsqlc.AuditGetParams{TenantID: tenant, ID: id}, &rows)
	postgres.QueueMany(b, dbsqlc.AuditHistoryOf, dbsqlc.AuditHistoryOfParams{TenantID: tenant, AuditIds: []uuid.UUID{id}}, &a.History)
	if err := l.DB.Run(ctx, b); err != nil {
		return a, err
	}
	if len(rows) == 0 {
		return a, problem.Of(problem.CodeNotFound)
	}
	a.Audit = rows[0]
	return a, nil
}

// Audits lists audits, newest first.
func (l *Ledger) Audits(ctx context.Context, tenant uuid.UUID, f AuditFilter) ([]Audit, error) {
	var out []Audit
	err := l.DB.InSnapshot(ctx, tenant, func(tx postgres.DBTX) error {
		rows, err := l.q.AuditList(ctx, tx, dbsqlc.AuditListParams{TenantID: tenant, MerchantIds: f.Merchants, Kind: optional(f.Kind), Status: optional(f.Status),
			SubjectID: f.Subject, WechatAuditID: optional(f.WechatAuditID), SubmittedAfter: f.SubmittedAfter, Before: f.Before, N: int32(f.Limit)})
		if err != nil || len(rows) == 0 {
			return err
		}
		at := map[uuid.UUID]int{}
		ids := make([]uuid.UUID, len(rows))
		for i, row := range rows {
			at[row.ID], ids[i] = i, row.ID
			out = append(out, Audit{Audit: row})
		}
		steps, err := l.q.AuditHistoryOf(ctx, tx, dbsqlc.AuditHistoryOfParams{TenantID: tenant, AuditIds: ids})
		for _, h := range steps {
			a := &out[at[h.AuditID]]
			a.History = append(a.History, h)
		}
		return err
	})
	return out, err
}

// An OperationRecord is an operation with its attempts, to be shown.
type OperationRecord struct {
	dbsqlc.Operation
	Attempts []dbsqlc.OperationAttempt
	// Deadline is when it is left to a person, unless its outcome is known by
	// then; nil where nobody waits for that.
	Deadline *time.Time
}

// record is a row with what follows from it.
func (l *Ledger) record(row dbsqlc.Operation) OperationRecord {
	r := OperationRecord{Operation: row}
	if k := kinds[row.Kind]; row.State == "reconciling" && k != nil && k.Task == nil {
		r.Deadline = new(l.Schedule.deadline(k, sentAt(&Operation{Operation: row})))
	}
	return r
}

// Problem is the operation's error as its caller saw it; nil if it has none.
func (r OperationRecord) Problem() *problem.Error {
	return (&Operation{Operation: r.Operation}).Problem()
}

// Progress tells how far a long operation is; nil for one that isn't long.
func (r OperationRecord) Progress() *Progress {
	if k := kinds[r.Kind]; k == nil || k.Task == nil {
		return nil
	}
	var result struct {
		Progress *Progress `json:"progress"`
	}
	if json.Unmarshal(r.Result, &result) != nil || result.Progress == nil {
		return &Progress{} // it has just begun
	}
	return result.Progress
}

// Progress counts the parts of a long operation.
type Progress struct {
	Done  int64  `json:"done"`
	Total *int64 `json:"total"`
}

// An OperationFilter narrows a list of operations; zero fields don't.
type OperationFilter struct {
	Merchants    []uuid.UUID
	State, Kind  string
	UpdatedAfter *time.Time
	Before       *uuid.UUID
	Limit        int
}

// Operation reads one. Errors: not_found.
func (l *Ledger) Operation(ctx context.Context, tenant, id uuid.UUID) (OperationRecord, error) {
	var rows []dbsqlc.Operation
	var attempts []dbsqlc.OperationAttempt
	b := l.DB.NewSnapshot(tenant)
	postgres.QueueMany(b, dbsqlc.OperationGet, dbsqlc.OperationGetParams{TenantID: tenant, ID: id}, &rows)
	postgres.QueueMany(b, dbsqlc.OperationAttempts, dbsqlc.OperationAttemptsParams{TenantID: tenant, OperationIds: []uuid.UUID{id}}, &attempts)
	if err := l.DB.Run(ctx, b); err != nil {
		return OperationRecord{}, err
	}
	if len(rows) == 0 {
		return OperationRecord{}, problem.Of(problem.CodeNotFound)
	}
	r := l.record(rows[0])
	r.Attempts = attempts
	return r, nil
}

// Operations lists operations, newest first.
func (l *Ledger) Operations(ctx context.Context, tenant uuid.UUID, f OperationFilter) ([]OperationRecord, error) {
	var out []OperationRecord
	err := l.DB.InSnapshot(ctx, tenant, func(tx postgres.DBTX) error {
		rows, err := l.q.OperationList(ctx, tx, dbsqlc.OperationListParams{TenantID: tenant, MerchantIds: f.Merchants, State: optional(f.State), Kind: optional(f.Kind),
			UpdatedAfter: f.UpdatedAfter, Before: f.Before, N: int32(f.Limit)})
		if err != nil || len(rows) == 0 {
			return err
		}
		at := map[uuid.UUID]int{}
		ids := make([]uuid.UUID, len(rows))
		for i, row := range rows {
			at[row.ID], ids[i] = i, row.ID
			out = append(out, l.record(row))
		}
		attempts, err := l.q.OperationAttempts(ctx, tx, dbsqlc.OperationAttemptsParams{TenantID: tenant, OperationIds: ids})
		for _, a := range attempts {
			r := &out[at[a.OperationID]]
			r.Attempts = append(r.Attempts, a)
		}
		return err
	})
	return out, err
}

// AllOperations lists operations over all tenants, newest first, for people
// who run the installation; only narrows it to one tenant unless it is zero.
func (l *Ledger) AllOperations(ctx context.Context, only uuid.UUID, f OperationFilter) ([]OperationRecord, error) {
	due, err := l.DB.Due(ctx, postgres.AdminOperations, f.Limit, optional(f.State), optional(f.Kind), nullable(only), f.Before)
	if err != nil {
		return nil, err
	}
	out := make([]OperationRecord, 0, len(due))
	for _, d := range due {
		r, err := l.Operation(ctx, d.Tenant, d.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
