package ledger

import (
	"errors"
	"fmt"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// judge turns what came back from one attempt into its Outcome. It is the
// only place that decides what happens to an operation: wechat.Classify says
// what the answer proves, the kind may know better of its own refusals, and
// what proves nothing stays Ambiguous.
func judge(op *Operation, reply wechat.Reply, err error, source string) Outcome {
	out := Outcome{Source: source, Reply: reply}
	if op.Kind.IDs != nil {
		out.IDs = op.Kind.IDs(reply)
	}
	if err != nil {
		out.Class = wechat.Ambiguous
		if _, ok := problem.As(err); ok {
			// No token could be had, or none that WeChat takes. What the
			// problem wraps is the fate of the token's own call.
			out.Class = wechat.NotSent
		} else if we := (*wechat.Error)(nil); errors.As(err, &we) {
			out.Class = we.Class
		}
		out.Err = shown(err)
		return out.of(op)
	}
	class, we := wechat.Classify(op.Kind.Endpoint, reply)
	if we != nil {
		out.Errno, out.RID = we.Code, we.RID
		if op.Kind.Judge != nil {
			class = op.Kind.Judge(op, class, we)
		}
		p := shown(we)
		if class != wechat.Executed {
			out.Err = p
		} else if p.Code == problem.CodeAuditSubmitFailed {
			out.Audit = SubmitFailed
		}
	}
	if need := op.Kind.Gives; class == wechat.Executed && need != "" && out.ID(need) == "" {
		class, out.Audit = wechat.Ambiguous, ""
		out.Err = shown(&wechat.Error{Endpoint: op.Kind.Endpoint.Name, Family: op.Kind.Endpoint.Family, Code: out.Errno, Err: fmt.Errorf("a success without %s", need)})
	}
	out.Class = class
	return out.of(op)
}

// of is what an attempt's outcome is for its operation. Where the attempt before
// may have been executed, this one not being so proves nothing, unless WeChat
// refuses for good what it would have refused before: not what the first one
// itself may have used up or fenced off. And nobody has to know the fate of a
// Harmless one.
func (o Outcome) of(op *Operation) Outcome {
	risk := op.Kind.Endpoint.Risk
	forGood := o.Class == wechat.Refused && risk == wechat.Overwrite && o.Err != nil && !o.Err.Retryable
	if op.unproven && o.Class != wechat.Executed && !forGood {
		o.Class = wechat.Ambiguous
	}
	o.GivenUp = o.Class == wechat.Ambiguous && risk == wechat.Harmless
	return o
}

// shown is the problem that the caller sees of a failed attempt.
func shown(err error) *problem.Error {
	p, ok := problem.As(authorizer.Problem(err))
	if !ok {
		p = problem.Of(problem.CodeInternal).WithErr(err)
	}
	return p
}

// mayRunAgain reports whether the same Idempotency-Key may make one more
// attempt: the one before certainly executed nothing, and another may end
// otherwise. It says more than "retryable", which is what callers are advised.
func mayRunAgain(out Outcome) bool {
	return out.Class == wechat.NotSent || out.Class == wechat.TokenRejected || out.GivenUp || out.Err != nil && out.Err.Retryable
}
