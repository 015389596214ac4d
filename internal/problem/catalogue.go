package problem

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// An entry is a code of api/errors.yaml. The texts are in English and Chinese.
type entry struct {
	kind      Kind
	retryable bool
	where     string
	title     [2]string
	detail    [2]string
}

// Of makes an Error of a code of the catalogue, with its kind, its sentence
// and whether waiting helps. A code that the catalogue doesn't know is
// internal.
func Of(code string) *Error {
	e, ok := catalogue[code]
	if !ok {
		return &Error{Kind: Internal, Code: CodeInternal}
	}
	return &Error{Kind: e.kind, Code: code, Retryable: e.retryable}
}

// Known reports whether the catalogue has the code.
func Known(code string) bool {
	_, ok := catalogue[code]
	return ok
}

// Codes are all codes, by status and name.
func Codes() []string {
	return slices.SortedFunc(maps.Keys(catalogue), func(a, b string) int {
		return cmp.Or(cmp.Compare(KindOf(a).Status(), KindOf(b).Status()), cmp.Compare(a, b))
	})
}

// Text is what a code means and what to do about it, in Chinese where lang is
// "zh" and in English otherwise. For an unknown code both are empty.
func Text(code, lang string) (title, detail string) {
	e, i := catalogue[code], 0
	if lang == "zh" {
		i = 1
	}
	return e.title[i], e.detail[i]
}

// KindOf is the kind of a code; Internal for one that the catalogue lacks.
func KindOf(code string) Kind { return catalogue[code].kind }

// Retryable reports whether the same request can succeed later, by waiting
// alone.
func Retryable(code string) bool { return catalogue[code].retryable }

// Listed returns the codes that an operation of the REST contract must list:
// all but those of the edge, of pages for browsers and of outcomes inside
// operations.
func Listed() []string {
	var out []string
	for code, e := range catalogue {
		if e.where == "" {
			out = append(out, code)
		}
	}
	return out
}

// statuses is the one table from kinds to HTTP statuses.
var statuses = [...]int{
	Internal: 500, Malformed: 400, Unauthenticated: 401, Forbidden: 403, NotFound: 404, MethodNotAllowed: 405,
	NotAcceptable: 406, Conflict: 409, Gone: 410, PreconditionFailed: 412, TooLarge: 413, UnsupportedMedia: 415,
	Invalid: 422, RateLimited: 429, Upstream: 502, Unavailable: 503,
}

// Status is the HTTP status of a kind.
func (k Kind) Status() int { return statuses[k] }

// Language chooses between "en" and "zh" by an Accept-Language header: the
// first of the two with the highest quality.
func Language(accept string) string {
	best, bestQ := "en", 0.0
	for part := range strings.SplitSeq(accept, ",") {
		tag, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		lang, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if lang != "zh" && lang != "en" && lang != "*" {
			continue
		}
		if lang == "*" {
			lang = "en"
		}
		if q := quality(params); q > bestQ {
			best, bestQ = lang, q
		}
	}
	return best
}

// quality reads ";q=0.8"; absent is 1, unreadable 0.
func quality(params string) float64 {
	_, v, ok := strings.Cut(params, "q=")
	if !ok {
		return 1
	}
	v = strings.TrimSpace(v)
	if len(v) > 5 || v == "" || v[0] != '0' && v[0] != '1' {
		return 0
	}
	whole, frac, _ := strings.Cut(v, ".")
	q := float64(whole[0] - '0')
	scale := 0.1
	for i := range len(frac) {
		if frac[i] < '0' || frac[i] > '9' {
			return 0
		}
		q += float64(frac[i]-'0') * scale
		scale /= 10
	}
	return min(q, 1)
}
