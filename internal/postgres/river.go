package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// NewRiver makes the client that works background jobs on this database, as
// AppRole like everything else and on the connections of Workers. River's own tables carry no tenant: a job's
// arguments are ids, and its worker opens the tenant's transaction.
func (db *DB) NewRiver(c *river.Config) (*river.Client[pgx.Tx], error) {
	return river.NewClient(riverpgxv5.New(db.pool(Using(context.Background(), Workers))), c)
}
