package sandbox

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// Goods for live broadcasts (wechat/004). Add and audit share one quota, whose end has a code of its own.
func goodsEndpoints() []endpoint {
	const family = "/wxaapi/broadcast/goods/"
	call := func(method, path string, q quota, serve func(*call) (any, error)) endpoint {
		return endpoint{
			method: method, path: path, token: tokenAuthorizer, sets: goodsSets, kind: miniProgram, quota: q, serve: serve,
		}
	}
	audits := quota{bucket: family + "add", daily: 500, code: 300012}
	return []endpoint{
		call(http.MethodPost, family+"add", audits, addGoods),
		call(http.MethodPost, family+"resetaudit", quota{daily: 500}, resetGoodsAudit),
		call(http.MethodPost, family+"audit", audits, auditGoodsAgain),
		call(http.MethodPost, family+"delete", quota{daily: 1000}, deleteGoods),
		call(http.MethodPost, family+"update", quota{daily: 1000}, updateGoods),
		call(http.MethodPost, "/wxa/business/getgoodswarehouse", quota{daily: 1000}, getGoodsWarehouse),
		call(http.MethodGet, family+"getapproved", quota{daily: 10_000}, getApprovedGoods),
	}
}

// goods is one item of the live broadcast's library.
type goods struct {
	Seq       int64
	ID        int64
	AppID     string
	Name      string
	CoverURL  string
	PriceType int
	Price     int64 // in fen
	Price2    int64 // in fen; 0 with priceSingle
	Path      string
	Status    int
	AuditID   int64 // of the newest audit, decided or not
	Tag       int   // third_party_tag
	Told      bool  // its goodsId has left the simulator, so the truth log has it
}

func (g *goods) seq() int64 { return g.Seq }

// Values of audit_status (wechat/004 §6).
const (
	goodsUnreviewed = 0
	goodsInReview   = 1
	goodsApproved   = 2
	goodsRejected   = 3
)

// Values of third_party_tag: 1 and 2 are goods that an API added (wechat/004 §6).
const (
	tagConsole = 0
	tagAPI     = 2
)

func (g *goods) managedByAPI() bool { return g.Tag == 1 || g.Tag == tagAPI }

func (g *goods) key() string { return strconv.FormatInt(g.ID, 10) }

// addGoods is wechat/004 §1.
func addGoods(c *call) (any, error) {
	in, err := c.goodsInfo()
	if err != nil {
		return nil, err
	}
	if err := in.require("coverImgUrl", "name", "priceType", "price", "url"); err != nil {
		return nil, err
	}
	g := &goods{AppID: c.acc.AppID, Status: goodsUnreviewed, Tag: tagAPI}
	if err := c.alter(g, in); err != nil {
		return nil, err
	}
	switch {
	case strings.Contains(g.Name, nameBlocked):
		return nil, refuse(300001)
	case strings.Contains(g.Name, nameNotAdded):
		return nil, refuse(300008)
	}
	g.Seq, g.ID = c.st.next("goods", 1), c.newID("goods_id", 51)
	c.st.goods.put(g.key(), g)
	c.executed("goods_add", c.acc.AppID, g.key(), g.Name)

	type reply struct {
		GoodsID *int64  `json:"goodsId,omitempty"`
		AuditID *int64  `json:"auditId,omitempty"`
		ErrCode int     `json:"errcode"`
		ErrMsg  *string `json:"errmsg,omitempty"`
	}
	if !strings.Contains(g.Name, nameNotAudited) {
		c.tellGoods(g, "goods/add")
		id := c.submitGoods(g, "goods/add")
		return reply{GoodsID: &g.ID, AuditID: &id}, nil
	}
	text := errmsg[300021]
	if strings.Contains(g.Name, nameNoID) {
		return reply{ErrCode: 300021, ErrMsg: &text}, nil
	}
	c.tellGoods(g, "goods/add")
	return reply{GoodsID: &g.ID, ErrCode: 300021, ErrMsg: &text}, nil
}

// submitGoods opens an audit of g and tells its id.
func (c *call) submitGoods(g *goods, via string) int64 {
	a := &audit{Kind: auditGoods, ID: c.newID("goods_audit_id", 525_000_000), AppID: g.AppID, Subject: g.key()}
	c.submit(a, c.auditDelay(), g.Name)
	g.Status, g.AuditID = goodsInReview, a.ID
	c.st.goods.put(g.key(), g)
	c.told("audit_id", strconv.FormatInt(a.ID, 10), g.AppID, g.key(), via)
	return a.ID
}

