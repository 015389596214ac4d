package wechat

import (
	"cmp"
	"maps"
	"slices"
)

// An ErrcodeRow is what we know of one errcode in some families. The rows are
// generated from api/errors.yaml.
type ErrcodeRow struct {
	Families  []Family // empty: every family
	Endpoint  string   // not empty: this call alone
	Errcode   int64
	Class     Class
	Code      string   // the stable code of our problem document
	Retry     string   // when it can succeed: never, backoff, quota, token, fix, state
	Retryable bool     // waiting, or a fresh token, may help
	Pointers  []string // members of our request that it concerns
}

// Errcodes are all rows, by errcode. Those of failures that come without one
// have 0 and stand first.
func Errcodes() []ErrcodeRow {
	rows := slices.Collect(maps.Values(codelessRows))
	slices.SortFunc(rows, func(a, b ErrcodeRow) int { return cmp.Compare(a.Code, b.Code) })
	for _, code := range slices.Sorted(maps.Keys(errcodes)) {
		rows = append(rows, errcodes[code]...)
	}
	return rows
}

// LookupErrcode finds the row of code in family, or the one for all families.
// What only one call means by it is Endpoint.Errcode.
func LookupErrcode(family Family, code int64) (ErrcodeRow, bool) {
	return lookup(family, "", code)
}

// Errcode finds the row of code for this call, for its family, or for all.
func (e *Endpoint) Errcode(code int64) (ErrcodeRow, bool) {
	return lookup(e.Family, e.Name, code)
}

func lookup(family Family, endpoint string, code int64) (ErrcodeRow, bool) {
	if code >= codeless {
		row, ok := codelessRows[family]
		return row, ok
	}
	var found *ErrcodeRow
	best := 0
	for i := range errcodes[code] {
		row := &errcodes[code][i]
		rank := 1
		switch {
		case row.Endpoint != "":
			if rank = 3; row.Endpoint != endpoint {
				continue
			}
		case len(row.Families) > 0:
			if rank = 2; !slices.Contains(row.Families, family) {
				continue
			}
		}
		if rank > best {
			found, best = row, rank
		}
	}
	if found == nil {
		return ErrcodeRow{}, false
	}
	return *found, true
}
