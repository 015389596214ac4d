package handlers

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/problem"
)

// legacyStoreRules are the rules of document 001 §3.2 that the contract's
// schemas can't express: widths, and what one field says of another. What only
// a reviewer can tell, such as a region in a name, is left to WeChat's.
func legacyStoreRules(s *state, b oapi.LegacyStoreCreate) []problem.Field {
	var broken []problem.Field
	fail := func(pointer string, r rule, bound string) { broken = append(broken, field(s, pointer, r, bound)) }
	for _, text := range []struct {
		pointer, value string
		limit          int
	}{
		{"/business_name", b.BusinessName, 30}, {"/branch_name", b.BranchName, 40}, {"/province", b.Province, 20},
		{"/city", b.City, 20}, {"/district", b.District, 20}, {"/address", b.Address, 160},
	} {
		if width(text.value) > text.limit {
			fail(text.pointer, ruleTooWide, strconv.Itoa(text.limit))
		}
	}
	if strings.ContainsAny(b.BusinessName, parentheses) {
		fail("/business_name", ruleParentheses, "")
	}
	if strings.ContainsAny(b.BranchName, parentheses) {
		fail("/branch_name", ruleParentheses, "")
	}
	if strings.Contains(strings.ToLower(b.BranchName), strings.ToLower(strings.TrimSpace(b.BusinessName))) {
		fail("/branch_name", ruleRepeatsName, "")
	}
	switch {
	case namesRegion(b.Address, b.Province):
		fail("/address", ruleNamesRegion, "province")
	case namesRegion(b.Address, b.City):
		fail("/address", ruleNamesRegion, "city")
	}
	if b.CoordinateSystem != "sogou_mercator" {
		for _, c := range []struct {
			pointer, value string
			limit          float64
		}{{"/location/latitude", b.Location.Latitude, 90}, {"/location/longitude", b.Location.Longitude, 180}} {
			if v, err := strconv.ParseFloat(c.value, 64); err != nil || math.Abs(v) > c.limit {
				fail(c.pointer, ruleDegrees, strconv.FormatFloat(c.limit, 'f', -1, 64))
			}
		}
	}
	return append(broken, legacyServiceRules(s, b.Recommendation, b.Special, b.Introduction)...)
}

// legacyServiceRules are the widths of the fields that may change later.
func legacyServiceRules(s *state, recommendation, special, introduction *string) []problem.Field {
	var broken []problem.Field
	for _, text := range []struct {
		pointer string
		value   *string
		limit   int
	}{{"/recommendation", recommendation, 400}, {"/special", special, 400}, {"/introduction", introduction, 600}} {
		if width(deref(text.value)) > text.limit {
			broken = append(broken, field(s, text.pointer, ruleTooWide, strconv.Itoa(text.limit)))
		}
	}
	return broken
}

const parentheses = "()（）"

// width counts as WeChat does: what isn't ASCII counts as two.
func width(s string) int {
	n := 0
	for _, r := range s {
		if n++; r > 0x7f {
			n++
		}
	}
	return n
}

// street is what follows the name of a region where it is that of a street:
// "Beijing Road", "广州大道".
var street = regexp.MustCompile(`(?i)^\s*(east|west|south|north|[东西南北中])?\s*(road|rd|avenue|ave|street|st|boulevard|highway|lane|大道|大街|路|街|巷|道)`)

// namesRegion reports whether an address begins or ends with a province or
// city, or holds it between commas: WeChat puts both behind the address
// (document 001 §3.2, "Detailed Address").
func namesRegion(address, region string) bool {
	address, region = strings.ToLower(strings.TrimSpace(address)), strings.ToLower(strings.TrimSpace(region))
	if region == "" {
		return false
	}
	for part := range strings.FieldsFuncSeq(address, func(r rune) bool { return r == ',' || r == '，' }) {
		if strings.TrimSpace(part) == region {
			return true
		}
	}
	if rest, ok := strings.CutPrefix(address, region); ok && !inWord(rest) && !street.MatchString(rest) {
		return true
	}
	before, ok := strings.CutSuffix(address, region)
	return ok && (before == "" || !inWord(before[len(before)-1:]))
}

// inWord reports whether a Latin word goes on: "Yan" is not what "Yanta Road" begins with.
func inWord(rest string) bool {
	return rest != "" && (rest[0] >= 'a' && rest[0] <= 'z' || rest[0] >= '0' && rest[0] <= '9')
}
