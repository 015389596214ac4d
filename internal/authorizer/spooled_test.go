package authorizer

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/spool"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// newAccount makes one more account at WeChat, and returns its appid.
func (b *bundle) newAccount(n int) string {
	appid := fmt.Sprintf("wx00000000000000d%d", n)
	b.control("POST", "accounts", obj{"appid": appid}, nil)
	return appid
}

// left is what lies in the spool: one record.
func (b *bundle) left() spool.Record {
	b.t.Helper()
	records, _, err := b.a().Spool.Pending()
	if err != nil || len(records) != 1 {
		b.t.Fatalf("%d records in the spool (%v), want 1", len(records), err)
	}
	return records[0]
}

// replay applies a record as the next process would.
func (b *bundle) replay(r spool.Record) {
	b.t.Helper()
	if err := b.a().Replay(b.t.Context(), r); err != nil {
		b.t.Error(err)
	}
	if records, _, err := b.a().Spool.Pending(); err != nil || len(records) != 0 {
		b.t.Errorf("%d records are left in the spool (%v)", len(records), err)
	}
}

// dieRefreshing leaves what a process leaves that dies when WeChat's answer to
// a refresh is in its spool, and lets its lease end.
func (b *bundle) dieRefreshing(m Merchant) spool.Record {
	b.t.Helper()
	ctx, a, c := b.t.Context(), b.a(), m.account()
	b.expire(false)
	g, _, err := a.merchantRow(c).take(ctx, noGen)
	if err != nil || g == nil {
		b.t.Fatalf("no lease: %v", err)
	}
	row := g.row.(dbsqlc.AuthorizerTokenLeaseRow)
	known, err := a.openRefreshTokens(c, row.RefreshTokenCt, row.RefreshHistory)
	if err != nil {
		b.t.Fatal(err)
	}
	with := known.current.Reveal()
	reply, err := ask[wechat.GetAuthorizerTokenReply](ctx, a.Authorizer, c.tenant, wechat.GetAuthorizerToken, nil, func(creds tenant.Credentials) any {
		return wechat.GetAuthorizerTokenRequest{ComponentAppID: creds.AppID, AuthorizerAppID: c.appid, AuthorizerRefreshToken: with}
	})
	if err != nil || reply.AuthorizerRefreshToken == with {
		b.t.Fatalf("no other refresh token: %v", err)
	}
	a.spool(ctx, c.tenant, c.id, given{Refresh: &refreshed{AppID: c.appid, LeaseGen: g.leaseGen, Gen: g.gen, With: with, Reply: reply}})
	b.sql(`UPDATE authorizer_tokens SET lease_until = now() - interval '1 second' WHERE merchant_id = $1`, c.id)
	return b.left()
}

// tokens is the merchant's row of tokens.
func (b *bundle) tokens(m Merchant) string {
	b.t.Helper()
	return scalar[string](b, `SELECT concat_ws(' ', access_gen, lease_gen, encode(access_ct, 'hex'), encode(refresh_token_ct, 'hex'), refresh_history, invalid_reason)
		FROM authorizer_tokens WHERE merchant_id = $1`, m.ID)
}

