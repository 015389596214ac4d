package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

const (
	// lookLease is how long one process may take over one look.
	lookLease   = 30 * time.Second
	looksAtOnce = 16
	// maxAttempts and retryFor bound what is sent again after absence was
	// proven: later the caller decides.
	maxAttempts = 3
	retryFor    = time.Hour
)

// ReconcileDue looks at the operations whose outcome is unknown and whose time
// has come, those too whose process died. Any number of processes may run it.
func (l *Ledger) ReconcileDue(ctx context.Context) error {
	return l.DB.Work(ctx, looksAtOnce, nil, func(d postgres.Due) { l.look(ctx, d, nil) }, postgres.DueOperations)
}

// look reconciles one operation; that it can't keeps it from no other. asLeft is
// for take.
func (l *Ledger) look(ctx context.Context, d postgres.Due, asLeft *time.Time) {
	l.Background.Run(ctx, "look at an operation", func(ctx context.Context) error { return l.reconcile(ctx, d, asLeft) },
		slog.String("operation_id", typeid.Format(typeid.Operation, d.ID)))
}

func (l *Ledger) reconcile(ctx context.Context, d postgres.Due, asLeft *time.Time) error {
	op, err := l.take(ctx, d, asLeft)
	if op == nil || err != nil {
		return err
	}
	fault.At("reconcile_taken")
	if op.Kind.Task != nil {
		l.begun(op)
		return nil
	}
	now := time.Now()
	unknown := Outcome{Class: wechat.Ambiguous, Source: FromReconciler, Err: op.Problem()}
	if out := unknown.of(op); out.GivenUp {
		out.Err = shown(&wechat.Error{Endpoint: op.Kind.Endpoint.Name, Family: op.Kind.Endpoint.Family, Err: errForgotten})
		return l.settle(ctx, op, out, nil)
	}
	late := now.After(l.Schedule.deadline(op.Kind, sentAt(op)))
	if op.Kind.Prove == nil {
		if op.Kind.toldByEvent() && !late {
			return l.settle(ctx, op, unknown, nil)
		}
		return l.attention(ctx, op, nil)
	}
	proof, err := op.Kind.Prove(ctx, l, op)
	if err != nil {
		l.Log.Info("look at WeChat failed", "operation_id", typeid.Format(typeid.Operation, op.ID), "err", err)
		if late {
			return l.attention(ctx, op, nil)
		}
		unknown.Unasked = true
		return l.settle(ctx, op, unknown, nil)
	}
	switch proof.Verdict {
	case Present:
		if proof.IDs, err = l.withTold(ctx, op, proof.IDs); err != nil {
			return err
		}
		return l.settle(ctx, op, Outcome{Class: wechat.Executed, Source: FromReconciler, IDs: proof.IDs, Audited: proof.Audited, Audit: proof.Audit}, nil)
	case Inconclusive:
		if len(proof.Candidates) > 1 || late {
			return l.attention(ctx, op, proof.Candidates)
		}
		return l.settle(ctx, op, unknown, nil)
	case Unshown:
		if mayRepeat(op) {
			break
		}
		// Its audit's event may still tell.
		if op.Kind.AuditKind == "" || late {
			return l.attention(ctx, op, nil)
		}
		return l.settle(ctx, op, unknown, nil)
	}
	certain, since := l.Schedule.Absence(sentAt(op), now, op.AbsentSince)
	op.AbsentSince = since
	switch {
	case !certain:
		return l.settle(ctx, op, unknown, nil)
	case proof.Refused != nil:
		out := Outcome{Class: wechat.Refused, Source: FromReconciler, Err: proof.Refused}
		return l.settle(ctx, op, out, nil)
	case mayRepeat(op):
		pass, err := l.admit(ctx, op)
		if err != nil {
			return l.settle(ctx, op, unknown, nil) // looked at again, and then sent
		}
		defer pass.Leave()
		op.unproven = proof.Verdict == Unshown
		err = l.restart(ctx, op, "reconciling")
		if p, ok := problem.As(err); ok && quota.Exhausted(err) {
			return l.settle(ctx, op, Outcome{Class: wechat.NotSent, Source: FromReconciler, Err: p}.of(op), nil)
		}
		if err != nil {
			return err
		}
		_, err = l.attempt(ctx, pass, op, nil)
		if _, ok := problem.As(err); ok {
			return nil // settled, with a refusal
		}
		return err
	}
	p := problem.Of(problem.CodeWeChatSystemError)
	p.Retryable = true
	return l.settle(ctx, op, Outcome{Class: wechat.NotSent, Source: FromReconciler, Err: p}, nil)
}

// mayRepeat reports whether the reconciler may send op once more: WeChat itself
// keeps a second execution from doing anything, should the proof of absence
// ever be wrong.
func mayRepeat(op *Operation) bool {
	r := op.Kind.Endpoint.Risk
	return op.Attempt < maxAttempts && time.Since(op.CreatedAt) < retryFor && (r == wechat.Overwrite || r == wechat.SelfFencing)
}

// errForgotten is of an attempt whose process died before it could tell.
var errForgotten = errors.New("the process that sent it has ended")

