package ledger

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// Audits of goods have no event (platform.md §7.3): they are polled.
var _ = registerAudit("goods", auditKind{
	Writes: []*Kind{goodsCreate, goodsAudit}, Type: &goodsType, Event: outbox.GoodsAuditDecided,
	Poll: pollGoods, Waits: []time.Duration{2 * time.Minute, 5 * time.Minute, 15 * time.Minute}, Usual: 7 * 24 * time.Hour,
	Decide: func(n News) *decision {
		upstream, ok := map[AuditStatus]int32{Approved: wechat.GoodsApproved, Rejected: wechat.GoodsRejected, Withdrawn: wechat.GoodsUnreviewed}[n.Status]
		if !ok {
			return nil
		}
		return &decision{Status: GoodsStatusOf(int(upstream)), Upstream: &upstream, States: []string{"submitting", "outcome_unknown", "in_review"}}
	},
})

// pollGoods finds what WeChat has decided with as few calls as there can be: a
// hundred items a page that are still in review, and only those that are gone
// from there are read, twenty a call.
func pollGoods(ctx context.Context, l *Ledger, m authorizer.Merchant, audits []dbsqlc.Audit) error {
	reviewed := map[string]bool{}
	if err := l.eachGoods(ctx, m, wechat.GoodsInAudit, func(w wechat.Goods) { reviewed[string(w.GoodsID)] = true }); err != nil {
		return err
	}
	goods, err := l.Goods.ofAudits(ctx, m, audits)
	if err != nil {
		return err
	}
	audits = slices.DeleteFunc(slices.Clone(audits), func(a dbsqlc.Audit) bool { return reviewed[deref(goods[a.ID].WechatID)] })
	for some := range slices.Chunk(audits, wechat.MaxGoodsStatus) {
		if err := l.decideGoods(ctx, m, some, goods); err != nil {
			return err
		}
	}
	return nil
}

// decideGoods asks WeChat for the goods of these audits, MaxGoodsStatus at most,
// and applies what it says of them. ours are our records, by the audit's id.
func (l *Ledger) decideGoods(ctx context.Context, m authorizer.Merchant, audits []dbsqlc.Audit, ours map[uuid.UUID]Goods) error {
	var ask []string
	for _, a := range audits {
		if n := deref(ours[a.ID].WechatID); n != "" && !slices.Contains(ask, n) {
			ask = append(ask, n)
		}
	}
	slices.Sort(ask)
	asked := time.Now()
	goods, err := l.askGoods(ctx, m, ask)
	if err != nil {
		return err
	}
	status := map[string]AuditStatus{}
	shown := make([]Shown, len(goods))
	for i, w := range goods {
		shown[i] = shownGoods(w)
		status[shown[i].Number] = map[int]AuditStatus{wechat.GoodsUnreviewed: Withdrawn, wechat.GoodsInAudit: InReview,
			wechat.GoodsApproved: Approved, wechat.GoodsRejected: Rejected}[shown[i].Upstream]
	}
	if _, err := l.Goods.project(ctx, m, shown, asked); err != nil {
		return err
	}
	for _, a := range audits {
		number := deref(ours[a.ID].WechatID)
		news, found := status[number]
		switch {
		case number == "" || a.SubmittedAt.After(asked):
			continue
		case !found:
			news = Expired // deleted elsewhere: nothing will be said of it any more
		case news == InReview || news == "":
			continue
		}
		n := News{Kind: a.Kind, AuditID: deref(a.WechatAuditID), Number: number, Status: news, Source: FromPoll, At: asked}
		if err := l.applyPolled(ctx, m, n); err != nil {
			return err
		}
	}
	return nil
}

// goodsAudit is POST /v1/goods/{id}/audits: goods/audit (document 004 §3).
// WeChat refuses it for an item in review (300010), so an attempt may be
// repeated once absence is proven.
var goodsAudit = register(&Kind{
	Name: "goods.audit", Subject: "goods", Endpoint: wechat.AuditGoods, AuditKind: "goods",
	IDs:   idsNamed(goodsIDs),
	Judge: afterOneOfOurs(300010),
	Settle: func(b *postgres.Batch, op *Operation, out Outcome) error {
		if out.Class == wechat.Executed {
			b.Queue(dbsqlc.ResourceChanged, dbsqlc.ResourceChangedParams{TenantID: op.TenantID, ID: *op.SubjectID, Status: new("in_review"), AuditID: op.AuditID})
		}
		return nil
	},
	Prove: proveGoodsAudit,
})

// AuditGoods submits an item once more, after its audit was withdrawn, ended
// with a rejection, or was never begun. Errors as UpdateGoods', and
// goods_audit_state_conflict for an approved one.
func (l *Ledger) AuditGoods(ctx context.Context, r Request, id uuid.UUID) (Goods, Done, error) {
	w := change{Kind: goodsAudit, ID: id, States: []string{"unreviewed", "rejected"}}
	return l.changeOfGoods(ctx, r, w, func(g Goods) (any, error) { return goodsRef(g), nil })
}

func goodsRef(g Goods) wechat.GoodsRef { return wechat.GoodsRef{GoodsID: json.Number(*g.WechatID)} }

// afterOneOfOurs is Kind.Judge where these refusals of a later attempt may say
// that an earlier one was executed.
func afterOneOfOurs(codes ...int64) func(*Operation, wechat.Class, *wechat.Error) wechat.Class {
	return func(op *Operation, class wechat.Class, err *wechat.Error) wechat.Class {
		if op.Attempt > 1 && slices.Contains(codes, err.Code) {
			return wechat.Ambiguous
		}
		return class
	}
}

