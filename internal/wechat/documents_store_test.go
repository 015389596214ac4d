package wechat

// storeExamples are document 000's, with those of documents 002 and 003.
func storeExamples() map[string]exchange {
	const (
		media = "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P"
		photo = "http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"
		place = "http://mmbiz.qpic.cn/mmbiz_png/tW66AWE2K6ECFPcyAcIZTG8RlcR0sAqBibOm8gao5xOoLfIic9ZJ6MADAktGPxZI7MZLcadZUT36b14NJ2cHRHA/0?wx_fmt=png"
		deli  = "http://mmbiz.qpic.cn/mmbiz_png/tW66AWvE2K6icjle1q6nbfKr0HMibzxKqOUfG1hARktHV84ZZojt9cXZ0UicDevZQUicckPw68lfo2Le3RjpEo6oLg/0?wx_fmt=png"
		club  = "http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4e52sLYyA90ZKuicdfhkf5ibQk1icmcRWjrMxmVibo8sVQAllABxG5ic0D5x62gfsPVL4aibxQ2SicfPyjQ/0?wx_fmt=jpeg"
	)
	add := AddStoreRequest{MapPoiID: "2880741500279549033", PicList: PicList{photo}, ContractPhone: "1111222222", Hour: "11:11-12:12",
		Credential: "22883878-0", QualificationList: MediaIDs{media}}
	// The table requires hour, and card_id "if empty too"; the example has
	// neither. Document 002 says that qualification_list is an array, and has a
	// string in its example: a string it is.
	addOtherwise := []string{`"credential": "22883878-0",`, `"credential": "22883878-0","hour":"11:11-12:12","card_id":"",`}
	var added AddStoreReply
	added.Data.AuditID = "111"

	update := UpdateStoreRequest{MapPoiID: "5938314494307741153", PoiID: "472671857", Hour: "10:00-21:00", ContractPhone: "123456", PicList: PicList{photo}}
	// Both documents say of card_id that it may be empty, document 003 that it
	// is required; the example has none.
	updateOtherwise := []string{`"hour":"10:00-21:00",`, `"hour":"10:00-21:00","card_id":"",`}
	var updated UpdateStoreReply
	updated.Data.HasAuditID, updated.Data.AuditID = 1, "1111"

	info := Store{BusinessName: "Longdi Neighborhood Deli", Address: "Near Asheng Computer, Longdi Neighborhood, Zhongdu Avenue, Sheli Street",
		Telephone: "12345678", City: "Harbin", Province: "Heilongjiang", Longitude: "126.94355011", Latitude: "45.556098938",
		PhotoList: []Photo{{deli}}, OpenTime: "11:00-12:00", PoiID: "472671857", Status: StoreInAudit, District: "value",
		QualificationNum: "91750100ME2XCR6A70", QualificationName: "Longdi Neighborhood Deli"}
	listed := info
	listed.Status, listed.District, listed.Categories, listed.QualificationList = StoreFailed, "Acheng District", Texts{}, Texts{}
	first := Store{BusinessName: "Chaosu Tianshi Club", Address: "No. 19, Xinhua Road", Telephone: "12345678", Categories: Texts{}, City: "Handan",
		Province: "Hebei", Longitude: "114.958480835", Latitude: "36.7714881897", PhotoList: []Photo{{club}}, OpenTime: "10:00-21:00",
		PoiID: "472665875", Status: StoreApproved, District: "Quzhou County", QualificationList: Texts{}, QualificationNum: "01650100NE2XCT6Z70",
		QualificationName: "Chaosu Tianshi Club"}

	var category GetMerchantCategoryReply
	store := Category{ID: 280, Name: "Convenience Store", Level: 2, Father: 278, Children: []Int{}, Scene: 3, SensitiveType: 1}
	store.Qualify.ExterList = append(store.Qualify.ExterList, struct {
		InnerList []struct {
			Name string `json:"name"`
		} `json:"inner_list"`
	}{[]struct {
		Name string `json:"name"`
	}{{"If food is involved, provide the Food Trade License or Sanitation Permit."}}})
	category.Data.AllCategoryInfo.Categories = []Category{{Name: "root", Children: []Int{269, 278}},
		{ID: 278, Name: "Shopping", Level: 1, Children: []Int{279, 280}}, store}

	var audit GetMerchantAuditInfoReply
	audit.Data.AuditID, audit.Data.Status = "414569513", MerchantApproved

	district := func(id ID, name, full string, lat, lng Decimal, pinyin []string, cidx ...Int) District {
		d := District{ID: id, Name: name, Fullname: full, Pinyin: pinyin, Cidx: cidx}
		d.Location.Lat, d.Location.Lng = lat, lng
		return d
	}
	var found SearchMapPOIReply
	found.Data.Item = []MapPOI{{BranchName: "X-MAX Factory",
		Address:   "2F and 3F of Yi'an Garden (Zhonghai Mingdu), No. 172-174, Yi'an Road , Haizhu District, Guangzhou, Guangdong, China",
		Longitude: "113.274810791", Latitude: "23.1088695526", Telephone: Phones{"020-89190388"}, Category: CategoryPath{"Sports and Fitness", "Gym"},
		SosomapPoiUID: "2708071440732747189", DataSupply: 2, PicURLs: Texts{}, CardIDList: Texts{}}}
	var created CreateMapPOIReply
	created.Data.BaseID, created.Data.RichID = "42160", "42010"

	return map[string]exchange{
		"get_merchant_category": {endpoint: GetMerchantCategory, reply: "get_merchant_category.reply", read: as[GetMerchantCategoryReply], want: category},
		"apply_merchant": {endpoint: ApplyMerchant, example: "apply_merchant.request", reply: "apply_merchant.reply",
			request: ApplyMerchantRequest{FirstCatID: "476", SecondCatID: "477", QualificationList: MediaIDs{media}, HeadimgMediaID: media,
				Nickname: "hardenzhang308", Intro: "hardenzhangtest"}},
		"get_merchant_audit_info": {endpoint: GetMerchantAuditInfo, reply: "get_merchant_audit_info.reply",
			mend: []string{"\"reason\": \"\"\n}\n", "\"reason\": \"\"\n}}\n"}, // one bracket is missing
			read: as[GetMerchantAuditInfoReply], want: audit},
		"modify_merchant": {endpoint: ModifyMerchant, example: "modify_merchant.request", reply: "modify_merchant.reply",
			request: ModifyMerchantRequest{HeadimgMediaID: "xxxxx", Intro: "x"}},
		"modify_merchant, introduction only": {endpoint: ModifyMerchant, example: "modify_merchant.request",
			otherwise: []string{"xxxxx", ""}, // the table: leave it empty if no change is made
			request:   ModifyMerchantRequest{Intro: "x"}},
		"get_district": {endpoint: GetDistrict, reply: "get_district.reply",
			read: as[GetDistrictReply], want: GetDistrictReply{DataVersion: "20170510", Result: [][]District{
				{district("440000", "Guangdong", "Guangdong Province", "23.13171", "113.26627", []string{"guang", "dong"}, 246, 266)},
				{district("440100", "Guangzhou", "Guangzhou City", "23.12908", "113.26436", []string{"guang", "zhou"}, 1667, 1677)},
				{district("440105", "", "Haizhu District", "23.08331", "113.3172", nil), district("440106", "", "Tianhe District", "23.12463", "113.36199", nil)}}}},
		"search_map_poi": {endpoint: SearchMapPOI, example: "search_map_poi.request", reply: "search_map_poi.reply",
			request: SearchMapPOIRequest{DistrictID: "440105", Keyword: "x"}, read: as[SearchMapPOIReply], want: found},
		"create_map_poi": {endpoint: CreateMapPOI, example: "create_map_poi.request", reply: "create_map_poi.reply",
			request: CreateMapPOIRequest{Name: "hardenzhang", Longitude: "113.323753357", Latitude: "23.0974903107", Province: "Guangdong",
				City: "Guangzhou", District: "Haizhu District", Address: "TIT", Category: CategoryPath{"Category 1", "Category 2"},
				Telephone: Phones{"12345678901"}, Photo: place, License: place, Introduct: "test", DistrictID: "440105"},
			read: as[CreateMapPOIReply], want: created},
		"create_map_poi, three phones": {endpoint: CreateMapPOI, example: "create_map_poi.request", reply: "create_map_poi.reply",
			// The table's own list of phones, without the blanks after its semicolons.
			otherwise: []string{`"12345678901"`, `"010-6666666-111;010-6666666;010-6666666-222"`, `"districtid": "440105",`, `"districtid":"440105","poi_id":"271262077"`},
			request: CreateMapPOIRequest{Name: "hardenzhang", Longitude: "113.323753357", Latitude: "23.0974903107", Province: "Guangdong",
				City: "Guangzhou", District: "Haizhu District", Address: "TIT", Category: CategoryPath{"Category 1", "Category 2"},
				Telephone: Phones{"010-6666666-111", "010-6666666", "010-6666666-222"}, Photo: place, License: place, Introduct: "test",
				DistrictID: "440105", PoiID: "271262077"},
			read: as[CreateMapPOIReply], want: created},
		"add_store": {endpoint: AddStore, example: "add_store.request", otherwise: addOtherwise, reply: "add_store.reply",
			request: add, read: as[AddStoreReply], want: added},
		"add_store, document 002": {endpoint: AddStore, example: "add_store_002.request", otherwise: addOtherwise, reply: "add_store_002.reply",
			request: add, read: as[AddStoreReply], want: added},
		"update_store": {endpoint: UpdateStore, example: "update_store.request", otherwise: updateOtherwise, reply: "update_store.reply",
			request: update, read: as[UpdateStoreReply], want: updated},
		"update_store, document 003": {endpoint: UpdateStore, example: "update_store_003.request", otherwise: updateOtherwise, reply: "update_store_003.reply",
			request: update, read: as[UpdateStoreReply], want: updated},
		"get_store_info": {endpoint: GetStoreInfo, example: "get_store_info.request", reply: "get_store_info.reply",
			request: StoreRef{PoiID: "472671857"}, read: as[GetStoreInfoReply], want: GetStoreInfoReply{shownStore{BaseInfo: &info}}},
		"get_store_list": {endpoint: GetStoreList, example: "get_store_list.request", reply: "get_store_list.reply",
			request: GetStoreListRequest{Offset: 0, Limit: 10}, read: as[GetStoreListReply],
			want: GetStoreListReply{BusinessList: []shownStore{{BaseInfo: &first}, {BaseInfo: &listed}}, TotalCount: 2}},
		"del_store": {endpoint: DelStore, example: "del_store.request", request: StoreRef{PoiID: "472671857"}},
		"card/storewxa/get": {endpoint: GetStoreCard, example: "storewxa_get.request", reply: "storewxa_get.reply",
			request: GetStoreCardRequest{PoiID: "1234567"}, read: as[GetStoreCardReply], want: GetStoreCardReply{CardID: "pabcedfg1234567hijklmn"}},
		"card/storewxa/set": {endpoint: SetStoreCard, example: "storewxa_set.request", reply: "storewxa_set.reply",
			otherwise: []string{": 1234567\n", ": 1234567,\n"}, // a comma is missing
			request:   SetStoreCardRequest{PoiID: "1234567", CardID: "pabcedfg1234567hijklmn"}},
	}
}
