package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// settle is T2: one batch that records the outcome. It is idempotent, so that
// the spool may bring it again. When the operation has been settled otherwise
// meanwhile, WeChat's own word overrules what was inferred before it came; of
// anything else only what must never be lost is added: the ids.
func (l *Ledger) settle(ctx context.Context, op *Operation, out Outcome, read func(*postgres.Batch)) error {
	if out.answered() {
		fault.At("before_t2")
	}
	err := l.finish(ctx, op, out, nil, read)
	if out.answered() {
		fault.At("after_t2")
	}
	if inferred := overruled(out); postgres.IsCode(err, postgres.RefusedState) && inferred != nil {
		err = l.finish(ctx, op, out, inferred, read)
	}
	if !postgres.IsCode(err, postgres.RefusedState) {
		return err
	}
	b := l.DB.NewBatch(op.TenantID)
	l.queueIDs(b, op, out)
	if out.ID(AuditID) != "" {
		l.queueAudit(b, op, out)
	}
	now := op.Operation
	postgres.QueueOne(b, dbsqlc.OperationGet, dbsqlc.OperationGetParams{TenantID: op.TenantID, ID: op.ID}, &now)
	if read != nil {
		read(b)
	}
	if err := l.DB.Run(ctx, b); err != nil {
		return err // op stays as it is: it may be tried again
	}
	op.Operation = now
	return nil
}

// overruled are the states that an outcome may change although they are not
// open, because they were concluded and not told.
func overruled(out Outcome) []string {
	switch {
	case out.Class == wechat.Ambiguous, out.Source == FromReconciler:
		return nil
	case out.Source == FromPerson:
		return []string{"needs_attention"} // what was told meanwhile is known better
	case out.Class == wechat.Executed:
		return []string{"failed", "needs_attention"}
	case out.answered():
		return []string{"succeeded", "needs_attention"}
	}
	return nil
}

// finish records the outcome of an open operation, or of one in a state that
// the outcome overrules.
func (l *Ledger) finish(ctx context.Context, op *Operation, out Outcome, overruled []string, read func(*postgres.Batch)) error {
	next := l.nextCheck(op, out)
	b, err := l.settlement(op, out, next, overruled, read)
	if err != nil {
		return err
	}
	if err := l.DB.RunTogether(ctx, b, op.Merchant.ID); err != nil {
		return err
	}
	op.State, op.NextCheckAt = state(out), next
	return nil
}

// nextCheck is when an operation is looked at after this outcome, as exact as it
// is kept; nil: it is settled.
func (l *Ledger) nextCheck(op *Operation, out Outcome) *time.Time {
	if out.settled() {
		return nil
	}
	var next time.Time
	switch sent, now := sentAt(op), time.Now(); {
	case op.Kind.toldByEvent(): // no look tells anything
		next = l.Schedule.deadline(op.Kind, sent)
	case out.Unasked:
		next = l.Schedule.Again(sent, now, op.AbsentSince)
	default:
		next = l.Schedule.Next(sent, now, op.AbsentSince)
	}
	return new(next.Truncate(time.Microsecond))
}

// state is the state of an operation after this outcome.
func state(out Outcome) string {
	switch {
	case out.Class == wechat.Executed:
		return "succeeded"
	case !out.settled():
		return "reconciling"
	default:
		return "failed"
	}
}

func (l *Ledger) settlement(op *Operation, out Outcome, next *time.Time, overruled []string, read func(*postgres.Batch)) (*postgres.Batch, error) {
	b := l.DB.NewBatch(op.TenantID)
	finish := dbsqlc.OperationFinishParams{State: state(out), TenantID: op.TenantID, ID: op.ID, Attempt: op.Attempt,
		States: []string{"executing", "reconciling"}, AbsentSince: op.AbsentSince, NextCheckAt: next}
	if overruled != nil {
		finish.States = overruled
	}
	if out.settled() {
		finish.AbsentSince = nil
	}
	var err error
	if out.Class == wechat.Executed {
		finish.Result, err = json.Marshal(map[string]any{"wechat_ids": idMap(out.IDs)})
	} else {
		finish.Error, err = encodeProblem(out)
	}
	if err != nil {
		return nil, err
	}
	if op.Kind.Task != nil {
		finish.Result = op.Result // how far it came
	}
	if finish.Answered = out.answered(); finish.Answered {
		finish.Outcome, finish.Rid = new(out.Class.String()), optional(out.RID)
		if out.Errno != 0 {
			finish.Errcode = &out.Errno
		}
		if len(out.Reply.Body) > 0 {
			if finish.ResponseCt, err = l.Keyset.Seal(responsePlace(op), out.Reply.Body); err != nil {
				return nil, err
			}
		}
	}
	b.Queue(dbsqlc.OperationFinish, finish)
	l.queueIDs(b, op, out)
	if op.Kind.Endpoint != nil {
		// What a look finds absent was sent all the same.
		notSent := out.Class == wechat.NotSent && out.Source == FromResponse
		quota.Settle(b, op.TenantID, op.ID, op.Kind.Endpoint, notSent, out.Errno)
	}
	if op.Kind.Settle != nil {
		if err := op.Kind.Settle(b, op, out); err != nil {
			return nil, err
		}
	}
	if out.Class == wechat.Executed {
		l.queueAudit(b, op, out)
	}
	if overruled != nil && out.Class != wechat.Executed && op.AuditID != nil {
		b.Queue(dbsqlc.AuditRetract, dbsqlc.AuditRetractParams{Status: string(SubmitFailed), StatusRank: SubmitFailed.rank(), Source: out.Source,
			TenantID: op.TenantID, ID: *op.AuditID})
	}
	// Whoever got 202 with a reconciling operation hears how it ended, and
	// hears it again when that was wrong.
	if out.settled() && (out.Source != FromResponse || op.unwatched || overruled != nil) {
		err := outbox.Queue(b, op.TenantID, outbox.Event{ID: derived(op.ID, fmt.Sprint("resolved ", op.Attempt, " ", state(out))), Type: outbox.OperationResolved, MerchantID: op.Merchant.ID,
			Object: map[string]any{"id": typeid.Format(typeid.Operation, op.ID), "kind": op.Kind.Name, "status": state(out)}})
		if err != nil {
			return nil, err
		}
	}
	if out.Change != nil {
		b.Queue(dbsqlc.ChangeInsert, *out.Change)
	}
	if read != nil {
		read(b)
	}
	return b, nil
}

