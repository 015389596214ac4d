// Package outbox keeps the events that tenants are told: written in the
// transaction of the change that they tell of, numbered afterwards, listed.
//
// An event is never changed and never shown without a number: numbers are
// given to committed rows only, so that a reader who asks for what comes after
// the last one it saw never misses any.
package outbox

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/typeid"
)

// The types of events (design api.md §5.13).
const (
	MerchantAuthorized           = "merchant.authorized"
	MerchantAuthorizationUpdated = "merchant.authorization_updated"
	MerchantDeauthorized         = "merchant.deauthorized"
	MerchantNeedsReauthorization = "merchant.needs_reauthorization"
	AuditOverdue                 = "audit.overdue"
	LegacyStoreAuditDecided      = "legacy_store.audit.decided"
	StoreAuditDecided            = "store.audit.decided"
	StoreActivated               = "store.activated"
	StoreDeleted                 = "store.deleted"
	PushOther                    = "push.other"
	StoreProgramAuditDecided     = "store_program.audit.decided"
	MapPOIAuditDecided           = "map_poi.audit.decided"
	GoodsAuditDecided            = "goods.audit.decided"
	OperationResolved            = "operation.resolved"
	OperationNeedsAttention      = "operation.needs_attention"
	QuotaThreshold               = "quota.threshold"
	MigrationFinished            = "migration.finished"
	MigrationBlocked             = "migration.blocked"
)

// An Event is something that a tenant is told. Object is what it tells of, in
// the shape that the REST surface shows; it must hold no secret.
type Event struct {
	ID             uuid.UUID // zero: a new one. Given where a batch may run twice
	Type           string
	MerchantID     uuid.UUID // zero: none
	Object         any
	PreviousStatus string
}

// Row is the event as it is written, for a statement that writes it with
// something else.
func Row(tenant uuid.UUID, e Event) (dbsqlc.OutboxInsertParams, error) {
	if e.ID == uuid.Nil {
		e.ID = typeid.New()
	}
	payload, err := json.Marshal(struct {
		Object         any    `json:"object"`
		PreviousStatus string `json:"previous_status,omitempty"`
	}{e.Object, e.PreviousStatus})
	p := dbsqlc.OutboxInsertParams{TenantID: tenant, ID: e.ID, Type: e.Type, Payload: payload}
	if e.MerchantID != uuid.Nil {
		p.MerchantID = &e.MerchantID
	}
	return p, err
}

// Add writes the event in the transaction.
func Add(ctx context.Context, tx postgres.DBTX, tenant uuid.UUID, e Event) error {
	p, err := Row(tenant, e)
	if err != nil {
		return err
	}
	return dbsqlc.New().OutboxInsert(ctx, tx, p)
}

// Queue writes the event with the batch.
func Queue(b *postgres.Batch, tenant uuid.UUID, e Event) error {
	p, err := Row(tenant, e)
	if err != nil {
		return err
	}
	b.Queue(dbsqlc.OutboxInsert, p)
	return nil
}

// Number gives sequence numbers to the committed events of every tenant that
// has some without. Any number of processes may run it at once: the tenant's
// counter row is their lock.
func Number(ctx context.Context, db *postgres.DB) error {
	const tenantsARound, eventsARound = 100, 1000
	due, err := db.Due(ctx, postgres.Unnumbered, tenantsARound)
	if err != nil {
		return err
	}
	q := dbsqlc.New()
	for _, d := range due {
		for n := int64(eventsARound); n == eventsARound; {
			err := db.InTenant(ctx, d.Tenant, func(tx postgres.DBTX) error {
				last, err := q.OutboxCounterLock(ctx, tx, dbsqlc.OutboxCounterLockParams{TenantID: d.Tenant})
				if err != nil {
					return err
				}
				if n, err = q.OutboxNumber(ctx, tx, dbsqlc.OutboxNumberParams{TenantID: d.Tenant, LastSequence: last}); err != nil {
					return err
				}
				return q.OutboxCounterSet(ctx, tx, dbsqlc.OutboxCounterSetParams{TenantID: d.Tenant, N: n})
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// A Filter narrows a list of events; zero fields don't.
type Filter struct {
	After     int64       // the sequence of the last one seen
	Merchants []uuid.UUID // nil: all of the tenant, and what concerns none
	Type      string
	Limit     int
}

// A Numbered event is one that tenants may see.
type Numbered struct {
	ID         uuid.UUID
	MerchantID *uuid.UUID
	Type       string
	Payload    json.RawMessage // object, previous_status
	CreatedAt  time.Time
	Sequence   *int64
}

// List reads a tenant's events, oldest first.
func List(ctx context.Context, db *postgres.DB, tenant uuid.UUID, f Filter) ([]Numbered, error) {
	p := dbsqlc.OutboxListParams{TenantID: tenant, After: f.After, MerchantIds: f.Merchants, N: int32(f.Limit)}
	if f.Type != "" {
		p.Type = &f.Type
	}
	var rows []Numbered
	b := db.NewBatch(tenant)
	postgres.QueueMany(b, dbsqlc.OutboxList, p, &rows)
	err := db.Run(ctx, b)
	return rows, err
}

// Get reads one event; nil: there is none with this id and a number.
func Get(ctx context.Context, db *postgres.DB, tenant, id uuid.UUID) (*Numbered, error) {
	var rows []Numbered
	b := db.NewBatch(tenant)
	postgres.QueueMany(b, dbsqlc.OutboxGet, dbsqlc.OutboxGetParams{TenantID: tenant, ID: id}, &rows)
	if err := db.Run(ctx, b); err != nil || len(rows) == 0 {
		return nil, err
	}
	return &rows[0], nil
}
