package isolation

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/test/world"
)

// Attacks 2 to 17 on a real gateway: what it does with tokens that nobody
// gave out, down to their bytes, is TestAttacksOnTokens of internal/tenant.
func TestForgedKeys(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	now := time.Now().Unix()
	var fetched atomic.Int32
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer lure.Close()
	_, other, _ := ed25519.GenerateKey(rand.Reader) // never fails
	enc := base64.RawURLEncoding.EncodeToString
	payload := a.claims().json()
	unsigned := func(alg string) string {
		return enc(fmt.Appendf(nil, `{"alg":%q,"typ":"gwk+jwt","kid":%q}`, alg, a.kid)) + "." + enc([]byte(payload)) + "."
	}
	hs256 := func() string {
		text := enc(fmt.Appendf(nil, `{"alg":"HS256","typ":"gwk+jwt","kid":%q}`, a.kid)) + "." + enc([]byte(payload))
		mac := hmac.New(sha256.New, a.seed.Public().(ed25519.PublicKey))
		mac.Write([]byte(text))
		return text + "." + enc(mac.Sum(nil))
	}
	with := func(member string) string {
		h := a.header()
		return sign(a.seed, h[:len(h)-1]+","+member+"}", payload)
	}
	flip := func(i int) string { return a.Key[:i] + string(a.Key[i]^1) + a.Key[i+1:] }
	first, last := strings.IndexByte(a.Key, '.'), strings.LastIndexByte(a.Key, '.')
	good := a.given(t, a.claims(), "*")
	grace := a.given(t, a.claims().with("exp", now-20), "*") // within the leeway of 30 s, and this test's own time
	late := a.given(t, a.claims().with("exp", now-31), "*")
	narrow := a.given(t, a.claims(), "stores:read")
	a.rest(t)
	for _, x := range []struct {
		name, token string
		status      int
		code        string
	}{
		{"0 a token made like the gateway's, and given out", good, 200, ""},
		{"0 the same, never given out", sign(a.seed, a.header(), payload), 401, "key_revoked"},
		{"2 none", unsigned("none"), 401, "token_invalid"},
		{"2 None", unsigned("None"), 401, "token_invalid"},
		{"2 nOnE", unsigned("nOnE"), 401, "token_invalid"},
		{"3 HS256 with the public key", hs256(), 401, "token_invalid"},
		{"4 a kid that nobody knows", sign(other, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"sig_nobody"}`, payload), 401, "token_invalid"},
		{"4 our kid, another's signature", sign(other, a.header(), payload), 401, "token_invalid"},
		{"5 kid is a path", sign(a.seed, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"../../etc/passwd"}`, payload), 401, "token_invalid"},
		{"5 kid is SQL", sign(a.seed, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"' OR 1=1"}`, payload), 401, "token_invalid"},
		{"5 kid of a megabyte", sign(a.seed, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"`+strings.Repeat("k", 1<<20)+`"}`, payload), 431, ""},
		{"6 jwk", with(`"jwk":{"kty":"OKP"}`), 401, "token_invalid"},
		{"6 jku", with(`"jku":"` + lure.URL + `"`), 401, "token_invalid"},
		{"6 x5u", with(`"x5u":"` + lure.URL + `"`), 401, "token_invalid"},
		{"6 crit", with(`"crit":["exp"]`), 401, "token_invalid"},
		{"7 expired by 31 s", late, 401, "token_expired"},
		{"7 expired, within the leeway", grace, 200, ""},
		{"8 not yet", sign(a.seed, a.header(), a.claims().with("nbf", now+60).json()), 401, "token_invalid"},
		{"8 from the future", sign(a.seed, a.header(), a.claims().with("iat", now+60).json()), 401, "token_invalid"},
		{"9 for ever", sign(a.seed, a.header(), a.claims().with("exp", nil).json()), 401, "token_invalid"},
		{"9 ten years", sign(a.seed, a.header(), a.claims().with("exp", now+10*365*86400).json()), 401, "token_invalid"},
		{"10 another issuer", sign(a.seed, a.header(), a.claims().with("iss", "evil").json()), 401, "token_invalid"},
		{"10 another audience", sign(a.seed, a.header(), a.claims().with("aud", "gateway").json()), 401, "token_invalid"},
		{"10 both audiences", sign(a.seed, a.header(), a.claims().with("aud", []string{"gateway-api", "gateway-admin"}).json()), 401, "token_invalid"},
		{"11 an operator's, of our making", sign(a.seed, a.header(), a.claims().with("aud", "gateway-admin").json()), 401, "token_invalid"},
		{"13 a byte of the payload", flip(first + 20), 401, "token_invalid"},
		{"13 a bit of the signature", flip(last + 20), 401, "token_invalid"},
		{"13 padding", a.Key + "=", 401, "token_invalid"},
		{"13 standard alphabet", a.Key[:last] + ".+/" + a.Key[last+3:], 401, "token_invalid"},
		{"14 four thousand dots", strings.Repeat(".", 4000), 401, "token_invalid"},
		{"14 a million dots", strings.Repeat(".", 1_000_000), 431, ""},
		{"16 tid twice", sign(a.seed, a.header(), `{"tid":"ten_01jd7jx5p0f3e4d5c6b7a8n9mp",`+payload[1:]), 401, "token_invalid"},
		{"17 wider than its row, what the row has", narrow, 200, ""},
	} {
		tried(t, x.name)
		got := a.raw(t, a.request("GET", "/v1/stores", x.token, ""))
		if got.status != x.status || got.code != x.code || (got.header.Get("WWW-Authenticate") != "") != (x.status == 401) {
			t.Errorf("%s: %d %s %s, want %d %s", x.name, got.status, got.code, got.body, x.status, x.code)
		}
		if got.took > 2*time.Second {
			t.Errorf("%s took %s", x.name, got.took)
		}
		a.untouched(t, x.name)
	}
	tried(t, "17")
	if got := a.raw(t, a.request("GET", "/v1/merchants", narrow, "")); got.status != 403 || got.code != "scope_missing" {
		t.Errorf("17 wider than its row, what the row lacks: %d %s", got.status, got.body)
	}
	if n := fetched.Load(); n != 0 {
		t.Errorf("6 a token made the gateway fetch %d documents", n)
	}

	tried(t, "22") // one address guesses, another one works
	guess := a.request("GET", "/v1/me", flip(last+20), "")
	codes := map[int]int{}
	for range 300 {
		codes[a.raw(t, guess).status]++
	}
	if codes[429] < 250 || codes[401]+codes[429] != 300 {
		t.Errorf("22 three hundred guesses from one address: %v", codes)
	}
	if got := a.raw(t, a.request("GET", "/v1/me", a.Key, "")); got.status != 200 {
		t.Errorf("22 a good key from another address: %d %s", got.status, got.body)
	}
	if got := a.raw(t, strings.Replace(guess, flip(last+20), a.Key, 1)); got.status != 200 {
		t.Errorf("22 a good key from the same address: %d %s", got.status, got.body)
	}
	a.untouched(t, "22")
}

