package tenant

import (
	"context"
	"regexp"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
)

// Tenant returns the tenant, whatever its status, from memory when it is warm.
// Errors: not_found.
func (t *Tenants) Tenant(ctx context.Context, id uuid.UUID) (_ Tenant, err error) {
	row, err := t.cached(ctx, postgres.Key{Tenant: id, ID: id})
	if err != nil {
		err = found(err)
		wrap(&err, "tenant.Tenant")
		return Tenant{}, err
	}
	return *row, nil
}

// cached must find its key made by the caller: on the hot path that is done once a token.
func (t *Tenants) cached(ctx context.Context, key postgres.Key) (*Tenant, error) {
	if row, ok := t.byID.Peek(key); ok {
		return row, nil
	}
	return t.load(ctx, key)
}

func (t *Tenants) load(ctx context.Context, key postgres.Key) (*Tenant, error) {
	return t.byID.Get(ctx, key, func(ctx context.Context) (*Tenant, error) {
		var row dbsqlc.Tenant
		err := t.DB.InSystem(ctx, func(tx postgres.DBTX) (err error) {
			row, err = t.q.TenantByID(ctx, tx, dbsqlc.TenantByIDParams{ID: key.Tenant})
			return err
		})
		if err != nil {
			return nil, err
		}
		tenant, err := fromRow(row)
		return &tenant, err
	})
}

var refPattern = regexp.MustCompile(`^[a-z2-7]{26}$`)

// ByPushRef returns the tenant whose push URLs carry ref, from memory when it
// is warm. A suspended tenant's pushes are still taken. Errors: not_found, for
// deleted tenants too.
func (t *Tenants) ByPushRef(ctx context.Context, ref string) (_ Tenant, err error) {
	defer wrap(&err, "tenant.ByPushRef")
	if !refPattern.MatchString(ref) {
		return Tenant{}, problem.Of(problem.CodeNotFound)
	}
	// A ref never changes hands, so this entry needs no following.
	id, err := t.byRef.Get(ctx, postgres.Key{Name: ref}, func(ctx context.Context) (id uuid.UUID, err error) {
		err = t.DB.InSystem(ctx, func(tx postgres.DBTX) (err error) {
			id, err = t.q.TenantIDByPushRef(ctx, tx, dbsqlc.TenantIDByPushRefParams{PushRef: ref})
			return err
		})
		return id, err
	})
	if err != nil {
		return Tenant{}, found(err)
	}
	tenant, err := t.Tenant(ctx, id)
	if err == nil && tenant.Status == Deleted {
		return Tenant{}, problem.Of(problem.CodeNotFound)
	}
	return tenant, err
}

var originsKey = postgres.Key{Name: "origins"}

// AllowedOrigin reports whether any active tenant lists this exact origin. A
// preflight carries no key, so that is all that can be asked then; the request
// itself is held to its own tenant's list (Tenant.AllowsOrigin). When the
// database can't tell the answer is no.
func (t *Tenants) AllowedOrigin(ctx context.Context, origin string) bool {
	set, err := t.origins.Get(ctx, originsKey, func(ctx context.Context) (map[string]bool, error) {
		var list []string
		err := t.DB.InSystem(ctx, func(tx postgres.DBTX) (err error) {
			list, err = t.q.TenantOrigins(ctx, tx)
			return err
		})
		set := make(map[string]bool, len(list))
		for _, o := range list {
			set[o] = true
		}
		return set, err
	})
	if err != nil {
		t.Log.WarnContext(ctx, "can't read the allowed origins", "err", err)
	}
	return err == nil && set[origin]
}

// Limits are the tenant's own limits. When the database can't tell it has none.
func (t *Tenants) Limits(ctx context.Context, id uuid.UUID) Limits {
	row, err := t.cached(ctx, postgres.Key{Tenant: id, ID: id})
	if err != nil {
		return Limits{}
	}
	return row.Limits
}
