package faults

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// cutAll ends every connection to the database as soon as it is made, until
// stop, which may be called again. Nothing that needs the table slips through.
func (p *place) cutAll(table string) (stop func()) {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), p.DSN)
	if err != nil {
		p.t.Fatal(err)
	}
	cut := func(ctx context.Context) error {
		_, err := conn.PgConn().Exec(ctx, `SELECT pg_stat_clear_snapshot(); SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid(); SELECT pg_sleep(0.005)`).ReadAll()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	locked, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer conn.Close(context.Background()) // and with it the lock
		if _, err := conn.Exec(ctx, `BEGIN; LOCK TABLE `+table+` IN ACCESS EXCLUSIVE MODE`); err != nil {
			locked <- err
			return
		}
		err := cut(ctx)
		locked <- err
		for err == nil {
			err = cut(ctx)
		}
		if ctx.Err() == nil {
			p.t.Error(err)
		}
	}()
	if err := <-locked; err != nil {
		p.t.Fatal(err)
	}
	// What the server was told last it still does when the connection is gone.
	cutter := conn.PgConn().PID()
	gone := func() error {
		conn, err := pgx.Connect(context.Background(), p.DSN)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		var there bool
		err = conn.QueryRow(context.Background(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1)`, cutter).Scan(&there)
		if err == nil && there {
			err = errors.New("its connection is there")
		}
		return err
	}
	p.t.Cleanup(func() { cancel(); <-ended })
	return func() {
		cancel()
		<-ended
		p.Eventually("nobody cuts any more", gone)
	}
}
