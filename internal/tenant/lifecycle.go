package tenant

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
)

// Get returns a key of who's tenant. A key that reaches merchants which who
// doesn't is not found, but for who's own. Errors: not_found.
func (k *Keys) Get(ctx context.Context, who Caller, id uuid.UUID) (key Key, err error) {
	defer wrap(&err, "tenant.Key")
	err = k.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		row, err := k.q.APIKeyByID(ctx, tx, dbsqlc.APIKeyByIDParams{TenantID: who.TenantID, ID: id})
		if err != nil {
			return found(err)
		}
		key, err = visible(who, row)
		return err
	})
	return key, err
}

func visible(who Caller, row dbsqlc.APIKey) (Key, error) {
	key, err := keyFromRow(row)
	if err == nil && !who.reaches(key) && key.ID != who.KeyID {
		return Key{}, problem.Of(problem.CodeNotFound)
	}
	return key, err
}

// List returns a page of the tenant's keys that who may see, and whether there
// are more. status is active, revoked, expired or empty for all.
func (k *Keys) List(ctx context.Context, who Caller, status string, p Page) (_ []Key, more bool, err error) {
	defer wrap(&err, "tenant.Keys")
	var rows []dbsqlc.APIKey
	err = k.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) (err error) {
		rows, err = k.q.APIKeyList(ctx, tx, dbsqlc.APIKeyListParams{
			TenantID: who.TenantID, Within: who.Merchants, Status: orNil(status), Before: p.Before, N: int32(p.Limit) + 1,
		})
		return err
	})
	if err != nil {
		return nil, false, err
	}
	rows, more = cut(rows, p.Limit)
	out := make([]Key, len(rows))
	for i, row := range rows {
		if out[i], err = keyFromRow(row); err != nil {
			return nil, false, err
		}
	}
	return out, more, nil
}

// lock reads a key for a change by who, which must hold all that the key does.
func (k *Keys) lock(ctx context.Context, tx postgres.DBTX, who Caller, id uuid.UUID) (Key, error) {
	row, err := k.q.APIKeyLock(ctx, tx, dbsqlc.APIKeyLockParams{TenantID: who.TenantID, ID: id})
	if err != nil {
		return Key{}, found(err)
	}
	key, err := visible(who, row)
	if err != nil {
		return Key{}, err
	}
	if !who.CoversScopes(key.Scopes) && who.KeyID != key.ID {
		return Key{}, problem.Of(problem.CodeKeyExceedsOwnRights)
	}
	return key, nil
}

// Revoke ends a key; it counts everywhere within five seconds. A key may
// revoke itself. Revoking twice is no error. Errors: not_found,
// key_exceeds_own_rights.
func (k *Keys) Revoke(ctx context.Context, who Caller, id uuid.UUID) (err error) {
	defer wrap(&err, "tenant.Revoke")
	return k.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		key, err := k.lock(ctx, tx, who, id)
		if err != nil {
			return err
		}
		if key.RevokedAt != nil {
			return nil
		}
		if err := k.q.APIKeyRevoke(ctx, tx, dbsqlc.APIKeyRevokeParams{TenantID: who.TenantID, ID: id}); err != nil {
			return err
		}
		return k.recordStatus(ctx, tx, who, "api_key.revoke", key, "revoked")
	})
}

func (k *Keys) recordStatus(ctx context.Context, tx postgres.DBTX, who Caller, action string, key Key, status string) error {
	tenant := &key.TenantID
	if key.TenantID == uuid.Nil {
		tenant = nil
	}
	return RecordChange(ctx, tx, who, tenant, action, typeid.Format(typeid.Key, key.ID),
		map[string]string{"status": key.Status(k.Now())}, map[string]string{"status": status})
}

// Rotate replaces a key by a new one with the same name and rights, whose
// token it returns, once. The old one goes on working for overlap, at most
// MaxOverlap; with none it is revoked. expires is the new key's end; zero is
// the time that the old one had been given, cut to who's own end. Errors:
// not_found, key_exceeds_own_rights, validation_failed, and key_not_active for
// a key that is revoked, expired or replaced already.
func (k *Keys) Rotate(ctx context.Context, who Caller, id uuid.UUID, overlap time.Duration, expires time.Time) (_ Key, _ secret.Text, err error) {
	defer wrap(&err, "tenant.Rotate")
	now := k.Now().Truncate(time.Second)
	if overlap < 0 || overlap > MaxOverlap {
		return Key{}, secret.Text{}, invalid([]problem.Field{{Pointer: "/overlap", Code: "out_of_range", Detail: fmt.Sprintf("0 to %s", days(MaxOverlap))}})
	}
	var key Key
	var token string
	err = k.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		if _, err := k.maker(ctx, tx, who); err != nil {
			return err
		}
		old, err := k.lock(ctx, tx, who, id)
		if err != nil {
			return err
		}
		replaced, err := k.q.APIKeyIsReplaced(ctx, tx, dbsqlc.APIKeyIsReplacedParams{TenantID: who.TenantID, ID: id})
		if err != nil {
			return err
		}
		if replaced || old.Status(now) != "active" {
			return problem.Of(problem.CodeKeyNotActive)
		}
		want := Key{ID: typeid.New(), TenantID: old.TenantID, Name: old.Name, Scopes: old.Scopes, Merchants: old.Merchants, RateLimit: old.RateLimit, RotatedFrom: &id}
		if want.ExpiresAt = expires.Truncate(time.Second); expires.IsZero() {
			life := min(old.ExpiresAt.Sub(old.CreatedAt).Round(time.Second), maxLifetime)
			want.ExpiresAt = who.until(now.Add(life))
		}
		if fields := checkLifetime(now, want.ExpiresAt, maxLifetime); len(fields) > 0 {
			return invalid(fields)
		}
		if err := k.covers(who, want); err != nil {
			return err
		}
		if key, token, err = k.insert(ctx, tx, who, want, now); err != nil {
			return err
		}
		if err := RecordChange(ctx, tx, who, &key.TenantID, "api_key.create", typeid.Format(typeid.Key, key.ID), nil, key.state(token)); err != nil {
			return err
		}
		return k.endAfter(ctx, tx, who, old, now.Add(overlap), overlap == 0)
	})
	return key, secret.NewText(token), err
}

func (k *Keys) endAfter(ctx context.Context, tx postgres.DBTX, who Caller, old Key, at time.Time, now bool) error {
	if now {
		if err := k.q.APIKeyRevoke(ctx, tx, dbsqlc.APIKeyRevokeParams{TenantID: old.TenantID, ID: old.ID}); err != nil {
			return err
		}
		return k.recordStatus(ctx, tx, who, "api_key.rotate", old, "revoked")
	}
	if err := k.q.APIKeyExpire(ctx, tx, dbsqlc.APIKeyExpireParams{TenantID: old.TenantID, ID: old.ID, ExpiresAt: at}); err != nil {
		return err
	}
	if at.After(old.ExpiresAt) {
		at = old.ExpiresAt
	}
	return RecordChange(ctx, tx, who, &old.TenantID, "api_key.rotate", typeid.Format(typeid.Key, old.ID),
		map[string]any{"expires_at": old.ExpiresAt}, map[string]any{"expires_at": at.UTC()})
}
