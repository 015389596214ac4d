package isolation

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// encryptBytes encrypts any whole blocks as WeChat does, padding or not.
func encryptBytes(t *testing.T, c world.Component, plain []byte) string {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(c.EncodingAESKey + "=")
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(out, plain)
	return base64.StdEncoding.EncodeToString(out)
}

// Attacks 60 to 62 and 64: what is no push of WeChat's to this tenant is told
// 403 and nothing, in the same words whatever was wrong, and leaves nothing.
// Forgeries of a signature and of a ciphertext are TestForgedPushes of test/faults.
func TestAttackPushes(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	b := a.NewTenant("Other", componentB)
	appid := sandbox.DemoOfficialAccount
	xml := storeEvent("gh_x", "999000111", "472671857", 1)
	own := "/wechat/" + a.Tenant.Ref + "/messages/" + appid
	a.rest(t)

	good := sealPush(t, a.Component, xml)
	framed := func(length uint32, msg, receiver string, pad []byte) string {
		plain := append([]byte(rand.Text())[:16], binary.BigEndian.AppendUint32(nil, length)...)
		return encryptBytes(t, a.Component, append(append(append(plain, msg...), receiver...), pad...))
	}
	id := a.Component.AppID
	padTo := func(n int, with byte) []byte { return bytes.Repeat([]byte{with}, (n-(20+len(id))%n)%n) }
	laughs := `<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>`
	unsigned := good
	unsigned.query = map[string][]string{"timestamp": good.query["timestamp"], "nonce": good.query["nonce"], "signature": good.query["signature"], "encrypt_type": {"aes"}}
	plainMode := push{query: map[string][]string{"timestamp": good.query["timestamp"], "nonce": good.query["nonce"], "signature": good.query["signature"], "encrypt_type": {"raw"}}, body: xml}
	inside := func(doc string) push { return sealPush(t, a.Component, doc) }
	envelope := func(body string) push { return push{query: good.query, body: body} }
	encrypt := encryptOf(good)
	noise := make([]byte, 3000) // what can't be compressed fits into no index
	_, _ = rand.Read(noise)     // never fails
	long := hex.EncodeToString(noise)
	var words, headers string
	for _, x := range []struct {
		name, path string
		push       push
	}{
		{"60 no msg_signature", own, unsigned},
		{"60 right, at another tenant's address", "/wechat/" + b.Ref + "/messages/" + appid, good},
		{"60 another tenant's, at ours", own, sealPush(t, componentB, xml)},
		{"60 an address that nobody has", "/wechat/" + strings.Repeat("0", 32) + "/messages/" + appid, good},
		{"60 an address that breaks out", "/wechat/%27%20OR%201=1--/component", good},
		{"60 an account of NUL", "/wechat/" + a.Tenant.Ref + "/messages/wx%00", good},
		{"60 an account that is not UTF-8", "/wechat/" + a.Tenant.Ref + "/messages/wx%FF", good},
		{"60 an account of 1,500 letters", "/wechat/" + a.Tenant.Ref + "/messages/" + strings.Repeat("w", 1500), good},
		{"61 not encrypted", own, plainMode},
		{"62 nothing encrypted", own, signPush(a.Component, "")},
		{"62 half a block", own, signPush(a.Component, base64.StdEncoding.EncodeToString(make([]byte, 40)))},
		{"62 padding 0", own, signPush(a.Component, framed(0, "", id, padTo(32, 0)))},
		{"62 padding 33", own, signPush(a.Component, framed(0, "", id, padTo(32, 33)))},
		{"62 no padding", own, signPush(a.Component, framed(0, "", id+strings.Repeat("x", len(padTo(32, 0))), nil))},
		{"62 length 0xFFFFFFFF", own, signPush(a.Component, framed(0xFFFFFFFF, "", id, padTo(32, byte(len(padTo(32, 0))))))},
		{"62 length 0x80000000", own, signPush(a.Component, framed(0x80000000, "", id, padTo(32, byte(len(padTo(32, 0))))))},
		{"62 another platform's appid inside", own, signPush(a.Component, framed(0, "", "wx5ab0d1c0ffee00b0", padTo(32, byte(len(padTo(32, 0))))))},
		{"64 a file as an entity", own, envelope(`<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><xml><Encrypt>&f;</Encrypt></xml>`)},
		{"64 billion laughs", own, envelope(laughs + `<xml><Encrypt>&b;</Encrypt></xml>`)},
		{"64 ten thousand tags", own, envelope(strings.Repeat("<xml>", 10_000))},
		{"64 UTF-7", own, envelope(`<?xml version="1.0" encoding="utf-7"?><xml><Encrypt>` + encrypt + `</Encrypt></xml>`)},
		{"64 Encrypt twice", own, envelope(`<xml><Encrypt>` + encrypt + `</Encrypt><Encrypt>x</Encrypt></xml>`)},
		{"64 JSON", own, envelope(`{"Encrypt":"` + encrypt + `"}`)},
		{"64 inside, a file as an entity", own, inside(`<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><xml><CreateTime>1</CreateTime><MsgType>&f;</MsgType></xml>`)},
		{"64 inside, billion laughs", own, inside(laughs + `<xml><CreateTime>1</CreateTime><MsgType>&b;</MsgType></xml>`)},
		{"64 inside, ten thousand tags", own, inside(strings.Repeat("<xml>", 10_000) + strings.Repeat("</xml>", 10_000))},
		{"64 inside, an event's name of 6,000 letters", own, inside(strings.Replace(xml, "add_store_audit_info", long, 1))},
		{"64 inside, a sender of 6,000 letters", own, inside(strings.Replace(xml, "od1P50M-fNQI5Gcq-trm4a7apsU8", long, 1))},
		{"64 inside, an InfoType of 6,000 letters", "/wechat/" + a.Tenant.Ref + "/component", inside(componentEvent(id, long, ""))},
		{"64 inside, audit_id twice", own, inside(strings.Replace(xml, "<status>", "<audit_id>2</audit_id><status>", 1))},
		{"64 inside, not UTF-8", own, inside(strings.Replace(xml, "of another tenant", "\xff\xfe", 1))},
	} {
		tried(t, x.name)
		begun := time.Now()
		got := a.c.As("").For("").Do(http.MethodPost, x.path+"?"+x.push.query.Encode(), x.push.body, "Content-Type", "text/xml")
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("%s took %s", x.name, took)
		}
		for _, name := range []string{"Request-Id", "Traceparent", "Date"} {
			got.Header.Del(name)
		}
		if words == "" {
			words, headers = fmt.Sprint(got.Status, " ", string(got.Body)), fmt.Sprint(got.Header)
		}
		if got.Status != http.StatusForbidden || len(got.Body) != 0 || fmt.Sprint(got.Header) != headers {
			t.Errorf("%s: %d %q %v, want the same 403 as for the others %v", x.name, got.Status, got.Body, got.Header, headers)
		}
		a.untouched(t, x.name)
	}
	if got := a.c.Do(http.MethodGet, own, nil); got.Status != http.StatusMethodNotAllowed && got.Status != http.StatusNotFound {
		t.Errorf("60 GET: %d %s", got.Status, got.Body)
	}
	// All of them were well made but for their fault.
	if got := good.to(a.c, a.Tenant.Ref+"/messages/"+appid); got.Status != http.StatusOK || string(got.Body) != "success" {
		t.Errorf("a true push: %d %s", got.Status, got.Body)
	}
}

