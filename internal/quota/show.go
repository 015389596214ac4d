package quota

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/wechat"
)

// Limited are the calls that WeChat limits by the day (document 004).
var Limited = []*wechat.Endpoint{wechat.AddGoods, wechat.AuditGoods, wechat.ResetGoodsAudit, wechat.DeleteGoods, wechat.UpdateGoods,
	wechat.GetGoodsWarehouse, wechat.GetApproved}

// A Bucket is what is known of one quota of a merchant today.
type Bucket struct {
	Name        string
	Limit, Used int
	Closed      bool // by WeChat's own word
	// Reserved is what background work leaves alone.
	Reserved     int
	UpstreamUsed *int32 // WeChat's own count, when it was last asked today
	UpstreamAt   *time.Time
}

// Resets is when the day of Shanghai ends that t is on.
func Resets(t time.Time) time.Time {
	y, m, d := t.In(shanghai).Date()
	return time.Date(y, m, d+1, 0, 0, 0, 0, shanghai)
}

var shanghai = time.FixedZone("Asia/Shanghai", 8*60*60) // without summer time since 1991

// A Month is what is known of the changes that WeChat allows a Store Mini
// Program in a month: no document says how many, and only errcode 85049 tells
// that there were too many, of pictures or of introductions (document 000 §4.4).
type Month struct {
	Changes int
	Refused bool // the newest one
	Ends    time.Time
}

// Today lists all daily quotas of a merchant, and tells of its month.
func Today(ctx context.Context, db *postgres.DB, tenant, merchant uuid.UUID) ([]Bucket, Month, error) {
	var rows []dbsqlc.QuotaBucket
	var month dbsqlc.ProgramChangesRow
	b := db.NewBatch(tenant)
	postgres.QueueMany(b, dbsqlc.QuotasToday, dbsqlc.QuotasTodayParams{TenantID: tenant, MerchantID: merchant}, &rows)
	postgres.QueueOne(b, dbsqlc.ProgramChanges, dbsqlc.ProgramChangesParams{TenantID: tenant, MerchantID: &merchant}, &month)
	if err := db.Run(ctx, b); err != nil {
		return nil, Month{}, err
	}
	byName := map[string]dbsqlc.QuotaBucket{}
	for _, row := range rows {
		byName[row.Bucket] = row
	}
	var out []Bucket
	seen := map[string]bool{}
	for _, e := range Limited {
		if seen[e.Quota.Name] {
			continue
		}
		seen[e.Quota.Name] = true
		bucket := Bucket{Name: e.Quota.Name, Limit: e.Quota.PerDay}
		if row, ok := byName[bucket.Name]; ok {
			bucket.Limit, bucket.Used, bucket.Closed = int(row.Limit), int(row.Used), row.ClosedAt != nil
			bucket.UpstreamUsed, bucket.UpstreamAt = row.UpstreamUsed, row.UpstreamAt
		}
		if e.Risk == wechat.Read {
			bucket.Reserved = bucket.Limit - bucket.Limit/2
		}
		out = append(out, bucket)
	}
	return out, Month{Changes: int(month.Used), Refused: month.Refused, Ends: month.Ends}, nil
}

// Sync keeps what WeChat says of today's quota of e: its limit, and its count
// where that is larger than ours.
func Sync(ctx context.Context, db *postgres.DB, tenant, merchant uuid.UUID, e *wechat.Endpoint, reply wechat.GetQuotaReply) error {
	b := db.NewBatch(tenant)
	b.Queue(dbsqlc.QuotaSync, dbsqlc.QuotaSyncParams{TenantID: tenant, MerchantID: merchant, Bucket: e.Quota.Name,
		Most: clamp(reply.Quota.DailyLimit), Used: clamp(reply.Quota.Used)})
	return db.Run(ctx, b)
}

// clamp takes a number of WeChat's as a count.
func clamp(n wechat.Int) int32 { return int32(min(max(int64(n), 0), 1<<30)) }
