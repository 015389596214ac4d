package main

import (
	"testing"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// Every code and every errcode can be asked for and is wholly explained, in
// both languages.
func TestEveryErrorIsExplained(t *testing.T) {
	t.Parallel()
	for _, lang := range []string{"en", "zh"} {
		for _, code := range problem.Codes() {
			v := explain(code, lang)
			if len(v.Codes) != 1 || v.Codes[0].Code != code || v.Codes[0].Status < 400 || v.Codes[0].Title == "" || v.Codes[0].Detail == "" {
				t.Errorf("%s in %s: %+v", code, lang, v.Codes)
			}
		}
		all := explain("", lang)
		if len(all.Codes) != len(problem.Codes()) || len(all.Errcodes) != len(wechat.Errcodes()) {
			t.Errorf("%d codes and %d errcodes", len(all.Codes), len(all.Errcodes))
		}
		for _, e := range all.Errcodes {
			if e.Executed == "" || e.TryAgain == "" || e.Status < 202 || !problem.Known(e.Code) {
				t.Errorf("errcode %s in %s: %+v", e.number(lang), lang, e)
			}
		}
	}
}
