package wechat

// An ErrcodeRow is what we know of one errcode in some families. The rows are
// generated from api/errors.yaml.
type ErrcodeRow struct {
	Families  []Family // empty: every family
	Errcode   int64
	Class     Class
	Code      string   // the stable code of our problem document
	Retryable bool     // waiting, or a fresh token, may help
	Pointers  []string // members of our request that it concerns
}

// LookupErrcode finds the row of code in family, or the one for all families.
func LookupErrcode(family Family, code int64) (ErrcodeRow, bool) {
	var common *ErrcodeRow
	for i := range errcodes[code] {
		row := &errcodes[code][i]
		if len(row.Families) == 0 {
			common = row
		}
		for _, f := range row.Families {
			if f == family {
				return *row, true
			}
		}
	}
	if common == nil {
		return ErrcodeRow{}, false
	}
	return *common, true
}
