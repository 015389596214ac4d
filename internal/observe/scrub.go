package observe

import (
	"log/slog"
	"math/bits"
	"regexp"
)

var (
	// named finds a secret by the name before it: access_token=…,
	// "component_access_token": "…", 'ticket: …', and, after a space alone,
	// only what is long enough to be one, so that prose survives.
	named = regexp.MustCompile(`(?i)((?:access|refresh|message|session)_token|app_?secret|[a-z]*_?secret|(?:pre_)?auth_code|` +
		`(?:component_verify_)?ticket|encoding_?aes_?key|api_?key|password|authorization)` +
		`(["'\\]*\s*[:=]+\s*["'\\]*(?:bearer\s+)?(?:\[REDACTED\]|[^&"'\\\s,}\]]+)|\s+[A-Za-z0-9_@+/=.-]{20,})`)
	// jwt finds a JSON web token wherever it stands.
	jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`)
)

// Redacted stands where a secret was.
const Redacted = "[REDACTED]"

// Scrub takes secrets out of a text: the value after a name that WeChat or we
// give to a secret, and whatever looks like an API key. It is the last net:
// secrets are kept out of errors and logs by their types first.
func Scrub(s string) string {
	if !suspicious(s) {
		return s
	}
	s = named.ReplaceAllString(s, "$1="+Redacted)
	return jwt.ReplaceAllString(s, Redacted)
}

// words are what a text holds that the expressions may find something in: of
// the names, and of the letters that fold to an s or a k, ſ and the Kelvin sign.
var words = [...]string{"token", "ticket", "secret", "auth", "aes", "api", "password", "eyJ", "\u017f", "\u212a"}

// first and second have a bit for each of words that begins with a byte, in
// any case, and that it is the second of.
var first, second = func() (first, second [256]uint16) {
	for i, w := range words {
		for _, upper := range []byte{0, 0x20} {
			first[(w[0]|0x20)^upper] |= 1 << i
			second[(w[1]|0x20)^upper] |= 1 << i
		}
	}
	return first, second
}()

// suspicious is a cheap test that never misses what the expressions find:
// they cost microseconds, and nearly all texts hold no such word.
func suspicious(s string) bool {
	for i := 0; i+1 < len(s); i++ {
		for may := first[s[i]] & second[s[i+1]]; may != 0; may &= may - 1 {
			if fold(s[i:], words[bits.TrailingZeros16(may)]) {
				return true
			}
		}
	}
	return false
}

// fold reports whether s begins with word, in any case.
func fold(s, word string) bool {
	if len(s) < len(word) {
		return false
	}
	for i := range len(word) {
		if s[i]|0x20 != word[i]|0x20 {
			return false
		}
	}
	return true
}

// plain reports whether a value is one that scrubAttr leaves as it is.
func plain(v slog.Value) bool {
	switch v.Kind() {
	case slog.KindString:
		return !suspicious(v.String())
	case slog.KindAny, slog.KindLogValuer, slog.KindGroup:
		return false
	}
	return true
}

// scrubAttr scrubs the text of an attribute, an error's and that of bytes; of a
// group, its members.
func scrubAttr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(Scrub(a.Value.String()))
	case slog.KindGroup:
		a.Value = slog.GroupValue(scrubAttrs(a.Value.Group())...)
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.StringValue(Scrub(v.Error()))
		case []byte:
			a.Value = slog.StringValue(Scrub(string(v)))
		}
	}
	return a
}

func scrubAttrs(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		out[i] = scrubAttr(a)
	}
	return out
}
