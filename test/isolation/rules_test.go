package isolation

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// Attacks 37 to 46: values at the bounds of WeChat's rules, and such as would
// mean something else once they are joined to what WeChat is sent. The gateway
// is only asked (validate_only), so that what it takes has no effect either.
func TestAttackValues(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{}, func(w *world.World) {
		w.Control("POST", "accounts", map[string]any{"appid": "wx5ab0d1c0ffee0d01", "store_program": "none"}, nil)
		// Only who has moved can have stores and legacy stores.
		w.Control("POST", "accounts/"+sandbox.DemoOfficialAccount+"/legacy-stores", map[string]any{"stores": []any{map[string]any{"upgrade_status": 3}}}, nil)
	})
	goodsOf, newOne := a.Authorize(a.g, sandbox.DemoMiniProgram), a.Authorize(a.g, "wx5ab0d1c0ffee0d01")
	examples := map[string]operation{}
	for _, op := range operationsOf(t) {
		examples[op.id] = op
	}
	a.c.For(newOne).Do("GET", "/v1/categories?scheme=store_program", nil).Want(http.StatusOK) // applications are compared with them
	a.rest(t)

	type object = map[string]any
	price := func(typ string, members ...any) object {
		p := object{"type": typ}
		for i := 0; i+1 < len(members); i += 2 {
			p[members[i].(string)] = members[i+1]
		}
		return p
	}
	hours := func(open, closes string) object { return object{"open": open, "close": closes} }
	cn := func(n int) string { return strings.Repeat("茶", n) }
	files := func(ids ...string) []string { return ids }
	const photo, media = "http://mmbiz.qpic.cn/mmbiz_jpg/a/0", "ZuYVNKk9sMP1X4m7FXdcDCKra251KDZTjS502UTV7gwalgLZXcrOhG6oNYX6c7AR"
	for _, x := range []struct {
		row       int
		operation string
		field     string
		good, bad []any
		pointer   string // of what is wrong; "": the field's
	}{
		{37, "applyStoreProgram", "nickname", []any{"abcd", strings.Repeat("a", 30), cn(2), cn(15), "Tea 👍"},
			[]any{"abc", strings.Repeat("a", 31), cn(1), cn(16), "ab\x00cd", "ab\u202ecd", "微信商城", "WeChat Shop", "ＷｅＣｈａｔ", "WECHATS", "微\u200b信商城", "We\u00adChat"}, ""},
		{38, "createGoods", "name", []any{cn(14), strings.Repeat("a", 28), "a"}, []any{cn(15), strings.Repeat("a", 29), cn(14) + "a", "a\u200db", "\u200d\u200d", ""}, ""},
		{39, "createGoods", "pricing", []any{price("fixed", "amount", "0.01"), price("fixed", "amount", "99.50"), price("fixed", "amount", "99999999.99")},
			[]any{price("fixed", "amount", "0"), price("fixed", "amount", "-1"), price("fixed", "amount", "99.999"), price("fixed", "amount", "1e3"), price("fixed", "amount", "NaN"), price("fixed", "amount", "99,5"),
				price("fixed", "amount", "0x10"), price("fixed", "amount", 99.5), price("fixed", "amount", strings.Repeat("9", 20)), price("fixed", "amount", "１"), price("fixed", "amount", " 1"), price("fixed")}, "/pricing/amount"},
		{40, "createGoods", "pricing", []any{price("range", "min", "5", "max", "5.00"), price("discount", "original", "5", "current", "5")},
			[]any{price("range", "min", "5.01", "max", "5")}, "/pricing/max"},
		{40, "createGoods", "pricing", nil, []any{price("discount", "original", "5", "current", "5.01")}, "/pricing/current"},
		{41, "createStore", "business_hours", []any{hours("00:00", "24:00"), hours("21:00", "09:00"), hours("9:00", "9:00")}, nil, ""},
		{41, "createStore", "business_hours", nil, []any{hours("24:00", "24:00"), hours("9:0", "21:00"), hours("10:60", "21:00"), hours("10:00\n", "21:00"), hours("１０:00", "21:00"), hours("10：00", "21:00")}, "/business_hours/open"},
		{41, "createStore", "business_hours", nil, []any{hours("9:00", "24:01"), hours("9:00", "21:00-22:00"), hours("9:00", "")}, "/business_hours/close"},
		{42, "createLegacyStore", "phone", []any{"010-87632851", "13880934557", "8001234567", "020-12345678-123"},
			[]any{"(010)87632851", "34435764", "13880934557, 0351-34435764", "138-8093-4557", "8003800,4010", "8003800#4010", "020-12345678;020-12345679", "+86 13880934557"}, ""},
		{43, "createStore", "qualification_media_ids", []any{files(media, media, media, media, media)}, []any{files(media, media, media, media, media, media)}, ""},
		{43, "createStore", "qualification_media_ids", nil, []any{files("a,b"), files(""), files(media + "\""), files("a b")}, "/qualification_media_ids/0"},
		{44, "createStore", "photos", []any{files(photo), files(photo+"?wx_fmt=jpeg", "https://mmbiz.qpic.cn/x")},
			[]any{files("http://mmbiz.qpic.cn.evil.com/x"), files("http://evil.com#mmbiz.qpic.cn"), files("http://mmbiz.qpic.cn@evil/x"), files("http://evil.com/mmbiz.qpic.cn"), files("http://evil.com\\@mmbiz.qpic.cn/x"),
				files("javascript:alert(1)"), files("file:///etc/passwd"), files(photo + `"]}`), files(photo + "\\"), files(photo + " x"), files(photo + "\n"), files("//mmbiz.qpic.cn/x"), files("http://mmbiz.qpic.cn:22/x"), files("http://127.0.0.1/")}, "/photos/0"},
		{45, "createMapPOI", "category_path", []any{files("Food", "Tea")}, []any{files("Food:Tea"), files("Food\x00")}, "/category_path/0"},
		{45, "createLegacyStore", "category_path", []any{files("Food", "Snack and Fast Food")}, []any{files("Food,Tea")}, "/category_path/0"},
		{45, "createMapPOI", "phones", []any{files("020-12345678", "13880934557")}, []any{files("020-12345678;020-12345679"), files("020-12345678 "), files("")}, "/phones/0"},
		{46, "createGoods", "path", []any{"pages/index/index", "/pages/index?url=https%3A%2F%2Fa.example%2F"},
			[]any{"http://evil.example/", "https%3A%2F%2Fevil", "//evil.example/x", "pages/../../x", "pages/..%2f..%2fx", "javascript:alert(1)", "pages/x?url=https://evil.example", "pages/" + strings.Repeat("x", 10<<10), "pages/a b", "pages\\x", "pages/a\u202eb", ""}, ""},
	} {
		op := examples[x.operation]
		merchant := a.c.Merchant
		switch {
		case strings.HasPrefix(op.path, "/v1/goods"):
			merchant = goodsOf
		case x.operation == "applyStoreProgram":
			merchant = newOne
		}
		c := a.c.For(merchant)
		path := strings.Replace(op.path, "{merchant_id}", merchant, 1) + "?validate_only=true"
		ask := func(v any) *world.Answer {
			tried(t, fmt.Sprint(x.row))
			var body object
			if err := json.Unmarshal(marshal(op.body), &body); err != nil {
				t.Fatal(err)
			}
			body[x.field] = v
			return c.Do(op.method, path, body)
		}
		for _, v := range x.good {
			if got := ask(v); got.Status != http.StatusOK || got.Get("valid") != "true" {
				t.Errorf("%d %s %q: %d %s, want it valid", x.row, x.field, v, got.Status, got.Body)
			}
		}
		pointer := x.pointer
		if pointer == "" {
			pointer = "/" + x.field
		}
		for _, v := range x.bad {
			if got := ask(v); got.Status != http.StatusUnprocessableEntity || got.Code() != "validation_failed" || got.Get("errors", "0", "pointer") != pointer {
				t.Errorf("%d %s %.80q: %d %s, want 422 at %s", x.row, x.field, v, got.Status, got.Body, pointer)
			}
		}
		a.untouched(t, fmt.Sprint(x.row, " ", x.field))
	}
	tried(t, "40")
	if got := a.c.For(goodsOf).Do("POST", "/v1/goods?validate_only=true", object{"name": "Tea", "cover_media_id": media, "path": "pages/a", "pricing": price("fixed", "amount", "1", "min", "1")}); got.Code() != "unknown_field" {
		t.Errorf("40 a member of another kind of price: %d %s", got.Status, got.Body)
	}
}

// Attack 59: a file's own name goes nowhere, whatever it is.
func TestFileNamesStayHere(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	for i, name := range []string{"../../x-evil.sh", "x-evil.jpg; filename=y", `x-evil\"`, "x-evil\u202egpj", strings.Repeat("x-evil", 1000)} {
		tried(t, "59")
		picture := append(onePixel[:len(onePixel):len(onePixel)], byte(i)) // what stands behind a picture is a part of it
		body := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name + "\"\r\nContent-Type: text/html\r\n\r\n" + string(picture) + "\r\n--b--\r\n"
		a.c.Do("POST", "/v1/media/images", body, "Content-Type", "multipart/form-data; boundary=b").Want(http.StatusCreated)
	}
	calls := a.Journal("cgi-bin/media/uploadimg")
	if len(calls) != 5 {
		t.Fatalf("%d uploads", len(calls))
	}
	for _, call := range calls {
		if sent := string(call.Bytes); strings.Contains(sent, "x-evil") || strings.Contains(sent, "text/html") || !strings.Contains(sent, "image/jpeg") {
			t.Errorf("WeChat was sent %.300q", sent)
		}
	}
}
