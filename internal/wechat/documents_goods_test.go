package wechat

import (
	"encoding/json"
	"strings"
)

// legacyExamples are document 001's.
func legacyExamples() map[string]exchange {
	const (
		meal   = "McCrispy Chicken Burger Combo Meal, Chicken McNuggets, Family Barrels"
		perks  = "Free wifi, delivery service"
		chain  = "Founded in 1940  in the US, McDonald's is a large global restaurant chain, with about 3 0,000 outlets all over the world."
		dishes = "It features hamburgers, French fries, chicken products, soft drinks, milkshakes, wraps, salad, and desserts."
	)
	photos := []Photo{{"https:// XXX.com"}, {"https://XXX.com"}}
	food := []LegacyCategory{{"Food", "Snack and Fast Food"}}
	got := LegacyStore{Sid: "001", BusinessName: "McDonald's", BranchName: "Yiyuan Road Outlet", Province: "Guangdong", City: "Guangzhou",
		Address: "No. 11, Yiyuan Road, Haizhu District", Telephone: "020-12345678", Categories: food, OffsetType: 1,
		Longitude: "115.32375", Latitude: "25.097486", PhotoList: photos, Recommend: meal, Special: perks,
		Introduction: " " + strings.Replace(chain, "3 0,000", "30,000", 1) + "\n3 " + dishes,
		OpenTime:     "8:00-20:00", AvgPrice: 35, AvailableState: LegacyApproved}
	listed := func(branch, address, phone string, lng, lat Decimal, poi ID, state Int, district string) shownLegacyStore {
		return shownLegacyStore{BaseInfo: &LegacyStore{Sid: "101", PoiID: poi, BusinessName: "McDonald's", BranchName: branch, Address: address,
			Telephone: phone, Categories: food, City: "Guangzhou", Province: "Guangdong", District: district, OffsetType: 1, Longitude: lng,
			Latitude: lat, PhotoList: []Photo{{"http: ...."}}, Introduction: chain + " " + dishes, Recommend: meal, Special: perks,
			OpenTime: "8:00-20:00", AvgPrice: 35, AvailableState: state}}
	}
	changed := chain + " " + dishes
	return map[string]exchange{
		"addpoi": {endpoint: AddPoi, example: "addpoi.request", reply: "addpoi.reply",
			// A line break inside a string can only be sent as \n.
			otherwise: []string{"world.\nIt", `world.\nIt`},
			request: NewAddPoiRequest(NewLegacyStore{Sid: "33788392",
				BusinessName: " Limited to 15 Chinese characters (30 English characters)",
				BranchName:   " Limited to 10 Chinese characters (20 English characters). Parentheses and special characters are not allowed.",
				Province:     "Limited to 10 Chinese characters (20 English characters)", City: "Limited to 30 Chinese characters (20 English characters)",
				District:  "Limited to 10 Chinese characters (20 English characters)",
				Address:   "Detailed address of the store without province and city: limited to 80 Chinese characters (160 English characters)",
				Telephone: "Limited to 53 characters (only digits are allowed)", Categories: food, OffsetType: 1, Longitude: "115.32375", Latitude: "25.097486",
				PhotoList:    []Photo{{"https:// 20 images at most.com"}, {"https://XXX.com"}},
				Recommend:    "Limited to 200 Chinese characters (400 English characters). " + meal,
				Special:      "Limited to 200 Chinese characters (400 English characters). " + perks,
				Introduction: "Limited to 300 Chinese characters (600 English characters). " + chain + "\n" + dishes + " ",
				OpenTime:     "8:00-20:00", AvgPrice: 35}),
			mend: []string{"\"ok\"\n", "\"ok\",\n"}, // a comma is missing
			read: as[AddPoiReply], want: AddPoiReply{PoiID: "460123456"}},
		"getpoi": {endpoint: GetPoi, example: "getpoi.request", reply: "getpoi.reply", request: PoiRef{PoiID: "271262077"},
			// A line break inside a string, and commas that are missing. The
			// blank at the end of the name "business " is for us to take off.
			mend: []string{"world.\n\t\t3", `world.\n3`, "35\n", "35,\n", ":3\n", ":3,\n"},
			read: as[GetPoiReply], want: GetPoiReply{shownLegacyStore{BaseInfo: &got}}},
		"getpoilist": {endpoint: GetPoiList, example: "getpoilist.request", reply: "getpoilist.reply", request: GetPoiListRequest{Begin: 0, Limit: 10},
			mend: []string{"\"ok\"\n", "\"ok\",\n"}, // a comma is missing
			read: as[GetPoiListReply], want: GetPoiListReply{TotalCount: 3, BusinessList: []shownLegacyStore{
				listed("Yiyuan Road Outlet", "Yiyuan Road 11", "020-12345678", "115.32375", "25.097486", "285633617", LegacyApproved, "Haizhu District"),
				listed("Beijing Road Outlet", "No. 12, Beijing Road", "020-12345689", "115.3235", "25.092386", "285633618", LegacyRejected, "Yuexiu District"),
				listed("Longdong Outlet", "No. 122, Yinglong Road", "020-12345659", "115.32345", "25.056686", "285633619", LegacyInAudit, "Tianhe District")}}},
		"updatepoi": {endpoint: UpdatePoi, example: "updatepoi.request", reply: "updatepoi.reply",
			// Blanks at the end of names are typing errors (platform.md §11.1
			// no. 14), and commas are missing.
			otherwise: []string{`"business "`, `"business"`, `"poi_id ":"271864249"`, `"poi_id":"271864249",`, `"A00001"`, `"A00001",`,
				`"telephone ":"020-12345678"`, `"telephone":"020-12345678",`},
			request: NewUpdatePoiRequest(LegacyStoreChange{PoiID: "271864249", Sid: "A00001", Telephone: new("020-12345678"), PhotoList: photos,
				Recommend: new(meal), Special: new(perks), Introduction: new(changed), OpenTime: new("8:00-20:00"), AvgPrice: new(35)})},
		"delpoi": {endpoint: DelPoi, example: "delpoi.request", reply: "delpoi.reply", request: PoiRef{PoiID: "271262077"}},
		"getwxcategory": {endpoint: GetWXCategory, reply: "getwxcategory.reply", read: as[GetWXCategoryReply], want: GetWXCategoryReply{[]LegacyCategory{
			{"Food", "Jiangzhe Cuisine", "Shanghai Cuisine"}, {"Food", "Jiangzhe Cuisine", "Huaiyang Cuisine"}, {"Food", "Jiangzhe Cuisine", "Zhejiang Cuisine"},
			{"Food", "Jiangzhe Cuisine", "Nanjing Cuisine"}, {"Food", "Jiangzhe Cuisine", "Suzhou Cuisine..."}}}},
	}
}

