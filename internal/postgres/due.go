package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A Due names a row that something is to be done with, found over all tenants
// before any of them is known.
type Due struct {
	Tenant uuid.UUID
	ID     uuid.UUID
}

// The questions that Due can be asked: each is a SECURITY DEFINER function
// that returns ids and nothing else.
const (
	DueOperations     = `SELECT tenant_id, id FROM due_operations($1)`
	OperationsOfOwner = `SELECT tenant_id, id FROM operations_of_owner($2, $1)`
	DueAudits         = `SELECT tenant_id, id FROM due_audits($1)`
	DueInbox          = `SELECT tenant_id, id FROM due_inbox($1)`
	DueInventories    = `SELECT tenant_id, id FROM due_inventories($1)`
	DueQuotas         = `SELECT tenant_id, id FROM due_quotas($1)`
	DueMigrations     = `SELECT tenant_id, id FROM due_store_migrations($2, $1)`
	DueTokens         = `SELECT tenant_id, id FROM due_tokens($2, $3, $1)`
	Unnumbered        = `SELECT tenant_id, tenant_id FROM tenants_with_unnumbered($1)`
	LinkByState       = `SELECT tenant_id, id FROM link_by_state($2) LIMIT $1`
	AdminOperations   = `SELECT tenant_id, id FROM admin_operations($2, $3, $4, $5, $1)`
)

// Due asks one of the questions above for at most n rows.
func (db *DB) Due(ctx context.Context, question string, n int, args ...any) (due []Due, err error) {
	err = db.with(ctx, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, question, append([]any{n}, args...)...)
		if err != nil {
			return err
		}
		due, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Due])
		return err
	})
	return due, err
}

// NewestTickets tells when each active tenant's newest ticket was issued.
func (db *DB) NewestTickets(ctx context.Context) (map[uuid.UUID]time.Time, error) {
	out := map[uuid.UUID]time.Time{}
	err := db.with(ctx, func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, `SELECT tenant_id, issued_at FROM newest_tickets()`)
		if err != nil {
			return err
		}
		var id uuid.UUID
		var at time.Time
		_, err = pgx.ForEachRow(rows, []any{&id, &at}, func() error {
			out[id] = at
			return nil
		})
		return err
	})
	return out, err
}

// SweepExpired removes what is kept for a time only, at most n rows a table,
// and tells how many went (migrations: sweep_expired, sweep_spent, sweep_quotas).
func (db *DB) SweepExpired(ctx context.Context, n int) (swept int, err error) {
	err = db.with(ctx, func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, `SELECT sweep_expired($1) + sweep_spent($1) + sweep_quotas($1)`, n).Scan(&swept)
	})
	return swept, err
}
