package sandbox

import (
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Places on Tencent's map (wechat/000 §4.6, §4.7).
func mapPOIEndpoints() []endpoint {
	return []endpoint{
		{method: http.MethodPost, path: "/wxa/search_map_poi", token: tokenAuthorizer, sets: mapPlaceSets, kind: officialAccount, serve: searchMapPOI},
		{method: http.MethodPost, path: "/wxa/create_map_poi", token: tokenAuthorizer, sets: mapPlaceSets, kind: officialAccount, serve: createMapPOI},
	}
}

// Places that the documents' examples name.
const (
	sampleMapPOI = "2880741500279549033" // add_store
	sampleUpdate = "5938314494307741153" // update_store
	sampleSearch = "2708071440732747189" // search_map_poi
)

func samplePlaces() []mapPOI {
	return []mapPOI{
		{
			ID: sampleMapPOI, Name: "TIT Creative Park Store", Address: "No. 397, Xingang Middle Road", Province: "Guangdong",
			City: "Guangzhou", District: "Haizhu District", Category: "Shopping:Convenience Store", Telephone: "020-89190000",
			Longitude: 113.323753357, Latitude: 23.0974903107, DataSupply: 2,
		},
		{
			ID: sampleUpdate, Name: "Longdi Neighborhood Deli",
			Address:  "Near Asheng Computer, Longdi Neighborhood, Zhongdu Avenue, Sheli Street",
			Province: "Heilongjiang", City: "Harbin", District: "Acheng District", Category: "Shopping:Convenience Store",
			Telephone: "12345678", Longitude: 126.94355011, Latitude: 45.556098938, DataSupply: 2,
		},
		{
			ID: sampleSearch, Name: "X-MAX Factory",
			Address:  "2F and 3F of Yi'an Garden (Zhonghai Mingdu), No. 172-174, Yi'an Road , Haizhu District, Guangzhou, Guangdong, China",
			Province: "Guangdong", City: "Guangzhou", District: "Haizhu District", Category: "Sports and Fitness:Gym",
			Telephone: " 020-89190388", Longitude: 113.274810791, Latitude: 23.1088695526, DataSupply: 2,
		},
	}
}

// searchMapPOI is wechat/000 §4.6. The same words find the same places, three of them; a keyword that
// contains `nowhere` finds none, as real places often are not found (platform.md §11.1 no. 15).
func searchMapPOI(c *call) (any, error) {
	id, isID := c.fields.digits("districtid")
	keyword, isText := c.fields.text("keyword")
	if !isID || !isText || strings.TrimSpace(keyword) == "" {
		return nil, refuse(40097)
	}
	d, found := leafDistrict(id)
	if !found {
		return nil, refuse(40097)
	}
	type item struct {
		BranchName string   `json:"branch_name"`
		Address    string   `json:"address"`
		Longitude  float64  `json:"longitude"`
		Latitude   float64  `json:"latitude"`
		Telephone  string   `json:"telephone"`
		Category   string   `json:"category"`
		UID        string   `json:"sosomap_poi_uid"`
		DataSupply int      `json:"data_supply"`
		PicURLs    []string `json:"pic_urls"`
		CardIDs    []string `json:"card_id_list"`
	}
	items := []item{}
	for _, p := range c.places(d, keyword) {
		if c.st.mapPOIs.get(p.ID) == nil {
			c.st.mapPOIs.put(p.ID, &p)
		}
		items = append(items, item{p.Name, p.Address, p.Longitude, p.Latitude, p.Telephone, p.Category, p.ID, p.DataSupply, []string{}, []string{}})
	}
	type data struct {
		Item []item `json:"item"`
	}
	return struct {
		okReply
		Data data `json:"data"`
	}{ok, data{items}}, nil
}

func (c *call) places(d leaf, keyword string) []mapPOI {
	if strings.Contains(keyword, "nowhere") {
		return nil
	}
	var out []mapPOI
	if d.id == "440105" && keyword == "x" {
		out = append(out, *c.st.mapPOIs.get(sampleSearch))
	}
	for i := len(out); i < 3; i++ {
		out = append(out, place(d, keyword, i))
	}
	return out
}

// place makes up the i-th place for a keyword in a district; its 19 digits follow from the words.
func place(d leaf, keyword string, i int) mapPOI {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s %s %d", d.id, keyword, i)
	n := h.Sum64()
	return mapPOI{
		ID:       strconv.FormatUint(1_000_000_000_000_000_000+n%8_000_000_000_000_000_000, 10),
		Name:     fmt.Sprintf("%s (%s No. %d)", keyword, d.fullname, i+1),
		Address:  fmt.Sprintf("No. %d, %s Road", n%900+1, d.fullname),
		Province: d.province, City: d.city, District: d.fullname,
		Category:  []string{"Shopping:Convenience Store", "Food:Chinese Restaurant", "Sports and Fitness:Gym"}[n%3],
		Telephone: fmt.Sprintf(" 020-%08d", n%100_000_000),
		Longitude: round9(d.lng + float64(n%1000)/100_000), Latitude: round9(d.lat + float64(n/1000%1000)/100_000),
		DataSupply: 2,
	}
}

func round9(f float64) float64 { return math.Round(f*1e9) / 1e9 }

var (
	mapPhoneRE = regexp.MustCompile(`^(\d{3,4}-\d{6,8}(-\d{1,6})?|1\d{10}|[48]00\d{7}|\d{11})$`)
	categoryRE = regexp.MustCompile(`^[^:]+(:[^:]+)*$`)
)

// createMapPOI is wechat/000 §4.7. The documents give it no error codes: 40097 for a missing or bad
// field, 65105 for a photo that WeChat does not host and 65111 for a phone are our reading.
func createMapPOI(c *call) (any, error) {
	f := c.fields
	text := map[string]string{}
	for _, name := range []string{
		"name", "longitude", "latitude", "province", "city", "district", "address", "category",
		"telephone", "photo", "license", "introduct", "districtid",
	} {
		v, isText := f.text(name)
		switch {
		case isText:
		case name == "longitude" || name == "latitude" || name == "districtid":
			v = string(f[name]) // strings in this sample, numbers in others: accept both
		}
		if strings.TrimSpace(v) == "" || v == "null" {
			return nil, refuse(40097)
		}
		text[name] = v
	}
	lng, err1 := strconv.ParseFloat(text["longitude"], 64)
	lat, err2 := strconv.ParseFloat(text["latitude"], 64)
	d, found := leafDistrict(text["districtid"])
	switch {
	case err1 != nil || err2 != nil || math.Abs(lng) > 180 || math.Abs(lat) > 90 || !found || !categoryRE.MatchString(text["category"]):
		return nil, refuse(40097)
	case !hostedByWeChat(text["photo"]) || !hostedByWeChat(text["license"]):
		return nil, refuse(65105)
	}
	for _, p := range strings.Split(text["telephone"], ";") {
		if !mapPhoneRE.MatchString(strings.TrimSpace(p)) {
			return nil, refuse(65111)
		}
	}
	legacy, err := f.optional("poi_id")
	if err != nil {
		return nil, err
	}
	if legacy != "" {
		if _, err := c.migratable(legacy); err != nil {
			return nil, err
		}
	}
	if strings.Contains(text["name"], "refused-by-map") {
		return mapPOIReply{Error: "the name is not allowed"}, nil // the documents' own way to say no
	}

	base, rich := c.newID("base_id", 42_160), c.newID("rich_id", 42_010)
	p := &mapPOI{
		Name: text["name"], Address: text["address"], Province: text["province"], City: text["city"], District: d.fullname,
		Category: text["category"], Telephone: text["telephone"], Longitude: lng, Latitude: lat, DataSupply: 2,
	}
	c.submit(&audit{Kind: auditMapPOI, ID: base, AppID: c.acc.AppID, Subject: p.Name, Place: p, LegacyPOIID: legacy}, mapPOIDelay, text["telephone"])
	id := strconv.FormatInt(base, 10)
	c.told("base_id", id, c.acc.AppID, p.Name, "create_map_poi")
	c.told("rich_id", strconv.FormatInt(rich, 10), c.acc.AppID, p.Name, "create_map_poi")
	c.executed("create_map_poi", c.acc.AppID, id, p.Name)
	data := &mapPOIData{base, rich}
	if c.st.Settings.MapPOIErrcodeShape {
		return struct {
			okReply
			Data *mapPOIData `json:"data"`
		}{ok, data}, nil
	}
	return mapPOIReply{Data: data}, nil
}

type mapPOIData struct {
	BaseID int64 `json:"base_id"`
	RichID int64 `json:"rich_id"`
}

// mapPOIReply has no errcode: error is null when all is well.
type mapPOIReply struct {
	Error any         `json:"error"`
	Data  *mapPOIData `json:"data"`
}

func (s *Server) newMapPOIID() string {
	for {
		id := strconv.FormatInt(1_000_000_000_000_000_000+s.rng.Int64N(8_000_000_000_000_000_000), 10)
		if s.st.mapPOIs.get(id) == nil {
			return id
		}
	}
}