// goodsExamples are document 004's.
func goodsExamples() map[string]exchange {
	const cover = "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR"
	// price2 is a comment in the examples: it is left out with priceType 1.
	add := NewGoods{CoverImgURL: cover, Name: "TIT茶杯", PriceType: PriceFixed, Price: "99.5", URL: "pages/index/index"}
	ranged := add
	ranged.PriceType, ranged.Price2 = PriceRange, "150.5"
	comma := []string{`"xxxxx""price"`, `"xxxxx","price"`} // a comma is missing
	item := Goods{GoodsID: "9", CoverImgURL: "xxxx", Name: "xxxxx", Price: "12300", Price2: "0", URL: "xxxxxxx", PriceType: PriceFixed, ThirdPartyTag: new(Int)}
	audited := item
	audited.AuditStatus = new(Int(GoodsInAudit))
	return map[string]exchange{
		"goods/add": {endpoint: AddGoods, example: "goods_add.request", reply: "goods_add.reply", request: AddGoodsRequest{add},
			read: as[AddGoodsReply], want: AddGoodsReply{GoodsID: "51", AuditID: "525022786"}},
		"goods/add, a range": {endpoint: AddGoods, example: "goods_add.request", reply: "goods_add.reply", request: AddGoodsRequest{ranged},
			otherwise: []string{`// "price2": 150.5, priceType为23时必填`, `"price2": 150.5,`, `"priceType":1`, `"priceType":2`},
			read:      as[AddGoodsReply], want: AddGoodsReply{GoodsID: "51", AuditID: "525022786"}},
		"goods/resetaudit": {endpoint: ResetGoodsAudit, example: "goods_resetaudit.request", reply: "goods_resetaudit.reply",
			request: ResetGoodsAuditRequest{AuditID: "525022184", GoodsID: "9"}},
		"goods/audit": {endpoint: AuditGoods, example: "goods_audit.request", reply: "goods_audit.reply", request: GoodsRef{GoodsID: "9"},
			read: as[AuditGoodsReply], want: AuditGoodsReply{AuditID: "525022184"}},
		"goods/delete": {endpoint: DeleteGoods, example: "goods_delete.request", reply: "goods_delete.reply", request: GoodsRef{GoodsID: "9"}},
		"goods/update": {endpoint: UpdateGoods, example: "goods_update.request", reply: "goods_update.reply",
			request: UpdateGoodsRequest{GoodsChange{CoverImgURL: cover, Name: "TIT茶杯", PriceType: PriceFixed, Price: "99.5", URL: "pages/index/index", GoodsID: "9"}}},
		"getgoodswarehouse": {endpoint: GetGoodsWarehouse, example: "getgoodswarehouse.request", reply: "getgoodswarehouse.reply", mend: comma,
			request: GetGoodsWarehouseRequest{[]json.Number{"1"}}, read: as[GoodsReply], want: GoodsReply{Goods: []Goods{audited}}},
		"getapproved": {endpoint: GetApproved, query: GetApprovedRequest{Offset: 0, Limit: 30, Status: GoodsInAudit}.Query(), reply: "getapproved.reply", mend: comma,
			read: as[GoodsReply], want: GoodsReply{Goods: []Goods{item}, Total: 68}},
	}
}
