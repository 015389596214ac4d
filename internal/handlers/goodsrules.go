package handlers

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// maxGoodsName is in characters that aren't Chinese (document 004 §1).
const maxGoodsName = 28

// goodsRules checks what the contract's schemas can't express of goods (document
// 004 §1), and reads the prices. nil is a field that wasn't sent.
func goodsRules(ctx context.Context, name, path *string, pricing *oapi.Pricing) (*ledger.Pricing, error) {
	var broken []problem.Field
	fail := func(pointer string, r rule, bound string) {
		broken = append(broken, field(stateOf(ctx), pointer, r, bound))
	}
	switch {
	case name == nil:
	case invisible(*name):
		fail("/name", ruleInvisible, "")
	case width(*name) > maxGoodsName:
		fail("/name", ruleTooWide, strconv.Itoa(maxGoodsName))
	}
	if path != nil && !miniProgramPath(*path) {
		fail("/path", rulePath, "")
	}
	var p *ledger.Pricing
	if pricing != nil {
		var err error
		if p, err = pricingFromAPI(*pricing); err != nil {
			return nil, err
		}
		pricingRules(*p, fail)
	}
	if len(broken) > 0 {
		return nil, problem.Of(problem.CodeValidationFailed).WithFields(broken...)
	}
	return p, nil
}

func pricingFromAPI(in oapi.Pricing) (*ledger.Pricing, error) {
	v, err := in.ValueByDiscriminator()
	if err != nil {
		return nil, err
	}
	switch p := v.(type) {
	case oapi.PricingFixed:
		return &ledger.Pricing{Type: wechat.PriceFixed, Price: p.Amount}, nil
	case oapi.PricingRange:
		return &ledger.Pricing{Type: wechat.PriceRange, Price: p.Min, Price2: p.Max}, nil
	case oapi.PricingDiscount:
		return &ledger.Pricing{Type: wechat.PriceDiscount, Price: p.Original, Price2: p.Current}, nil
	}
	return nil, problem.Of(problem.CodeInternal)
}

// pricingMembers are what prices are called by their type.
var pricingMembers = map[int][2]string{
	wechat.PriceFixed:    {"/pricing/amount"},
	wechat.PriceRange:    {"/pricing/min", "/pricing/max"},
	wechat.PriceDiscount: {"/pricing/original", "/pricing/current"},
}

func pricingRules(p ledger.Pricing, fail func(string, rule, string)) {
	at := pricingMembers[p.Type]
	for i, price := range []string{p.Price, p.Price2} {
		if at[i] != "" && strings.Trim(price, "0.") == "" {
			fail(at[i], rulePriceZero, "")
		}
	}
	switch {
	case p.Type == wechat.PriceRange && above(p.Price, p.Price2):
		fail(at[1], ruleBelowMin, "")
	case p.Type == wechat.PriceDiscount && above(p.Price2, p.Price):
		fail(at[1], ruleAboveOriginal, "")
	}
}

// above compares two prices of the contract's pattern, digit by digit.
func above(a, b string) bool {
	a, b = inFen(a), inFen(b)
	if len(a) != len(b) {
		return len(a) > len(b)
	}
	return a > b
}

// inFen are a price's digits without leading zeros: 9950 for "99.5".
func inFen(price string) string {
	yuan, fen, _ := strings.Cut(price, ".")
	return strings.TrimLeft(yuan+(fen + "00")[:2], "0")
}

// A path of a mini program: no scheme and no host, and in its query nothing
// that should have been percent-encoded (document 004 §1, "Url").
var pathPattern = regexp.MustCompile(`^[\p{L}\p{N}_./-]+(\?([^\s:/?#=&%]|%[0-9A-Fa-f]{2})*(=([^\s:/?#=&%]|%[0-9A-Fa-f]{2})*)?(&([^\s:/?#=&%]|%[0-9A-Fa-f]{2})*(=([^\s:/?#=&%]|%[0-9A-Fa-f]{2})*)?)*)?$`)

func miniProgramPath(path string) bool {
	page, _, _ := strings.Cut(path, "?")
	return pathPattern.MatchString(path) && !slices.Contains(strings.Split(page, "/"), "..") && !strings.HasPrefix(path, "//") && !strings.HasPrefix(strings.ToLower(path), "http")
}