// Attacks 63 and 65 to 67: true pushes that tell nothing which counts here are
// kept, answered with success, and change neither store nor audit; and however
// often one comes, it comes once.
func TestPushesThatTellNothing(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	body := a.NewStore(9)
	body["contact_phone"] = "020-88880009" // nobody decides it
	store := a.c.Do("POST", "/v1/stores", body).Want(http.StatusAccepted)
	audit := store.Get("audit", "wechat_audit_id")
	account, user := a.account(t, a.c.Merchant)
	a.rest(t)
	stands := func() string {
		return fmt.Sprint(a.sql(t, `SELECT s.status, s.wechat_id, s.row_version, a.status AS audit, a.status_rank FROM resources s LEFT JOIN audits a ON a.id = s.audit_id ORDER BY s.id`),
			a.sql(t, `SELECT status, permission_sets, row_version FROM merchants ORDER BY id`), len(a.sql(t, `SELECT id FROM outbox WHERE type <> 'push.other'`)))
	}
	before := stands()
	event := func(change ...string) string {
		return strings.NewReplacer(change...).Replace(storeEvent(user, audit, "472671857777", 1))
	}
	place := func(status, members string) string {
		return event("add_store_audit_info", "create_map_poi_audit_info", "<status>1</status>", "<status>"+status+"</status>"+members)
	}
	component := func(infoType, members string) string { return componentEvent(a.Component.AppID, infoType, members) }
	unknown := `<AuthorizerAppid><![CDATA[wx00000000000000ff]]></AuthorizerAppid>`
	const ticket = "ticket@@@nobody-sees-this"
	kept := []struct{ name, path, xml, state string }{
		{"65 an account that nobody knows", "/messages/wx00000000000000ff", event(), "unprocessed"},
		{"65 ToUserName of another account", "/messages/" + account, event(user, "gh_somebody_else"), "unprocessed"},
		{"65 an account that nobody knows leaves", "/component", component("unauthorized", unknown), "unprocessed"},
		{"65 nobody leaves", "/component", component("unauthorized", ""), "unprocessed"},
		{"66 status 99", "/messages/" + account, event("<status>1</status>", "<status>99</status>"), "unprocessed"},
		{"66 status −1", "/messages/" + account, event("<status>1</status>", "<status>-1</status>"), "unprocessed"},
		{"66 no status", "/messages/" + account, event("<status>1</status>", ""), "unprocessed"},
		{"66 audit_id is no number", "/messages/" + account, event("<audit_id>"+audit, "<audit_id>abc"), "unprocessed"},
		{"66 audit_id −1", "/messages/" + account, event("<audit_id>"+audit, "<audit_id>-1"), "unprocessed"},
		{"66 audit_id with blanks", "/messages/" + account, event("<audit_id>"+audit, "<audit_id> "+audit+" "), "unprocessed"},
		{"66 audit_id of 30 digits", "/messages/" + account, event("<audit_id>"+audit, "<audit_id>"+strings.Repeat("9", 30)), "unprocessed"},
		{"66 an audit that nobody knows", "/messages/" + account, event("<audit_id>"+audit, "<audit_id>1"), "unmatched"},
		{"66 approved without a poiid", "/messages/" + account, event("<poiid>472671857777", "<poiid>"), "unprocessed"},
		{"66 approved with a poiid of text", "/messages/" + account, event("<poiid>472671857777", "<poiid>1;DROP TABLE stores"), "unprocessed"},
		{"66 an event that nobody knows", "/messages/" + account, event("add_store_audit_info", "add_moon_audit_info"), "unprocessed"},
		{"66 the same in another case", "/messages/" + account, event("add_store_audit_info", "ADD_STORE_AUDIT_INFO"), "unprocessed"},
		{"67 a place's status 3", "/messages/" + account, place("3", "<map_poi_id>2880741500279549033</map_poi_id>"), "unprocessed"},
		{"67 a place approved without a number", "/messages/" + account, place("0", ""), "unprocessed"},
		{"66 an InfoType that nobody knows", "/component", component("something_else", unknown), "unprocessed"},
		{"66 a ticket at a merchant's address", "/messages/" + account, component("component_verify_ticket", "<ComponentVerifyTicket>"+ticket+"</ComponentVerifyTicket>"), "unprocessed"},
		{"66 a code at nobody's address", "/messages/$APPID$", component("authorized", unknown+"<AuthorizationCode>"+ticket+"</AuthorizationCode>"), "unprocessed"},
		{"66 a subscriber's word", "/messages/" + account, event("<MsgType><![CDATA[event]]></MsgType>", "<MsgType><![CDATA[text]]></MsgType><Content><![CDATA[hello]]></Content>"), "unprocessed"},
	}
	for i, x := range kept {
		tried(t, x.name)
		// Each is another push: CreateTime is what tells them apart.
		xml := strings.Replace(x.xml, fmt.Sprintf("<CreateTime>%d", time.Now().Unix()), fmt.Sprintf("<CreateTime>%d", time.Now().Unix()-int64(i)), 1)
		got := sealPush(t, a.Component, xml).to(a.c, a.Tenant.Ref+x.path)
		if got.Status != http.StatusOK || string(got.Body) != "success" {
			t.Errorf("%s: %d %q, want success", x.name, got.Status, got.Body)
		}
		a.Eventually(x.name, func() error {
			rows := a.sql(t, `SELECT state, event FROM event_inbox ORDER BY received_at DESC, id DESC LIMIT 1`)
			if rows[0]["state"] == "new" && x.state != "" || x.state != "" && rows[0]["state"] != x.state {
				return fmt.Errorf("%v, want %s", rows, x.state)
			}
			return nil
		})
	}
	told := 0 // of an audit that nobody knows: it may still come
	for _, x := range kept {
		if x.state == "unprocessed" {
			told++
		}
	}
	if n := len(a.sql(t, `SELECT id FROM outbox WHERE type = 'push.other'`)); n != told {
		t.Errorf("the tenant is told of %d pushes, want %d", n, told)
	}
	// What subscribers write is shown, and what the platform is sent never is.
	var shown strings.Builder
	a.Eventually("all that was told is listed", func() error {
		shown.Reset()
		told := a.c.Do("GET", "/v1/events?type=push.other&limit=100", nil).Want(http.StatusOK)
		if !strings.Contains(string(told.Body), "[hello]") {
			return fmt.Errorf("%s", told.Body)
		}
		shown.Write(told.Body)
		return nil
	})
	for _, row := range a.sql(t, `SELECT id::text FROM event_inbox`) {
		shown.Write(a.c.Do("GET", "/v1/events/"+typeid.Format(typeid.Event, uuid.MustParse(row["id"].(string))), nil).Body)
	}
	if n := strings.Count(shown.String(), "[hello]"); n != 2 {
		t.Errorf("66 a subscriber's word is shown %d times, want in the list and by itself", n)
	}
	if strings.Contains(shown.String(), ticket) {
		t.Errorf("66 what the platform was sent is shown to keys")
	}
	if now := stands(); now != before {
		t.Errorf("stores, audits and merchants were\n%s\nand are\n%s", before, now)
	}
	if n := len(a.Journal("")); n != a.calls {
		t.Errorf("%d calls of WeChat were made", n-a.calls)
	}

	tried(t, "63") // a hundred copies, each signed anew, some with an old timestamp
	n := len(a.sql(t, `SELECT id FROM event_inbox`))
	xml := storeEvent(user, audit, "472671857778", 3)
	for i := range 100 {
		p := sealPush(t, a.Component, xml)
		if i%2 == 1 {
			p = signPushAt(a.Component, encryptOf(p), time.Now().Add(-time.Hour))
		}
		if got := p.to(a.c, a.Tenant.Ref+"/messages/"+account); got.Status != http.StatusOK || string(got.Body) != "success" {
			t.Fatalf("63 copy %d: %d %q", i, got.Status, got.Body)
		}
	}
	a.Eventually("the rejection counts", func() error {
		if s := a.c.Do("GET", "/v1/stores/"+store.Get("id"), nil); s.Get("status") != "rejected" {
			return fmt.Errorf("%s", s.Body)
		}
		return nil
	})
	if now := len(a.sql(t, `SELECT id FROM event_inbox`)); now != n+1 {
		t.Errorf("63 a hundred copies are %d rows", now-n)
	}
	if rows := a.sql(t, `SELECT h.status FROM audit_history h JOIN audits a ON a.id = h.audit_id WHERE a.wechat_audit_id = $1 AND h.status = 'rejected'`, audit); len(rows) != 1 {
		t.Errorf("63 a hundred copies have %d effects", len(rows))
	}
}

// account is a merchant's appid and user name.
func (a *arena) account(t *testing.T, merchant string) (appid, user string) {
	t.Helper()
	m := a.c.Do("GET", "/v1/merchants/"+merchant, nil).Want(http.StatusOK)
	return m.Get("appid"), m.Get("user_name")
}