// Attacks 15 to 35, 70, 72, 74 to 77, 80 and 91: what the edge and the
// handlers refuse, as bytes on the wire. The rest of these rows are
// TestRefusals of internal/handlers and TestRequests of test/e2e.
func TestAttackRequests(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	poor := a.Authorize(a.g, sandbox.NoStoreSetsAccount)
	other := a.c.Merchant
	page := a.c.Do("GET", "/v1/stores?limit=1", nil).Want(http.StatusOK)
	cursor := page.Get("next_cursor")
	store := a.c.Do("GET", "/v1/stores", nil).Want(http.StatusOK).Get("data", "0", "id")
	link := a.c.Do("POST", "/v1/authorization-links", map[string]any{}).Want(http.StatusCreated)
	connect := strings.TrimPrefix(link.Get("url"), a.PublicURL)
	body, err := json.Marshal(world.DocumentsStore())
	if err != nil {
		t.Fatal(err)
	}
	good := string(body)
	const links = "/v1/authorization-links"
	acts := "Merchant-Id: " + other
	a.rest(t)

	type attack struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code                       string
	}
	var list []attack
	add := func(name, method, target, body string, status int, code string, headers ...string) {
		list = append(list, attack{name, method, target, body, headers, status, code})
	}
	add("15 two keys", "GET", "/v1/me", "", 400, "invalid_parameter", "Authorization: Bearer x")
	add("15 key in the query", "GET", "/v1/me?token="+a.Key, "", 400, "invalid_parameter")
	add("20 Merchant-Id twice", "GET", "/v1/stores", "", 400, "invalid_parameter", acts, acts)
	add("20 another than the path's", "GET", "/v1/merchants/"+other, "", 400, "merchant_mismatch", "Merchant-Id: "+poor)
	add("20 another than the query's", "GET", "/v1/audits?merchant_id="+other, "", 400, "merchant_mismatch", "Merchant-Id: "+poor)
	add("23 256 characters", "POST", "/v1/stores", good, 400, "invalid_parameter", acts, "Idempotency-Key: "+strings.Repeat("k", 256))
	add("23 a line break", "POST", "/v1/stores", good, 400, "", acts, "Idempotency-Key: a\rb")
	add("23 not ASCII", "POST", "/v1/stores", good, 400, "invalid_parameter", acts, "Idempotency-Key: schlüssel")
	for i := 0; i < len(cursor); i += 7 {
		add(fmt.Sprint("28 a bit of the cursor, ", i), "GET", "/v1/stores?limit=1&cursor="+cursor[:i]+string(cursor[i]^1)+cursor[i+1:], "", 400, "", acts)
	}
	add("28 another list's cursor", "GET", "/v1/operations?limit=1&cursor="+cursor, "", 400, "invalid_cursor", acts)
	add("28 other filters", "GET", "/v1/stores?limit=1&status=active&cursor="+cursor, "", 400, "invalid_cursor", acts)
	for _, limit := range []string{"0", "-1", "101", "1e9", "abc", "999999999999999999999", "%31%30x"} {
		add("29 "+limit, "GET", "/v1/stores?limit="+limit, "", 400, "invalid_parameter")
	}
	for name, text := range map[string]string{"byte order mark": "\ufeff" + good, "UTF-16": "\xff\xfe{\x00}\x00", "invalid UTF-8": `{"map_poi_id":"` + "\xc3\x28" + `"}`,
		"lone surrogate": `{"company_name":"\ud800"}`, "two values": good + ` {"x":1}`, "NUL behind": good + "\x00", "depth 17": strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17),
		"depth 10,000": strings.Repeat("[", 10_000), "a number": "1", "NaN": "NaN"} {
		add("30, 31 "+name, "POST", "/v1/stores", text, 400, "malformed_json", acts)
	}
	add("32 repeated", "POST", "/v1/stores", `{"photos":[],`+good[1:], 400, "duplicate_field", acts)
	add("32 repeated, escaped", "POST", "/v1/stores", `{"\u0070hotos":[],`+good[1:], 400, "duplicate_field", acts)
	for _, member := range []string{"tenant_id", "merchant_id", "status", "poi_id", "audit", "id", "origin", "__proto__", "constructor"} {
		add("33 "+member, "POST", "/v1/stores", `{"`+member+`":"x",`+good[1:], 400, "unknown_field", acts)
		add("33 "+member, "PATCH", "/v1/stores/"+store, `{"`+member+`":"x","contact_phone":"020-1234567"}`, 400, "unknown_field")
		add("33 "+member, "PATCH", "/v1/merchants/"+other, `{"`+member+`":"x"}`, 400, "unknown_field")
		add("33 "+member, "POST", "/v1/api-keys", `{"`+member+`":"x","name":"n","scopes":["stores:read"]}`, 400, "unknown_field")
	}
	add("34 257 KiB", "POST", "/v1/stores", `{"company_name":"`+strings.Repeat("x", 257<<10)+`"}`, 413, "body_too_large", acts)
	add("35 gzip", "POST", "/v1/stores", good, 415, "unsupported_media_type", acts, "Content-Encoding: gzip")
	add("35 text", "POST", "/v1/stores", good, 415, "unsupported_media_type", acts, "Content-Type: text/plain")

	nobody := strings.Repeat("A", 43)
	add("70 unknown state", "GET", "/connect/"+nobody, "", 404, "")
	add("70 unknown state, button", "POST", "/connect/"+nobody, "page=phone", 404, "", "Content-Type: application/x-www-form-urlencoded")
	add("70 unknown state, callback", "GET", "/connect/"+nobody+"/callback?auth_code=queryauthcode@@@x", "", 404, "")
	add("70 no code", "GET", connect+"/callback", "", 400, "")
	add("70 an empty code", "GET", connect+"/callback?auth_code=", "", 400, "")
	add("70 a code of ten KiB", "GET", connect+"/callback?auth_code="+strings.Repeat("x", 10<<10), "", 400, "")
	add("70 a code that breaks out", "GET", connect+"/callback?auth_code=%22%0d%0aSet-Cookie:%20x", "", 400, "")
	add("70 a state that breaks out", "GET", "/connect/%22%3E%3Cscript%3E", "", 404, "")
	for _, u := range []string{"https://shop.example.evil.com", "https://shop.example@evil.com/", "//evil.com", `/\\evil.com`, "https://shop.example/%0d%0aSet-Cookie: x",
		"javascript:alert(1)", "http://shop.example", "https://shop.example:8443/", "https://shop.example/../x", "https://shop.example/\u2028"} {
		js, _ := json.Marshal(map[string]string{"return_url": u})
		add("72 "+u, "POST", links, string(js), 422, "validation_failed")
	}
	add("74 X-Original-URL", "GET", "/v1/nothing", "", 404, "not_found", "X-Original-URL: /v1/me", "X-Rewrite-URL: /v1/me", "X-Forwarded-Prefix: /v1/me")
	add("74 method override", "POST", "/v1/stores/"+store, "{}", 405, "method_not_allowed", "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE")
	add("74 method override in the query", "GET", "/v1/stores/"+store+"?_method=DELETE", "", 400, "invalid_parameter")
	add("76 TRACE", "TRACE", "/v1/me", "", 405, "method_not_allowed")
	add("76 CONNECT", "CONNECT", "/v1/me", "", 405, "method_not_allowed")
	add("76 OPTIONS of a stranger", "OPTIONS", "/v1/me", "", 405, "method_not_allowed", "Origin: https://evil.example", "Access-Control-Request-Method: GET")
	add("76 OPTIONS of null", "OPTIONS", "/v1/me", "", 405, "method_not_allowed", "Origin: null", "Access-Control-Request-Method: GET")
	add("76 an unknown method", "FROBNICATE", "/v1/me", "", 405, "method_not_allowed")
	for _, path := range []string{"/v1//stores", "//v1/stores", "/v1/stores/", "/v1/./stores", "/v1/x/../stores", "/v1/stores;x=y", "/v1;/stores", "/V1/stores", "/v1/Stores",
		"/v1%2fstores", "/v1%252fstores", "/v1/%73tores%00", "/v1%E2%88%95stores", "/v1/stores%20", "/v1/admin/../stores", "/v1/stores/..", "/v1/stores/.", "/v1/audits/..%2f..%2fadmin%2ftenants",
		"/v1/stores/%2e%2e%2fadmin%2ftenants", "/v1/stores/..;/admin/tenants", "/v1/stores/%00", "/v1/stores/" + store + "%00", "/v1/stores/" + store + "%2f", "/v1/stores/" + store + "/.."} {
		add("77 "+path, "GET", path, "", 0, "")
	}
	add("80 no permission set", "POST", "/v1/stores", good, 403, "permission_set_missing", "Merchant-Id: "+poor, "Idempotency-Key: spent-for-nothing")
	add("80 no permission set, live", "GET", "/v1/stores?source=live", "", 403, "permission_set_missing", "Merchant-Id: "+poor)
	for _, after := range []string{"-1", "18446744073709551616", "1e3", "x", ""} {
		add("90 "+after, "GET", "/v1/events?after="+after, "", 400, "invalid_parameter")
	}
	add("91 unknown parameters", "GET", "/v1/stores?fields=secret&__proto__=1", "", 400, "invalid_parameter")
	add("91 a thousand", "GET", "/v1/stores?status=active"+strings.Repeat("&a=1", 900), "", 400, "invalid_parameter")
	add("91 status a hundred times", "GET", "/v1/stores?status=active"+strings.Repeat("&status=active", 100), "", 400, "invalid_parameter")
	add("91 an array", "GET", "/v1/stores?status[]=active", "", 400, "invalid_parameter")
	add("91 SQL", "GET", "/v1/stores?client_reference=%27%20OR%201%3D1--", "", 400, "invalid_parameter")
	add("91 SQL in an order", "GET", "/v1/stores?sort=id;DROP%20TABLE%20stores", "", 400, "invalid_parameter")

	for _, x := range list {
		tried(t, x.name)
		got := a.raw(t, a.request(x.method, x.target, a.Key, x.body, x.headers...))
		switch {
		case x.status == 0 && got.status != 400 && got.status != 404:
			t.Errorf("%s: %d %s, want 400 or 404", x.name, got.status, got.body)
		case x.status != 0 && got.status != x.status || x.code != "" && got.code != x.code:
			t.Errorf("%s: %d %s %s, want %d %s", x.name, got.status, got.code, got.body, x.status, x.code)
		}
		for name := range got.header {
			if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" && !strings.HasPrefix(x.target, "/connect/") {
				t.Errorf("%s: %s: %s", x.name, name, got.header.Get(name))
			}
		}
		if strings.Contains(got.body, "evil") || strings.Contains(got.body, "<script") {
			t.Errorf("%s: the answer holds what was sent: %s", x.name, got.body)
		}
		a.untouched(t, x.name)
	}
}