// tellGoods writes a goodsId to the truth log when it leaves the simulator for the first time.
func (c *call) tellGoods(g *goods, via string) {
	if !g.Told {
		g.Told = true
		c.st.goods.put(g.key(), g)
		c.told("goods_id", g.key(), g.AppID, g.Name, via)
	}
}

// goodsDecided ends a review; WeChat sends no event for it (platform.md §7.3).
func (s *Server) goodsDecided(a *audit) {
	g := s.st.goods.get(a.Subject)
	if g == nil {
		return
	}
	g.Status = goodsRejected
	if a.Status == auditApproved {
		g.Status = goodsApproved
	}
	s.st.goods.put(g.key(), g)
}

type codeOnly struct {
	ErrCode int `json:"errcode"`
}

// resetGoodsAudit is wechat/004 §2. Ids that are no numbers, or a missing auditId, fail with 300009
// (platform.md §11.1 no. 18).
func resetGoodsAudit(c *call) (any, error) {
	if !c.fields.has("goodsId") {
		return nil, refuse(200002)
	}
	id, isNumber := c.fields.number("auditId")
	if _, ok := c.fields.number("goodsId"); !ok || !isNumber {
		return nil, refuse(300009)
	}
	g, err := c.managedGoods(c.fields)
	if err != nil {
		return nil, err
	}
	a := c.st.audits.get(auditKey(auditGoods, id))
	switch {
	case g.Status == goodsUnreviewed:
		return nil, refuse(300017)
	case g.Status != goodsInReview:
		return nil, refuse(300010)
	case a == nil || g.AuditID != id:
		return nil, refuse(300009)
	}
	a.Status, a.Decided = auditWithdrawn, &c.at
	c.st.audits.put(auditKey(a.Kind, a.ID), a)
	g.Status = goodsUnreviewed
	c.st.goods.put(g.key(), g)
	c.executed("goods_resetaudit", g.AppID, strconv.FormatInt(id, 10), g.key())
	return codeOnly{}, nil
}

// auditGoodsAgain is wechat/004 §3, for goods that are not in review and not approved.
func auditGoodsAgain(c *call) (any, error) {
	g, err := c.managedGoods(c.fields)
	switch {
	case err != nil:
		return nil, err
	case g.Status != goodsUnreviewed && g.Status != goodsRejected:
		return nil, refuse(300010)
	case strings.Contains(g.Name, nameNeverAudited):
		return nil, refuse(300013)
	}
	id := c.submitGoods(g, "goods/audit")
	c.executed("goods_audit", g.AppID, strconv.FormatInt(id, 10), g.key())
	return struct {
		ErrCode int   `json:"errcode"`
		AuditID int64 `json:"auditId"`
	}{0, id}, nil
}

// deleteGoods is wechat/004 §4.
func deleteGoods(c *call) (any, error) {
	g, err := c.managedGoods(c.fields)
	switch {
	case err != nil:
		return nil, err
	case g.Status == goodsInReview:
		return nil, refuse(300014)
	}
	c.st.goods.del(g.key())
	c.executed("goods_delete", g.AppID, "", g.key())
	return codeOnly{}, nil
}

// updateGoods is wechat/004 §5: nothing of goods in review, only the prices of approved ones.
func updateGoods(c *call) (any, error) {
	in, err := c.goodsInfo()
	if err != nil {
		return nil, err
	}
	g, err := c.managedGoods(in)
	if err != nil {
		return nil, err
	}
	locked := g.Status == goodsApproved && (in.has("coverImgUrl") || in.has("name") || in.has("url"))
	changed := *g
	switch {
	case g.Status == goodsInReview || locked:
		return nil, refuse(300010)
	case len(in) == 1: // goodsId alone
		return nil, refuse(200002)
	}
	if err := c.alter(&changed, in); err != nil {
		return nil, err
	}
	if strings.Contains(changed.Name, nameBlocked) {
		return nil, refuse(300001)
	}
	*g = changed
	c.st.goods.put(g.key(), g)
	c.executed("goods_update", g.AppID, "", g.key())
	return codeOnly{}, nil
}

