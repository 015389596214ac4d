package tenant

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
)

// A SigningKeyState is where a key of the ring stands in its life.
type SigningKeyState string

// A next key is published and doesn't sign yet, so that verifiers elsewhere
// know it in time; one active key signs; a retiring key's tokens are still
// good; a retired key's tokens are not.
const (
	SigningNext     SigningKeyState = "next"
	SigningActive   SigningKeyState = "active"
	SigningRetiring SigningKeyState = "retiring"
	SigningRetired  SigningKeyState = "retired"
)

const signingKey typeid.Prefix = "sig"

// retireAfterDays is when the last token that a retiring key can have signed is over.
const retireAfterDays = 366

// A SigningKey describes a key of the ring without its private part.
type SigningKey struct {
	ID         string // kid
	State      SigningKeyState
	CreatedAt  time.Time
	StateSince time.Time
}

// A JWK is a public key as RFC 8037 writes it.
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
	ID        string `json:"kid"`
	X         string `json:"x"`
}

// A ring is what tokens are verified with.
type ring struct {
	keys map[string]ed25519.PublicKey
	jwks []JWK // active, next, retiring
}

var ringKey = postgres.Key{Name: "ring"}

func (k *Keys) currentRing(ctx context.Context) (*ring, error) {
	if r, ok := k.rings.Peek(ringKey); ok {
		return r, nil
	}
	return k.loadRing(ctx)
}

func (k *Keys) loadRing(ctx context.Context) (*ring, error) {
	return k.rings.Get(ctx, ringKey, func(ctx context.Context) (*ring, error) {
		var rows []dbsqlc.SigningKey
		err := k.DB.InSystem(ctx, func(tx postgres.DBTX) (err error) {
			rows, err = k.q.SigningKeyList(ctx, tx)
			return err
		})
		if err != nil {
			return nil, err
		}
		return k.openRing(rows)
	})
}

// openRing takes each public key from the sealed private one, so that whoever
// can write the table but has no keyset can't add a key of his own.
func (k *Keys) openRing(rows []dbsqlc.SigningKey) (*ring, error) {
	r := &ring{keys: map[string]ed25519.PublicKey{}}
	for _, state := range []SigningKeyState{SigningActive, SigningNext, SigningRetiring} {
		for _, row := range rows {
			if row.State != string(state) {
				continue
			}
			private, err := k.openSigningKey(row)
			if err != nil {
				return nil, err
			}
			public := private.Public().(ed25519.PublicKey)
			r.keys[row.ID] = public
			r.jwks = append(r.jwks, JWK{"OKP", "Ed25519", "EdDSA", "sig", row.ID, base64.RawURLEncoding.EncodeToString(public)})
		}
	}
	return r, nil
}

func signingPlace(kid string) secret.Place {
	return secret.Place{Table: "signing_keys", Column: "private_key_ct", Row: kid}
}

func (k *Keys) openSigningKey(row dbsqlc.SigningKey) (ed25519.PrivateKey, error) {
	seed, err := k.Keyset.Open(signingPlace(row.ID), row.PrivateKeyCt)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", row.ID, err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("signing key %s is not an Ed25519 seed", row.ID)
	}
	private := ed25519.NewKeyFromSeed(seed)
	if !slices.Equal(private.Public().(ed25519.PublicKey), ed25519.PublicKey(row.PublicKey)) {
		return nil, fmt.Errorf("signing key %s: its public part was altered", row.ID)
	}
	return private, nil
}

// ErrNoSigningKey is returned when nothing can sign: migrate makes the first key.
var ErrNoSigningKey = errors.New("no active signing key: run `gateway migrate`")

// signer returns the active key.
func (k *Keys) signer(ctx context.Context, tx postgres.DBTX) (kid string, key ed25519.PrivateKey, err error) {
	rows, err := k.q.SigningKeyList(ctx, tx)
	if err != nil {
		return "", nil, err
	}
	for _, row := range rows {
		if row.State == string(SigningActive) {
			key, err = k.openSigningKey(row)
			return row.ID, key, err
		}
	}
	return "", nil, ErrNoSigningKey
}

// JWKS returns the public keys for /.well-known/jwks.json: the active one
// first, then next, then retiring ones.
func (k *Keys) JWKS(ctx context.Context) ([]JWK, error) {
	r, err := k.currentRing(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	return r.jwks, nil
}

// SigningKeys lists the ring, newest first.
func (k *Keys) SigningKeys(ctx context.Context) (out []SigningKey, err error) {
	defer wrap(&err, "tenant.SigningKeys")
	err = k.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		rows, err := k.q.SigningKeyList(ctx, tx)
		out = make([]SigningKey, len(rows))
		for i, r := range rows {
			out[i] = SigningKey{r.ID, SigningKeyState(r.State), r.CreatedAt.UTC(), r.StateSince.UTC()}
		}
		return err
	})
	return out, err
}

// EnsureSigningKey makes the active and the next key where they are missing.
// Several processes may call it at once; a second call changes nothing.
func (k *Keys) EnsureSigningKey(ctx context.Context) (err error) {
	defer wrap(&err, "tenant.EnsureSigningKey")
	return k.changeRing(ctx, func(*ringChange) error { return nil })
}

