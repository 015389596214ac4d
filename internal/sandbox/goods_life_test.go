package sandbox

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// live is a simulator whose mini program has authorised the component.
type live struct {
	*bundle
	token string
}

func startLive(t *testing.T) *live {
	t.Helper()
	b := connected(t)
	return &live{b, b.accessToken(DemoMiniProgram)}
}

type goodsReply struct {
	ErrCode int
	GoodsID int64 `json:"goodsId"`
	AuditID int64 `json:"auditId"`
	raw     string
}

func (l *live) goods(call string, body any) (out goodsReply) {
	l.t.Helper()
	out.raw = l.post("/wxaapi/broadcast/goods/"+call+"?access_token="+l.token, body, &out).raw
	return out
}

func (l *live) must(call string, body any) goodsReply {
	l.t.Helper()
	got := l.goods(call, body)
	if got.ErrCode != 0 {
		l.t.Fatalf("%s = %s", call, got.raw)
	}
	return got
}

func (l *live) warehouse(ids ...int64) string {
	l.t.Helper()
	return l.post("/wxa/business/getgoodswarehouse?access_token="+l.token, obj{"goods_ids": ids}, nil).raw
}

func (l *live) listed(status int) []int64 {
	l.t.Helper()
	var out struct {
		Total int
		Goods []struct {
			ID int64 `json:"goodsId"`
		}
	}
	got := l.get("/wxaapi/broadcast/goods/getapproved?offset=0&status="+strconv.Itoa(status)+"&access_token="+l.token, &out)
	if got.ErrCode != 0 || out.Total != len(out.Goods) {
		l.t.Fatalf("getapproved = %s", got.raw)
	}
	ids := []int64{}
	for _, g := range out.Goods {
		ids = append(ids, g.ID)
	}
	return ids
}

