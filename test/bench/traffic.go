package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// Half of the merchants are read and the other half written, so that a read of
// our records shows the same two stores in every round.
func (w *world) reads() (from, to int)  { return 0, len(w.merchants) / 2 }
func (w *world) writes() (from, to int) { return len(w.merchants) / 2, len(w.merchants) }

// pick is a random merchant of these and a random key of its tenant.
func (w *world) pick(r *rand.Rand, from, to int) (merchant int, key string) {
	merchant = from + r.IntN(to-from)
	per := len(w.keys) / len(w.tenants)
	return merchant, w.keys[w.merchants[merchant].tenant+len(w.tenants)*r.IntN(per)].token
}

// gatewayGet is GET of a path of ours, for random merchants and keys.
func (w *world) gatewayGet(path string, from, to int, check func(int, []byte) error) traffic {
	return traffic{status: http.StatusOK, check: check, next: func(r *rand.Rand, b []byte) ([]byte, int) {
		m, key := w.pick(r, from, to)
		b = append(append(append(b, "GET "...), path...), " HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\nAuthorization: Bearer "...)
		b = append(append(append(b, key...), "\r\nMerchant-Id: "...), w.merchants[m].name...)
		return append(b, "\r\n\r\n"...), m
	}}
}

// storePage is what an answer of GET /v1/stores must show.
type storePage struct {
	Data []struct {
		MerchantID string `json:"merchant_id"`
		PoiID      string `json:"poi_id"`
		Name       string `json:"name"`
		Status     string `json:"status"`
	} `json:"data"`
}

// checkPage looks for the two stores of document 000 §4.11.
func (w *world) checkPage(m int, body []byte) error {
	var p storePage
	if err := json.Unmarshal(body, &p); err != nil {
		return err
	}
	seen := map[string]string{}
	for _, s := range p.Data {
		if s.MerchantID != w.merchants[m].name {
			return fmt.Errorf("a store of %s, want %s", s.MerchantID, w.merchants[m].name)
		}
		seen[s.PoiID] = s.Name + ", " + s.Status
	}
	if len(p.Data) != 2 || seen["472665875"] != "Chaosu Tianshi Club, active" || seen["472671857"] != "Longdi Neighborhood Deli, rejected" {
		return fmt.Errorf("stores %v", seen)
	}
	return nil
}

func (w *world) liveRead() traffic {
	from, to := w.reads()
	return w.gatewayGet("/v1/stores?source=live", from, to, w.checkPage)
}

func (w *world) localRead() traffic {
	from, to := w.reads()
	return w.gatewayGet("/v1/stores?source=local", from, to, w.checkPage)
}

// photo is one of document 000 §4.8.
const photo = "http://mmbiz.qpic.cn/mmbiz_jpg/tW66AWvE2K4EJxIYOVpiaGOkfg0iayibiaP2xHOChvbmKQD5uh8ymibbEKlTTPmjTdQ8ia43sULLeG1pT2psOfPic4kTw/0?wx_fmt=jpeg"

// create is POST /v1/stores, each of another place and with an Idempotency-Key
// of its own.
func (w *world) create() traffic { return w.createAmong(w.writes()) }

func (w *world) createAmong(from, to int) traffic {
	return traffic{status: http.StatusAccepted, next: func(r *rand.Rand, b []byte) ([]byte, int) {
		m, key := w.pick(r, from, to)
		body := fmt.Appendf(nil, `{"map_poi_id":"%d","photos":["%s"],"contact_phone":"1111222222","credential_number":"%d","business_hours":{"open":"10:00","close":"21:00"}}`,
			1e17+r.Int64N(8e17), photo, r.Int64())
		return fmt.Appendf(b, "POST /v1/stores HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\nMerchant-Id: %s\r\nIdempotency-Key: bench-%016x%016x\r\n\r\n%s",
			len(body), key, w.merchants[m].name, r.Uint64(), r.Uint64(), body), m
	}, check: func(m int, body []byte) error {
		var s struct {
			ID         string `json:"id"`
			MerchantID string `json:"merchant_id"`
			Status     string `json:"status"`
			Audit      *struct {
				ID string `json:"id"`
			} `json:"audit"`
		}
		if err := json.Unmarshal(body, &s); err != nil {
			return err
		}
		if _, err := typeid.Parse(typeid.Store, s.ID); err != nil || s.MerchantID != w.merchants[m].name || s.Status != "in_review" || s.Audit == nil {
			return errors.New("no store of the merchant in review")
		}
		return nil
	}}
}