// managedGoods is the account's own goods that a request names, if the API may change them.
func (c *call) managedGoods(f fields) (*goods, error) {
	if !f.has("goodsId") {
		return nil, refuse(200002)
	}
	id, isNumber := f.number("goodsId")
	if !isNumber {
		return nil, refuse(47001)
	}
	g := c.st.goods.get(strconv.FormatInt(id, 10))
	switch {
	case g == nil || g.AppID != c.acc.AppID:
		return nil, refuse(1003)
	case !g.managedByAPI():
		return nil, refuse(300011)
	}
	return g, nil
}

// maxGoodsIDs is how many one getgoodswarehouse takes (platform.md §11.3).
const maxGoodsIDs = 20

// getGoodsWarehouse is wechat/004 §6. Ids that this account has not are left out.
func getGoodsWarehouse(c *call) (any, error) {
	if !c.fields.has("goods_ids") {
		return nil, refuse(200002)
	}
	var ids []int64
	if json.Unmarshal(c.fields["goods_ids"], &ids) != nil {
		return nil, refuse(47001)
	}
	if len(ids) == 0 || len(ids) > maxGoodsIDs {
		return nil, refuse(200002)
	}
	type item struct {
		ID        int64       `json:"goods_id"`
		CoverURL  string      `json:"cover_img_url"`
		Name      string      `json:"name"`
		Price     json.Number `json:"price"`
		URL       string      `json:"url"`
		PriceType int         `json:"price_type"`
		Price2    json.Number `json:"price2"`
		Status    int         `json:"audit_status"`
		Tag       int         `json:"third_party_tag"`
	}
	list := []item{}
	for _, id := range ids {
		g := c.st.goods.get(strconv.FormatInt(id, 10))
		if g == nil || g.AppID != c.acc.AppID {
			continue
		}
		c.tellGoods(g, "getgoodswarehouse")
		list = append(list, item{g.ID, g.CoverURL, g.Name, c.shown(g.Price), g.Path, g.PriceType, c.shown(g.Price2), g.Status, g.Tag})
	}
	return struct {
		okReply
		Goods []item `json:"goods"`
		Total int    `json:"total"`
	}{ok, list, len(list)}, nil
}

// getApprovedGoods is wechat/004 §7, a list by status in spite of its name.
func getApprovedGoods(c *call) (any, error) {
	q := c.r.URL.Query()
	offset, err1 := strconv.ParseInt(q.Get("offset"), 10, 64)
	status, err2 := strconv.Atoi(q.Get("status"))
	limit, err3 := int64(30), error(nil)
	if q.Has("limit") {
		limit, err3 = strconv.ParseInt(q.Get("limit"), 10, 64)
	}
	if err1 != nil || err2 != nil || err3 != nil || offset < 0 || limit < 1 || limit > 100 || status < goodsUnreviewed || status > goodsRejected {
		return nil, refuse(200002)
	}
	type item struct {
		ID        int64       `json:"goodsId"`
		CoverURL  string      `json:"coverImgUrl"`
		Name      string      `json:"name"`
		Price     json.Number `json:"price"`
		URL       string      `json:"url"`
		PriceType int         `json:"priceType"`
		Price2    json.Number `json:"price2"`
		Tag       int         `json:"thirdPartyTag"`
	}
	all := c.st.goods.sorted(func(g *goods) bool { return g.AppID == c.acc.AppID && g.Status == status }, bySeq)
	from := min(offset, int64(len(all)))
	list := []item{}
	for _, g := range all[from:min(from+limit, int64(len(all)))] {
		c.tellGoods(g, "goods/getapproved")
		list = append(list, item{g.ID, g.CoverURL, g.Name, c.shown(g.Price), g.Path, g.PriceType, c.shown(g.Price2), g.Tag})
	}
	return struct {
		ErrCode int    `json:"errcode"`
		Total   int    `json:"total"`
		Goods   []item `json:"goods"`
	}{0, len(all), list}, nil
}

// shown is a price in a reply, in yuan, or in fen as the documents' samples may mean (platform.md §11.3).
func (c *call) shown(fen int64) json.Number {
	if c.st.Settings.GoodsPricesInFen {
		return json.Number(strconv.FormatInt(fen, 10))
	}
	return json.Number(strconv.FormatFloat(float64(fen)/100, 'f', -1, 64))
}
