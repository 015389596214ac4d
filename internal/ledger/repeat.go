package ledger

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
)

// keyLife is how long an Idempotency-Key is remembered; operations and ids are
// kept for ever.
const keyLife = 30 * 24 * time.Hour

// repeat answers a request whose Idempotency-Key was seen before (found): with
// the outcome of the operation as it stands now, never by a second execution,
// unless it is certain that the first one did nothing.
func (l *Ledger) repeat(ctx context.Context, w Write) (_ Done, found bool, _ error) {
	id, found, err := l.seen(ctx, w)
	if err != nil || !found {
		return Done{}, found, err
	}
	// A twin that is being executed gets two seconds to finish.
	deadline := time.Now().Add(2 * time.Second)
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		op, err := l.load(ctx, w.Merchant.TenantID, id, w.Read)
		if err != nil {
			return Done{}, true, err
		}
		op.Merchant = w.Merchant
		done := Done{Operation: op, Replayed: true, Committed: true}
		switch op.State {
		case "executing", "pending":
			if time.Now().After(deadline) {
				p := problem.Of(problem.CodeIdempotencyInFlight)
				p.RetryAfter, p.Retryable = time.Second, true
				return Done{}, true, p
			}
			select {
			case <-ctx.Done():
				return Done{}, true, ctx.Err()
			case <-time.After(wait):
			}
		case "failed":
			p := op.Problem()
			if p == nil {
				p = problem.Of(problem.CodeInternal)
			}
			if !op.again() {
				return done, true, p
			}
			done, err := l.again(ctx, op, w)
			return done, true, err
		default:
			return done, true, nil
		}
	}
}

// seen finds the operation that has w's key. Errors: idempotency_key_reused
// when it is for another request.
func (l *Ledger) seen(ctx context.Context, w Write) (id uuid.UUID, found bool, _ error) {
	var keys []dbsqlc.IdempotencyKeyGetRow
	b := l.DB.NewBatch(w.Merchant.TenantID)
	postgres.QueueMany(b, dbsqlc.IdempotencyKeyGet, dbsqlc.IdempotencyKeyGetParams{TenantID: w.Merchant.TenantID, MerchantID: w.Merchant.ID, Key: w.IdempotencyKey}, &keys)
	if err := l.DB.Run(ctx, b); err != nil || len(keys) == 0 {
		return id, false, err
	}
	key := keys[0]
	if time.Since(key.CreatedAt) > keyLife {
		b := l.DB.NewBatch(w.Merchant.TenantID)
		b.Queue(dbsqlc.IdempotencyKeyForget, dbsqlc.IdempotencyKeyForgetParams{TenantID: w.Merchant.TenantID, MerchantID: w.Merchant.ID, Key: w.IdempotencyKey})
		return id, false, l.DB.Run(ctx, b)
	}
	if !bytes.Equal(key.Fingerprint, w.Fingerprint) {
		return id, true, problem.Of(problem.CodeIdempotencyKeyReused)
	}
	return key.OperationID, true, nil
}

// again makes one more attempt under the same operation. Of several that come
// at once one wins; the others wait for it.
func (l *Ledger) again(ctx context.Context, op *Operation, w Write) (Done, error) {
	pass, err := l.admit(ctx, op)
	if err != nil {
		return Done{}, err
	}
	defer pass.Leave()
	err = l.restart(ctx, op, "failed")
	if err == nil {
		op.file = w.File
		return l.attempt(ctx, pass, op, w.Read)
	}
	pass.Leave()
	switch {
	case postgres.IsCode(err, postgres.RefusedState):
		done, _, err := l.repeat(ctx, w)
		return done, err
	case postgres.IsUnique(err, "operations_one_active"):
		return Done{}, problem.Of(problem.CodeOperationInProgress).WithErr(err)
	}
	return Done{}, err
}

// restart is T1 of a further attempt of op, which must be in the state from.
// The end of ctx changes nothing.
func (l *Ledger) restart(ctx context.Context, op *Operation, from string) error {
	b := l.DB.NewBatch(op.TenantID)
	b.Queue(dbsqlc.OperationRestart, dbsqlc.OperationRestartParams{LeaseOwner: new(l.Spool.Instance()), Lease: leaseOf(op.Kind.Endpoint),
		TenantID: op.TenantID, ID: op.ID, Attempt: op.Attempt, States: []string{from}})
	next := *op
	next.Attempt++
	if op.Kind.Reopen != nil {
		op.Kind.Reopen(b, &next)
	}
	counted := quota.Reserve(b, op.TenantID, op.Merchant.ID, op.Kind.Endpoint)
	if err := counted.Told(ctx, l.commitT1(ctx, op, b)); err != nil {
		if postgres.Refused(err) || errors.Is(err, postgres.ErrNotAsked) {
			return err
		}
		return l.neverSent(ctx, &next, err)
	}
	next.State, next.SentAt, next.AbsentSince, next.Error = "executing", new(time.Now()), nil, nil
	*op = next
	return nil
}

// load reads an operation whole, its request opened, and what read queues, in
// one round trip after the id is known.
func (l *Ledger) load(ctx context.Context, tenant, id uuid.UUID, read func(*postgres.Batch, *Operation)) (*Operation, error) {
	var row dbsqlc.Operation
	b := l.DB.NewBatch(tenant)
	postgres.QueueOne(b, dbsqlc.OperationGet, dbsqlc.OperationGetParams{TenantID: tenant, ID: id}, &row)
	if err := l.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	op, err := l.opened(row)
	if err != nil {
		return nil, err
	}
	if read != nil {
		b := l.DB.NewBatch(tenant)
		read(b, op)
		if err := l.DB.Run(ctx, b); err != nil {
			return nil, err
		}
	}
	return op, nil
}

// opened is the operation of a row, with its request. Errors: errUnknownKind.
func (l *Ledger) opened(row dbsqlc.Operation) (*Operation, error) {
	op := &Operation{Operation: row, Kind: kinds[row.Kind]}
	if op.Kind == nil {
		return nil, errUnknownKind
	}
	var err error
	op.Body, err = l.Keyset.Open(requestPlace(op), op.RequestCt)
	return op, err
}