// The whole life of wechat/004: added, withdrawn, changed, submitted again, approved, its price
// changed, deleted. The replies are the document's examples, member by member; no push tells of any of it.
func TestGoodsLife(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	add := l.must("add", addGoodsExample(nil))
	if want := fmt.Sprintf(`{"goodsId":%d,"auditId":%d,"errcode":0}`, add.GoodsID, add.AuditID); add.raw != want {
		t.Errorf("add = %s, want %s", add.raw, want)
	}
	show := func(price, price2 string, kind, status int) {
		t.Helper()
		want := fmt.Sprintf(`{"errcode":0,"errmsg":"ok","goods":[{"goods_id":%d,"cover_img_url":"http://mmbiz.qpic.cn/mmbiz_png/%s/0?wx_fmt=png","name":"TIT茶杯",`+
			`"price":%s,"url":"pages/index/index","price_type":%d,"price2":%s,"audit_status":%d,"third_party_tag":2}],"total":1}`,
			add.GoodsID, sampleCoverID, price, kind, price2, status)
		if d := cmp.Diff(want, l.warehouse(add.GoodsID, 1)); d != "" {
			t.Error(d)
		}
	}
	show("99.5", "0", 1, goodsInReview)
	if got := l.must("resetaudit", obj{"auditId": add.AuditID, "goodsId": add.GoodsID}); got.raw != `{"errcode":0}` {
		t.Errorf("resetaudit = %s", got.raw)
	}
	show("99.5", "0", 1, goodsUnreviewed)
	if got := l.must("update", updateGoodsExample(obj{"goodsId": add.GoodsID, "priceType": 2, "price": 99, "price2": 150.25})); got.raw != `{"errcode":0}` {
		t.Errorf("update = %s", got.raw)
	}
	show("99", "150.25", 2, goodsUnreviewed)
	again := l.must("audit", obj{"goodsId": add.GoodsID})
	if want := fmt.Sprintf(`{"errcode":0,"auditId":%d}`, again.AuditID); again.raw != want || again.AuditID == add.AuditID {
		t.Errorf("audit = %s, want %s", again.raw, want)
	}
	if got := l.goods("resetaudit", obj{"auditId": add.AuditID, "goodsId": add.GoodsID}); got.ErrCode != 300009 {
		t.Errorf("resetaudit of the old audit = %s", got.raw)
	}
	l.control("POST", "clock", `{"advance":"5s"}`, nil)
	show("99", "150.25", 2, goodsApproved)
	l.must("update", obj{"goodsInfo": obj{"goodsId": add.GoodsID, "price": 100.5}})
	show("100.5", "150.25", 2, goodsApproved)
	l.must("update", obj{"goodsInfo": obj{"goodsId": add.GoodsID, "priceType": 1, "price": 12}})
	show("12", "0", 1, goodsApproved)
	if got := l.must("delete", obj{"goodsId": add.GoodsID}); got.raw != `{"errcode":0}` {
		t.Errorf("delete = %s", got.raw)
	}
	if got := l.goods("delete", obj{"goodsId": add.GoodsID}); got.ErrCode != 1003 {
		t.Errorf("delete again = %s", got.raw)
	}
	if got := l.warehouse(add.GoodsID); got != `{"errcode":0,"errmsg":"ok","goods":[],"total":0}` {
		t.Errorf("what was deleted = %s", got)
	}

	goods, first, second := strconv.FormatInt(add.GoodsID, 10), strconv.FormatInt(add.AuditID, 10), strconv.FormatInt(again.AuditID, 10)
	var ids, effects []string
	log := l.truth()
	for _, id := range log.IDs {
		ids = append(ids, id.Type+" "+id.ID+" "+id.Key+" "+id.Via)
	}
	for _, e := range log.Effects {
		effects = append(effects, strings.TrimSpace(e.Kind+" "+e.ID+" "+e.Key))
	}
	if d := cmp.Diff([]string{
		"goods_id " + goods + " TIT茶杯 goods/add", "audit_id " + first + " " + goods + " goods/add", "audit_id " + second + " " + goods + " goods/audit",
	}, ids); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		"goods_add " + goods + " TIT茶杯", "goods_resetaudit " + first + " " + goods, "goods_update  " + goods, "goods_audit " + second + " " + goods,
		"goods_update  " + goods, "goods_update  " + goods, "goods_delete  " + goods,
	}, effects); d != "" {
		t.Error(d)
	}
	for _, p := range l.pushes.all("") {
		if p.Get("Event") != "" {
			t.Errorf("a push: %s", p.plain)
		}
	}
}

// Goods that were rejected may be changed and submitted again (wechat/004 §3, §5).
func TestRejectedGoods(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	bad := l.must("add", addGoodsExample(obj{"name": "tea " + phoneRejected}))
	stays := l.must("add", addGoodsExample(obj{"name": "tea " + phoneStays}))
	byHand := l.must("add", addGoodsExample(nil))
	l.control("POST", "audits/"+auditKey(auditGoods, byHand.AuditID), `{"decision":"reject","reason":"no tea"}`, nil)
	l.control("POST", "clock", `{"advance":"1h"}`, nil)
	rejected := l.listed(goodsRejected)
	if !slices.Contains(rejected, bad.GoodsID) || !slices.Contains(rejected, byHand.GoodsID) || !slices.Contains(l.listed(goodsInReview), stays.GoodsID) {
		t.Fatalf("rejected = %v", rejected)
	}
	l.must("update", obj{"goodsInfo": obj{"goodsId": bad.GoodsID, "name": "better tea"}})
	l.must("audit", obj{"goodsId": bad.GoodsID})
	l.control("POST", "audits/"+auditKey(auditGoods, stays.AuditID), `{"decision":"approve"}`, nil)
	l.control("POST", "clock", `{"advance":"5s"}`, nil)
	if approved := l.listed(goodsApproved); !slices.Contains(approved, bad.GoodsID) || !slices.Contains(approved, stays.GoodsID) {
		t.Errorf("approved = %v", approved)
	}
}

