package quota

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
)

// thresholds are the percentages of a bucket at which the tenant is told.
var thresholds = []int16{80, 100}

// TellTenants writes the events of buckets that are 80 % used, or spent: each
// once a day. Any number of processes may run it at once.
func TellTenants(ctx context.Context, db *postgres.DB) error {
	due, err := db.Due(ctx, postgres.DueQuotas, 100)
	if err != nil {
		return err
	}
	for _, d := range due {
		err := db.InTenant(ctx, d.Tenant, func(tx postgres.DBTX) error {
			rows, err := dbsqlc.New().QuotaTold(ctx, tx, dbsqlc.QuotaToldParams{TenantID: d.Tenant, MerchantID: d.ID})
			if err != nil {
				return err
			}
			for _, row := range rows {
				if err := tellTenant(ctx, tx, d.Tenant, d.ID, row); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func tellTenant(ctx context.Context, tx postgres.DBTX, tenant, merchant uuid.UUID, row dbsqlc.QuotaToldRow) error {
	for _, t := range thresholds {
		if row.ToldBefore >= t || row.Level < t {
			continue
		}
		err := outbox.Add(ctx, tx, tenant, outbox.Event{Type: outbox.QuotaThreshold, MerchantID: merchant, Object: map[string]any{
			"bucket": row.Bucket, "day": row.Day.Time.Format(time.DateOnly), "threshold": t, "limit": row.Limit, "used": row.Used}})
		if err != nil {
			return err
		}
	}
	return nil
}