// Attacks 74 to 76: requests that are none, and headers that lie.
func TestAttackBytes(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	a.Run("tenant", "create", "--name", "Other", "--component-appid", "wx5ab0d1c0ffee00b0", "--component-secret", "0b7ec7e70f5a4db0c5ec7e70f5a4db0c",
		"--message-token", "messagetokenOfB", "--encoding-aes-key", "tenantBtenantBtenantBtenantBtenantBtenantB1", "--cors-origin", "https://other.example")
	a.rest(t)
	key := "Authorization: Bearer " + a.Key + "\r\n"
	host := "Host: " + a.addr + "\r\n"
	for _, x := range []struct{ name, request, want string }{
		{"75 absolute target", "GET http://evil.example/v1/me HTTP/1.1\r\nHost: evil.example\r\n" + key + "\r\n", "400"},
		{"75 HTTP/0.9", "GET /v1/me\r\n\r\n", "400"},
		{"75 HTTP/3.0", "GET /v1/me HTTP/3.0\r\n" + host + key + "\r\n", "505"},
		{"75 no host", "GET /v1/me HTTP/1.1\r\n" + key + "\r\n", "400"},
		{"75 two hosts", "GET /v1/me HTTP/1.1\r\n" + host + host + key + "\r\n", "400"},
		{"75 two lengths", "POST /v1/stores HTTP/1.1\r\n" + host + key + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "400"},
		{"75 a length with a sign", "POST /v1/stores HTTP/1.1\r\n" + host + key + "Content-Length: +2\r\n\r\n{}", "400"},
		{"75 a coding that is not chunked", "POST /v1/stores HTTP/1.1\r\n" + host + key + "Transfer-Encoding: xchunked\r\n\r\n", "501"},
		{"75 chunked twice", "POST /v1/stores HTTP/1.1\r\n" + host + key + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "501 400"},
		{"75 space before the colon", "GET /v1/me HTTP/1.1\r\nHost : x\r\n\r\n", "400"},
		{"75 a header without a name", "GET /v1/me HTTP/1.1\r\n" + host + ": x\r\n" + key + "\r\n", "400"},
		{"75 NUL in a header", "GET /v1/me HTTP/1.1\r\n" + host + "X: a\x00b\r\n" + key + "\r\n", "400"},
		{"75 a chunk's length that is none", "POST /v1/stores HTTP/1.1\r\n" + host + key + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", "400"},
		{"76 CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n" + key + "\r\n", "400 404 405"},
		{"74 headers of 17 KiB", "GET /v1/me HTTP/1.1\r\n" + host + key + "X: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", "431"},
	} {
		tried(t, x.name)
		got := a.raw(t, x.request)
		if got.status == 0 || !strings.Contains(x.want, fmt.Sprint(got.status)) {
			t.Errorf("%s: %d %s, want %s", x.name, got.status, got.body, x.want)
		}
		a.untouched(t, x.name)
	}
	// Where a length and a coding stand both, net/http takes the coding and says
	// nothing: what follows its end must not be taken for another's request.
	if got := a.everything(t, "POST /v1/stores HTTP/1.1\r\n"+host+key+"Content-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+
		"GET /v1/me HTTP/1.1\r\n"+host+key+"\r\n"); strings.Count(got, "HTTP/1.1 ") != 1 || !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("75 a length and a coding: %s", got)
	}
	// Lines that end in LF alone, and headers that go on in the next line, are
	// read as RFC 9112 §2.2 and §5.2 allow: no name and no value can hide there.
	for name, request := range map[string]string{
		"75 obs-fold": "GET /v1/me HTTP/1.1\r\n" + host + "Connection: close\r\nAuthorization:\r\n Bearer " + a.Key + "\r\nX: a\r\n Authorization: Bearer x\r\n\r\n",
		"75 bare LF":  "GET /v1/me HTTP/1.1\n" + strings.ReplaceAll(host+key, "\r", "") + "Connection: close\n\n",
	} {
		tried(t, name)
		if got := a.raw(t, request); got.status != 200 && got.status != 400 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	a.untouched(t, "75")
	// 74: addresses and hosts that the caller invents. The gateway believes a
	// proxy's word only; our own links name our own host.
	tried(t, "74")
	stranger := a.Start(map[string]string{"GATEWAY_TRUSTED_PROXIES": ""})
	c := a.c.At(stranger)
	link := c.Do("POST", "/v1/authorization-links", map[string]any{}, "X-Forwarded-For", "8.8.8.8", "X-Real-Ip", "8.8.8.8", "Forwarded", "for=8.8.8.8;host=evil.example",
		"X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https").Want(http.StatusCreated)
	if !strings.HasPrefix(link.Get("url"), a.PublicURL+"/connect/") || strings.Contains(fmt.Sprint(link.Header), "evil.example") {
		t.Errorf("74 a host that the caller invented: %v %s", link.Header, link.Body)
	}
	world.Eventually(t, 10*time.Second, "the request is logged", func() error {
		for _, line := range stranger.Logged("request") {
			if line["request_id"] != link.Header.Get("Request-Id") {
				continue
			}
			if ip := line["client_ip"]; ip != "127.0.0.1" {
				t.Errorf("74 the client's address is %v", ip)
			}
			return nil
		}
		return errors.New("not yet")
	})
	evil := strings.Replace(a.request("GET", "/v1/stores?limit=1", a.Key, ""), "Host: "+a.addr, "Host: evil.example", 1)
	if got := a.raw(t, evil); got.status != 200 || strings.Contains(fmt.Sprint(got.header), "evil") {
		t.Errorf("74 another host: %d %v", got.status, got.header)
	}
	// 76: a page of one tenant's can't read what another one's key gets.
	for origin, allowed := range map[string]bool{"https://shop.example": true, "https://other.example": false, "https://evil.example": false, "null": false, "http://localhost:3000": false} {
		tried(t, "76")
		got := a.raw(t, a.request("GET", "/v1/me", a.Key, "", "Origin: "+origin))
		if (got.header.Get("Access-Control-Allow-Origin") == origin) != allowed || got.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("76 %s: %v", origin, got.header)
		}
	}
}

