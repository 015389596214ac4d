package e2e

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
	"github.com/mendian/mendian/test/world"
)

// A releaseReport is what the simulator's release check found (internal/sandbox/README.md).
type releaseReport struct {
	Passed bool
	Checks []struct {
		Check, AppID, Want, Got, Reason string
		Passed                          bool
	}
}

func (r releaseReport) String() string {
	var b strings.Builder
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%s of %s: passed %t: got %q, want %q: %s\n", c.Check, c.AppID, c.Passed, c.Got, c.Want, c.Reason)
	}
	return b.String()
}

func releaseCheck(w *world.World) (r releaseReport) {
	w.Control("POST", "release-check", nil, &r)
	return r
}

// textPush sends a text message to the message URL of the tenant ref, as WeChat
// would, and returns the answer.
func textPush(t *testing.T, c *world.Client, ref string, platform world.Component, appid, toUser, content string) *world.Answer {
	t.Helper()
	key, err := msgcrypt.ParseKey(platform.EncodingAESKey)
	if err != nil {
		t.Fatal(err)
	}
	now := strconv.FormatInt(time.Now().Unix(), 10)
	plain := fmt.Sprintf("<xml><ToUserName>%s</ToUserName><FromUserName>oFan</FromUserName><CreateTime>%s</CreateTime><MsgType>text</MsgType><Content>%s</Content><MsgId>%d</MsgId></xml>",
		toUser, now, content, time.Now().UnixNano())
	encrypt := key.Encrypt([16]byte([]byte(rand.Text())), []byte(plain), platform.AppID)
	query := url.Values{"timestamp": {now}, "nonce": {"n"}, "encrypt_type": {"aes"}, "msg_signature": {msgcrypt.Signature(platform.MessageToken, now, "n", encrypt)}}
	return c.Do("POST", "/wechat/"+ref+"/messages/"+appid+"?"+query.Encode(),
		fmt.Sprintf("<xml><ToUserName>%s</ToUserName><Encrypt>%s</Encrypt></xml>", toUser, encrypt), "Content-Type", "text/xml")
}

// WeChat's full-network release check (platform.md §7.4) is answered once it
// is switched on, also by a platform that has just changed its credentials;
// without, WeChat's accounts hear success like everybody else.
func TestReleaseCheck(t *testing.T) {
	t.Parallel()
	w := world.New(t, world.Options{})
	g := w.Start(nil)
	c := w.Client(g, "")
	w.WaitTicket(g)

	off := releaseCheck(w)
	if len(off.Checks) != 7 {
		t.Fatalf("the release check tried %d things:\n%s", len(off.Checks), off)
	}
	for _, c := range off.Checks {
		if c.Got != "success" || c.Passed != (c.Check == "ticket") {
			t.Errorf("switched off, %s of %s: got %q, passed %t", c.Check, c.AppID, c.Got, c.Passed)
		}
	}

	w.Run("tenant", "update", w.Tenant.ID, "--release-check", "on")
	w.Eventually("the release check passes", func() error {
		if on := releaseCheck(w); !on.Passed || len(on.Checks) != 7 {
			return fmt.Errorf("\n%s", on)
		}
		return nil
	})

	// Pushes under way with the former token and key are answered with them.
	w.Run("tenant", "set-credentials", w.Tenant.ID, "--message-token", "AnotherToken", "--encoding-aes-key", strings.Repeat("b", 43))
	next := w.Component
	next.MessageToken, next.EncodingAESKey = "AnotherToken", strings.Repeat("b", 43)
	w.Eventually("the change of credentials is known", func() error {
		if a := textPush(t, c, w.Tenant.Ref, next, "wx570bc396a51b8ff8", "gh_3c884a361561", "hello"); a.Status != 200 {
			return fmt.Errorf("%d %s", a.Status, a.Body)
		}
		return nil
	})
	if again := releaseCheck(w); !again.Passed {
		t.Errorf("after a change of credentials:\n%s", again)
	}

	// What only looks like it is answered like any message.
	for name, m := range map[string]struct{ appid, toUser, content string }{
		"a merchant's message":                  {sandbox.DemoOfficialAccount, "gh_3c884a361561", "TESTCOMPONENT_MSG_TYPE_TEXT"},
		"a code for a merchant":                 {sandbox.DemoOfficialAccount, "gh_3c884a361561", "QUERY_AUTH_CODE:queryauthcode@@@x"},
		"a message to somebody else":            {"wx570bc396a51b8ff8", "gh_8dad206e9538", "TESTCOMPONENT_MSG_TYPE_TEXT"},
		"another text to WeChat's test account": {"wx570bc396a51b8ff8", "gh_3c884a361561", "hello"},
	} {
		if a := textPush(t, c, w.Tenant.Ref, next, m.appid, m.toUser, m.content); a.Status != 200 || string(a.Body) != "success" {
			t.Errorf("%s: %d %s, want success", name, a.Status, a.Body)
		}
	}

	// WeChat's accounts leave no trace but the kept pushes.
	if n := len(w.Query(`SELECT id FROM merchants`)); n != 0 {
		t.Errorf("%d merchants", n)
	}
	w.Eventually("the pushes were kept, and are nobody's", func() error {
		if row := w.Row(`SELECT count(*) AS n, count(*) FILTER (WHERE state = 'unprocessed') AS unprocessed FROM event_inbox WHERE event <> 'component_verify_ticket'`); row["n"] != row["unprocessed"] || row["n"].(int64) < 12 {
			return fmt.Errorf("%v", row)
		}
		return nil
	})
	if strings.Contains(g.Output(), "queryauthcode@@@") {
		t.Error("an authorization code is in the log")
	}
}
