package problem

import (
	"regexp"
	"testing"
)

func TestCatalogue(t *testing.T) {
	t.Parallel()
	chinese := regexp.MustCompile(`\p{Han}`)
	for code := range catalogue {
		en, enDetail := Text(code, "en")
		zh, zhDetail := Text(code, "zh")
		if en == "" || chinese.MatchString(en+enDetail) {
			t.Errorf("%s: the English text is %q, %q", code, en, enDetail)
		}
		if !chinese.MatchString(zh) || !chinese.MatchString(zhDetail) {
			t.Errorf("%s: the Chinese text is %q, %q", code, zh, zhDetail)
		}
		if e := Of(code); e.Code != code || e.Kind.Status() < 400 || e.Retryable != Retryable(code) {
			t.Errorf("Of(%q) = %+v", code, e)
		}
	}
	if e := Of("nobody_knows"); e.Kind != Internal || e.Code != CodeInternal {
		t.Errorf("Of an unknown code = %+v, want internal", e)
	}
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	for accept, want := range map[string]string{
		"":                               "en",
		"zh":                             "zh",
		"zh-CN,zh;q=0.9,en;q=0.8":        "zh",
		"en-GB,zh;q=0.5":                 "en",
		"de, zh;q=0.1":                   "zh",
		"fr":                             "en",
		"en;q=0.3, zh-Hant;q=0.9":        "zh",
		"zh;q=0":                         "en",
		"zh;q=x":                         "en",
		"*;q=0.5,zh;q=0.4":               "en",
		"zh;q=0.99999999999999999999,en": "en",
	} {
		if got := Language(accept); got != want {
			t.Errorf("Language(%q) = %s, want %s", accept, got, want)
		}
	}
}
