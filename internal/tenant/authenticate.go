package tenant

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

var (
	errMissing   = problem.Of(problem.CodeTokenMissing)
	errInvalid   = problem.Of(problem.CodeTokenInvalid)
	errExpired   = problem.Of(problem.CodeTokenExpired)
	errRevoked   = problem.Of(problem.CodeKeyRevoked)
	errSuspended = problem.Of(problem.CodeTenantSuspended)
	errHidden    = problem.Of(problem.CodeNotFound)
)

// A verified token is remembered by its SHA-256. What can end before it does
// is looked at anew on every request: the time, the key ring, the row, the tenant.
type verified struct {
	sum       [sha256.Size]byte
	kid       string
	admin     bool
	id        uuid.UUID
	row       postgres.Key // of the key's row
	tenant    postgres.Key
	actor     string
	scopes    []string
	merchants []uuid.UUID // nil: all
	expires   int64

	noted  atomic.Int64 // unix seconds of the last use that was noted
	rights atomic.Pointer[rights]
}

// rights is a Caller made for one state of the key's row and of its tenant.
type rights struct {
	row    *keyRow
	tenant *Tenant // nil for an admin key
	caller Caller
}

// keyRow is what the request path needs of a row of api_keys or admin_keys.
type keyRow struct {
	Key
	sum []byte
}

// Authenticate says who sends the token, which is what follows "Bearer " in
// the Authorization header. admin is whether the route is one of /v1/admin.
//
// Warm, it asks no database. A revoked key, a retired signing key and a
// suspended tenant count within five seconds everywhere; with the database
// away what was good stays so for at most a minute.
//
// Errors: token_missing; token_invalid for everything up to the signature, and
// for an admin key on a tenant's route; once the signature is verified
// token_expired, key_revoked, tenant_suspended (Forbidden), and not_found for
// a tenant's key on an admin route; storage_unavailable.
func (k *Keys) Authenticate(ctx context.Context, bearer string, admin bool) (Caller, error) {
	switch {
	case bearer == "":
		return Caller{}, errMissing
	case len(bearer) > maxToken:
		return Caller{}, errInvalid
	}
	ring, err := k.currentRing(ctx)
	if err != nil {
		return Caller{}, unavailable(err)
	}
	var room [1 << 10]byte // on the stack, but for keys of many merchants; []byte(bearer) would not be
	sum := sha256.Sum256(append(room[:0], bearer...))
	v, ok := k.verified.Get(sum)
	if !ok {
		if v, err = k.verify(bearer, sum, ring); err != nil {
			return Caller{}, err
		}
	}
	if _, ok := ring.keys[v.kid]; !ok {
		return Caller{}, errInvalid
	}
	switch {
	case v.admin && !admin:
		return Caller{}, errInvalid
	case admin && !v.admin:
		return Caller{}, errHidden
	}
	now := k.Now()
	if now.Unix() >= v.expires+int64(leeway/time.Second) {
		k.verified.Remove(sum)
		return Caller{}, errExpired
	}
	row, err := k.row(ctx, v)
	if err != nil {
		return Caller{}, err
	}
	switch {
	case row.RevokedAt != nil:
		return Caller{}, errRevoked
	case !now.Before(row.ExpiresAt.Add(leeway)):
		return Caller{}, errExpired
	}
	var tenant *Tenant
	if !v.admin {
		if tenant, err = k.activeTenant(ctx, v); err != nil {
			return Caller{}, err
		}
		if n, s := v.noted.Load(), now.Unix(); s-n >= noteEvery && v.noted.CompareAndSwap(n, s) {
			k.used.note(v.row.Tenant, v.id, now)
		}
	}
	if r := v.rights.Load(); r != nil && r.row == row && r.tenant == tenant {
		return r.caller, nil
	}
	r := &rights{row, tenant, k.caller(v, row, tenant)}
	v.rights.Store(r)
	return r.caller, nil
}

