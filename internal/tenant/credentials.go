package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

// NewCredentials are the three values from the console of WeChat's open
// platform. SetCredentials keeps what is left zero.
type NewCredentials struct {
	Secret         secret.Text
	MessageToken   secret.Text
	EncodingAESKey secret.Text
}

var (
	secretPattern = regexp.MustCompile(`^[\x21-\x7e]{1,128}$`)
	// The console: letters or digits, 3 to 32.
	messageTokenPattern = regexp.MustCompile(`^[A-Za-z0-9]{3,32}$`)
)

func (n NewCredentials) check(all bool) []problem.Field {
	var fields []problem.Field
	add := func(pointer string, given secret.Text, ok bool, rule string) {
		switch {
		case given.IsZero() && all:
			fields = append(fields, problem.Field{Pointer: pointer, Code: "required", Detail: rule})
		case !given.IsZero() && !ok:
			fields = append(fields, problem.Field{Pointer: pointer, Code: "invalid", Detail: rule})
		}
	}
	_, err := msgcrypt.ParseKey(n.EncodingAESKey.Reveal())
	add("/component_secret", n.Secret, secretPattern.MatchString(n.Secret.Reveal()), "1 to 128 visible ASCII characters")
	add("/message_token", n.MessageToken, messageTokenPattern.MatchString(n.MessageToken.Reveal()), "3 to 32 letters or digits")
	add("/encoding_aes_key", n.EncodingAESKey, err == nil, "43 base64 characters")
	return fields
}

// A Fingerprint lets people compare a secret without seeing it.
type Fingerprint struct {
	SHA256Prefix string    `json:"sha256_prefix"` // eight hexadecimal digits
	SetAt        time.Time `json:"set_at"`
}

// Fingerprints are those of a tenant's credentials; previous ones are nil until
// the first change.
type Fingerprints struct {
	Secret                 Fingerprint  `json:"component_secret"`
	MessageToken           Fingerprint  `json:"message_token"`
	PreviousMessageToken   *Fingerprint `json:"previous_message_token,omitempty"`
	EncodingAESKey         Fingerprint  `json:"encoding_aes_key"`
	PreviousEncodingAESKey *Fingerprint `json:"previous_encoding_aes_key,omitempty"`
}

func shortHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:4])
}

func (t *Tenants) fingerprint(s secret.Text) Fingerprint {
	return Fingerprint{shortHash([]byte(s.Reveal())), t.Now().UTC().Truncate(time.Millisecond)}
}

func fingerprints(row dbsqlc.ComponentCredential) (*Fingerprints, error) {
	var f Fingerprints
	return &f, json.Unmarshal(row.Fingerprints, &f)
}

// Seals are bound to the tenant and the column and not to the appid, which may
// be corrected until the first merchant authorised.
func place(tenant uuid.UUID, column string) secret.Place {
	return secret.Place{Table: "component_credentials", Column: column, Tenant: tenant}
}

// The previous values are moved between columns and so are sealed anew.
const (
	colSecret        = "component_secret_ct"
	colToken         = "message_token_ct"
	colPreviousToken = "previous_message_token_ct"
	colKey           = "encoding_aes_key_ct"
	colPreviousKey   = "previous_encoding_aes_key_ct"
)

func (t *Tenants) insertCredentials(ctx context.Context, tx postgres.DBTX, who Caller, tenant uuid.UUID, n NewCredentials) (*Fingerprints, error) {
	f := &Fingerprints{Secret: t.fingerprint(n.Secret), MessageToken: t.fingerprint(n.MessageToken), EncodingAESKey: t.fingerprint(n.EncodingAESKey)}
	p := dbsqlc.CredentialsInsertParams{TenantID: tenant}
	var err error
	if p.ComponentSecretCt, err = t.Keyset.SealText(place(tenant, colSecret), n.Secret); err != nil {
		return nil, err
	}
	if p.MessageTokenCt, err = t.Keyset.SealText(place(tenant, colToken), n.MessageToken); err != nil {
		return nil, err
	}
	if p.EncodingAesKeyCt, err = t.Keyset.SealText(place(tenant, colKey), n.EncodingAESKey); err != nil {
		return nil, err
	}
	if p.Fingerprints, err = json.Marshal(f); err != nil {
		return nil, err
	}
	if _, err := t.q.CredentialsInsert(ctx, tx, p); err != nil {
		return nil, err
	}
	return f, RecordChange(ctx, tx, who, &tenant, "tenant.set_credentials", typeid.Format(typeid.Tenant, tenant), nil, f)
}

// SetCredentials stores new credentials. A message token or EncodingAESKey
// that differs from the current one moves that to the previous slot, under
// which pushes are still accepted; the same value again moves nothing, so that
// a repeated call is harmless. Zero members keep their value, which the first
// call can't. Errors: not_found (also when deleted), validation_failed.
func (t *Tenants) SetCredentials(ctx context.Context, who Caller, id uuid.UUID, n NewCredentials) (_ Fingerprints, err error) {
	defer wrap(&err, "tenant.SetCredentials")
	if fields := n.check(false); len(fields) > 0 {
		return Fingerprints{}, invalid(fields)
	}
	var out *Fingerprints
	err = t.DB.InTenant(ctx, id, func(tx postgres.DBTX) error {
		row, err := t.q.TenantLock(ctx, tx, dbsqlc.TenantLockParams{ID: id})
		if err != nil {
			return found(err)
		}
		if row.Status == string(Deleted) {
			return problem.Of(problem.CodeNotFound)
		}
		old, err := t.q.CredentialsLock(ctx, tx, dbsqlc.CredentialsLockParams{TenantID: id})
		if postgres.IsNotFound(err) {
			if fields := n.check(true); len(fields) > 0 {
				return invalid(fields)
			}
			out, err = t.insertCredentials(ctx, tx, who, id, n)
			return err
		}
		if err != nil {
			return err
		}
		out, err = t.replaceCredentials(ctx, tx, who, old, n)
		return err
	})
	if err != nil {
		return Fingerprints{}, err
	}
	return *out, nil
}

