package isolation

import (
	"crypto/ed25519"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/test/world"
)

// Every operation of the contract is given everything that it must refuse, in
// requests that are made from the contract: a new one is covered the day it is
// added. None changes a row, calls WeChat, or is answered by a 5xx.
func TestEveryRouteRefuses(t *testing.T) {
	t.Parallel()
	a := newArena(t, world.Options{})
	targets := a.targets(t)
	keys := a.badKeys(t)
	a.rest(t)
	refused := true
	matrix := func(name string, least int, inputs func(g target) []input, try func(g target, x input) *world.Answer) {
		t.Run(name, func(t *testing.T) {
			n := 0
			for _, g := range targets {
				list := inputs(g)
				if len(list) < least {
					t.Errorf("%s has %d inputs, want %d at least", g.op.id, len(list), least)
				}
				for _, x := range list {
					n++
					tried(t, x.rows)
					if err := x.judge(try(g, x)); err != nil {
						t.Error(err)
					}
				}
				if refused {
					a.untouched(t, g.op.id)
				}
			}
			counted(t, len(targets), n)
		})
	}
	with := func(g target, x input) *world.Answer { return g.client.Do(x.method, x.path, x.body, x.headers...) }
	matrix("SpoiltBodies", 8, target.spoiltBodies, with)
	matrix("BrokenRules", 0, func(g target) []input { return g.brokenBodies(placesIn(t, g.op)) }, with)
	matrix("BrokenParameters", 9, target.brokenParameters, with)
	matrix("BadKeys", 2*len(keys), func(g target) []input { return g.badKeys(keys) }, func(_ target, x input) *world.Answer {
		return a.c.As("").For("").Do(x.method, x.path, x.body, append(x.headers, "X-Forwarded-For", a.address())...)
	})
	refused = false // some of these may be taken
	matrix("OddTexts", 0, func(g target) []input { return g.oddTexts(placesIn(t, g.op)) }, with)
}

// targets are a right request of each operation of the contract, about the
// arena's own merchant and otherwise about things that exist nowhere.
func (a *arena) targets(t *testing.T) []target {
	t.Helper()
	operator := a.c.As(a.AdminKey()).For("")
	var out []target
	for _, op := range operationsOf(t) {
		g := target{op: op, body: op.body, client: a.c.For("")}
		if op.admin() {
			g.client = operator
		}
		if op.has("header", "Merchant-Id") {
			g.headers = []string{"Merchant-Id", a.c.Merchant}
		}
		ours := op
		ours.path = strings.ReplaceAll(op.path, "{merchant_id}", a.c.Merchant)
		g.path = ours.example(t)
		out = append(out, g)
	}
	return out
}

// A badKey is one that opens nothing.
type badKey struct {
	rows, name, token string
	status            int
	code              string
	verified          bool // it is one of ours, signed and in time: to tenants the operators' routes don't exist
}

// badKeys are keys that were never given out, and that no longer count.
func (a *arena) badKeys(t *testing.T) []badKey {
	t.Helper()
	now := time.Now().Unix()
	_, other, _ := ed25519.GenerateKey(nil) // never fails
	revoked := a.c.Do("POST", "/v1/api-keys", map[string]any{"name": "revoked", "scopes": []string{"*"}}).Want(http.StatusCreated)
	a.c.Do("DELETE", "/v1/api-keys/"+revoked.Get("id"), nil).Want(http.StatusNoContent)
	ended := a.given(t, a.claims(), "*")
	a.Exec(`UPDATE api_keys SET expires_at = now() - interval '1 minute' WHERE token_sha256 = sha256($1::bytea)`, []byte(ended))
	operator := a.c.As(a.AdminKey()).For("")
	of := func(name, appid string, change func(tenant world.Tenant)) string {
		c := componentB
		c.AppID = appid
		tenant := a.NewTenant(name, c)
		key := a.keyOf(tenant, "--scopes", "*")
		change(tenant)
		return key
	}
	suspended := of("Suspended", "wx5ab0d1c0ffee00c1", func(tenant world.Tenant) {
		operator.Do("PATCH", "/v1/admin/tenants/"+tenant.ID, map[string]string{"status": "suspended"}).Want(http.StatusOK)
	})
	deleted := of("Deleted", "wx5ab0d1c0ffee00c2", func(tenant world.Tenant) {
		operator.Do("DELETE", "/v1/admin/tenants/"+tenant.ID, nil).Want(http.StatusNoContent)
	})
	last := strings.LastIndexByte(a.Key, '.')
	return []badKey{
		{"1", "none", "", http.StatusUnauthorized, "token_missing", false},
		{"2", "no token", "x", http.StatusUnauthorized, "token_invalid", false},
		{"4", "another's signature", sign(other, a.header(), a.claims().json()), http.StatusUnauthorized, "token_invalid", false},
		{"13", "a bit of the signature", a.Key[:last+20] + string(a.Key[last+20]^1) + a.Key[last+21:], http.StatusUnauthorized, "token_invalid", false},
		{"7", "expired", a.given(t, a.claims().with("exp", now-60), "*"), http.StatusUnauthorized, "token_expired", false},
		{"7", "its row has ended", ended, http.StatusUnauthorized, "token_expired", true},
		{"12", "never given out", sign(a.seed, a.header(), a.claims().json()), http.StatusUnauthorized, "key_revoked", true},
		{"12", "revoked", revoked.Get("token"), http.StatusUnauthorized, "key_revoked", true},
		{"12", "of a tenant that is suspended", suspended, http.StatusForbidden, "tenant_suspended", true},
		{"12", "of a tenant that is gone", deleted, http.StatusUnauthorized, "key_revoked", true},
		{"16", "of nobody", sign(a.seed, a.header(), a.claims().with("tid", typeid.Format(typeid.Tenant, typeid.New())).json()), http.StatusUnauthorized, "key_revoked", true},
	}
}

// badKeys are the operation's right request, and one that can't be read, with
// each of the keys.
func (g target) badKeys(keys []badKey) []input {
	var out []input
	for _, k := range keys {
		x := g.but(k.rows, k.name, k.status, k.code)
		if k.verified && g.op.admin() {
			x = g.but(k.rows+", 78", k.name, http.StatusNotFound, "not_found")
		}
		if k.token != "" {
			x.headers = append(x.headers, "Authorization", "Bearer "+k.token)
		}
		y := x
		y.name, y.body = k.name+", half a body", "{"
		out = append(out, x, y)
	}
	return out
}