// Attacks 34 and 36: callers that never end, and that take their time.
func TestSlowCallers(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	a.rest(t)
	t.Cleanup(func() { a.untouched(t, "34, 36") })
	dial := func(t *testing.T) net.Conn {
		conn, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		return conn
	}
	head := "POST /v1/authorization-links HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + a.Key + "\r\nContent-Type: application/json\r\n"
	for _, x := range []struct {
		name, begin, drop string
		atMost            time.Duration
		every             time.Duration
	}{
		{"36 a header, byte by byte", "GET /v1/me HTTP/1.1\r\nX: ", "x", 8 * time.Second, 300 * time.Millisecond},
		{"36 a body, byte by byte", head + "Content-Length: 1000\r\n\r\n", " ", 35 * time.Second, time.Second},
		{"34 a body without an end", head + "Transfer-Encoding: chunked\r\n\r\n", "1000\r\n" + strings.Repeat(" ", 0x1000) + "\r\n", 10 * time.Second, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			tried(t, x.name)
			conn := dial(t)
			begun := time.Now()
			closed := make(chan string, 1)
			go func() {
				got, _ := io.ReadAll(io.LimitReader(conn, 64))
				closed <- string(got)
			}()
			if _, err := io.WriteString(conn, x.begin); err != nil {
				t.Fatal(err)
			}
			for {
				var tick <-chan time.Time
				if x.every > 0 {
					tick = time.After(x.every)
				} else {
					open := make(chan time.Time)
					close(open)
					tick = open
				}
				select {
				case got := <-closed:
					if took := time.Since(begun); took > x.atMost {
						t.Errorf("hung up after %s", took)
					}
					if x.every == 0 && !strings.HasPrefix(got, "HTTP/1.1 413 ") {
						t.Errorf("answered %q, want 413", got)
					}
					return
				case <-tick:
					_, _ = io.WriteString(conn, x.drop)
				}
				if time.Since(begun) > x.atMost {
					t.Fatalf("still open after %s", x.atMost)
				}
			}
		})
	}
}
