package sandbox

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// What wechat/004 demands of the fields of goods, and the magic inputs that stand for what only
// WeChat's reviewers can see (README.md).
const (
	nameBlocked      = "add-blocked"   // 300001
	nameIllegal      = "bad-name"      // 300004
	namePicture      = "bad-picture"   // 300005
	nameNotAdded     = "add-fails"     // 300008
	nameNotAudited   = "audit-fails"   // 300021 of add: the goods are there, their audit is not
	nameNoID         = "no-id"         // with audit-fails: the reply lacks the goodsId
	nameNeverAudited = "never-audited" // 300013 of audit
	pathUnreleased   = "unreleased"    // 300007
)

// Values of priceType.
const (
	priceSingle   = 1
	priceRange    = 2
	priceDiscount = 3
)

const (
	maxGoodsName  = 28  // of Latin characters; a Chinese one is two
	maxGoodsCover = 300 // pixels, either way
)

var (
	priceRE = regexp.MustCompile(`^(0|[1-9]\d{0,11})(\.\d{1,2})?$`)
	pagesRE = regexp.MustCompile(`^/?[\w-]+(/[\w-]+)*(\.html)?$`)
)

// goodsInfo is the nested object of add and update; without it, or as something else, 47001.
func (c *call) goodsInfo() (fields, error) {
	var f fields
	if raw := c.fields["goodsInfo"]; len(raw) == 0 || json.Unmarshal(raw, &f) != nil || f == nil {
		return nil, refuse(47001)
	}
	return f, nil
}

// require: a missing member is an "entry error".
func (f fields) require(names ...string) error {
	for _, n := range names {
		if !f.has(n) {
			return refuse(200002)
		}
	}
	return nil
}

// alter writes the members that are present to g, each after its rule.
func (c *call) alter(g *goods, in fields) error {
	if in.has("name") {
		name, isText := in.text("name")
		switch w := width(name); {
		case !isText:
			return refuse(47001)
		case w < 1 || w > maxGoodsName:
			return refuse(300002)
		case strings.Contains(name, nameIllegal):
			return refuse(300004)
		case strings.Contains(name, namePicture):
			return refuse(300005)
		}
		g.Name = name
	}
	if err := in.prices(g); err != nil {
		return err
	}
	if in.has("url") {
		path, isText := in.text("url")
		switch {
		case !isText:
			return refuse(47001)
		case !released(path):
			return refuse(300007)
		}
		g.Path = path
	}
	if in.has("coverImgUrl") {
		id, isText := in.text("coverImgUrl")
		if !isText {
			return refuse(47001)
		}
		m := c.media(id)
		if m == nil || m.Width > maxGoodsCover || m.Height > maxGoodsCover {
			return refuse(300006)
		}
		g.CoverURL = m.URL
	}
	return nil
}

// width counts as WeChat does: "1 Chinese character is equivalent to 2 characters".
func width(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > unicode.MaxASCII {
			n++
		}
	}
	return n
}

// prices: type 1 has price alone, type 2 a left and a right boundary, type 3 the original and the
// present price; a new type needs its prices with it. Whatever is wrong is 300003.
func (f fields) prices(g *goods) error {
	if !f.has("priceType") && !f.has("price") && !f.has("price2") {
		return nil
	}
	price, price2 := g.Price, g.Price2
	if f.has("priceType") {
		kind, isNumber := f.number("priceType")
		if !isNumber || kind < priceSingle || kind > priceDiscount || !f.has("price") {
			return refuse(300003)
		}
		g.PriceType, price2 = int(kind), 0
	}
	for name, v := range map[string]*int64{"price": &price, "price2": &price2} {
		if !f.has(name) {
			continue
		}
		fen, ok := parseFen(string(f[name]))
		if !ok || fen == 0 {
			return refuse(300003)
		}
		*v = fen
	}
	switch {
	case g.PriceType == priceSingle && price2 != 0,
		g.PriceType != priceSingle && price2 == 0,
		g.PriceType == priceRange && price > price2,
		g.PriceType == priceDiscount && price2 > price:
		return refuse(300003)
	}
	g.Price, g.Price2 = price, price2
	return nil
}

// parseFen reads a JSON number of yuan with at most two decimals.
func parseFen(text string) (int64, bool) {
	if !priceRE.MatchString(text) {
		return 0, false
	}
	yuan, decimals, _ := strings.Cut(text, ".")
	fen, err := strconv.ParseInt(yuan+(decimals + "00")[:2], 10, 64)
	return fen, err == nil
}

// released says whether the path may be a page of the published mini program: no address of the web,
// and one in its query only when encoded.
func released(path string) bool {
	page, query, _ := strings.Cut(path, "?")
	if !pagesRE.MatchString(page) || strings.Contains(path, pathUnreleased) {
		return false
	}
	for _, pair := range strings.Split(query, "&") {
		_, value, _ := strings.Cut(pair, "=")
		if _, err := url.PathUnescape(value); err != nil || strings.ContainsAny(value, ":/?#= ") {
			return false
		}
	}
	return true
}
