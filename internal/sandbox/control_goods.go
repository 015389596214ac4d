package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// controlSeedGoods adds goods that were there before the gateway came, or that somebody added in
// WeChat's console.
func (s *Server) controlSeedGoods(r *http.Request) (any, error) {
	var in struct {
		Count int `json:"count"`
		Goods []struct {
			GoodsID   int64       `json:"goods_id"`
			Name      string      `json:"name"`
			PriceType int         `json:"price_type"`
			Price     json.Number `json:"price"`
			Price2    json.Number `json:"price2"`
			URL       string      `json:"url"`
			CoverURL  string      `json:"cover_img_url"`
			Status    *int        `json:"audit_status"`
			Tag       *int        `json:"third_party_tag"`
		} `json:"goods"`
	}
	if err := read(r, &in); err != nil {
		return nil, err
	}
	return s.changeAccount(r, func(a *account) (any, error) {
		var list []goods
		for range in.Count {
			list = append(list, goods{Status: goodsApproved, Tag: tagAPI})
		}
		for _, v := range in.Goods {
			g := goods{
				ID: v.GoodsID, Name: v.Name, PriceType: v.PriceType, Path: v.URL, CoverURL: v.CoverURL, Status: goodsApproved, Tag: tagAPI,
			}
			set(&g.Status, v.Status)
			set(&g.Tag, v.Tag)
			var ok1, ok2 bool
			g.Price, ok1 = parseFen(cmp.Or(string(v.Price), "0"))
			g.Price2, ok2 = parseFen(cmp.Or(string(v.Price2), "0"))
			switch {
			case !ok1 || !ok2:
				return nil, bad("price and price2 have at most two decimals")
			case s.st.goods.get(g.key()) != nil:
				return nil, problem(http.StatusConflict, "goods_id %d exists", g.ID)
			case g.Status < goodsUnreviewed || g.Status > goodsRejected:
				return nil, bad("audit_status must be 0 to 3")
			}
			list = append(list, g)
		}
		ids := []int64{}
		for _, g := range list {
			ids = append(ids, s.seedGoods(a, g).ID)
		}
		return map[string]any{"goods_ids": ids}, nil
	})
}

// seedGoods adds goods that were there before; what is empty gets a sound value. Goods in review wait
// for the control API.
func (s *Server) seedGoods(acc *account, g goods) *goods {
	g.Seq, g.AppID = s.st.next("goods", 1), acc.AppID
	if g.ID == 0 {
		g.ID = s.newID("goods_id", 51)
	}
	g.Name = cmp.Or(g.Name, fmt.Sprintf("Goods %d", g.ID))
	g.CoverURL = cmp.Or(g.CoverURL, "http://mmbiz.qpic.cn/mmbiz_png/"+sampleCoverID+"/0?wx_fmt=png")
	g.Path = cmp.Or(g.Path, "pages/goods/goods?id="+g.key())
	g.PriceType, g.Price = cmp.Or(g.PriceType, priceSingle), cmp.Or(g.Price, 9950)
	if g.Status != goodsUnreviewed {
		g.AuditID = s.newID("goods_audit_id", 525_000_000)
	}
	if g.Status == goodsInReview {
		s.submit(&audit{Kind: auditGoods, ID: g.AuditID, AppID: g.AppID, Subject: g.key()}, 0, phoneStays)
	}
	s.st.goods.put(g.key(), &g)
	return &g
}

// seedDemoGoods: every state, every type of price, and goods of the console, which the API may only read.
func (s *Server) seedDemoGoods(acc *account) {
	for i, g := range []goods{
		{Name: "TIT茶杯", Status: goodsApproved, Tag: tagAPI, Price: 9950},
		{Name: "乌龙茶", Status: goodsApproved, Tag: 1, PriceType: priceDiscount, Price: 12800, Price2: 9900},
		{Name: "Tea for two", Status: goodsInReview, Tag: tagAPI, PriceType: priceRange, Price: 1990, Price2: 4990},
		{Name: "最好的茶", Status: goodsRejected, Tag: tagAPI, Price: 100},
		{Name: "Tea towel", Status: goodsUnreviewed, Tag: tagAPI, Price: 2500},
		{Name: "直播专享茶", Status: goodsApproved, Tag: tagConsole, Price: 8800},
	} {
		g.Path = "pages/goods/goods?id=" + strconv.Itoa(i+1)
		s.seedGoods(acc, g)
	}
}