// proveGoodsAudit: an item that was submitted is neither unreviewed nor, for as
// long as WeChat takes, rejected.
func proveGoodsAudit(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	w, found, err := l.askGoodsOf(ctx, op)
	switch {
	case err != nil:
		return Proof{}, err
	case found && (*w.AuditStatus == wechat.GoodsInAudit || *w.AuditStatus == wechat.GoodsApproved):
		return Proof{Verdict: Present, Audited: true}, nil
	}
	refused, err := l.lastRefusal(ctx, op, []int64{300013})
	return Proof{Verdict: Absent, Refused: refused}, err
}

// goodsWithdraw is POST /v1/audits/{id}/withdrawal: goods/resetaudit (document
// 004 §2). Only an item in review can be withdrawn.
var goodsWithdraw = register(&Kind{
	Name: "goods.withdraw", Subject: "goods", Endpoint: wechat.ResetGoodsAudit,
	Judge:  afterOneOfOurs(withdrawRefusals...),
	Settle: settleGoodsWithdraw,
	Prove:  proveGoodsWithdraw,
})

// withdrawRefusals say that there is nothing to withdraw (any more).
var withdrawRefusals = []int64{300009, 300010, 300017}

// A withdrawal is what goods.withdraw remembers of the audit.
type withdrawal struct {
	Audit uuid.UUID `json:"audit"` // ours
}

// WithdrawAudit withdraws goods from review, which audit must be of. WeChat doesn't give back what the
// submission took of its quota. Errors besides those of Do: not_found;
// audit_not_withdrawable where WeChat never told its number;
// goods_audit_state_conflict where it isn't open.
func (l *Ledger) WithdrawAudit(ctx context.Context, r Request, audit Audit) (Audit, Done, error) {
	w := change{Kind: goodsWithdraw, ID: audit.SubjectID, States: []string{"in_review"}, Refusal: problem.CodeGoodsAuditStateConflict}
	w.Baseline = withdrawal{audit.ID}
	item, done, err := l.Goods.change(ctx, r, w, func(g Goods) (any, error) {
		switch {
		case g.Audit == nil || g.Audit.ID != audit.ID || AuditStatus(g.Audit.Status).rank() > InReview.rank():
			return nil, problem.Of(problem.CodeGoodsAuditStateConflict)
		case g.Audit.WechatAuditID == nil:
			return nil, problem.Of(problem.CodeAuditNotWithdrawable)
		}
		return wechat.ResetGoodsAuditRequest{AuditID: json.Number(*g.Audit.WechatAuditID), GoodsID: json.Number(*g.WechatID)}, nil
	})
	if p, ok := problem.As(err); ok && item.WechatID != nil && p.Upstream != nil && slices.Contains(withdrawRefusals, p.Upstream.Errcode) {
		// WeChat says that it isn't in review: it has decided, perhaps.
		if perr := l.decideGoods(ctx, r.Merchant, []dbsqlc.Audit{audit.Audit}, map[uuid.UUID]Goods{audit.ID: item}); perr != nil {
			l.Log.Info("goods not read after a refused withdrawal", "audit_id", typeid.Format(typeid.Audit, audit.ID), "err", perr)
		}
	}
	if err != nil || !done.Committed {
		return audit, done, err
	}
	audit, err = l.Audit(ctx, r.Merchant.TenantID, audit.ID)
	return audit, done, err
}

// settleGoodsWithdraw ends the audit with the operation, so that no later one
// of the same item can be taken for it.
func settleGoodsWithdraw(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class != wechat.Executed {
		return nil
	}
	var of withdrawal
	if err := json.Unmarshal(op.Baseline, &of); err != nil {
		return err
	}
	var sent wechat.ResetGoodsAuditRequest
	if err := op.Unmarshal(&sent); err != nil {
		return err
	}
	source := out.told()
	event, err := outbox.Row(op.TenantID, outbox.Event{ID: derived(op.ID, "withdrawn"), Type: outbox.GoodsAuditDecided, MerchantID: op.Merchant.ID,
		PreviousStatus: string(InReview), Object: map[string]any{
			"id": typeid.Format(typeid.Audit, of.Audit), "kind": goodsAudit.AuditKind, "status": Withdrawn, "reason": nil, "wechat_audit_id": sent.AuditID.String(),
			"subject": map[string]string{"type": goodsType.Name, "id": typeid.Format(typeid.Goods, *op.SubjectID)},
		}})
	if err != nil {
		return err
	}
	b.Queue(dbsqlc.AuditEnd, dbsqlc.AuditEndParams{TenantID: op.TenantID, ID: of.Audit, Status: string(Withdrawn), StatusRank: Withdrawn.rank(), Source: source,
		EventID: event.ID, MerchantID: event.MerchantID, EventType: event.Type, Payload: event.Payload})
	b.Queue(dbsqlc.ResourceChanged, dbsqlc.ResourceChangedParams{TenantID: op.TenantID, ID: *op.SubjectID,
		Status: new(GoodsStatusOf(wechat.GoodsUnreviewed))})
	return nil
}

// proveGoodsWithdraw: an item that was withdrawn is unreviewed.
func proveGoodsWithdraw(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	w, found, err := l.askGoodsOf(ctx, op)
	switch {
	case err != nil:
		return Proof{}, err
	case !found || *w.AuditStatus == wechat.GoodsApproved || *w.AuditStatus == wechat.GoodsRejected:
		return Proof{Verdict: Absent, Refused: problem.Of(problem.CodeGoodsAuditStateConflict)}, nil // decided before
	case *w.AuditStatus == wechat.GoodsUnreviewed:
		return Proof{Verdict: Present}, nil
	}
	return Proof{Verdict: Absent}, nil
}