// Whatever became of the merchant between a process's death and its
// successor's start, the newest refresh token is kept, and nothing newer is
// replaced.
func TestReplayedRefresh(t *testing.T) {
	t.Parallel()
	b := start(t)
	b.control("POST", "settings", obj{"rotate_refresh_tokens": true}, nil)
	shown := func(shown bool) {
		b.control("POST", "settings", obj{"rotate_refresh_tokens": true, "omit_refresh_token_in_list": !shown}, nil)
	}
	// Long enough for the refresh token before the newest one to be over.
	later := func() { b.control("POST", "clock", obj{"advance": "10m"}, nil) }
	refresh := func(m Merchant) {
		t.Helper()
		if _, err := b.a().RefreshToken(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	unchanged := func(m Merchant, r spool.Record) {
		t.Helper()
		before := b.tokens(m)
		b.replay(r)
		if diff := cmp.Diff(before, b.tokens(m)); diff != "" {
			t.Errorf("the row of tokens changed: %s", diff)
		}
	}
	n := 0
	for name, then := range map[string]func(m Merchant, r spool.Record){
		"nothing happened": func(m Merchant, r spool.Record) {
			asked := len(b.calls(tokenCall))
			for range 2 { // as after a death before the spool was told
				b.replay(r)
				if err := b.read(b.a(), m); err != nil {
					t.Error(err)
				}
			}
			if len(b.calls(tokenCall)) != asked {
				t.Error("WeChat was asked for a token though one had been given")
			}
			later()
			refresh(m)
		},
		"a token has less time left than when it was given": func(m Merchant, r spool.Record) {
			r.At = r.At.Add(-110 * time.Minute)
			b.replay(r)
			if left := scalar[float64](b, `SELECT extract(epoch FROM access_expires_at - now())::float8 FROM authorizer_tokens WHERE merchant_id = $1`, m.ID); left > 300 {
				t.Errorf("a token of two hours is used %.0f s more after 110 minutes", left)
			}
		},
		"another process refreshed it": func(m Merchant, r spool.Record) {
			refresh(m)
			refresh(m)
			unchanged(m, r)
		},
		"another process tried and did not hear the answer": func(m Merchant, r spool.Record) {
			b.control("POST", "faults", obj{"path": tokenCall, "n": 1, "drop_reply": true}, nil)
			if _, err := b.a().RefreshToken(t.Context(), m); err == nil {
				t.Fatal("a refresh without an answer succeeded")
			}
			b.sql(`UPDATE authorizer_tokens SET lease_until = NULL`)
			b.replay(r)
			later()
			shown(false)
			defer shown(true)
			refresh(m)
		},
		"another process gave the merchant up": func(m Merchant, r spool.Record) {
			later()
			shown(false)
			defer shown(true)
			if err := b.read(b.a(), m); err == nil || b.merchant(m.AppID).Status != StatusNeedsReauthorization {
				t.Fatalf("not given up: %v", err)
			}
			b.replay(r)
			b.until("the merchant is back", func() bool { return b.merchant(m.AppID).Status == StatusAuthorized })
			if err := b.read(b.a(), m); err != nil {
				t.Error(err)
			}
		},
		"the merchant withdrew": func(m Merchant, r spool.Record) {
			b.control("POST", "accounts/"+m.AppID+"/unauthorize", nil, nil)
			b.until("the withdrawal was applied", func() bool { return b.merchant(m.AppID).Status == StatusDeauthorized })
			unchanged(m, r)
		},
		"the tenant is gone": func(m Merchant, r spool.Record) {
			r.Tenant = uuid.New()
			unchanged(m, r)
		},
	} {
		t.Log(name)
		n++
		m := b.authorize(b.newAccount(n))
		then(m, b.dieRefreshing(m))
	}
}

// dieExchanging leaves what a process leaves that dies when WeChat's answer to
// the code of a callback is in its spool.
func (b *bundle) dieExchanging(callback string, link Link) spool.Record {
	b.t.Helper()
	ctx, a := b.t.Context(), b.a()
	u, err := url.Parse(callback)
	if err != nil {
		b.t.Fatal(err)
	}
	code := u.Query().Get("auth_code")
	v := arrival{code: secret.NewText(code), hash: sum(code), link: &link.ID}
	mine, claim, err := a.claimCode(ctx, b.tenant, v)
	if err != nil || !mine {
		b.t.Fatalf("no claim: %v", err)
	}
	info, err := a.queryAuth(ctx, b.tenant, v)
	if err != nil {
		b.t.Fatal(err)
	}
	a.spool(ctx, b.tenant, uuid.Nil, given{Exchange: &exchanged{CodeSHA256: v.hash, ClaimedUntil: claim.LeaseUntil, Link: v.link, Info: info}})
	return b.left()
}

// The same for the reply to an authorization code, which is given once.
func TestReplayedExchange(t *testing.T) {
	t.Parallel()
	b := start(t)
	authorized := func(appid string, link Link) {
		t.Helper()
		m := b.merchant(appid)
		if err := b.read(b.a(), m); m.Status != StatusAuthorized || err != nil {
			t.Errorf("status = %s, and a read: %v", m.Status, err)
		}
		if now := b.linkNow(link.ID); now.Status != LinkAuthorized {
			t.Errorf("link is %s", now.Status)
		}
	}
	// The claim of the dead one ends.
	end := func() { b.sql(`UPDATE authorization_codes SET lease_until = now() - interval '1 second'`) }
	n := 0
	for name, then := range map[string]func(appid, callback string, l Link, r spool.Record){
		"nothing happened": func(appid, _ string, l Link, r spool.Record) {
			b.replay(r)
			authorized(appid, l)
			b.until("the tenant is told", func() bool {
				return scalar[int](b, `SELECT count(*) FROM outbox WHERE type = 'merchant.authorized' AND merchant_id = $1`, b.merchant(appid).ID) == 1
			})
			b.replay(r) // as after a death before the spool was told
			authorized(appid, l)
		},
		"the claim is over": func(appid, _ string, l Link, r spool.Record) {
			end()
			b.replay(r)
			authorized(appid, l)
		},
		"another process found the code used up": func(appid, callback string, l Link, r spool.Record) {
			end()
			u, _ := url.Parse(callback)
			code := u.Query().Get("auth_code")
			_, err := b.a().exchange(t.Context(), b.tenant, arrival{code: secret.NewText(code), hash: sum(code), link: &l.ID})
			wantCode(t, err, "authorization_code_expired")
			b.replay(r)
			authorized(appid, l)
		},
		"the push was applied": func(appid, _ string, l Link, r spool.Record) {
			end()
			b.hold(false)
			b.until("the push was applied", func() bool { return b.heard("authorized", appid) > 0 })
			b.hold(true)
			b.replay(r)
			authorized(appid, l)
		},
		"the merchant withdrew": func(appid, _ string, _ Link, r spool.Record) {
			b.control("POST", "accounts/"+appid+"/unauthorize", nil, nil)
			b.replay(r)
			b.until("WeChat was asked", func() bool { return b.merchant(appid).Status == StatusDeauthorized })
		},
		"the tenant is gone": func(_, _ string, _ Link, r spool.Record) {
			r.Tenant = uuid.New()
			if err := b.a().Replay(t.Context(), r); err == nil || postgres.Unavailable(err) {
				t.Errorf("the gateway would not start: %v", err)
			}
			b.a().spoolDone(t.Context(), r)
		},
	} {
		t.Log(name)
		n++
		appid := b.newAccount(n)
		b.hold(true)
		l, u := b.link(NewLink{})
		callback := newBrowserOf(t).consents(u, appid)
		then(appid, callback, l, b.dieExchanging(callback, l))
	}
}