// RotateSigning lets the next key sign and the active one retire, and makes a
// new next key. It returns the kid that signs now.
func (k *Keys) RotateSigning(ctx context.Context, who Caller) (kid string, err error) {
	defer wrap(&err, "tenant.RotateSigning")
	err = k.changeRing(ctx, func(c *ringChange) error {
		c.who = who
		for _, row := range c.in(SigningActive) {
			if err := c.move(row.ID, SigningActive, SigningRetiring); err != nil {
				return err
			}
		}
		for _, row := range c.in(SigningNext) {
			kid = row.ID
			return c.move(kid, SigningNext, SigningActive)
		}
		return nil
	})
	return kid, err
}

// RetireSigning ends a key at once, for when its private part is known to
// others: all API keys that it signed are refused from then on. If it was the
// active one the next key signs. Errors: not_found.
func (k *Keys) RetireSigning(ctx context.Context, who Caller, kid string) (err error) {
	defer wrap(&err, "tenant.RetireSigning(%q)", kid)
	return k.changeRing(ctx, func(c *ringChange) error {
		c.who = who
		for _, row := range c.rows {
			if row.ID == kid && row.State != string(SigningRetired) {
				return c.move(kid, SigningKeyState(row.State), SigningRetired)
			}
			if row.ID == kid {
				return nil
			}
		}
		return problem.Of(problem.CodeNotFound)
	})
}

// A ringChange is a transaction on the ring.
type ringChange struct {
	k    *Keys
	ctx  context.Context
	tx   postgres.DBTX
	who  Caller
	rows []dbsqlc.SigningKey
}

// changeRing runs fn alone on the ring, and then fills what must always be
// there: an active key and a next one.
func (k *Keys) changeRing(ctx context.Context, fn func(*ringChange) error) error {
	return k.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		if err := k.q.SigningKeyLock(ctx, tx); err != nil {
			return err
		}
		c := &ringChange{k: k, ctx: ctx, tx: tx, who: Caller{Actor: "gateway"}}
		var err error
		if c.rows, err = k.q.SigningKeyList(ctx, tx); err != nil {
			return err
		}
		if err := fn(c); err != nil {
			return err
		}
		return c.fill()
	})
}

func (c *ringChange) in(state SigningKeyState) (rows []dbsqlc.SigningKey) {
	for _, row := range c.rows {
		if row.State == string(state) {
			rows = append(rows, row)
		}
	}
	return rows
}

func (c *ringChange) move(kid string, from, to SigningKeyState) error {
	n, err := c.k.q.SigningKeyMove(c.ctx, c.tx, dbsqlc.SigningKeyMoveParams{ID: kid, State: string(to), Was: string(from)})
	if err != nil || n != 1 {
		return errors.Join(err, fmt.Errorf("signing key %s: moved %d rows from %s to %s", kid, n, from, to))
	}
	for i := range c.rows {
		if c.rows[i].ID == kid {
			c.rows[i].State = string(to)
		}
	}
	return c.record("signing_key."+verb[to], kid, map[string]any{"state": from}, map[string]any{"state": to})
}

var verb = map[SigningKeyState]string{SigningActive: "activate", SigningRetiring: "rotate_out", SigningRetired: "retire"}

func (c *ringChange) record(action, kid string, before, after any) error {
	return RecordChange(c.ctx, c.tx, c.who, nil, action, kid, before, after)
}

func (c *ringChange) add(state SigningKeyState) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	kid := typeid.Format(signingKey, typeid.New())
	sealed, err := c.k.Keyset.Seal(signingPlace(kid), private.Seed())
	if err != nil {
		return err
	}
	err = c.k.q.SigningKeyInsert(c.ctx, c.tx, dbsqlc.SigningKeyInsertParams{ID: kid, PublicKey: public, PrivateKeyCt: sealed, State: string(state)})
	if err != nil {
		return err
	}
	c.rows = append(c.rows, dbsqlc.SigningKey{ID: kid, State: string(state)})
	return c.record("signing_key.create", kid, nil, map[string]any{"state": state, "public_key_sha256": shortHash(public)})
}

func (c *ringChange) fill() error {
	if len(c.in(SigningActive)) == 0 {
		if next := c.in(SigningNext); len(next) > 0 {
			if err := c.move(next[0].ID, SigningNext, SigningActive); err != nil {
				return err
			}
		} else if err := c.add(SigningActive); err != nil {
			return err
		}
	}
	if len(c.in(SigningNext)) == 0 {
		if err := c.add(SigningNext); err != nil {
			return err
		}
	}
	old, err := c.k.q.SigningKeyRetireOld(c.ctx, c.tx, dbsqlc.SigningKeyRetireOldParams{Days: retireAfterDays})
	if err != nil {
		return err
	}
	for _, kid := range old {
		if err := c.record("signing_key.retire", kid, map[string]any{"state": SigningRetiring}, map[string]any{"state": SigningRetired}); err != nil {
			return err
		}
	}
	return nil
}
