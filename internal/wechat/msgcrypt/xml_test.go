package msgcrypt_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// encryptRaw seals a whole plaintext, header and padding included, under the key of 43 A's (all zero).
func encryptRaw(t *testing.T, plain []byte) string {
	t.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(out, plain) //nolint:gosec // the start of the all-zero key, as WeChat has it
	return base64.StdEncoding.EncodeToString(out)
}

func TestParseEnvelope(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     msgcrypt.Envelope
	}{
		{"component", `<xml><AppId><![CDATA[wx1]]></AppId><Encrypt><![CDATA[abc]]></Encrypt></xml>`, msgcrypt.Envelope{AppID: "wx1", Encrypt: "abc"}},
		{"merchant", `<xml><ToUserName><![CDATA[gh_1]]></ToUserName><Encrypt><![CDATA[abc]]></Encrypt></xml>`, msgcrypt.Envelope{ToUserName: "gh_1", Encrypt: "abc"}},
		{"compatible mode has more", "<xml>\n<CreateTime>1</CreateTime><Encrypt>abc</Encrypt>\n</xml>\n", msgcrypt.Envelope{Encrypt: "abc"}},
		{"declaration", `<?xml version="1.0" encoding="UTF-8"?><xml><Encrypt>abc</Encrypt></xml>`, msgcrypt.Envelope{Encrypt: "abc"}},
		{"nested Encrypt does not count", `<xml><a><Encrypt>no</Encrypt></a><Encrypt>abc</Encrypt></xml>`, msgcrypt.Envelope{Encrypt: "abc"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := msgcrypt.ParseEnvelope([]byte(tt.in))
			if err != nil || got != tt.want {
				t.Errorf("ParseEnvelope() = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// security.md §5 and attack 64.
var refusedXML = map[string]string{
	"empty":              ``,
	"no XML":             `hello`,
	"no root":            `<?xml version="1.0"?>`,
	"other root":         `<html><Encrypt>abc</Encrypt></html>`,
	"two roots":          `<xml><Encrypt>abc</Encrypt></xml><xml></xml>`,
	"not closed":         `<xml><Encrypt>abc</Encrypt>`,
	"text behind":        `<xml><Encrypt>abc</Encrypt></xml>x`,
	"doctype":            `<!DOCTYPE xml><xml><Encrypt>abc</Encrypt></xml>`,
	"xxe":                `<!DOCTYPE foo [<!ENTITY xxe SYSTEM "file:///etc/passwd">]><xml><Encrypt>&xxe;</Encrypt></xml>`,
	"unknown entity":     `<xml><Encrypt>&lol;</Encrypt></xml>`,
	"billion laughs":     `<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><xml><Encrypt>&b;</Encrypt></xml>`,
	"utf-7":              `<?xml version="1.0" encoding="utf-7"?><xml><Encrypt>abc</Encrypt></xml>`,
	"gbk bytes":          "<xml><Encrypt>\xc4\xe3</Encrypt></xml>",
	"nine levels":        strings.Repeat("<xml>", 9) + strings.Repeat("</xml>", 9),
	"10 000 levels":      strings.Repeat("<xml>", 10_000),
	"201 tokens":         "<xml>" + strings.Repeat("<a></a>", 100) + "</xml>",
	"instruction":        `<xml><?php x?><Encrypt>abc</Encrypt></xml>`,
	"late declaration":   ` <?xml version="1.0"?><xml><Encrypt>abc</Encrypt></xml>`,
	"namespace":          `<xml xmlns="urn:x"><Encrypt>abc</Encrypt></xml>`,
	"repeated Encrypt":   `<xml><Encrypt>abc</Encrypt><Encrypt>def</Encrypt><audit_id>1</audit_id><audit_id>1</audit_id></xml>`,
	"repeated status":    `<xml><Encrypt>abc</Encrypt><Encrypt>abc</Encrypt><status>1</status><status>3</status></xml>`,
	"empty and repeated": `<xml><Encrypt/><Encrypt/><status/><status/></xml>`,
}

func TestXMLRefusals(t *testing.T) {
	t.Parallel()
	for name, doc := range refusedXML {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if e, err := msgcrypt.ParseEnvelope([]byte(doc)); !errors.Is(err, msgcrypt.ErrXML) {
				t.Errorf("ParseEnvelope() = %+v, %v, want %v", e, err, msgcrypt.ErrXML)
			}
			if m, err := msgcrypt.ParseMessage([]byte(doc)); !errors.Is(err, msgcrypt.ErrXML) {
				t.Errorf("ParseMessage() = %+v, %v, want %v", m, err, msgcrypt.ErrXML)
			}
		})
	}
	if _, err := msgcrypt.ParseEnvelope([]byte(`<xml><AppId>wx1</AppId></xml>`)); !errors.Is(err, msgcrypt.ErrXML) {
		t.Errorf("ParseEnvelope(no Encrypt) = %v", err)
	}
}

func TestParseMessage(t *testing.T) {
	t.Parallel()
	m, err := msgcrypt.ParseMessage([]byte("<xml>\n  <ToUserName><![CDATA[gh_1]]></ToUserName>  \n" +
		"<reason><![CDATA[ 图片 <b> ]]]]><![CDATA[> ]]></reason><audit_id>11111</audit_id><status>3</status>" +
		"<AppId>a</AppId><Appid>b</Appid><name>first</name><name>second</name><poiid></poiid>" +
		"<info> x<status>9</status><code>1</code>y </info><t>a&amp;b</t></xml>\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]string
	for name, value := range m.All() {
		got = append(got, [2]string{name, value})
	}
	want := [][2]string{
		{"ToUserName", "gh_1"}, {"reason", " 图片 <b> ]]> "}, {"audit_id", "11111"}, {"status", "3"},
		{"AppId", "a"}, {"Appid", "b"}, {"name", "first"}, {"name", "second"}, {"poiid", ""},
		{"info", " xy "}, {"t", "a&b"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]string{"name": "first", "status": "3", "code": "", "appid": "", "AppId": "a"} {
		if got := m.Get(name); got != want {
			t.Errorf("Get(%q) = %q, want %q", name, got, want)
		}
	}
}

// documentEvents are the five events of documents 000 and 001, as they print them.
func documentEvents(tb testing.TB) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob("testdata/documents/*.xml")
	if err != nil || len(files) != 5 {
		tb.Fatalf("%d events of the documents, %v", len(files), err)
	}
	out := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			tb.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".xml")] = b
	}
	return out
}

func TestDocumentsEvents(t *testing.T) {
	t.Parallel()
	want := map[string]map[string]string{
		"apply_merchant_audit_info": {"audit_id": "11111", "status": "3", "reason": "xxx", "CreateTime": "1488856741", "ToUserName": "gh_4346ac1514d8",
			"FromUserName": "od1P50M-fNQI5Gcq-trm4a7apsU8"},
		"create_map_poi_audit_info": {"audit_id": "11111", "status": "1", "map_poi_id": "xxx", "name": "xxx", "address": "xxx", "latitude": "xxx", "longitude": "xxx", "sh_remark": "xxx"},
		"add_store_audit_info":      {"audit_id": "11111", "status": "3", "reason": "xxx", "is_upgrade": "3", "poiid": "12344"},
		"modify_store_audit_info":   {"audit_id": "11111", "status": "3", "reason": "xxx"},
		"poi_check_notify":          {"UniqId": "123adb", "PoiId": "123123", "Result": "fail", "msg": "xxxxxx", "CreateTime": "1408622107", "ToUserName": "toUser"},
	}
	for event, doc := range documentEvents(t) {
		m, err := msgcrypt.ParseMessage(doc)
		if err != nil {
			t.Errorf("%s: %v", event, err)
			continue
		}
		if want[event] == nil || m.Get("Event") != event || m.Get("MsgType") != "event" {
			t.Errorf("%s: Event %q, MsgType %q", event, m.Get("Event"), m.Get("MsgType"))
		}
		for name, text := range want[event] {
			if m.Get(name) != text {
				t.Errorf("%s: %s = %q, want %q", event, name, m.Get(name), text)
			}
		}
	}
}

func TestBuildReply(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t).Vectors {
		if v.ID != "official-component-reply-E" {
			continue
		}
		k := mustKey(t, v.Key)
		got := msgcrypt.BuildReply(k, v.Token, v.ReceiveID, [16]byte([]byte("999951349e8ee746")), 1713424427, v.Nonce, []byte(v.Plaintext))
		want := "<xml><Encrypt><![CDATA[" + v.Encrypt + "]]></Encrypt><MsgSignature><![CDATA[" + v.MsgSignature +
			"]]></MsgSignature><TimeStamp>1713424427</TimeStamp><Nonce><![CDATA[415670741]]></Nonce></xml>"
		if d := cmp.Diff(want, string(got)); d != "" {
			t.Error(d)
		}
		return
	}
	t.Fatal("vector not found")
}

func FuzzParseEnvelope(f *testing.F) {
	for _, v := range vectors(f).Vectors {
		f.Add([]byte(v.Envelope))
	}
	for _, doc := range refusedXML {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if e, err := msgcrypt.ParseEnvelope(body); err == nil && e.Encrypt == "" {
			t.Error("accepted without Encrypt")
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, v := range vectors(f).Vectors {
		f.Add([]byte(v.Plaintext))
	}
	for _, doc := range refusedXML {
		f.Add([]byte(doc))
	}
	for _, doc := range documentEvents(f) {
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		m, err := msgcrypt.ParseMessage(msg)
		if err != nil {
			if !errors.Is(err, msgcrypt.ErrXML) || len(err.Error()) > 100 {
				t.Errorf("refused with %v", err)
			}
			return
		}
		seen := map[string]int{}
		for name, value := range m.All() {
			if seen[name]++; seen[name] == 1 && m.Get(name) != value {
				t.Errorf("Get(%q) = %q, want the first, %q", name, m.Get(name), value)
			}
		}
		if seen["status"] > 1 || seen["audit_id"] > 1 {
			t.Error("a repeated audit_id or status passed")
		}
	})
}
