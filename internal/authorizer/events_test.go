package authorizer

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/sandbox"
	"github.com/mendian/mendian/internal/wechat"
)

// componentEvent is a push in the shape of platform.md §6.
func componentEvent(infoType string, created time.Time, fields ...string) string {
	s := fmt.Sprintf("<xml><AppId>%s</AppId><CreateTime>%d</CreateTime><InfoType>%s</InfoType>", sandbox.DefaultComponentAppID, created.Unix(), infoType)
	for i := 0; i < len(fields); i += 2 {
		s += "<" + fields[i] + ">" + fields[i+1] + "</" + fields[i] + ">"
	}
	return s + "</xml>"
}

func (b *bundle) apply(infoType string, created time.Time, fields ...string) error {
	b.t.Helper()
	return b.a().ApplyComponentEvent(b.t.Context(), b.tenant, message(b.t, componentEvent(infoType, created, fields...)), time.Now())
}

// Attack 68: an old ticket replaces no newer one; one from the future is taken,
// with an alarm, and replaced by the next.
func TestTicketOrder(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.sql(`DELETE FROM component_tickets`)
	now := time.Now()
	for _, tk := range []struct {
		value string
		at    time.Time
	}{
		{"t1", now.Add(-30 * time.Minute)}, {"t3", now.Add(-10 * time.Minute)}, {"t2", now.Add(-20 * time.Minute)},
		{"future", now.Add(24 * time.Hour)}, {"old", now.Add(-11 * time.Hour)},
	} {
		if err := b.apply("component_verify_ticket", tk.at, "ComponentVerifyTicket", tk.value); err != nil {
			t.Fatal(err)
		}
	}
	values := func() (out []string) {
		tickets, err := b.a().usableTickets(t.Context(), b.tenant)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range tickets {
			out = append(out, k.value.Reveal())
		}
		return out
	}
	if diff := cmp.Diff([]string{"future", "t3", "t2"}, values()); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(b.log.String(), "a ticket's CreateTime is far off") {
		t.Error("nobody was told of a ticket from tomorrow")
	}
	if err := b.apply("component_verify_ticket", time.Now().Add(time.Second), "ComponentVerifyTicket", "next"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"next", "future", "t3"}, values()); diff != "" {
		t.Error(diff)
	}
}

func TestUpdateAuthorized(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	if err := b.a().Check(m, wechat.AddStore); err != nil {
		t.Fatal(err)
	}
	b.control("POST", "accounts", obj{"appid": m.AppID, "sets": []int{1, 11}}, nil)
	b.until("the update was applied", func() bool { return b.heard("updateauthorized", m.AppID) > 0 })
	after := b.merchant(m.AppID)
	err := b.a().Check(after, wechat.AddStore)
	wantCode(t, err, problem.CodePermissionSetMissing)
	p, _ := problem.As(err)
	if diff := cmp.Diff(map[string]any{
		"required_any_of": []int{8, 9, 10, 13}, "granted": []int32{1, 11},
		"authorization_link_hint": map[string]any{"method": "POST", "path": "/v1/authorization-links", "body": map[string]any{"expected_appid": m.AppID}},
	}, p.Extra); diff != "" {
		t.Error(diff)
	}
	if got := scalar[string](b, `SELECT string_agg(type, ' ' ORDER BY id) FROM outbox`); got != "merchant.authorized merchant.authorization_updated" {
		t.Errorf("events = %s", got)
	}
}

func TestUnauthorized(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.control("POST", "accounts/"+m.AppID+"/unauthorize", nil, nil)
	b.until("the withdrawal was applied", func() bool { return b.heard("unauthorized", m.AppID) > 0 })
	after := b.merchant(m.AppID)
	wantCode(t, b.a().Check(after, wechat.AddStore), problem.CodeMerchantDeauthorized)
	wantCode(t, b.read(b.a(), m), problem.CodeMerchantDeauthorized) // also with what was known before
	if got := scalar[bool](b, `SELECT access_ct IS NULL AND refresh_token_ct IS NULL AND refresh_history = '{}' FROM authorizer_tokens`); !got {
		t.Error("tokens were kept")
	}
	if got := scalar[string](b, `SELECT string_agg(type, ' ' ORDER BY id) FROM outbox`); got != "merchant.authorized merchant.deauthorized" {
		t.Errorf("events = %s", got)
	}
}

