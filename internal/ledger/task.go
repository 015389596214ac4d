package ledger

import (
	"context"
	"encoding/json"
	"time"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// taskLease is how long after its last word a long operation counts as dead.
const taskLease = 30 * time.Second

// merchantsSync is POST /v1/merchants/sync: the tenant's merchants are compared
// with api_get_authorizer_list (platform.md §5.4).
var merchantsSync = register(&Kind{
	Name: "merchants.sync", Subject: "tenant",
	Task: func(ctx context.Context, l *Ledger, op *Operation, progress func(done, total int)) error {
		return l.Authorizer.Sync(ctx, op.TenantID, progress)
	},
})

// SyncMerchants begins the comparison and returns its operation, which tells
// how far it is. Errors: operation_in_progress, idempotency_key_reused.
func (l *Ledger) SyncMerchants(ctx context.Context, who tenant.Caller, key string, fingerprint []byte) (OperationRecord, bool, error) {
	op := &Operation{Kind: merchantsSync, Body: []byte("{}")}
	op.TenantID, op.ID, op.Attempt, op.Operation.Kind, op.RequestedBy, op.State = who.TenantID, typeid.New(), 1, merchantsSync.Name, who.Actor, "executing"
	var err error
	if op.RequestCt, err = l.Keyset.Seal(requestPlace(op), op.Body); err != nil {
		return OperationRecord{}, false, err
	}
	b := l.DB.NewBatch(op.TenantID)
	if key != "" {
		// No merchant acts: the tenant's own id stands for it.
		b.Queue(dbsqlc.IdempotencyKeyClaim, dbsqlc.IdempotencyKeyClaimParams{TenantID: op.TenantID, MerchantID: op.TenantID, Key: key,
			Fingerprint: fingerprint, OperationID: op.ID})
	}
	b.Queue(dbsqlc.OperationInsert, dbsqlc.OperationInsertParams{TenantID: op.TenantID, ID: op.ID, Kind: op.Operation.Kind, RequestedBy: op.RequestedBy,
		IdempotencyKey: optional(key), RequestCt: op.RequestCt, MatchKey: json.RawMessage(`{"natural":""}`),
		LeaseOwner: new(l.Spool.Instance()), Lease: taskLease})
	postgres.QueueOne(b, dbsqlc.OperationGet, dbsqlc.OperationGetParams{TenantID: op.TenantID, ID: op.ID}, &op.Operation)
	err = l.DB.Run(ctx, b)
	switch {
	case postgres.IsCode(err, postgres.RefusedKeyTaken):
		return l.seenTask(ctx, who, key, fingerprint)
	case postgres.IsUnique(err, "operations_one_active"):
		return OperationRecord{}, false, problem.Of(problem.CodeOperationInProgress).WithErr(err)
	case err != nil:
		return OperationRecord{}, false, err
	}
	l.begun(op)
	r, err := l.Operation(ctx, op.TenantID, op.ID)
	return r, false, err
}

func (l *Ledger) seenTask(ctx context.Context, who tenant.Caller, key string, fingerprint []byte) (OperationRecord, bool, error) {
	var w Write
	w.Merchant.TenantID, w.Merchant.ID, w.IdempotencyKey, w.Fingerprint = who.TenantID, who.TenantID, key, fingerprint
	id, found, err := l.seen(ctx, w)
	if err != nil {
		return OperationRecord{}, false, err
	}
	if !found {
		return l.SyncMerchants(ctx, who, key, fingerprint) // the key has just been forgotten for its age
	}
	r, err := l.Operation(ctx, who.TenantID, id)
	return r, true, err
}

// begun lets a task run beside whoever began it.
func (l *Ledger) begun(op *Operation) {
	l.beside(op.Kind.Name, op.attr(), func(context.Context) error { return l.run(op) })
}

// run does a task to its end, telling how far it is once a second.
func (l *Ledger) run(op *Operation) error {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	var told time.Time
	progress := func(done, total int) {
		n := int64(total)
		js, err := json.Marshal(map[string]Progress{"progress": {Done: int64(done), Total: &n}})
		if err != nil {
			return
		}
		op.Result = js
		if time.Since(told) < time.Second {
			return
		}
		told = time.Now()
		b := l.DB.NewBatch(op.TenantID)
		b.Queue(dbsqlc.OperationProgress, dbsqlc.OperationProgressParams{Result: js, Lease: taskLease, TenantID: op.TenantID, ID: op.ID, LeaseOwner: new(l.Spool.Instance())})
		if err := l.DB.Run(ctx, b); err != nil {
			l.Log.Warn("progress of a task", "err", err)
		}
	}
	err := op.Kind.Task(ctx, l, op, progress)
	if l.ctx.Err() != nil {
		return l.ctx.Err() // the next process does it again
	}
	out := Outcome{Class: wechat.Executed, Source: FromResponse}
	if err != nil {
		out.Class, out.Err = wechat.Refused, shown(err)
	}
	return l.settle(context.WithoutCancel(ctx), op, out, nil)
}
