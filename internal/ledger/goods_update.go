package ledger

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// GoodsChange is what PATCH changes; nil leaves a field as it is.
type GoodsChange struct {
	Name            *string
	CoverMediaID    *string
	Pricing         *Pricing
	Path            *string
	ThirdPartyAppid *string
	IfVersion       *int64 // If-Match: the row_version that the caller saw
}

// locked are the fields that may not change once an item is approved: all but
// the prices (document 004 §5), as JSON pointers.
func (c GoodsChange) locked() (fields []problem.Field) {
	for _, f := range []struct {
		pointer string
		value   *string
	}{{"/name", c.Name}, {"/cover_media_id", c.CoverMediaID}, {"/path", c.Path}, {"/third_party_appid", c.ThirdPartyAppid}} {
		if f.value != nil {
			fields = append(fields, problem.Field{Pointer: f.pointer, Code: "locked", Detail: "of an approved item only pricing can be changed"})
		}
	}
	return fields
}

// goodsUpdate is PATCH /v1/goods/{id}: goods/update (document 004 §5). The same
// change again changes nothing.
var goodsUpdate = register(&Kind{
	Name: "goods.update", Subject: "goods", Endpoint: wechat.UpdateGoods,
	Settle: settleGoodsUpdate,
	Prove:  proveGoodsUpdate,
})

// goodsWritable are the statuses in which an item takes changes and deletion.
var goodsWritable = []string{"unreviewed", "rejected", "approved"}

// UpdateGoods changes an item. Errors besides those of Do: not_found,
// goods_not_found, goods_in_review, goods_field_locked, goods_not_api_managed,
// version_conflict.
func (l *Ledger) UpdateGoods(ctx context.Context, r Request, id uuid.UUID, c GoodsChange) (Goods, Done, error) {
	w := change{Kind: goodsUpdate, ID: id, Version: c.IfVersion, States: goodsWritable, Media: []MediaRef{{"/cover_media_id", deref(c.CoverMediaID)}}}
	return l.changeOfGoods(ctx, r, w, func(g Goods) (any, error) {
		if locked := c.locked(); g.Status == "approved" && locked != nil {
			return nil, problem.Of(problem.CodeGoodsFieldLocked).WithFields(locked...)
		}
		info := wechat.GoodsChange{GoodsID: json.Number(*g.WechatID), Name: deref(c.Name), CoverImgURL: deref(c.CoverMediaID), URL: deref(c.Path),
			ThirdPartyAppid: deref(c.ThirdPartyAppid)}
		if p := c.Pricing; p != nil {
			info.PriceType, info.Price, info.Price2 = p.Type, json.Number(p.Price), json.Number(p.Price2)
		}
		return wechat.UpdateGoodsRequest{GoodsInfo: info}, nil
	})
}

// settleGoodsUpdate writes what was changed. What WeChat showed of it before is
// forgotten until it shows the new.
func settleGoodsUpdate(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class != wechat.Executed {
		return nil
	}
	var req wechat.UpdateGoodsRequest
	if err := op.Unmarshal(&req); err != nil {
		return err
	}
	sent, now := req.GoodsInfo, map[string]any{}
	for name, v := range map[string]string{"name": sent.Name, "path": sent.URL, "third_party_appid": sent.ThirdPartyAppid} {
		if v != "" {
			now[name] = v
		}
	}
	if sent.CoverImgURL != "" {
		now["cover_media_id"], now["cover_image_url"] = sent.CoverImgURL, nil
	}
	if sent.PriceType != 0 {
		now["pricing"], now["upstream_price"] = pricingOf(sent), nil
	}
	js, err := json.Marshal(now)
	if err != nil {
		return err
	}
	b.Queue(dbsqlc.ResourceChanged, dbsqlc.ResourceChangedParams{TenantID: op.TenantID, ID: *op.SubjectID, Changed: js})
	return nil
}

func pricingOf(c wechat.GoodsChange) Pricing {
	return Pricing{Type: c.PriceType, Price: c.Price.String(), Price2: c.Price2.String()}
}

// proveGoodsUpdate compares what WeChat shows with what was sent. Of a new
// picture it shows only that its address is another one.
func proveGoodsUpdate(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var req wechat.UpdateGoodsRequest
	if err := op.Unmarshal(&req); err != nil {
		return Proof{}, err
	}
	var before GoodsFields
	if err := json.Unmarshal(op.Baseline, &before); err != nil {
		return Proof{}, err
	}
	sent := req.GoodsInfo
	w, found, err := l.askOneGoods(ctx, op.Merchant, sent.GoodsID.String())
	if err != nil {
		return Proof{}, err
	}
	shown := goodsFieldsOf(w)
	want := pricingOf(sent)
	switch {
	case !found,
		sent.Name != "" && shown.Name != sent.Name,
		sent.URL != "" && shown.Path != sent.URL,
		sent.PriceType != 0 && !want.shownAs(*shown.Upstream, 1) && !want.shownAs(*shown.Upstream, fenAYuan),
		sent.CoverImgURL != "" && before.CoverImageURL != "" && shown.CoverImageURL == before.CoverImageURL:
		return Proof{Verdict: Absent}, nil
	case sent.CoverImgURL != "" && before.CoverImageURL == "":
		return Proof{Verdict: Unshown}, nil // no address to compare with
	}
	return Proof{Verdict: Present}, nil
}