// queueIDs writes what WeChat gave into the append-only ledger, before and
// whatever else is made of the outcome.
func (l *Ledger) queueIDs(b *postgres.Batch, op *Operation, out Outcome) {
	for _, id := range out.IDs {
		b.Queue(dbsqlc.WechatIDRecord, dbsqlc.WechatIDRecordParams{TenantID: op.TenantID, MerchantID: op.Merchant.ID,
			IDType: id.Type, WechatID: id.Value, Source: out.Source, OperationID: &op.ID})
	}
}

// queueAudit makes the audit of an executed write, if it has one, and wakes
// the events that came before it.
func (l *Ledger) queueAudit(b *postgres.Batch, op *Operation, out Outcome) {
	wechatID := out.ID(AuditID)
	if op.Kind.AuditKind == "" || op.AuditID == nil || (wechatID == "" && !out.Audited && !op.Kind.Audited && op.Kind.Endpoint.Risk == wechat.Overwrite) {
		return // an overwrite without an audit id is not audited
	}
	source := out.told()
	kind := auditKinds[op.Kind.AuditKind]
	status := cmp.Or(out.Audit, kind.First, InReview)
	p := dbsqlc.AuditInsertParams{TenantID: op.TenantID, ID: *op.AuditID, MerchantID: op.Merchant.ID,
		Kind: op.Kind.AuditKind, SubjectType: op.Kind.Subject, SubjectID: *op.SubjectID, OperationID: &op.ID,
		WechatAuditID: optional(wechatID), Status: string(status), StatusRank: status.rank(), Source: source, Appid: op.Merchant.AppID}
	if kind.Deadline > 0 && status == kind.First {
		p.DeadlineAt = new(sentAt(op).Add(kind.Deadline))
	}
	if wait := l.pollWait(kind, 0); wait > 0 && status.rank() < Expired.rank() {
		p.NextPollAt = new(time.Now().Add(wait))
	}
	b.Queue(dbsqlc.AuditInsert, p)
}

func idMap(ids []ID) map[string]string {
	m := map[string]string{}
	for _, id := range ids {
		m[id.Type] = id.Value
	}
	return m
}

func sentAt(op *Operation) time.Time {
	if op.SentAt != nil {
		return *op.SentAt
	}
	return op.CreatedAt
}

// storedProblem is an operation's error at rest.
type storedProblem struct {
	Kind      problem.Kind           `json:"kind"`
	Code      string                 `json:"code"`
	Detail    string                 `json:"detail,omitempty"`
	Fields    []problem.Field        `json:"fields,omitempty"`
	Retryable bool                   `json:"retryable"`
	Again     bool                   `json:"again"` // mayRunAgain
	Upstream  *problem.UpstreamError `json:"upstream,omitempty"`
}

func encodeProblem(out Outcome) (json.RawMessage, error) {
	p := out.Err
	if p == nil {
		return nil, nil
	}
	return json.Marshal(storedProblem{p.Kind, p.Code, p.Detail, p.Fields, p.Retryable, mayRunAgain(out), p.Upstream})
}

// again reports whether the failed operation may be attempted once more.
func (op *Operation) again() bool {
	var s storedProblem
	return json.Unmarshal(op.Error, &s) == nil && s.Again
}

// Problem is the operation's error as its caller saw it; nil if it has none.
func (op *Operation) Problem() *problem.Error {
	var s storedProblem
	if len(op.Error) == 0 {
		return nil
	}
	if err := json.Unmarshal(op.Error, &s); err != nil {
		return problem.Of(problem.CodeInternal).WithErr(err)
	}
	return &problem.Error{Kind: s.Kind, Code: s.Code, Detail: s.Detail, Fields: s.Fields, Retryable: s.Retryable,
		Upstream: s.Upstream, OperationID: typeid.Format(typeid.Operation, op.ID)}
}
