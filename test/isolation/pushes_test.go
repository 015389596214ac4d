package isolation

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/wechat/msgcrypt"
	"github.com/mendian/mendian/test/world"
)

// A push is one of WeChat's, signed and encrypted for a platform.
type push struct {
	query url.Values
	body  string
}

// sealPush makes a push of plain for c. Its parts may be changed afterwards.
func sealPush(t testing.TB, c world.Component, plain string) push {
	t.Helper()
	key, err := msgcrypt.ParseKey(c.EncodingAESKey)
	if err != nil {
		t.Fatal(err)
	}
	return signPush(c, key.Encrypt([16]byte([]byte(rand.Text())), []byte(plain), c.AppID))
}

// signPush makes a push of what is already encrypted, whatever it is.
func signPush(c world.Component, encrypt string) push { return signPushAt(c, encrypt, time.Now()) }

func signPushAt(c world.Component, encrypt string, at time.Time) push {
	timestamp, nonce := strconv.FormatInt(at.Unix(), 10), strings.ToLower(rand.Text())[:9]
	return push{
		query: url.Values{"timestamp": {timestamp}, "nonce": {nonce}, "encrypt_type": {"aes"},
			"signature":     {msgcrypt.Signature(c.MessageToken, timestamp, nonce, "")},
			"msg_signature": {msgcrypt.Signature(c.MessageToken, timestamp, nonce, encrypt)}},
		body: fmt.Sprintf("<xml><AppId><![CDATA[%s]]></AppId><Encrypt><![CDATA[%s]]></Encrypt></xml>", c.AppID, encrypt),
	}
}

// to sends the push to a path below /wechat/.
func (p push) to(c *world.Client, path string) *world.Answer {
	return c.Do(http.MethodPost, "/wechat/"+path+"?"+p.query.Encode(), p.body, "Content-Type", "text/xml")
}

func storeEvent(toUser, audit, poi string, status int) string {
	return fmt.Sprintf(`<xml><ToUserName><![CDATA[%s]]></ToUserName><FromUserName><![CDATA[od1P50M-fNQI5Gcq-trm4a7apsU8]]></FromUserName><CreateTime>%d</CreateTime>
		<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[add_store_audit_info]]></Event><audit_id>%s</audit_id><status>%d</status>
		<reason><![CDATA[of another tenant]]></reason><is_upgrade>0</is_upgrade><poiid>%s</poiid></xml>`, toUser, time.Now().Unix(), audit, status, poi)
}

func componentEvent(component, infoType, members string) string {
	return fmt.Sprintf(`<xml><AppId><![CDATA[%s]]></AppId><CreateTime>%d</CreateTime><InfoType><![CDATA[%s]]></InfoType>%s</xml>`,
		component, time.Now().Unix(), infoType, members)
}

