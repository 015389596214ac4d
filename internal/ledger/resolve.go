package ledger

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// A Resolution is a person's answer to what became of an operation that needs
// attention: neither WeChat's answer nor later reads could tell.
type Resolution struct {
	Executed  bool
	WechatIDs map[string]string // by type; what WeChat's own pages show
	Note      string
}

// Resolve settles an operation as a person says: one that needs attention, or
// one of which only an event would tell. The answer, with its note, is kept in
// the change log. Errors: operation_not_resolvable, validation_failed.
func (l *Ledger) Resolve(ctx context.Context, who tenant.Caller, m authorizer.Merchant, id uuid.UUID, r Resolution) (OperationRecord, error) {
	op, err := l.load(ctx, m.TenantID, id, nil)
	if err != nil {
		return OperationRecord{}, err
	}
	op.Merchant, op.unwatched = m, true
	if waits := op.State == "reconciling" && op.Kind.toldByEvent(); op.State != "needs_attention" && !waits {
		return OperationRecord{}, problem.Of(problem.CodeOperationNotResolvable)
	}
	p := problem.Of(problem.CodeWeChatSystemError)
	p.Detail, p.Retryable = resolvedAsNotExecuted, false
	out := Outcome{Class: wechat.Refused, Source: FromPerson, Err: p}
	if r.Executed {
		ids, err := l.toldIDs(op, r.WechatIDs)
		if err != nil {
			return OperationRecord{}, err
		}
		out = Outcome{Class: wechat.Executed, Source: FromPerson, IDs: ids}
	} else if len(r.WechatIDs) > 0 {
		return OperationRecord{}, problem.Of(problem.CodeValidationFailed).WithFields(
			problem.Field{Pointer: "/wechat_ids", Code: "not_allowed", Detail: "what was not executed has no ids"})
	}
	line, err := tenant.ChangeLine(who, &m.TenantID, "operation.resolve", typeid.Format(typeid.Operation, id),
		map[string]any{"status": op.State}, map[string]any{"status": state(out), "wechat_ids": r.WechatIDs, "note": r.Note})
	if err != nil {
		return OperationRecord{}, err
	}
	out.Change = &line
	seen := op.UpdatedAt
	if err := l.settle(ctx, op, out, nil); err != nil {
		return OperationRecord{}, err
	}
	if !op.UpdatedAt.Equal(seen) { // settle had to read it again: somebody else had settled it
		return OperationRecord{}, problem.Of(problem.CodeOperationNotResolvable)
	}
	return l.Operation(ctx, m.TenantID, id)
}

const resolvedAsNotExecuted = "A person found that WeChat did not carry this out. Send it again under a new Idempotency-Key."

// toldIDs checks the ids that a person gave for an operation. A creation needs
// the number by which WeChat manages what it made, unless its audit tells it.
func (l *Ledger) toldIDs(op *Operation, given map[string]string) ([]ID, error) {
	var allowed []string
	var required string
	if op.Kind.AuditKind != "" {
		allowed = append(allowed, AuditID)
	}
	for _, c := range l.collections {
		if c.Name == op.Kind.Subject && c.Creation == op.Kind.Name {
			allowed = append(allowed, c.Number)
			if !c.NumberByAudit {
				required = c.Number
			}
		}
	}
	var fields []problem.Field
	var ids []ID
	for typ, value := range given {
		switch {
		case !slices.Contains(allowed, typ):
			fields = append(fields, problem.Field{Pointer: "/wechat_ids/" + typ, Code: "not_allowed", Detail: "this operation gives: " + strings.Join(allowed, ", ")})
		case !anID.MatchString(value):
			fields = append(fields, problem.Field{Pointer: "/wechat_ids/" + typ, Code: "pattern", Detail: "must be 1 to 20 digits, the first not 0"})
		default:
			ids = append(ids, ID{typ, value})
		}
	}
	if required != "" && given[required] == "" {
		fields = append(fields, problem.Field{Pointer: "/wechat_ids/" + required, Code: "required", Detail: "without it the object can't be managed"})
	}
	if len(fields) > 0 {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(fields...)
	}
	return ids, nil
}
