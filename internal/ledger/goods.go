package ledger

import (
	"context"
	"encoding/json"
	"math/big"
	"regexp"
	"slices"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// GoodsFields are what is known of an item besides its ids and status. What is
// empty or nil WeChat has not told yet.
type GoodsFields struct {
	Name            string   `json:"name,omitempty"`
	CoverMediaID    string   `json:"cover_media_id,omitempty"`
	CoverImageURL   string   `json:"cover_image_url,omitempty"`
	Path            string   `json:"path,omitempty"`
	ThirdPartyAppid string   `json:"third_party_appid,omitempty"`
	Sent            *Pricing `json:"pricing,omitempty"`        // as it was last sent
	Upstream        *Pricing `json:"upstream_price,omitempty"` // as WeChat shows it, in which unit nobody says
	Tag             *int64   `json:"third_party_tag,omitempty"`
}

// Pricing is what an item costs, in decimal digits. Which prices there are and
// what they mean goes by Type, one of wechat.PriceFixed and so on.
type Pricing struct {
	Type   int    `json:"type"`
	Price  string `json:"price"`
	Price2 string `json:"price2,omitempty"`
}

// Pricing is what the item costs, in yuan: what was sent, as long as WeChat
// shows that, in yuan or in fen (platform.md §11.3); else what WeChat shows.
func (f GoodsFields) Pricing() *Pricing {
	if f.Sent != nil && (f.Upstream == nil || f.Sent.shownAs(*f.Upstream, 1) || f.Sent.shownAs(*f.Upstream, fenAYuan)) {
		return f.Sent
	}
	return f.Upstream
}

// fenAYuan is by how much larger a price is that is shown in fen.
const fenAYuan = 100

// shownAs reports whether shown is p, times factor.
func (p Pricing) shownAs(shown Pricing, factor int64) bool {
	return p.Type == shown.Type && timesIs(p.Price, factor, shown.Price) && (p.Type == wechat.PriceFixed || timesIs(p.Price2, factor, shown.Price2))
}

var plainDecimal = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,6})?$`)

func timesIs(a string, factor int64, b string) bool {
	if !plainDecimal.MatchString(a) || !plainDecimal.MatchString(b) {
		return false
	}
	x, okX := new(big.Rat).SetString(a)
	y, okY := new(big.Rat).SetString(b)
	return okX && okY && x.Mul(x, big.NewRat(factor, 1)).Cmp(y) == 0
}

// Goods is our record of an item of live broadcasts with its newest audit and
// write.
type Goods = Resource[GoodsFields]

// goodsType: nothing that a merchant chooses is unique among its goods.
var goodsType = Type{
	Name: "goods", Prefix: typeid.Goods, Scope: "goods", Number: GoodsID,
	Creation: "goods.create", Shown: goodsStatuses, After: goodsAfter, Each: inventoryOfGoods,
}

// goodsStatuses are ours by WeChat's audit_status.
var goodsStatuses = []string{wechat.GoodsUnreviewed: "unreviewed", wechat.GoodsInAudit: "in_review", wechat.GoodsApproved: "approved", wechat.GoodsRejected: "rejected"}

// GoodsStatusOf is our status for WeChat's audit_status.
func GoodsStatusOf(n int) string {
	if n < 0 || n >= len(goodsStatuses) {
		return goodsStatuses[wechat.GoodsUnreviewed]
	}
	return goodsStatuses[n]
}

// goodsAfter leaves an item whose audit is open to that audit, which has a
// history and tells tenants.
func goodsAfter(row dbsqlc.ResourcesToProjectRow, s Shown) string {
	switch {
	case row.Status == "deleted" && row.MissingN > 0: // a comparison missed it
		return s.Status
	case row.Status == "deleted" || row.Status == "outcome_unknown" || row.Status == "submitting" || row.AuditOpen:
		return row.Status
	}
	return s.Status
}

// goodsFieldsOf is what WeChat shows of an item, in our names.
func goodsFieldsOf(w wechat.Goods) GoodsFields {
	f := GoodsFields{Name: w.Name, CoverImageURL: w.CoverImgURL, Path: w.URL,
		Upstream: &Pricing{Type: int(w.PriceType), Price: string(w.Price), Price2: string(w.Price2)}}
	if w.ThirdPartyTag != nil {
		f.Tag = new(int64(*w.ThirdPartyTag))
	}
	return f
}

func shownGoods(w wechat.Goods) Shown {
	status := 0
	if w.AuditStatus != nil {
		status = int(*w.AuditStatus)
	}
	fields := goodsFieldsOf(w)
	return Shown{Number: string(w.GoodsID), Upstream: status, Status: GoodsStatusOf(status), Fields: fields,
		Hash: func() []byte {
			return hashOf(struct {
				GoodsFields
				Status int
			}{fields, status})
		}}
}

// LiveGoods asks WeChat for a page of the merchant's goods of one status
// (getapproved). total is what WeChat says there are. Our records follow in the
// background, where they differ.
func (l *Ledger) LiveGoods(ctx context.Context, m authorizer.Merchant, status string, offset, limit int) (_ []Live[GoodsFields], total int, err error) {
	asked := time.Now()
	goods, total, err := l.goodsPage(ctx, m, slices.Index(goodsStatuses, status), offset, limit)
	if err != nil {
		return nil, 0, err
	}
	live, err := l.liveGoods(ctx, m, goods, asked)
	return live, total, err
}

// LiveGoodsOf asks WeChat for these goods (getgoodswarehouse). Those that it
// doesn't know are left out.
func (l *Ledger) LiveGoodsOf(ctx context.Context, m authorizer.Merchant, numbers []string) ([]Live[GoodsFields], error) {
	asked := time.Now()
	goods, err := l.askGoods(ctx, m, numbers)
	if err != nil {
		return nil, err
	}
	return l.liveGoods(ctx, m, goods, asked)
}

func (l *Ledger) liveGoods(ctx context.Context, m authorizer.Merchant, goods []wechat.Goods, asked time.Time) ([]Live[GoodsFields], error) {
	shown := make([]Shown, len(goods))
	for i, w := range goods {
		shown[i] = shownGoods(w)
	}
	return l.Goods.live(ctx, m, shown, 0, asked)
}

// goodsPage reads a page of getapproved, whose status is left out of its items
// (document 004 §7): it is the one that was asked for.
func (l *Ledger) goodsPage(ctx context.Context, m authorizer.Merchant, status, offset, limit int) (_ []wechat.Goods, total int, err error) {
	reply, err := authorizer.Call[wechat.GoodsReply](ctx, l.Authorizer, m, wechat.GetApproved,
		wechat.GetApprovedRequest{Offset: offset, Limit: min(limit, wechat.MaxGoodsPage), Status: status}.Query(), nil)
	for i := range reply.Goods {
		reply.Goods[i].AuditStatus = new(wechat.Int(status))
	}
	return reply.Goods, int(reply.Total), err
}

// askGoods reads goods by their numbers. Those that WeChat doesn't know are
// left out.
func (l *Ledger) askGoods(ctx context.Context, m authorizer.Merchant, numbers []string) ([]wechat.Goods, error) {
	var out []wechat.Goods
	for chunk := range slices.Chunk(numbers, wechat.MaxGoodsStatus) {
		var req wechat.GetGoodsWarehouseRequest
		for _, n := range chunk {
			req.GoodsIDs = append(req.GoodsIDs, json.Number(n))
		}
		reply, err := authorizer.Call[wechat.GoodsReply](ctx, l.Authorizer, m, wechat.GetGoodsWarehouse, nil, req)
		if err != nil {
			return nil, err
		}
		for _, w := range reply.Goods {
			if w.AuditStatus != nil && slices.Contains(chunk, string(w.GoodsID)) {
				out = append(out, w)
			}
		}
	}
	return out, nil
}

// askOneGoods reads one item; found is false where WeChat has none of the number.
func (l *Ledger) askOneGoods(ctx context.Context, m authorizer.Merchant, number string) (_ wechat.Goods, found bool, _ error) {
	goods, err := l.askGoods(ctx, m, []string{number})
	if err != nil || len(goods) == 0 {
		return wechat.Goods{}, false, err
	}
	return goods[0], true, nil
}

// askGoodsOf reads the item that op, which names it alone, is about.
func (l *Ledger) askGoodsOf(ctx context.Context, op *Operation) (_ wechat.Goods, found bool, _ error) {
	var sent wechat.GoodsRef
	if err := op.Unmarshal(&sent); err != nil {
		return wechat.Goods{}, false, err
	}
	return l.askOneGoods(ctx, op.Merchant, sent.GoodsID.String())
}

// eachGoods reads all of the merchant's goods of one status, page by page.
func (l *Ledger) eachGoods(ctx context.Context, m authorizer.Merchant, status int, yield func(wechat.Goods)) error {
	return eachPage(func(offset int) (n, total int, err error) {
		goods, total, err := l.goodsPage(ctx, m, status, offset, wechat.MaxGoodsPage)
		for _, w := range goods {
			yield(w)
		}
		return len(goods), total, err
	})
}

// allGoods reads the merchant's goods of every status. One that moves on
// meanwhile is shown twice rather than never: it moves from the first list to
// later ones.
func (l *Ledger) allGoods(ctx context.Context, m authorizer.Merchant, yield func(wechat.Goods)) error {
	for _, status := range []int{wechat.GoodsInAudit, wechat.GoodsUnreviewed, wechat.GoodsApproved, wechat.GoodsRejected} {
		if err := l.eachGoods(ctx, m, status, yield); err != nil {
			return err
		}
	}
	return nil
}

func inventoryOfGoods(ctx context.Context, l *Ledger, m authorizer.Merchant, yield func(Shown)) (bool, error) {
	if m.AccountType == authorizer.OfficialAccount || !l.Authorizer.May(m, wechat.GetApproved) {
		return false, nil // it can't have goods that we may see
	}
	return true, l.allGoods(ctx, m, func(w wechat.Goods) { yield(shownGoods(w)) })
}

// changeOfGoods is what PATCH, DELETE and a new audit have in common: the
// statuses in which WeChat takes them, refused here otherwise, and goods that
// were made in WeChat's console, which it never lets anybody change
// (300011).
func (l *Ledger) changeOfGoods(ctx context.Context, r Request, w change, prepare func(Goods) (any, error)) (Goods, Done, error) {
	w.Refusal = problem.CodeGoodsAuditStateConflict
	w.Refusals = map[string]string{"in_review": problem.CodeGoodsInReview, "deleted": problem.CodeGoodsNotFound, "failed": problem.CodeGoodsNotFound,
		"submitting": problem.CodeOperationInProgress, "outcome_unknown": problem.CodeOperationInProgress}
	return l.Goods.change(ctx, r, w, func(g Goods) (any, error) {
		if g.Known.Tag != nil && !madeByAPI(*g.Known.Tag) {
			return nil, problem.Of(problem.CodeGoodsNotAPIManaged)
		}
		return prepare(g)
	})
}

// madeByAPI reads third_party_tag (document 004 §6).
func madeByAPI(tag int64) bool { return tag == 1 || tag == 2 }

// Origin tells, by what WeChat shows, who made an item: "api", "console" or
// "unknown".
func (f GoodsFields) Origin() string {
	switch {
	case f.Tag == nil:
		return "unknown"
	case madeByAPI(*f.Tag):
		return "api"
	}
	return "console"
}