// pushes: attack 65. What B's platform pushes, rightly signed, names A's
// accounts, audits and stores in every place; it is kept, answered with
// success, and has no effect on A. And A's own pushes at B's address, or B's
// at A's, are nobody's.
func (m *matrix) pushes(t *testing.T) {
	t.Helper()
	ref, theirs := m.two.b.tenant.Ref, m.two.a.tenant.Ref
	waiting := m.sql(t, `SELECT a.wechat_audit_id AS id, m.appid, m.user_name FROM audits a JOIN merchants m ON m.tenant_id = a.tenant_id AND m.id = a.merchant_id
		WHERE a.tenant_id = $1 AND a.status = 'in_review' ORDER BY a.id LIMIT 1`, m.two.a.id)
	if len(waiting) != 1 {
		t.Fatal("A has no audit that waits")
	}
	audit, appid, user := waiting[0]["id"].(string), waiting[0]["appid"].(string), waiting[0]["user_name"].(string)
	m.sums = m.checksums(t, m.tables, m.two.a.id)
	calls := m.calls(&m.two.a)
	before := len(m.sql(t, `SELECT id FROM event_inbox WHERE tenant_id = $1`, m.two.b.id))
	secret := fmt.Sprintf(`<AuthorizerAppid><![CDATA[%s]]></AuthorizerAppid>`, appid)
	code := secret + fmt.Sprintf(`<AuthorizationCode><![CDATA[queryauthcode@@@%s]]></AuthorizationCode><AuthorizationCodeExpiredTime>%d</AuthorizationCodeExpiredTime><PreAuthCode><![CDATA[preauthcode@@@x]]></PreAuthCode>`,
		rand.Text(), time.Now().Add(time.Hour).Unix())
	kept := []struct{ name, path, plain string }{
		{"A's account in the path", "/messages/" + appid, storeEvent(user, audit, "472671857999", 1)},
		{"A's account in the path, rejected", "/messages/" + appid, storeEvent(user, audit, "0", 3)},
		{"A's audit in B's account", "/messages/" + accountB1, storeEvent("gh_of_b", audit, "472671857998", 1)},
		{"A's account leaves", "/component", componentEvent(componentB.AppID, "unauthorized", secret)},
		{"A's account grants less", "/component", componentEvent(componentB.AppID, "updateauthorized", code)},
		{"A's account comes to B", "/component", componentEvent(componentB.AppID, "authorized", code)},
	}
	for _, k := range kept {
		tried(t, "65")
		if a := sealPush(t, componentB, k.plain).to(m.b, ref+k.path); a.Status != http.StatusOK || string(a.Body) != "success" {
			t.Errorf("%s: %d %s, want success", k.name, a.Status, a.Body)
		}
	}
	if n := len(m.sql(t, `SELECT id FROM event_inbox WHERE tenant_id = $1`, m.two.b.id)); n != before+len(kept) {
		t.Errorf("%d pushes were kept, want %d", n-before, len(kept))
	}
	ticket := fmt.Sprintf(`<ComponentVerifyTicket><![CDATA[ticket@@@%s]]></ComponentVerifyTicket>`, rand.Text())
	for name, p := range map[string]struct {
		push push
		path string
	}{
		"B's ticket at A's address":          {sealPush(t, componentB, componentEvent(componentB.AppID, "component_verify_ticket", ticket)), theirs + "/component"},
		"B's message at A's address":         {sealPush(t, componentB, storeEvent(user, audit, "472671857997", 1)), theirs + "/messages/" + appid},
		"A's message at B's address":         {sealPush(t, m.two.a.component, storeEvent(user, audit, "472671857996", 1)), ref + "/messages/" + appid},
		"B's signature on A's encrypted one": {signPush(componentB, encryptOf(sealPush(t, m.two.a.component, storeEvent(user, audit, "472671857995", 1)))), ref + "/messages/" + appid},
		"A's signature, B's key":             {signPush(m.two.a.component, encryptOf(sealPush(t, componentB, storeEvent(user, audit, "472671857994", 1)))), theirs + "/messages/" + appid},
	} {
		tried(t, "60")
		if a := p.push.to(m.b, p.path); a.Status != http.StatusForbidden || len(a.Body) != 0 {
			t.Errorf("%s: %d %q, want 403 and nothing", name, a.Status, a.Body)
		}
	}
	// What is not B's to exchange would be tried again and again: once is enough.
	world.Eventually(t, 20*time.Second, "every push was tried", func() error {
		m.sql(t, `UPDATE event_inbox SET next_at = NULL WHERE attempts > 0 AND next_at < now() + interval '30 seconds'`)
		if rows := m.sql(t, `SELECT id, state, attempts FROM event_inbox WHERE next_at IS NOT NULL`); len(rows) > 0 {
			return fmt.Errorf("%v", rows)
		}
		return nil
	})
	for _, row := range m.sql(t, `SELECT appid, event, state FROM event_inbox WHERE tenant_id = $1 AND appid = $2`, m.two.b.id, appid) {
		if row["state"] != "unprocessed" {
			t.Errorf("a push that names A's account is %v", row)
		}
	}
	for _, row := range m.sql(t, `SELECT id FROM merchants WHERE tenant_id = $1 AND appid = $2`, m.two.b.id, appid) {
		t.Errorf("A's account became B's merchant %v", row)
	}
	m.nothingHappened(t, "pushes")
	if now := m.calls(&m.two.a); now != calls {
		t.Errorf("%d calls of WeChat were made for A", now-calls)
	}
}

func encryptOf(p push) string {
	_, rest, _ := strings.Cut(p.body, "<Encrypt><![CDATA[")
	encrypt, _, _ := strings.Cut(rest, "]]>")
	return encrypt
}
