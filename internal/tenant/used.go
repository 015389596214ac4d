package tenant

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
)

const (
	// A key's last use is exact to about a minute.
	noteEvery  = 30 // seconds
	flushEvery = 5 * time.Second
)

// used collects when keys were used, so that a request never writes that itself.
type used struct {
	mu sync.Mutex
	at map[uuid.UUID]map[uuid.UUID]time.Time // by tenant, by key
}

func newUsed() *used { return &used{at: map[uuid.UUID]map[uuid.UUID]time.Time{}} }

func (u *used) note(tenant, key uuid.UUID, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	keys := u.at[tenant]
	if keys == nil {
		keys = map[uuid.UUID]time.Time{}
		u.at[tenant] = keys
	}
	if at.After(keys[key]) {
		keys[key] = at
	}
}

func (u *used) take() map[uuid.UUID]map[uuid.UUID]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.at
	u.at = map[uuid.UUID]map[uuid.UUID]time.Time{}
	return at
}

// Run writes last_used_at every few seconds until ctx ends, and what is left
// then. A time that can't be written is noted again for the next round.
func (k *Keys) Run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.FlushUsed(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			k.FlushUsed(last)
			return
		}
	}
}

// FlushUsed writes what was noted so far, one statement a tenant.
func (k *Keys) FlushUsed(ctx context.Context) {
	for tenant, keys := range k.used.take() {
		p := dbsqlc.APIKeyUsedParams{TenantID: tenant}
		for id, at := range keys {
			p.Ids, p.Ats = append(p.Ids, id), append(p.Ats, at)
		}
		b := k.DB.NewBatch(tenant)
		queueUsed(b, p)
		if err := k.DB.Run(ctx, b); err != nil {
			k.Log.WarnContext(ctx, "can't write when keys were last used", "tenant_id", tenant, "err", err)
			for id, at := range keys {
				k.used.note(tenant, id, at)
			}
		}
	}
}

func queueUsed(b *postgres.Batch, p dbsqlc.APIKeyUsedParams) { b.Queue(dbsqlc.APIKeyUsed, p) }