// Attack 69, and the other orders in which withdrawals may come.
func TestUnauthorizedOrder(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.sql(`UPDATE merchants SET authorized_at = now() - interval '1 hour'`)
	transition := scalar[time.Time](b, `SELECT transition_at FROM merchants`)
	unauthorized := func(at time.Time) error { return b.apply("unauthorized", at, "AuthorizerAppid", m.AppID) }

	before := len(b.calls(""))
	if err := unauthorized(transition.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := b.merchant(m.AppID).Status; got != StatusAuthorized || len(b.calls("")) != before {
		t.Errorf("an older withdrawal: status %s, %d calls", got, len(b.calls(""))-before)
	}
	if err := unauthorized(transition); err != nil { // the same second: WeChat is asked
		t.Fatal(err)
	}
	if got := b.merchant(m.AppID).Status; got != StatusAuthorized || len(b.calls("")) == before {
		t.Errorf("a withdrawal of the same second: status %s, %d calls", got, len(b.calls(""))-before)
	}
	b.sql(`UPDATE merchants SET authorized_at = now()`) // just authorised: our clocks may differ
	if err := unauthorized(transition.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := b.merchant(m.AppID).Status; got != StatusAuthorized {
		t.Errorf("a withdrawal that WeChat denies: status %s", got)
	}
	b.sql(`UPDATE merchants SET authorized_at = now() - interval '1 hour'`)
	if err := unauthorized(transition.Add(2 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got := b.merchant(m.AppID).Status; got != StatusDeauthorized {
		t.Errorf("a newer withdrawal: status %s", got)
	}
	if err := unauthorized(transition.Add(2 * time.Second)); err != nil { // repeated
		t.Fatal(err)
	}
	if n := scalar[int](b, `SELECT count(*) FROM outbox WHERE type = 'merchant.deauthorized'`); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// A withdrawal was found out and its time not yet written when the push of the
// authorisation before it is applied: that changes nothing, and is no failure.
func TestAuthorizedAfterItsWithdrawal(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.LeavingAccount)
	b.until("the authorisation was pushed", func() bool { return b.heard("authorized", m.AppID) > 0 })
	b.control("POST", "accounts/"+m.AppID+"/unauthorize", nil, nil)
	b.until("the withdrawal was applied", func() bool { return b.heard("unauthorized", m.AppID) > 0 })
	b.sql(`UPDATE merchants SET transition_at = now() - interval '1 hour'`)
	b.mu.Lock()
	pushed := slices.IndexFunc(b.events, func(e event) bool { return e.msg.Get("InfoType") == "authorized" })
	authorized := b.events[pushed]
	b.mu.Unlock()
	if err := b.a().ApplyComponentEvent(t.Context(), b.tenant, authorized.msg, authorized.at); err != nil {
		t.Error(err)
	}
	if got := b.merchant(m.AppID).Status; got != StatusDeauthorized {
		t.Errorf("status = %s", got)
	}
}

// authorized, unauthorized, authorized again: whatever order the three pushes
// come in, the merchant ends authorised.
func TestReauthorizationInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			b := start(t)
			b.hold(true)
			appid := sandbox.DemoOfficialAccount
			b.control("POST", "accounts/"+appid+"/authorize", nil, nil)
			b.control("POST", "accounts/"+appid+"/unauthorize", nil, nil)
			b.control("POST", "accounts/"+appid+"/authorize", nil, nil)
			var list struct {
				Pushes []struct {
					ID     int64
					Name   string
					Status string
				}
			}
			b.control("GET", "pushes", nil, &list)
			var ids []int64
			for _, p := range list.Pushes {
				if p.Name != "component_verify_ticket" {
					ids = append(ids, p.ID)
				}
			}
			if len(ids) != 3 {
				t.Fatalf("%d pushes wait, want 3", len(ids))
			}
			for _, i := range order {
				b.control("POST", "pushes/"+strconv.FormatInt(ids[i], 10)+"/release", nil, nil)
				b.until("the push was delivered", func() bool {
					b.control("GET", "pushes", nil, &list)
					for _, p := range list.Pushes {
						if p.ID == ids[i] {
							return p.Status == "delivered"
						}
					}
					return false
				})
			}
			m := b.merchant(appid)
			if m.Status != StatusAuthorized {
				t.Fatalf("status = %s\n%s", m.Status, b.log)
			}
			if err := b.read(b.a(), m); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestForeignEvents(t *testing.T) {
	t.Parallel()
	b := start(t)
	now := time.Now()
	for name, tc := range map[string]struct {
		err  error
		want error
	}{
		"unknown type":       {b.apply("notify_third_fasteregister", now, "appid", "wx1"), ErrUnknownInfoType},
		"unknown account":    {b.apply("unauthorized", now, "AuthorizerAppid", "wx0000000000000001"), ErrNotOurs},
		"no code":            {b.apply("authorized", now, "AuthorizerAppid", "wx0000000000000001"), ErrNotOurs},
		"account of no form": {b.apply("authorized", now, "AuthorizerAppid", "../etc", "AuthorizationCode", "abcdefgh"), ErrNotOurs},
		"WeChat's tester":    {b.apply("authorized", now, "AuthorizerAppid", "wx570bc396a51b8ff8", "AuthorizationCode", "queryauthcode@@@abcdefgh"), ErrNotOurs},
		"no ticket":          {b.apply("component_verify_ticket", now), ErrNotOurs},
		"another component": {b.a().ApplyComponentEvent(t.Context(), b.tenant,
			message(t, `<xml><AppId>wx0000000000000002</AppId><InfoType>component_verify_ticket</InfoType><ComponentVerifyTicket>x</ComponentVerifyTicket></xml>`), now), ErrNotOurs},
	} {
		if !errors.Is(tc.err, tc.want) {
			t.Errorf("%s: %v, want %v", name, tc.err, tc.want)
		}
	}
	if n := scalar[int](b, `SELECT count(*) FROM merchants`); n != 0 {
		t.Errorf("%d merchants", n)
	}
}

func TestCodeExpiry(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	for s, want := range map[string]time.Time{
		"1700003601": time.Unix(1_700_003_601, 0), "600": at.Add(10 * time.Minute), "": {}, "x": {}, "-5": {}, "0": {},
	} {
		if got := codeExpiry(s, at); !got.Equal(want) {
			t.Errorf("codeExpiry(%q) = %s, want %s", s, got, want)
		}
	}
}

// A push that was late by days: its code is not tried, the account is known
// all the same. No code was ever exchanged, so there is no refresh token.
func TestVeryLatePush(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.hold(true)
	appid := sandbox.DemoOfficialAccount
	b.control("POST", "accounts/"+appid+"/authorize", nil, nil)
	old := time.Now().Add(-48 * time.Hour)
	if err := b.apply("authorized", old, "AuthorizerAppid", appid, "AuthorizationCode", "queryauthcode@@@late", "AuthorizationCodeExpiredTime", strconv.FormatInt(old.Unix()+3600, 10)); err != nil {
		t.Fatal(err)
	}
	if n := len(b.calls(queryCall)); n != 0 {
		t.Errorf("%d exchanges of a code that is long over", n)
	}
	m := b.merchant(appid)
	if m.AccountType != OfficialAccount {
		t.Errorf("merchant = %+v", m)
	}
	wantCode(t, b.read(b.a(), m), problem.CodeMerchantNeedsReauthorization)
}

// 61007 and 61003 on a merchant's own calls are WeChat's last word.
func TestHeed(t *testing.T) {
	t.Parallel()
	b := start(t)
	m := b.authorize(sandbox.DemoOfficialAccount)
	b.hold(true) // the pushes that would tell are lost
	b.control("POST", "accounts", obj{"appid": m.AppID, "sets": []int{1, 11}}, nil)
	wantCode(t, b.read(b.a(), m), problem.CodePermissionSetMissing)
	b.until("the new sets were read", func() bool { return sameSets(b.merchant(m.AppID).PermissionSets, []int32{1, 11}) })
	b.control("POST", "accounts/"+m.AppID+"/unauthorize", nil, nil)
	b.control("POST", "faults", obj{"path": "/wxa/get_store_list", "n": 1, "errcode": 61003}, nil)
	wantCode(t, b.read(b.a(), m), problem.CodeMerchantDeauthorized)
	b.until("the merchant was marked", func() bool { return b.merchant(m.AppID).Status == StatusDeauthorized })
}