func (t *Tenants) replaceCredentials(ctx context.Context, tx postgres.DBTX, who Caller, old dbsqlc.ComponentCredential, n NewCredentials) (*Fingerprints, error) {
	before, err := fingerprints(old)
	if err != nil {
		return nil, err
	}
	after := *before
	p := dbsqlc.CredentialsUpdateParams{
		TenantID: old.TenantID, ComponentSecretCt: old.ComponentSecretCt, MessageTokenCt: old.MessageTokenCt, PreviousMessageTokenCt: old.PreviousMessageTokenCt,
		EncodingAesKeyCt: old.EncodingAesKeyCt, PreviousEncodingAesKeyCt: old.PreviousEncodingAesKeyCt,
	}
	for _, s := range []struct {
		given                    secret.Text
		column, previousColumn   string
		ct, previousCt           *[]byte
		fingerprint              *Fingerprint
		previousFingerprintPlace **Fingerprint
	}{
		{n.Secret, colSecret, "", &p.ComponentSecretCt, nil, &after.Secret, nil},
		{n.MessageToken, colToken, colPreviousToken, &p.MessageTokenCt, &p.PreviousMessageTokenCt, &after.MessageToken, &after.PreviousMessageToken},
		{n.EncodingAESKey, colKey, colPreviousKey, &p.EncodingAesKeyCt, &p.PreviousEncodingAesKeyCt, &after.EncodingAESKey, &after.PreviousEncodingAESKey},
	} {
		if s.given.IsZero() {
			continue
		}
		current, err := t.Keyset.OpenText(place(old.TenantID, s.column), *s.ct)
		if err != nil {
			return nil, err
		}
		if current == s.given {
			continue
		}
		if s.previousCt != nil {
			if *s.previousCt, err = t.Keyset.SealText(place(old.TenantID, s.previousColumn), current); err != nil {
				return nil, err
			}
			was := *s.fingerprint
			*s.previousFingerprintPlace = &was
		}
		if *s.ct, err = t.Keyset.SealText(place(old.TenantID, s.column), s.given); err != nil {
			return nil, err
		}
		*s.fingerprint = t.fingerprint(s.given)
	}
	if p.Fingerprints, err = json.Marshal(after); err != nil {
		return nil, err
	}
	if _, err := t.q.CredentialsUpdate(ctx, tx, p); err != nil {
		return nil, err
	}
	return &after, RecordChange(ctx, tx, who, &old.TenantID, "tenant.set_credentials", typeid.Format(typeid.Tenant, old.TenantID), before, after)
}

// Credentials are a tenant's credentials at WeChat, decrypted. Only what
// speaks with WeChat may hold them.
type Credentials struct {
	AppID         string
	Secret        secret.Text
	MessageTokens []secret.Text  // the current one, then the previous one if there is any
	Keys          []msgcrypt.Key // likewise
}

// Credentials returns the tenant's credentials, from memory when they are
// warm. Errors: not_found when there is no such tenant or none were set.
func (t *Tenants) Credentials(ctx context.Context, tenant uuid.UUID) (_ Credentials, err error) {
	c, err := t.credentials.Get(ctx, postgres.Key{Tenant: tenant, ID: tenant}, func(ctx context.Context) (Credentials, error) {
		var row dbsqlc.Tenant
		var sealed dbsqlc.ComponentCredential
		err := t.DB.InTenant(ctx, tenant, func(tx postgres.DBTX) (err error) {
			if row, err = t.q.TenantByID(ctx, tx, dbsqlc.TenantByIDParams{ID: tenant}); err != nil {
				return err
			}
			sealed, err = t.q.CredentialsByTenant(ctx, tx, dbsqlc.CredentialsByTenantParams{TenantID: tenant})
			return err
		})
		if err != nil {
			return Credentials{}, err
		}
		return t.open(row, sealed)
	})
	if err != nil {
		err = found(err)
		wrap(&err, "tenant.Credentials")
	}
	return c, err
}

func (t *Tenants) open(row dbsqlc.Tenant, sealed dbsqlc.ComponentCredential) (Credentials, error) {
	c := Credentials{AppID: row.ComponentAppid}
	var err error
	if c.Secret, err = t.Keyset.OpenText(place(row.ID, colSecret), sealed.ComponentSecretCt); err != nil {
		return Credentials{}, err
	}
	for _, s := range []struct {
		column string
		ct     []byte
		key    bool
	}{
		{colToken, sealed.MessageTokenCt, false}, {colPreviousToken, sealed.PreviousMessageTokenCt, false},
		{colKey, sealed.EncodingAesKeyCt, true}, {colPreviousKey, sealed.PreviousEncodingAesKeyCt, true},
	} {
		if s.ct == nil {
			continue
		}
		text, err := t.Keyset.OpenText(place(row.ID, s.column), s.ct)
		if err != nil {
			return Credentials{}, err
		}
		if !s.key {
			c.MessageTokens = append(c.MessageTokens, text)
			continue
		}
		key, err := msgcrypt.ParseKey(text.Reveal())
		if err != nil {
			return Credentials{}, err
		}
		c.Keys = append(c.Keys, key)
	}
	return c, nil
}
