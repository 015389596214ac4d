package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The rules of design api.md §5.5 and §10, below and at each bound and above.
func TestStoreRules(t *testing.T) {
	t.Parallel()
	s := openShop(t, 0)
	const photo = "http://mmbiz.qpic.cn/mmbiz_jpg/abc/0?wx_fmt=jpeg"
	const media = "RTZgKZ386yFn5kQSWLTxe4bqxwgzGBjs3OE02cg9CVQk1wRVE3c8fjUFX7jvpi-P"
	photos := func(n int) []string { return slices.Repeat([]string{photo}, n) }
	hours := func(open, closes string) map[string]string { return map[string]string{"open": open, "close": closes} }
	long := func(n int) string { return photo + strings.Repeat("a", n-len(photo)) }
	x := func(n int) string { return strings.Repeat("1", n) }
	for _, rule := range []struct {
		field   string
		good    []any
		bad     []any
		pointer string // of the error, when not the field
	}{
		{"client_reference", []any{"a", x(64), "A-z_0.9:"}, []any{"", x(65), "a b", "ü", 7, nil}, ""},
		{"map_poi_id", nil, []any{"", x(21), "12a", "-1", 2880741500279549033, nil}, ""},
		{"photos", []any{photos(1), photos(50), []string{"https://mmbiz.qpic.cn/x"}, []string{long(1024)}}, []any{photos(0), photos(51), nil, photo}, ""},
		{"photos", nil, []any{[]string{"http://mmbiz.qlogo.cn/x"}, []string{"http://mmbiz.qpic.cn.evil.example/x"}, []string{"ftp://mmbiz.qpic.cn/x"},
			[]string{"http://u@mmbiz.qpic.cn/x"}, []string{long(1025)}, []string{""}, []any{7}}, "/photos/0"},
		{"contact_phone", []any{x(5), x(32), "020-12345678"}, []any{x(4), x(33), "", "-12345", "+86 20 1234", nil}, ""},
		{"business_hours", []any{hours("00:00", "24:00"), hours("23:59", "00:00"), hours("22:00", "02:00"), hours("9:05", "9:06")}, []any{nil, "10:00-21:00"}, ""},
		{"business_hours", nil, []any{hours("24:00", "21:00"), hours("10:60", "21:00"), hours("1000", "21:00"), hours("", "21:00")}, "/business_hours/open"},
		{"business_hours", nil, []any{hours("10:00", "24:01"), hours("10:00", "25:00"), hours("10:00", "21:0")}, "/business_hours/close"},
		{"credential_number", nil, []any{"", " ", x(101), "a\u0007", nil}, ""},
		{"qualification_media_ids", []any{[]string{}, []string{media}, slices.Repeat([]string{media}, 5)}, []any{slices.Repeat([]string{media}, 6), media}, ""},
		{"qualification_media_ids", nil, []any{[]string{""}, []string{x(129)}, []string{"a,b"}}, "/qualification_media_ids/0"},
		{"card_id", []any{"a", x(64)}, []any{"", x(65), "a b", nil}, ""},
		{"legacy_poi_id", nil, []any{"", x(21), "a"}, ""},
		{"company_name", nil, []any{"", x(101), "a\nb"}, ""},
	} {
		for _, v := range rule.good {
			a := s.client.Do("POST", "/v1/stores", s.fresh(rule.field, v))
			if a.Status != 202 {
				t.Errorf("%s = %.80v: %d %s", rule.field, v, a.Status, a.Body)
			}
		}
		sent := len(s.Journal("wxa/add_store"))
		for _, v := range rule.bad {
			a := s.client.Do("POST", "/v1/stores", s.fresh(rule.field, v))
			pointer := rule.pointer
			if pointer == "" {
				pointer = "/" + rule.field
			}
			if a.Status != 422 || a.Code() != "validation_failed" || a.Get("errors", "0", "pointer") != pointer {
				t.Errorf("%s = %.80v: %d %s", rule.field, v, a.Status, a.Body)
			}
		}
		if n := len(s.Journal("wxa/add_store")); n != sent {
			t.Errorf("%s: WeChat was asked %d times for what was refused", rule.field, n-sent)
		}
	}
	for _, good := range []string{"7", x(100)} {
		store := s.fresh()
		store["credential_number"] = good
		s.client.Do("POST", "/v1/stores", store).Want(202)
	}
	for _, good := range []string{"公", strings.Repeat("司", 100)} {
		s.client.Do("POST", "/v1/stores", s.fresh("company_name", good, "qualification_media_ids", []string{media})).Want(202)
	}
	needs := s.client.Do("POST", "/v1/stores", s.fresh("company_name", "公司")).WantProblem(422, "validation_failed")
	if needs.Get("errors", "0", "pointer") != "/qualification_media_ids" {
		t.Errorf("a company needs its qualification: %s", needs.Body)
	}
	for _, n := range []int{1, 255} {
		s.client.Do("POST", "/v1/stores", s.fresh(), "Idempotency-Key", x(n)).Want(202)
	}
	for _, bad := range []string{x(256), "a b", "ü"} {
		s.client.Do("POST", "/v1/stores", s.fresh(), "Idempotency-Key", bad).WantProblem(400, "invalid_parameter")
	}

	// Everything that is missing is named at once.
	var p struct {
		Errors []struct{ Pointer, Code string }
	}
	s.client.Do("POST", "/v1/stores", "{}").WantProblem(422, "validation_failed").Into(&p)
	var missing []string
	for _, e := range p.Errors {
		missing = append(missing, e.Code+" "+e.Pointer)
	}
	slices.Sort(missing)
	if diff := cmp.Diff([]string{"required /business_hours", "required /contact_phone", "required /credential_number", "required /map_poi_id", "required /photos"}, missing); diff != "" {
		t.Errorf("an empty store: %s", diff)
	}
	path := "/v1/stores/" + s.active().Get("id")
	for name, body := range map[string]any{
		"nothing": map[string]any{}, "no photos": map[string]any{"photos": []string{}}, "a phone": map[string]any{"contact_phone": x(4)},
		"hours": map[string]any{"business_hours": hours("24:00", "21:00")}, "a card": map[string]any{"card_id": ""},
	} {
		if a := s.client.Do("PATCH", path, body); a.Status != 422 || a.Code() != "validation_failed" {
			t.Errorf("PATCH with %s: %d %s", name, a.Status, a.Body)
		}
	}
	s.client.Do("PATCH", path, map[string]any{"credential_number": "1"}).WantProblem(400, "unknown_field")

	// WeChat wants HH:MM.
	single := s.client.Do("PATCH", path, map[string]any{"business_hours": hours("9:05", "9:30")}).Want(200)
	if single.Get("business_hours_text") != "09:05-09:30" {
		t.Errorf("hours with one digit: %s", single.Body)
	}
}