// What the rules leave room for.
func TestGoodsAtTheLimits(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	for name, more := range map[string]obj{
		"14 Chinese characters": {"name": strings.Repeat("茶", 14)},
		"28 Latin characters":   {"name": strings.Repeat("x", 28)},
		"a range of one price":  {"priceType": 2, "price": 0.01, "price2": 0.01},
		"no discount":           {"priceType": 3, "price": 100, "price2": 100},
		"an encoded url":        {"url": "pages/web/web?url=https%3A%2F%2Fexample.com%2F%3Fa%3Db&id=1"},
	} {
		if got := l.goods("add", addGoodsExample(more)); got.ErrCode != 0 {
			t.Errorf("%s = %s", name, got.raw)
		}
	}
}

// Nobody sees the goods of another account.
func TestGoodsOfAnotherAccount(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	l.control("POST", "accounts", `{"appid":"wx00000000000000bb","kind":"mini_program"}`, nil)
	l.control("POST", "accounts/wx00000000000000bb/goods", `{"goods":[{"goods_id":9}]}`, nil)
	if got := l.warehouse(9); got != `{"errcode":0,"errmsg":"ok","goods":[],"total":0}` {
		t.Errorf("getgoodswarehouse = %s", got)
	}
	if got := l.listed(goodsApproved); slices.Contains(got, 9) {
		t.Errorf("getapproved = %v", got)
	}
}

// 300021: the goods are there and their audit is not, told with the id or without.
func TestGoodsAddedAuditFailed(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	got := l.goods("add", addGoodsExample(obj{"name": nameNotAudited}))
	if got.ErrCode != 300021 || got.GoodsID == 0 || got.AuditID != 0 {
		t.Errorf("add = %s", got.raw)
	}
	hidden := l.goods("add", addGoodsExample(obj{"name": nameNotAudited + " " + nameNoID}))
	if hidden.ErrCode != 300021 || strings.Contains(hidden.raw, "goodsId") {
		t.Errorf("add = %s", hidden.raw)
	}
	unreviewed := l.listed(goodsUnreviewed)
	log := l.truth()
	if n := len(unreviewed); n != 3 || unreviewed[1] != got.GoodsID || len(log.Effects) != 2 || log.Effects[1].ID != strconv.FormatInt(unreviewed[2], 10) {
		t.Errorf("unreviewed = %v, truth %+v", unreviewed, log)
	}
	for _, id := range unreviewed[1:] {
		l.must("audit", obj{"goodsId": id})
	}
}

// wechat/004 §7: 30 unless the caller says otherwise, at most 100, in the order they were added.
func TestGoodsListPages(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	var seeded struct {
		IDs []int64 `json:"goods_ids"`
	}
	l.control("POST", "accounts/"+DemoMiniProgram+"/goods", `{"count":130,"goods":[{"goods_id":9,"name":"xxxxx","price":12300,"url":"xxxxxxx","cover_img_url":"xxxx","audit_status":3,"third_party_tag":0}]}`, &seeded)
	page := func(query url.Values) (n, total int) {
		t.Helper()
		query.Set("access_token", l.token)
		var out struct {
			Total int
			Goods []obj
		}
		l.get("/wxaapi/broadcast/goods/getapproved?"+query.Encode(), &out)
		return len(out.Goods), out.Total
	}
	for _, tt := range []struct {
		offset, limit string
		want          int
	}{{"0", "", 30}, {"0", "100", 100}, {"100", "100", 33}, {"133", "100", 0}, {"500", "1", 0}} {
		q := url.Values{"offset": {tt.offset}, "status": {"2"}}
		if tt.limit != "" {
			q.Set("limit", tt.limit)
		}
		if n, total := page(q); n != tt.want || total != 133 {
			t.Errorf("offset %s limit %q = %d of %d, want %d of 133", tt.offset, tt.limit, n, total, tt.want)
		}
	}
	// The sample of §7, with the comma that it lacks.
	const want = `{"goodsId":9,"coverImgUrl":"xxxx","name":"xxxxx","price":12300,"url":"xxxxxxx","priceType":1,"price2":0,"thirdPartyTag":0}`
	path := "/wxaapi/broadcast/goods/getapproved?offset=1&limit=1&status=3&access_token=" + l.token
	if got := l.get(path, nil).raw; got != `{"errcode":0,"total":2,"goods":[`+want+`]}` {
		t.Errorf("getapproved = %s", got)
	}
	l.control("POST", "settings", `{"goods_prices_in_fen":true}`, nil)
	contains(t, l.get(path, nil).raw, `"price":1230000,`)
}

