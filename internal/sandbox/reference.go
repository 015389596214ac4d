package sandbox

import "net/http"

// Categories and districts (wechat/000 §4.1, §4.5).
func referenceEndpoints() []endpoint {
	get := func(path string, sets []int, serve func(*call) (any, error)) endpoint {
		return endpoint{method: http.MethodGet, path: "/wxa/" + path, token: tokenAuthorizer, sets: sets, kind: officialAccount, serve: serve}
	}
	return []endpoint{
		get("get_merchant_category", mapPlaceSets, getMerchantCategory),
		get("get_district", mapPlaceSets, getDistrict),
	}
}

type category struct {
	ID        int      `json:"id"`
	Name      string   `json:"name"`
	Level     int      `json:"level"`
	Father    *int     `json:"father,omitempty"`
	Children  []int    `json:"children"`
	Qualify   *qualify `json:"qualify,omitempty"`
	Scene     int      `json:"scene,omitempty"`
	Sensitive *int     `json:"sensitive_type,omitempty"`
}

type qualify struct {
	ExterList []exter `json:"exter_list"`
}

type exter struct {
	InnerList []inner `json:"inner_list"`
}

type inner struct {
	Name string `json:"name"`
}

// categoryTable is primary categories with their secondary ones. Each certificate is one inner_list
// of alternatives; an id of the documents keeps its name (278, 280; 476 and 477 of §4.2).
var categoryTable = []struct {
	id       int
	name     string
	children []subcategory
}{
	{269, "Food", []subcategory{
		{270, "Chinese Restaurant", []string{"Food Trade License or Catering Service Permit."}},
		{271, "Western Restaurant", []string{"Food Trade License or Catering Service Permit."}},
		{272, "Cafe", []string{"Food Trade License or Catering Service Permit."}},
	}},
	{278, "Shopping", []subcategory{
		{279, "Department Store", nil},
		{280, "Convenience Store", []string{"If food is involved, provide the Food Trade License or Sanitation Permit."}},
		{281, "Clothing and Shoes", nil},
	}},
	{300, "Health", []subcategory{
		{301, "Pharmacy", []string{"Drug Distribution License.", "Certificate of Good Supply Practice."}},
		{302, "Optician", nil},
	}},
	{476, "Sports and Fitness", []subcategory{
		{477, "Gym", nil},
		{478, "Swimming Pool", []string{"Sanitation Permit.", "High-risk Sports Permit."}},
	}},
}

type subcategory struct {
	id           int
	name         string
	certificates []string
}

// getMerchantCategory is wechat/000 §4.1.
func getMerchantCategory(*call) (any, error) {
	root := category{Name: "root", Children: []int{}}
	all := []category{{}}
	zero := 0
	for _, p := range categoryTable {
		root.Children = append(root.Children, p.id)
		primary := category{ID: p.id, Name: p.name, Level: 1, Father: &zero, Children: []int{}}
		var subs []category
		for _, sub := range p.children {
			primary.Children = append(primary.Children, sub.id)
			sensitive := min(1, len(sub.certificates))
			q := &qualify{ExterList: []exter{}}
			for _, name := range sub.certificates {
				q.ExterList = append(q.ExterList, exter{[]inner{{name}}})
			}
			subs = append(subs, category{
				ID: sub.id, Name: sub.name, Level: 2, Father: &p.id, Children: []int{}, Qualify: q, Scene: 3, Sensitive: &sensitive,
			})
		}
		all = append(append(all, primary), subs...)
	}
	all[0] = root
	type info struct {
		Categories []category `json:"categories"`
	}
	type data struct {
		All info `json:"all_category_info"`
	}
	return struct {
		okReply
		Data data `json:"data"`
	}{ok, data{info{all}}}, nil
}

// storeCategory finds a secondary category below a primary one.
func storeCategory(first, second int64) (subcategory, bool) {
	for _, p := range categoryTable {
		for _, sub := range p.children {
			if int64(p.id) == first && int64(sub.id) == second {
				return sub, true
			}
		}
	}
	return subcategory{}, false
}