// push is an encrypted message that a subscriber wrote, each another one: the
// sort of push that comes most.
func (w *world) push() (traffic, error) {
	key, err := msgcrypt.ParseKey(aesKey)
	from, to := w.writes()
	return traffic{status: http.StatusOK, next: func(r *rand.Rand, b []byte) ([]byte, int) {
		i, _ := w.pick(r, from, to)
		m := w.merchants[i]
		t := w.tenants[m.tenant]
		msg := fmt.Appendf(nil, "<xml><ToUserName><![CDATA[gh_%012x]]></ToUserName><FromUserName><![CDATA[o%027x]]></FromUserName><CreateTime>%d</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[bench]]></Content><MsgId>%d</MsgId></xml>",
			i, r.Uint64(), time.Now().Unix(), r.Int64())
		var random [16]byte
		for j := range random {
			random[j] = 'a' + byte(r.IntN(26))
		}
		encrypt, now, nonce := key.Encrypt(random, msg, t.appid), strconv.FormatInt(time.Now().Unix(), 10), strconv.FormatUint(r.Uint64(), 10)
		body := fmt.Sprintf("<xml><ToUserName><![CDATA[gh_%012x]]></ToUserName><Encrypt><![CDATA[%s]]></Encrypt></xml>", i, encrypt)
		return fmt.Appendf(b, "POST /wechat/%s/messages/%s?signature=x&timestamp=%s&nonce=%s&encrypt_type=aes&msg_signature=%s HTTP/1.1\r\nHost: bench\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s",
			t.ref, m.appid, now, nonce, msgcrypt.Signature(messageToken, now, nonce, encrypt), len(body), body), i
	}, check: func(_ int, body []byte) error {
		if string(body) != "success" {
			return errors.New("not taken")
		}
		return nil
	}}, err
}

// upstream is a call as WeChat gets it, for the stub alone and for the peers.
// With a JWT as long as a key of ours, for the one that looks at it.
func (w *world) upstreamCall(path, body string, jwts []string, check func(int, []byte) error) traffic {
	from, to := w.reads()
	return traffic{status: http.StatusOK, check: check, next: func(r *rand.Rand, b []byte) ([]byte, int) {
		m := from + r.IntN(to-from)
		b = fmt.Appendf(b, "POST %s?access_token=%s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, token(int64(m)), len(body))
		if jwts != nil {
			b = append(append(append(b, "Authorization: Bearer "...), jwts[r.IntN(len(jwts))]...), "\r\n"...)
		}
		return append(append(b, "\r\n"...), body...), m
	}}
}

// passRead is the read that peers hand on.
func (w *world) passRead(jwts []string) traffic {
	return w.upstreamCall("/wxa/get_store_list", `{"offset":0,"limit":20}`, jwts, func(_ int, body []byte) error {
		var p struct {
			Errcode int               `json:"errcode"`
			List    []json.RawMessage `json:"business_list"`
		}
		if err := json.Unmarshal(body, &p); err != nil || p.Errcode != 0 || len(p.List) != 2 {
			return errors.Join(errors.New("not the list"), err)
		}
		return nil
	})
}

// passWrite is the call that a write makes.
func (w *world) passWrite() traffic {
	return w.upstreamCall("/wxa/add_store", `{"map_poi_id":"100000000000000000","pic_list":"{\"list\":[\"`+photo+`\"]}","contract_phone":"1111222222","hour":"10:00-21:00","credential":"1","card_id":""}`, nil, nil)
}

// jwtSecret is what HAProxy verifies HS256 with.
const jwtSecret = "0123456789abcdef0123456789abcdef"

// jwts are tokens for HAProxy, as many as there are keys.
func (w *world) jwts() []string {
	out := make([]string, len(w.keys))
	encode := base64.RawURLEncoding.EncodeToString
	now := time.Now().Unix()
	for i := range out {
		signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(fmt.Appendf(nil,
			`{"iss":"bench","sub":"key-%06d","tenant":"%s","scope":"stores:read stores:write","iat":%d,"exp":%d}`,
			i, strings.Repeat("t", 26), now, now+86400))
		mac := hmac.New(sha256.New, []byte(jwtSecret))
		mac.Write([]byte(signed))
		out[i] = signed + "." + encode(mac.Sum(nil))
	}
	return out
}