// Whoever comes at the same time: exactly as many calls pass as the day has left, add and audit counted together.
func TestGoodsQuotaIsExact(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	const limit = 25
	l.control("POST", "accounts", fmt.Sprintf(`{"appid":%q,"daily_limits":{"/wxaapi/broadcast/goods/audit":%d}}`, DemoMiniProgram, limit), nil)
	l.control("POST", "accounts/"+DemoMiniProgram+"/goods", `{"goods":[{"goods_id":9,"audit_status":0}]}`, nil)
	l.must("audit", obj{"goodsId": 9})
	codes := make([]int, 2*limit)
	var wg sync.WaitGroup
	for i := range codes {
		wg.Go(func() { codes[i] = l.goods("add", addGoodsExample(nil)).ErrCode })
	}
	wg.Wait()
	passed := 0
	for _, c := range codes {
		switch c {
		case 0:
			passed++
		case 300012:
		default:
			t.Errorf("add = %d", c)
		}
	}
	if passed != limit-1 {
		t.Errorf("%d adds passed beside one audit, with a quota of %d", passed, limit)
	}
	for _, path := range []string{"add", "audit"} {
		got := l.post("/cgi-bin/openapi/quota/get?access_token="+l.token, obj{"cgi_path": "/wxaapi/broadcast/goods/" + path}, nil).raw
		contains(t, got, fmt.Sprintf(`"quota":{"daily_limit":%d,"used":%d,"remain":0}`, limit, limit))
	}
	// A withdrawal gives nothing back (wechat/004 §2), midnight in Beijing does.
	l.must("resetaudit", obj{"goodsId": 9, "auditId": auditOf9(l.bundle)})
	if got := l.goods("audit", obj{"goodsId": 9}); got.ErrCode != 300012 {
		t.Errorf("audit after a withdrawal = %s", got.raw)
	}
	l.control("POST", "clock", `{"advance":"24h"}`, nil)
	l.token = l.accessTokenOf(DemoMiniProgram)
	l.must("audit", obj{"goodsId": 9})
}

// The quotas that wechat/004 gives each call.
func TestGoodsQuotas(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	for path, want := range map[string]int{
		"/wxaapi/broadcast/goods/add": 500, "/wxaapi/broadcast/goods/resetaudit": 500, "/wxaapi/broadcast/goods/audit": 500,
		"/wxaapi/broadcast/goods/delete": 1000, "/wxaapi/broadcast/goods/update": 1000, "/wxa/business/getgoodswarehouse": 1000,
		"/wxaapi/broadcast/goods/getapproved": 10_000,
	} {
		for _, token := range []string{l.token, l.componentToken()} {
			got := l.post("/cgi-bin/openapi/quota/get?access_token="+token, obj{"cgi_path": path}, nil).raw
			contains(t, got, fmt.Sprintf(`"quota":{"daily_limit":%d,"used":0,"remain":%d}`, want, want))
		}
	}
}

func TestDemoGoods(t *testing.T) {
	t.Parallel()
	l := startLive(t)
	count := []int{}
	for status := range 4 {
		count = append(count, len(l.listed(status)))
	}
	if !slices.Equal(count, []int{1, 1, 3, 1}) {
		t.Errorf("goods by status = %v", count)
	}
	waiting := l.audits(auditGoods)
	if len(waiting) != 1 || waiting[0].Due != nil || waiting[0].Subject != strconv.FormatInt(l.listed(goodsInReview)[0], 10) {
		t.Errorf("audits = %+v", waiting)
	}
	contains(t, l.get("/wxaapi/broadcast/goods/getapproved?offset=0&status=2&access_token="+l.token, nil).raw, `"thirdPartyTag":0`)
}
