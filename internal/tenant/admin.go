package tenant

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
)

// IssueAdmin makes an admin key and returns its token, once. Only the command
// line calls it: who can reach the database and the keyset is an operator
// anyway, and there is no other way to get such a key (security.md §4). It
// lives at most twelve hours. Errors: validation_failed.
func (k *Keys) IssueAdmin(ctx context.Context, who Caller, name string, expires time.Time) (_ Key, _ secret.Text, err error) {
	defer wrap(&err, "tenant.IssueAdmin(%q)", name)
	now, expires := k.Now().Truncate(time.Second), expires.Truncate(time.Second)
	if fields := append(checkName(name), checkLifetime(now, expires, maxAdminLifetime)...); len(fields) > 0 {
		return Key{}, secret.Text{}, invalid(fields)
	}
	var key Key
	var token string
	err = k.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		id := typeid.New()
		c := newClaims(id, now, expires)
		c.Audience = audienceAdmin
		kid, signer, err := k.signer(ctx, tx)
		if err != nil {
			return err
		}
		if token, err = c.sign(kid, signer); err != nil {
			return err
		}
		sum := sha256.Sum256([]byte(token))
		row, err := k.q.AdminKeyInsert(ctx, tx, dbsqlc.AdminKeyInsertParams{
			ID: id, Name: name, TokenSha256: sum[:], CreatedBy: who.Actor, ExpiresAt: expires,
		})
		if err != nil {
			return err
		}
		key = adminFromRow(row)
		return RecordChange(ctx, tx, who, nil, "admin_key.create", typeid.Format(typeid.Key, id), nil, key.state(token))
	})
	return key, secret.NewText(token), err
}

// ListAdmin returns a page of admin keys, and whether there are more.
func (k *Keys) ListAdmin(ctx context.Context, p Page) (_ []Key, more bool, err error) {
	defer wrap(&err, "tenant.ListAdmin")
	var rows []dbsqlc.AdminKey
	err = k.DB.InSystem(ctx, func(tx postgres.DBTX) (err error) {
		rows, err = k.q.AdminKeyList(ctx, tx, dbsqlc.AdminKeyListParams{Before: p.Before, N: int32(p.Limit) + 1})
		return err
	})
	if err != nil {
		return nil, false, err
	}
	rows, more = cut(rows, p.Limit)
	out := make([]Key, len(rows))
	for i, row := range rows {
		out[i] = adminFromRow(row)
	}
	return out, more, nil
}

// RevokeAdmin ends an admin key. Revoking twice is no error. Errors: not_found.
func (k *Keys) RevokeAdmin(ctx context.Context, who Caller, id uuid.UUID) (err error) {
	defer wrap(&err, "tenant.RevokeAdmin")
	return k.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		row, err := k.q.AdminKeyByID(ctx, tx, dbsqlc.AdminKeyByIDParams{ID: id})
		if err != nil {
			return found(err)
		}
		n, err := k.q.AdminKeyRevoke(ctx, tx, dbsqlc.AdminKeyRevokeParams{ID: id})
		if err != nil || n == 0 {
			return err
		}
		return k.recordStatus(ctx, tx, who, "admin_key.revoke", adminFromRow(row), "revoked")
	})
}

func adminFromRow(r dbsqlc.AdminKey) Key {
	return Key{ID: r.ID, Name: r.Name, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), RevokedAt: utc(r.RevokedAt)}
}
