package ledger

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/wechat"
)

// NewGoods is an item to be added. Its fields have been validated.
type NewGoods struct {
	Name            string
	CoverMediaID    string
	Pricing         Pricing
	Path            string
	ThirdPartyAppid string
	ClientReference string
}

// goodsCreate is POST /v1/goods: goods/add (document 004 §1), which adds the
// item and begins its audit.
//
// Nothing at WeChat keeps a second identical item from being made, so an
// attempt whose answer was lost is never repeated by us: its effect is looked
// for. An item whose number is lost can't be deleted any more, by nobody.
var goodsCreate = register(&Kind{
	Name: "goods.create", Subject: "goods", Endpoint: wechat.AddGoods, AuditKind: "goods", Gives: GoodsID,
	IDs: idsNamed(goodsIDs),
	Settle: func(b *postgres.Batch, op *Operation, out Outcome) error {
		status := "in_review"
		if out.Audit == SubmitFailed { // 300021: added, and not submitted
			status = "unreviewed"
		}
		return goodsType.settleCreation(b, op, out, status, nil)
	},
	Reopen: reopen,
	Prove:  proveGoodsCreate,
})

// CreateGoods adds an item and submits it for audit. Errors besides those of
// Do: duplicate_client_reference with the existing one; operation_in_progress
// while an identical one is being added.
func (l *Ledger) CreateGoods(ctx context.Context, r Request, n NewGoods) (Goods, Done, error) {
	alike, err := json.Marshal([]any{n.Name, n.Path, n.Pricing.Type, shortest(n.Pricing.Price), shortest(n.Pricing.Price2)})
	if err != nil {
		return Goods{}, Done{}, err
	}
	return l.Goods.create(ctx, r, creation{
		Kind: goodsCreate, Natural: hex.EncodeToString(hashOf(json.RawMessage(alike))), ClientReference: n.ClientReference,
		Media: []MediaRef{{"/cover_media_id", n.CoverMediaID}},
		Body: wechat.AddGoodsRequest{GoodsInfo: wechat.NewGoods{
			CoverImgURL: n.CoverMediaID, Name: n.Name, PriceType: n.Pricing.Type, Price: json.Number(n.Pricing.Price), Price2: json.Number(n.Pricing.Price2),
			URL: n.Path, ThirdPartyAppid: n.ThirdPartyAppid,
		}},
		Fields: GoodsFields{Name: n.Name, CoverMediaID: n.CoverMediaID, Path: n.Path, ThirdPartyAppid: n.ThirdPartyAppid, Sent: &n.Pricing},
	})
}

// shortest is a price without the zeros at its end, by which equal ones are
// known.
func shortest(price string) string {
	if strings.Contains(price, ".") {
		price = strings.TrimSuffix(strings.TrimRight(price, "0"), ".")
	}
	return price
}

// goodsAddFailed is WeChat's "failed to add items".
var goodsAddFailed = []int64{300008}

// proveGoodsCreate looks for goods that the API made, with the same name, path
// and prices, that were not there before and that no other write of ours made.
func proveGoodsCreate(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var sent wechat.AddGoodsRequest
	if err := op.Unmarshal(&sent); err != nil {
		return Proof{}, err
	}
	ours, err := l.Goods.Get(ctx, op.TenantID, *op.SubjectID)
	if err != nil {
		return Proof{}, err
	}
	if ours.WechatID != nil { // the answer told it, and proved nothing else
		w, found, err := l.askOneGoods(ctx, op.Merchant, *ours.WechatID)
		if err != nil || found {
			return goodsPresent(w), err
		}
	}
	want := Pricing{Type: sent.GoodsInfo.PriceType, Price: sent.GoodsInfo.Price.String(), Price2: sent.GoodsInfo.Price2.String()}
	found := map[int64]map[string]wechat.Goods{1: {}, fenAYuan: {}}
	err = l.allGoods(ctx, op.Merchant, func(w wechat.Goods) {
		if w.Name != sent.GoodsInfo.Name || w.URL != sent.GoodsInfo.URL || w.ThirdPartyTag != nil && !madeByAPI(int64(*w.ThirdPartyTag)) {
			return
		}
		for factor, goods := range found {
			if want.shownAs(*goodsFieldsOf(w).Upstream, factor) {
				goods[string(w.GoodsID)] = w
			}
		}
	})
	if err != nil {
		return Proof{}, err
	}
	for _, factor := range []int64{1, fenAYuan} {
		goods := found[factor]
		known, err := l.Goods.numbersOlderThan(ctx, op, numbersOf(goods))
		if err != nil {
			return Proof{}, err
		}
		for _, n := range known {
			delete(goods, n)
		}
		if len(goods) == 0 {
			continue
		}
		p := Proof{Verdict: Inconclusive}
		for _, number := range numbersOf(goods) {
			p.Candidates = append(p.Candidates, Candidate{Type: GoodsID, ID: number, Name: goods[number].Name})
		}
		if len(goods) == 1 {
			p = goodsPresent(goods[p.Candidates[0].ID])
		}
		return p, nil
	}
	refused, err := l.lastRefusal(ctx, op, goodsAddFailed)
	return Proof{Verdict: Absent, Refused: refused}, err
}

// goodsPresent is the proof that w was added. No read tells the number of its
// audit. One that is unreviewed was never submitted (300021).
func goodsPresent(w wechat.Goods) Proof {
	p := Proof{Verdict: Present, IDs: []ID{{GoodsID, string(w.GoodsID)}}, Audited: true}
	if w.AuditStatus != nil && *w.AuditStatus == wechat.GoodsUnreviewed {
		p.Audit = SubmitFailed
	}
	return p
}

func numbersOf(goods map[string]wechat.Goods) []string {
	var out []string
	for n := range goods {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
