package sandbox

func business(base obj) obj { return obj{"business": obj{"base_info": base}} }

// addPOIExample is the store of wechat/001 §3.4 and of its "Good Example"s, since the example of §3.2
// only says what each field may hold; its pictures are where WeChat puts them.
func addPOIExample() obj {
	return obj{
		"sid": "33788392", "business_name": "McDonald's", "branch_name": "Yiyuan Road Outlet", "province": "Guangdong", "city": "Guangzhou",
		"district": "Haizhu District", "address": "Yiyuan Road 11 ", "telephone": "020-12345678", "categories": []string{"Food,Snack and Fast Food"},
		"offset_type": 1, "longitude": 115.32375, "latitude": 25.097486,
		"photo_list": []obj{{"photo_url": "http://mmbiz.qpic.cn/XXXXX"}, {"photo_url": samplePhoto}},
		"recommend":  "McCrispy Chicken Burger Combo Meal, Chicken McNuggets, Family Barrels",
		"special":    "Free wifi, delivery service",
		"introduction": "Founded in 1940  in the US, McDonald's is a large global restaurant chain, with about 3 0,000 outlets all over the world. " +
			"It features hamburgers, French fries, chicken products, soft drinks, milkshakes, wraps, salad, and desserts.",
		"open_time": "8:00-20:00", "avg_price": 35,
	}
}

// updatePOIExample is wechat/001 §3.6 without the blanks at the end of its keys, and with its commas.
func updatePOIExample() obj {
	e := addPOIExample().without("business_name", "branch_name", "province", "city", "district", "address", "categories", "offset_type", "longitude", "latitude")
	return e.with(obj{"poi_id": "271864249", "sid": "A00001"})
}
