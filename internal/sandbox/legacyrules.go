package sandbox

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The field rules of addpoi and updatepoi (wechat/001 §3.2, Table and "Common Field Mistakes to Avoid").
// A wrong field is refused with the code that bears its name, the others with 40097.

var (
	// wechat/001 §3.2, "Phone Number": one number, digits only, its parts joined with "-".
	legacyPhoneRE = regexp.MustCompile(`^(0\d{2,3}-\d{7,8}(-\d{1,6})?|1\d{10}|[48]00\d{7}(-\d{1,6})?|[48]00\d{4}-\d{1,6})$`)
	openTimeRE    = regexp.MustCompile(`^([01]?\d|2[0-3]):[0-5]\d-(([01]?\d|2[0-3]):[0-5]\d|24:00)$`)
)

var legacyServiceFields = map[string]bool{
	"sid": true, "photo_list": true, "open_time": true, "recommend": true, "special": true,
	"introduction": true, "avg_price": true, "telephone": true,
}

// businessInfo is business.base_info of the body.
func (c *call) businessInfo() (fields, error) {
	b, isObject := c.fields.object("business")
	if isObject {
		b, isObject = b.object("base_info")
	}
	if !isObject {
		return nil, refuse(40097)
	}
	return b, nil
}

func readLegacyBase(f fields) (legacyBase, error) {
	var v legacyBase
	for _, t := range []struct {
		name  string
		to    *string
		width int
		code  int
	}{
		{"business_name", &v.BusinessName, 30, 65109},
		{"branch_name", &v.BranchName, 40, 40097},
		{"province", &v.Province, 20, 65113},
		{"city", &v.City, 20, 65112},
		{"district", &v.District, 20, 40097},
		{"address", &v.Address, 160, 65110},
	} {
		text, isText := f.text(t.name)
		empty := strings.TrimSpace(text) == ""
		if empty && isText && (t.name == "address" || t.name == "district") && withoutDistricts(v.City) {
			continue // "For cities without districts such as Dongguan, this field can be left empty."
		}
		if empty || width(text) > t.width {
			return v, refuse(t.code)
		}
		*t.to = text
	}
	switch {
	case strings.ContainsFunc(v.BusinessName, special):
		return v, refuse(65109)
	case strings.ContainsFunc(v.BranchName, special) || strings.Contains(v.BranchName, strings.TrimSpace(v.BusinessName)):
		return v, refuse(40097)
	case namesRegion(v.Address, v.Province) || namesRegion(v.Address, v.City):
		return v, refuse(65110)
	}
	if json.Unmarshal(f["categories"], &v.Categories) != nil || len(v.Categories) == 0 {
		return v, refuse(65104)
	}
	for _, cat := range v.Categories {
		if !slices.ContainsFunc(legacyCategories, func(known string) bool { return categoryPath(known) == categoryPath(cat) }) {
			return v, refuse(65104)
		}
	}
	var isNumber, isLng, isLat bool
	v.OffsetType, isNumber = f.number("offset_type")
	v.Longitude, isLng = f.decimal("longitude")
	v.Latitude, isLat = f.decimal("latitude")
	mercator := v.OffsetType == 6 // meters, not degrees
	if !isNumber || !isLng || !isLat || v.OffsetType < 1 || v.OffsetType > 6 ||
		(!mercator && (math.Abs(v.Longitude) > 180 || math.Abs(v.Latitude) > 90)) {
		return v, refuse(40097)
	}
	return v, nil
}

// withoutDistricts says whether a city is itself the last level of get_district.
func withoutDistricts(city string) bool {
	for _, l := range districtLeaves {
		if strings.HasSuffix(l.id, "00") && (l.city == city || l.fullname == city) {
			return true
		}
	}
	return false
}

// namesRegion says whether an address gives the province or city, as a part of its own between commas
// or as its Chinese beginning ("杭州市庆春路86号"). A road may be called after a city.
func namesRegion(address, region string) bool {
	region = strings.TrimSpace(region)
	for part := range strings.FieldsFuncSeq(address, func(r rune) bool { return r == ',' || r == '，' }) {
		part = strings.TrimSpace(part)
		if strings.EqualFold(part, region) || strings.EqualFold(part, region+" City") || strings.EqualFold(part, region+" Province") {
			return true
		}
	}
	short := strings.TrimSuffix(strings.TrimSuffix(region, "市"), "省")
	return short != "" && (strings.HasPrefix(address, short+"市") || strings.HasPrefix(address, short+"省"))
}

// readLegacyService reads the fields that are there over the ones from before.
func readLegacyService(f fields, v legacyService) (legacyService, error) {
	for _, t := range []struct {
		name  string
		to    *string
		width int
		code  int
	}{
		{"sid", &v.SID, math.MaxInt, 40097},
		{"telephone", &v.Telephone, 53, 65111},
		{"recommend", &v.Recommend, 400, 40097},
		{"special", &v.Special, 400, 40097},
		{"introduction", &v.Introduction, 600, 40097},
		{"open_time", &v.OpenTime, math.MaxInt, 40097},
	} {
		if !f.has(t.name) {
			continue
		}
		text, isText := f.text(t.name)
		bad := !isText || width(text) > t.width ||
			(t.name == "telephone" && !legacyPhoneRE.MatchString(text)) ||
			(t.name == "open_time" && text != "" && !openTimeRE.MatchString(text))
		if bad {
			return v, refuse(t.code)
		}
		*t.to = text
	}
	if f.has("photo_list") {
		var list []photo
		switch err := json.Unmarshal(f["photo_list"], &list); {
		case err != nil || len(list) > 20:
			return v, refuse(40097)
		case len(list) == 0:
			return v, refuse(65114)
		}
		v.Photos = make([]string, len(list))
		for i, p := range list {
			if !hostedByWeChat(p.URL) {
				return v, refuse(65105)
			}
			v.Photos[i] = p.URL
		}
	}
	if f.has("avg_price") {
		n, isNumber := f.number("avg_price")
		if !isNumber || n < 1 {
			return v, refuse(40097)
		}
		v.AvgPrice = n
	}
	return v, nil
}

// decimal is a member that must be a JSON number.
func (f fields) decimal(name string) (float64, bool) {
	n, err := strconv.ParseFloat(string(f[name]), 64)
	return n, err == nil
}
