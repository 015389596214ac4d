package tenant

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/typeid"
)

// The token format, security.md §2. Every limit is checked before anything
// beyond the bytes themselves is looked at.
const (
	issuer        = "mendian"
	audienceAPI   = "gateway-api"
	audienceAdmin = "gateway-admin"
	tokenType     = "gwk+jwt"
	tokenVersion  = 1

	maxToken         = 4096 // the whole token, in bytes
	leeway           = 30 * time.Second
	minLifetime      = 5 * time.Minute
	maxLifetime      = 365 * 24 * time.Hour
	maxAdminLifetime = 12 * time.Hour
)

// claims is a token's payload. Times are whole seconds; all members are
// required but tid, scope and mch, which an admin's token lacks (mch also
// where a key reaches every merchant).
type claims struct {
	Issuer    string   `json:"iss"`
	Audience  string   `json:"aud"`
	Subject   string   `json:"sub"`
	Tenant    string   `json:"tid,omitempty"`
	ID        string   `json:"jti"`
	IssuedAt  int64    `json:"iat"`
	NotBefore int64    `json:"nbf"`
	ExpiresAt int64    `json:"exp"`
	Scope     string   `json:"scope,omitempty"`
	Merchants []string `json:"mch,omitempty"`
	Version   int      `json:"v"`
}

func numericDate(sec int64) (*jwt.NumericDate, error) {
	if sec == 0 {
		return nil, nil
	}
	return jwt.NewNumericDate(time.Unix(sec, 0)), nil
}

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return numericDate(c.ExpiresAt) }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return numericDate(c.IssuedAt) }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return numericDate(c.NotBefore) }
func (c *claims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return jwt.ClaimStrings{c.Audience}, nil }

var (
	headerMembers = []string{"alg", "typ", "kid"}
	claimMembers  = []string{"iss", "aud", "sub", "tid", "jti", "iat", "nbf", "exp", "scope", "mch", "v"}
)

// UnmarshalJSON refuses what encoding/json would let pass: a claim twice, a
// claim in another case, one that we never wrote, and null.
func (c *claims) UnmarshalJSON(b []byte) error {
	if err := strictObject(b, claimMembers); err != nil {
		return err
	}
	type plain claims
	return json.Unmarshal(b, (*plain)(c))
}

var errToken = errors.New("not a token of this gateway")

// strictObject checks that b is one JSON object and nothing after it, whose
// members are among names, each at most once, and neither null nor an object.
func strictObject(b []byte, names []string) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errToken
	}
	seen := make([]bool, len(names))
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return errToken
		}
		s, _ := name.(string)
		i := slices.Index(names, s)
		if i < 0 || seen[i] {
			return errToken
		}
		seen[i] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil || value[0] == '{' || value[0] == 'n' {
			return errToken
		}
	}
	if _, err := d.Token(); err != nil {
		return errToken
	}
	if _, err := d.Token(); err != io.EOF {
		return errToken
	}
	return nil
}

// sign makes the token.
func (c *claims) sign(kid string, key ed25519.PrivateKey) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	t.Header["typ"], t.Header["kid"] = tokenType, kid
	return t.SignedString(key)
}

// verify reads a token whose signature one of keys made. It returns errToken
// for whatever is wrong up to and including the signature, without telling
// what; after that jwt.ErrTokenExpired when the time is all that is wrong, and
// errToken otherwise.
func verify(token string, keys map[string]ed25519.PublicKey, now func() time.Time) (*claims, string, error) {
	kid, err := readHeader(token)
	if err != nil {
		return nil, "", err
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(issuer),
		jwt.WithAudience(audienceAPI, audienceAdmin), jwt.WithExpirationRequired(), jwt.WithNotBeforeRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway), jwt.WithStrictDecoding(), jwt.WithTimeFunc(now))
	var c claims
	_, err = parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) {
		if key, ok := keys[kid]; ok {
			return key, nil
		}
		return nil, errToken
	})
	switch {
	case err != nil && !onlyExpired(err):
		return nil, "", errToken
	case !c.wellFormed():
		return nil, "", errToken
	case err != nil:
		return nil, "", jwt.ErrTokenExpired
	}
	return &c, kid, nil
}

// onlyExpired reports whether the signature was good and only exp is against the token.
func onlyExpired(err error) bool {
	if !errors.Is(err, jwt.ErrTokenInvalidClaims) || !errors.Is(err, jwt.ErrTokenExpired) {
		return false
	}
	for _, other := range []error{
		jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenInvalidAudience, jwt.ErrTokenRequiredClaimMissing,
	} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// readHeader returns the kid of a token whose header is exactly alg, typ and
// kid, as we write it: so jku, jwk, x5u, crit, zip and all others are refused,
// and alg none or HS256 before any key is looked up.
func readHeader(token string) (kid string, err error) {
	if len(token) > maxToken {
		return "", errToken
	}
	dots := 0
	for i := range len(token) {
		switch c := token[i]; {
		case c == '.':
			dots++
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return "", errToken // also = and line ends, which base64 decoders skip
		}
	}
	if dots != 2 {
		return "", errToken
	}
	head, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.Strict().DecodeString(head)
	if err != nil {
		return "", errToken
	}
	if err := strictObject(b, headerMembers); err != nil {
		return "", err
	}
	var h struct {
		Alg string `json:"alg"`
		Typ string `json:"typ"`
		Kid string `json:"kid"`
	}
	if err := json.Unmarshal(b, &h); err != nil || h.Alg != jwt.SigningMethodEdDSA.Alg() || h.Typ != tokenType || h.Kid == "" {
		return "", errToken
	}
	return h.Kid, nil
}

// wellFormed checks what the library doesn't know of.
func (c *claims) wellFormed() bool {
	id, err := typeid.Parse(typeid.Key, c.Subject)
	if err != nil || c.ID != id.String() || c.Version != tokenVersion {
		return false
	}
	life := time.Duration(c.ExpiresAt-c.IssuedAt) * time.Second
	if c.ExpiresAt <= c.IssuedAt || c.ExpiresAt-c.IssuedAt > int64(maxLifetime/time.Second) {
		return false
	}
	if c.Audience == audienceAdmin {
		return life <= maxAdminLifetime && c.Tenant == "" && c.Scope == "" && c.Merchants == nil
	}
	_, err = typeid.Parse(typeid.Tenant, c.Tenant)
	return err == nil && c.Scope != ""
}

// merchants returns the merchants that the token names, or nil for all.
func (c *claims) merchants() ([]uuid.UUID, error) {
	if c.Merchants == nil {
		return nil, nil
	}
	out := make([]uuid.UUID, len(c.Merchants))
	for i, s := range c.Merchants {
		id, err := typeid.Parse(typeid.Merchant, s)
		if err != nil {
			return nil, fmt.Errorf("%w: mch", errToken)
		}
		out[i] = id
	}
	return out, nil
}