// take leases an operation for one look; nil if somebody else has it. asLeft,
// where not nil, says that a dead process on this spool directory held it, and
// when that wrote to it last: its lease is ours, unless this process has taken
// the operation up since.
func (l *Ledger) take(ctx context.Context, d postgres.Due, asLeft *time.Time) (*Operation, error) {
	var rows []dbsqlc.Operation
	b := l.DB.NewBatch(d.Tenant)
	postgres.QueueMany(b, dbsqlc.OperationTake, dbsqlc.OperationTakeParams{LeaseOwner: new(l.Spool.Instance()), Lease: lookLease,
		TenantID: d.Tenant, ID: d.ID, AsLeft: asLeft}, &rows)
	if err := l.DB.Run(ctx, b); err != nil || len(rows) == 0 {
		return nil, err
	}
	op, err := l.opened(rows[0])
	if err != nil {
		return nil, err
	}
	op.unwatched = true
	if op.MerchantID != nil {
		op.Merchant, err = l.Authorizer.MerchantByID(ctx, d.Tenant, *op.MerchantID)
	}
	return op, err
}

// attention leaves op to a person (Resolve). An event that names the effect
// still settles it.
func (l *Ledger) attention(ctx context.Context, op *Operation, candidates []Candidate) error {
	js, err := json.Marshal(append([]Candidate{}, candidates...))
	if err != nil {
		return err
	}
	err = l.DB.InTenant(ctx, op.TenantID, func(tx postgres.DBTX) error {
		if _, err := l.q.OperationAttention(ctx, tx, dbsqlc.OperationAttentionParams{Candidates: js, TenantID: op.TenantID, ID: op.ID, Attempt: op.Attempt}); err != nil {
			return err
		}
		return outbox.Add(ctx, tx, op.TenantID, outbox.Event{Type: outbox.OperationNeedsAttention, MerchantID: op.Merchant.ID, Object: map[string]any{
			"id": typeid.Format(typeid.Operation, op.ID), "kind": op.Kind.Name, "status": "needs_attention", "candidates": candidates}})
	})
	if postgres.IsNotFound(err) {
		return nil
	}
	return err
}

// replay applies one answer.
func (l *Ledger) replay(ctx context.Context, r spool.Record) error {
	op, err := l.load(ctx, r.Tenant, r.Operation, nil)
	if postgres.IsNotFound(err) {
		// The database was restored to a time before T1. The inventory finds
		// the object; what it can't find, an audit_id, is kept in the log.
		// WeChat's replies to writes hold no secret.
		l.Log.Error("spooled answer to an operation that the database doesn't know", "operation_id", typeid.Format(typeid.Operation, r.Operation),
			"tenant_id", r.Tenant, "merchant_id", r.Merchant, "reply", string(r.Body))
		return nil
	}
	if err != nil {
		return err
	}
	if op.Merchant, err = l.Authorizer.MerchantByID(ctx, r.Tenant, r.Merchant); err != nil {
		return err
	}
	op.Attempt, op.unwatched, op.unproven = r.Attempt, r.Unwatched, r.Unproven
	out := judge(op, wechat.Reply{Status: r.Status, Body: r.Body}, nil, FromSpool)
	if err := l.settle(ctx, op, out, nil); err != nil {
		l.saveIDs(op, out)
		return err
	}
	fault.At("spool_replayed")
	l.Log.Info("spooled answer applied", "operation_id", typeid.Format(typeid.Operation, op.ID), "state", op.State)
	return l.Spool.Done(r)
}

// Replay applies what an earlier process on this spool directory was told and
// could not commit, and begins to take over what it left open. It must end
// before the gateway says that it is ready. Tokens are the authorizer's to apply;
// what the inbox left there is handed to pushes.
func (l *Ledger) Replay(ctx context.Context, pushes func(spool.Record)) error {
	records, damaged, err := l.Spool.Pending()
	if err != nil {
		return err
	}
	if damaged > 0 {
		l.Log.Error("the spool holds damaged bytes", "places", damaged)
	}
	for _, r := range records {
		apply := l.replay
		switch {
		case r.Push:
			pushes(r)
			continue
		case r.Tokens != nil:
			apply = l.Authorizer.Replay
		}
		err := observe.Caught(func() error { return apply(ctx, r) })
		if postgres.Unavailable(err) {
			return err
		}
		if err != nil {
			// It stays in the spool: one record must not keep all others, and
			// the gateway, waiting for ever.
			l.Log.Error("spooled answer not applied", "operation_id", typeid.Format(typeid.Operation, r.Operation), "err", err)
		}
	}
	left, err := l.left(ctx)
	if err != nil {
		return err
	}
	// Beside what comes: WeChat is asked, which may take its time.
	l.work.Go(func() {
		for d, at := range left {
			if l.ctx.Err() != nil {
				return
			}
			l.look(l.ctx, d, &at)
		}
	})
	return nil
}

// left is what an earlier process on this spool directory was executing or
// looking at, and when it wrote to it last. Call it before this process does
// either: the lease says the directory's name only.
func (l *Ledger) left(ctx context.Context) (map[postgres.Due]time.Time, error) {
	held, err := l.DB.Due(ctx, postgres.OperationsOfOwner, 1000, l.Spool.Instance())
	if err != nil {
		return nil, err
	}
	ids := map[uuid.UUID][]uuid.UUID{}
	for _, d := range held {
		ids[d.Tenant] = append(ids[d.Tenant], d.ID)
	}
	left := map[postgres.Due]time.Time{}
	for tenant, ids := range ids {
		var rows []dbsqlc.OperationsLeftRow
		b := l.DB.NewBatch(tenant)
		postgres.QueueMany(b, dbsqlc.OperationsLeft, dbsqlc.OperationsLeftParams{TenantID: tenant, Ids: ids}, &rows)
		if err := l.DB.Run(ctx, b); err != nil {
			return nil, err
		}
		for _, r := range rows {
			left[postgres.Due{Tenant: tenant, ID: r.ID}] = r.UpdatedAt
		}
	}
	return left, nil
}
