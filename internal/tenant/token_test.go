package tenant

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/typeid"
)

// The attack list, security.md §12, #1 to #17, as far as it lives below HTTP.
func TestAttacksOnTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	key, good := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}})
	kid, signer := b.signer(t)
	next := randomKey(t)

	now := b.clock.now().Unix()
	base := func() claims {
		return claims{
			Issuer: issuer, Audience: audienceAPI, Subject: typeid.Format(typeid.Key, key.ID), Tenant: typeid.Format(typeid.Tenant, ten), ID: key.ID.String(),
			IssuedAt: now, NotBefore: now, ExpiresAt: now + 3600, Scope: "*", Version: 1,
		}
	}
	header := fmt.Sprintf(`{"alg":"EdDSA","typ":"gwk+jwt","kid":%q}`, kid)
	with := func(change func(*claims)) string {
		c := base()
		change(&c)
		return forge(t, signer, header, encodeJSON(t, c))
	}
	payload := encodeJSON(t, base())
	raw := func(replace ...string) string {
		return forge(t, signer, header, strings.NewReplacer(replace...).Replace(payload))
	}
	head := func(h string) string { return forge(t, signer, h, payload) }
	unsigned := func(alg string) string {
		return enc(fmt.Sprintf(`{"alg":%q,"typ":"gwk+jwt","kid":%q}`, alg, kid)) + "." + enc(payload) + "."
	}
	hs256 := func() string {
		s := enc(fmt.Sprintf(`{"alg":"HS256","typ":"gwk+jwt","kid":%q}`, kid)) + "." + enc(payload)
		mac := hmac.New(sha256.New, signer.Public().(ed25519.PublicKey))
		mac.Write([]byte(s))
		return s + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	parts := strings.Split(good, ".")
	flip := func(s string, i int) string {
		c := byte('A')
		if s[i] == 'A' {
			c = 'B'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	// The last character of 64 bytes in base64 holds four bits that must be zero.
	spare := func(s string) string {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		return s[:len(s)-1] + string(alphabet[strings.IndexByte(alphabet, s[len(s)-1])|1])
	}

	for _, tc := range []struct{ name, token, want string }{
		{"the token that was given out", good, ""},
		{"1 none at all", "", "token_missing"},
		{"2 alg none", unsigned("none"), "token_invalid"},
		{"2 alg None", unsigned("None"), "token_invalid"},
		{"2 alg nOnE", unsigned("nOnE"), "token_invalid"},
		{"2 no alg", head(fmt.Sprintf(`{"typ":"gwk+jwt","kid":%q}`, kid)), "token_invalid"},
		{"3 HS256 with the public key", hs256(), "token_invalid"},
		{"4 unknown kid", forge(t, signer, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"sig_unknown"}`, payload), "token_invalid"},
		{"4 our kid, another's signature", forge(t, next, header, payload), "token_invalid"},
		{"5 kid is a path", head(`{"alg":"EdDSA","typ":"gwk+jwt","kid":"../../etc/passwd"}`), "token_invalid"},
		{"5 kid is SQL", head(`{"alg":"EdDSA","typ":"gwk+jwt","kid":"' OR 1=1"}`), "token_invalid"},
		{"5 kid of a megabyte", head(`{"alg":"EdDSA","typ":"gwk+jwt","kid":"` + strings.Repeat("k", 1<<20) + `"}`), "token_invalid"},
		{"5 kid is a number", head(`{"alg":"EdDSA","typ":"gwk+jwt","kid":1}`), "token_invalid"},
		{"5 no kid", head(`{"alg":"EdDSA","typ":"gwk+jwt"}`), "token_invalid"},
		{"6 jwk", head(header[:len(header)-1] + `,"jwk":"x"}`), "token_invalid"},
		{"6 jku", head(header[:len(header)-1] + `,"jku":"http://127.0.0.1:1/"}`), "token_invalid"},
		{"6 x5u", head(header[:len(header)-1] + `,"x5u":"http://127.0.0.1:1/"}`), "token_invalid"},
		{"6 crit", head(header[:len(header)-1] + `,"crit":["exp"]}`), "token_invalid"},
		{"6 zip", head(header[:len(header)-1] + `,"zip":"DEF"}`), "token_invalid"},
		{"6 kid twice", head(header[:len(header)-1] + `,"kid":"x"}`), "token_invalid"},
		{"another typ", head(fmt.Sprintf(`{"alg":"EdDSA","typ":"JWT","kid":%q}`, kid)), "token_invalid"},
		{"no typ", head(fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, kid)), "token_invalid"},
		{"bytes after the header", head(header + "{}"), "token_invalid"},
		{"7 expired by 31 s", with(func(c *claims) { c.IssuedAt, c.NotBefore, c.ExpiresAt = now-3600, now-3600, now-31 }), "token_expired"},
		{"7 expired, wrong issuer too", with(func(c *claims) { c.Issuer, c.IssuedAt, c.NotBefore, c.ExpiresAt = "x", now-3600, now-3600, now-31 }), "token_invalid"},
		{"7 expired and forged", forge(t, next, header, encodeJSON(t, func() claims { c := base(); c.IssuedAt, c.ExpiresAt = now-3600, now-31; return c }())), "token_invalid"},
		{"8 nbf 40 s ahead", with(func(c *claims) { c.NotBefore = now + 40 }), "token_invalid"},
		{"8 iat 40 s ahead", with(func(c *claims) { c.IssuedAt = now + 40 }), "token_invalid"},
		{"8 no nbf", raw(fmt.Sprintf(`"nbf":%d,`, now), ""), "token_invalid"},
		{"8 no iat", raw(fmt.Sprintf(`"iat":%d,`, now), ""), "token_invalid"},
		{"9 no exp", raw(fmt.Sprintf(`"exp":%d,`, now+3600), ""), "token_invalid"},
		{"9 exp in ten years", with(func(c *claims) { c.ExpiresAt = now + 10*365*86400 }), "token_invalid"},
		{"9 exp is a fraction", raw(fmt.Sprintf(`"exp":%d,`, now+3600), fmt.Sprintf(`"exp":%d.5,`, now+3600)), "token_invalid"},
		{"9 exp is text", raw(fmt.Sprintf(`"exp":%d,`, now+3600), fmt.Sprintf(`"exp":"%d",`, now+3600)), "token_invalid"},
		{"9 exp overflows", raw(fmt.Sprintf(`"exp":%d,`, now+3600), `"exp":1e300,`), "token_invalid"},
		{"9 life overflows", with(func(c *claims) { c.ExpiresAt = 1<<63 - 1 }), "token_invalid"},
		{"10 wrong iss", with(func(c *claims) { c.Issuer = "mendian.evil" }), "token_invalid"},
		{"10 no iss", raw(`"iss":"mendian",`, ""), "token_invalid"},
		{"10 wrong aud", with(func(c *claims) { c.Audience = "gateway" }), "token_invalid"},
		{"10 aud both in an array", raw(`"aud":"gateway-api"`, `"aud":["gateway-api","gateway-admin"]`), "token_invalid"},
		{"10 aud alone in an array", raw(`"aud":"gateway-api"`, `"aud":["gateway-api"]`), "token_invalid"},
		{"11 admin audience on a tenant's key", with(func(c *claims) { c.Audience = audienceAdmin }), "token_invalid"},
		{"13 payload changed", parts[0] + "." + flip(parts[1], 10) + "." + parts[2], "token_invalid"},
		{"13 signature changed", parts[0] + "." + parts[1] + "." + flip(parts[2], 10), "token_invalid"},
		{"13 padding", good + "=", "token_invalid"},
		{"13 padding at the payload", parts[0] + "." + parts[1] + "=." + parts[2], "token_invalid"},
		{"13 spare bits of the signature", parts[0] + "." + parts[1] + "." + spare(parts[2]), "token_invalid"},
		{"13 line end inside", parts[0] + "." + parts[1] + "." + parts[2][:5] + "\n" + parts[2][5:], "token_invalid"},
		{"13 blank at the end", good + " ", "token_invalid"},
		{"13 standard alphabet", parts[0] + "." + parts[1] + ".+" + parts[2][1:], "token_invalid"},
		{"13 no signature", parts[0] + "." + parts[1] + ".", "token_invalid"},
		{"13 two parts", parts[0] + "." + parts[1], "token_invalid"},
		{"13 four parts", good + ".x", "token_invalid"},
		{"14 a million dots", strings.Repeat(".", 1_000_000), "token_invalid"},
		{"14 four thousand dots", strings.Repeat(".", 4_000), "token_invalid"},
		{"16 tid twice", raw(`"jti"`, `"tid":"`+typeid.Format(typeid.Tenant, uuid.New())+`","jti"`), "token_invalid"},
		{"16 TID in another case", raw(`"jti"`, `"TID":"`+typeid.Format(typeid.Tenant, uuid.New())+`","jti"`), "token_invalid"},
		{"16 tid escaped twice", raw(`"jti"`, `"\u0074id":"`+typeid.Format(typeid.Tenant, uuid.New())+`","jti"`), "token_invalid"},
		{"unknown claim", raw(`"jti"`, `"admin":true,"jti"`), "token_invalid"},
		{"tid null", raw(`"tid":"`+typeid.Format(typeid.Tenant, ten)+`"`, `"tid":null`), "token_invalid"},
		{"mch null", raw(`"v":1`, `"mch":null,"v":1`), "token_invalid"},
		{"mch holds a number", raw(`"v":1`, `"mch":[1],"v":1`), "token_invalid"},
		{"mch holds no merchant", raw(`"v":1`, `"mch":["ten_x"],"v":1`), "token_invalid"},
		{"v 2", with(func(c *claims) { c.Version = 2 }), "token_invalid"},
		{"no v", raw(`,"v":1`, ""), "token_invalid"},
		{"jti of another key", with(func(c *claims) { c.ID = uuid.NewString() }), "token_invalid"},
		{"sub is a tenant", with(func(c *claims) { c.Subject = typeid.Format(typeid.Tenant, key.ID) }), "token_invalid"},
		{"no scope", with(func(c *claims) { c.Scope = "" }), "token_invalid"},
		{"no tid", with(func(c *claims) { c.Tenant = "" }), "token_invalid"},
		{"payload is an array", forge(t, signer, header, "["+payload+"]"), "token_invalid"},
		{"payload is null", forge(t, signer, header, "null"), "token_invalid"},
		{"bytes after the payload", forge(t, signer, header, payload+"{}"), "token_invalid"},
		{"signed by us, never given out", with(func(c *claims) { c.Scope = "stores:read" }), "key_revoked"},
		{"signed by us, no such key", with(func(c *claims) {
			id := uuid.New()
			c.Subject, c.ID = typeid.Format(typeid.Key, id), id.String()
		}), "key_revoked"},
		{"signed by us, no such tenant", with(func(c *claims) { c.Tenant = typeid.Format(typeid.Tenant, uuid.New()) }), "key_revoked"},
		{"signed by us, kid of the next key", forge(t, signer, strings.Replace(header, kid, nextKid(t, b), 1), payload), "token_invalid"},
	} {
		_, err := b.keys.Authenticate(t.Context(), tc.token, false)
		wantCode(t, tc.name, err, tc.want)
	}
}

func nextKid(t *testing.T, b *bundle) string {
	t.Helper()
	list, err := b.keys.SigningKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		if k.State == SigningNext {
			return k.ID
		}
	}
	t.Fatal("no next key")
	return ""
}

// Rows 7 and 8 on both sides of the leeway, warm and cold.
func TestLeeway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ten := b.tenant(t, "a", "wx0000000000000001")
	k, token := b.key(t, CLI(ten), NewKey{Scopes: []string{"*"}, ExpiresAt: b.clock.now().Add(time.Hour)})
	for _, warm := range []bool{true, false} {
		for _, tc := range []struct {
			from time.Time
			plus time.Duration
			want string
		}{
			{k.ExpiresAt, 29 * time.Second, ""},
			{k.ExpiresAt, 31 * time.Second, "token_expired"},
			{k.CreatedAt, -29 * time.Second, ""},
			{k.CreatedAt.Truncate(time.Second), -32 * time.Second, "token_invalid"},
		} {
			if warm && tc.plus < -30*time.Second {
				continue // a token was good once; a clock that goes back doesn't make it new
			}
			if !warm {
				b.keys.verified.Purge()
			}
			b.clock.ahead.Store(int64(time.Until(tc.from.Add(tc.plus))))
			_, err := b.keys.Authenticate(t.Context(), token, false)
			wantCode(t, fmt.Sprintf("warm %v, %s after %s", warm, tc.plus, tc.from), err, tc.want)
		}
	}
}

// #14: what is far too long costs nothing, and a warm token no memory.
func TestAllocations(t *testing.T) {
	b := setup(t)
	_, token := b.key(t, CLI(b.tenant(t, "a", "wx0000000000000001")), NewKey{Scopes: []string{"*"}})
	if n := testing.AllocsPerRun(1000, func() { _, _ = b.keys.Authenticate(t.Context(), token, false) }); n > 0 {
		t.Errorf("a warm token: %v allocations, want 0", n)
	}
	dots := strings.Repeat(".", 1_000_000)
	if n := testing.AllocsPerRun(100, func() { _, _ = b.keys.Authenticate(t.Context(), dots, false) }); n > 0 {
		t.Errorf("a million dots: %v allocations, want 0", n)
	}
}

func FuzzVerify(f *testing.F) {
	// Always the same: what was found with one run's token is near the next one's.
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	now := time.Unix(1_800_000_000, 0)
	c := newClaims(uuid.Max, now, now.Add(time.Hour))
	c.Audience, c.Tenant, c.Scope = audienceAPI, typeid.Format(typeid.Tenant, uuid.Nil), "*"
	good, err := c.sign("k", key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good + "=")
	f.Add(strings.Repeat(".", 100))
	f.Add(enc(`{"alg":"none"}`) + "." + enc(`{"aud":["a"]}`) + ".")
	_, rest, _ := strings.Cut(good, ".")
	for _, header := range []string{`{"alg":"none","typ":"gwk+jwt","kid":"k"}`, `{"alg":"HS256","typ":"gwk+jwt","kid":"k"}`, `{"alg":"EdDSA","typ":"JWT","kid":"k"}`, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"../k"}`,
		`{"alg":"EdDSA","typ":"gwk+jwt","kid":"k","crit":["exp"]}`, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"x","kid":"k"}`, `{"alg":"EdDSA","typ":"gwk+jwt","kid":["k"]}`, `{"alg":"EdDSA","typ":"gwk+jwt","kid":"k"} `} {
		f.Add(enc(header) + "." + rest)
	}
	keys := map[string]ed25519.PublicKey{"k": key.Public().(ed25519.PublicKey)}
	f.Fuzz(func(t *testing.T, token string) {
		// Whoever has no key makes no token but the one that exists, whatever the bytes.
		if _, _, err := verify(token, keys, func() time.Time { return now }); err == nil && token != good {
			t.Errorf("verify(%q) passed", token)
		}
	})
}
