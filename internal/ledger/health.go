package ledger

import (
	"context"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
)

// Health counts what is open for a tenant: tokens, merchants, pushes,
// operations. A time that isn't known is the Unix epoch.
type Health = dbsqlc.TenantHealthRow

// Health reads it.
func (l *Ledger) Health(ctx context.Context, tenant uuid.UUID) (h Health, err error) {
	err = l.DB.InTenant(ctx, tenant, func(tx postgres.DBTX) error {
		h, err = l.q.TenantHealth(ctx, tx, dbsqlc.TenantHealthParams{TenantID: tenant})
		return err
	})
	return h, err
}
