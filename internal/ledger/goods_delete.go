package ledger

import (
	"context"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// noSuchGoods is 1003: "the product id does not exist", or, by WeChat's general
// table, an illegal parameter (platform.md §11.3).
const noSuchGoods = 1003

// goodsDelete is DELETE /v1/goods/{id}: goods/delete (document 004 §4). WeChat
// is read before 1003 is believed: what is gone already was deleted.
var goodsDelete = register(&Kind{
	Name: "goods.delete", Subject: "goods", Endpoint: wechat.DeleteGoods,
	Judge: func(_ *Operation, class wechat.Class, err *wechat.Error) wechat.Class {
		if err.Code == noSuchGoods {
			return wechat.Ambiguous
		}
		return class
	},
	Confirm: confirmGoodsDelete,
	Settle:  settleDeletion,
	Prove:   proveGoodsDelete,
})

// DeleteGoods deletes an item at WeChat for good. Its record and ids stay here,
// with status deleted. Errors as UpdateGoods'.
func (l *Ledger) DeleteGoods(ctx context.Context, r Request, id uuid.UUID, version *int64) (Goods, Done, error) {
	w := change{Kind: goodsDelete, ID: id, Version: version, States: goodsWritable}
	return l.changeOfGoods(ctx, r, w, func(g Goods) (any, error) { return goodsRef(g), nil })
}

func confirmGoodsDelete(ctx context.Context, l *Ledger, op *Operation, out Outcome) Outcome {
	if out.Errno != noSuchGoods {
		return out
	}
	p, err := proveGoodsDelete(ctx, l, op)
	switch {
	case err != nil: // the reconciler reads it later
	case p.Verdict == Present:
		out.Class, out.Err = wechat.Executed, nil
	default:
		out.Class, out.Err = wechat.Refused, illegalParameter(out.Err)
	}
	return out
}

// illegalParameter is what 1003 means about goods that are there.
func illegalParameter(said *problem.Error) *problem.Error {
	p := problem.Of(problem.CodeInvalidArgument)
	p.Upstream = said.Upstream
	return p
}

func proveGoodsDelete(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	_, there, err := l.askGoodsOf(ctx, op)
	if err != nil {
		return Proof{}, err
	}
	if !there {
		return Proof{Verdict: Present}, nil
	}
	said, err := l.lastRefusal(ctx, op, []int64{noSuchGoods})
	if said != nil {
		said = illegalParameter(said)
	}
	return Proof{Verdict: Absent, Refused: said}, err
}
