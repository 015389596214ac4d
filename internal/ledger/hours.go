package ledger

import "regexp"

var oneInterval = regexp.MustCompile(`^\s*([0-9]{1,2}:[0-9]{2})\s*[-~]\s*([0-9]{1,2}:[0-9]{2})\s*$`)

// OneInterval reads business hours as WeChat shows them; ok is false where they
// are not one interval of a day.
func OneInterval(text string) (open, closed string, ok bool) {
	m := oneInterval.FindStringSubmatch(text)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// Interval writes business hours as WeChat's documents show them, two digits
// everywhere (000 §4.8).
func Interval(open, closed string) string { return twoDigits(open) + "-" + twoDigits(closed) }

func twoDigits(clock string) string {
	if len(clock) == len("9:00") {
		return "0" + clock
	}
	return clock
}