// verify reads a token that was not seen before.
func (k *Keys) verify(bearer string, sum [sha256.Size]byte, ring *ring) (*verified, error) {
	c, kid, err := verify(bearer, ring.keys, k.Now)
	if errors.Is(err, jwt.ErrTokenExpired) {
		return nil, errExpired
	} else if err != nil {
		return nil, errInvalid.WithErr(err)
	}
	id, err := typeid.Parse(typeid.Key, c.Subject)
	if err != nil {
		return nil, errInvalid.WithErr(err)
	}
	v := &verified{sum: sum, kid: kid, admin: c.Audience == audienceAdmin, id: id, actor: c.Subject, expires: c.ExpiresAt}
	v.row = postgres.Key{Tenant: id, ID: id}
	if !v.admin {
		tenant, err := typeid.Parse(typeid.Tenant, c.Tenant)
		if err != nil {
			return nil, errInvalid.WithErr(err)
		}
		if v.merchants, err = c.merchants(); err != nil {
			return nil, errInvalid.WithErr(err)
		}
		v.row.Tenant = tenant
		v.tenant = postgres.Key{Tenant: tenant, ID: tenant}
		v.scopes = strings.Fields(c.Scope)
	}
	k.verified.Add(sum, v)
	return v, nil
}

// row returns the token's row, which says what may have changed since it was made.
func (k *Keys) row(ctx context.Context, v *verified) (*keyRow, error) {
	cache := k.rows
	if v.admin {
		cache = k.admins
	}
	row, ok := cache.Peek(v.row)
	if !ok {
		var err error
		if row, err = k.loadRow(ctx, cache, v); postgres.IsNotFound(err) {
			return nil, errRevoked
		} else if err != nil {
			return nil, unavailable(err)
		}
	}
	if !slices.Equal(row.sum, v.sum[:]) {
		return nil, errRevoked // signed by us, and not the token that was given out
	}
	return row, nil
}

func (k *Keys) loadRow(ctx context.Context, cache *postgres.Cache[*keyRow], v *verified) (*keyRow, error) {
	id, key, admin := v.id, v.row, v.admin
	return cache.Get(ctx, key, func(ctx context.Context) (*keyRow, error) {
		if admin {
			var row dbsqlc.AdminKey
			err := k.DB.InSystem(ctx, func(tx postgres.DBTX) (err error) {
				row, err = k.q.AdminKeyByID(ctx, tx, dbsqlc.AdminKeyByIDParams{ID: id})
				return err
			})
			return &keyRow{adminFromRow(row), row.TokenSha256}, err
		}
		var row dbsqlc.APIKey
		err := k.DB.InTenant(ctx, key.Tenant, func(tx postgres.DBTX) (err error) {
			row, err = k.q.APIKeyByID(ctx, tx, dbsqlc.APIKeyByIDParams{TenantID: key.Tenant, ID: id})
			return err
		})
		if err != nil {
			return nil, err
		}
		found, err := keyFromRow(row)
		return &keyRow{found, row.TokenSha256}, err
	})
}

func (k *Keys) activeTenant(ctx context.Context, v *verified) (*Tenant, error) {
	t, err := k.tenants.cached(ctx, v.tenant)
	switch {
	case postgres.IsNotFound(err):
		return nil, errRevoked
	case err != nil:
		return nil, unavailable(err)
	case t.Status == Suspended:
		return nil, errSuspended
	case t.Status != Active:
		return nil, errRevoked
	}
	return t, nil
}

// caller is what the token and its row allow both.
func (k *Keys) caller(v *verified, row *keyRow, tenant *Tenant) Caller {
	c := Caller{KeyID: v.id, Admin: v.admin, Actor: v.actor, ExpiresAt: min(v.expires, row.ExpiresAt.Unix())}
	if v.admin {
		return c
	}
	c.TenantID, c.RateLimit, c.TenantRate = v.row.Tenant, row.RateLimit, tenant.Limits.RequestsPerSecond
	c.Scopes = bothScopes(v.scopes, row.Scopes)
	c.Merchants = bothMerchants(v.merchants, row.Merchants)
	if l := tenant.Limits; c.RateLimit == nil && (l.KeyRequestsPerSecond != nil || l.KeyBurst != nil) {
		rate := k.DefaultRate
		apply(&rate.PerSecond, l.KeyRequestsPerSecond)
		apply(&rate.Burst, l.KeyBurst)
		c.RateLimit = &rate
	}
	return c
}

func bothScopes(a, b []string) []string {
	out := []string{}
	for _, s := range a {
		switch {
		case s == "*":
			return b
		case slices.Contains(b, s), slices.Contains(b, "*"):
			out = append(out, s)
		}
	}
	return out
}

// bothMerchants never returns nil for an empty intersection: nil is all.
func bothMerchants(a, b []uuid.UUID) []uuid.UUID {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	out := []uuid.UUID{}
	for _, m := range a {
		if slices.Contains(b, m) {
			out = append(out, m)
		}
	}
	return out
}
