package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/quota"
)

// A job is something that every process looks after now and then. Each finds
// by index what is due and takes it by a lease, so it doesn't matter how many
// processes look (docs/decisions/0001-tickers.md).
type job struct {
	name  string
	every time.Duration
	do    func(context.Context) error
}

func (g *gateway) jobs() []job {
	return []job{
		{"reconcile operations", time.Second, g.ledger.ReconcileDue},
		{"keep spooled pushes", time.Second, g.inbox.KeepSpooled},
		{"number events", time.Second, func(ctx context.Context) error { return outbox.Number(ctx, g.db) }},
		{"ask how audits stand", 2 * time.Second, g.ledger.PollDue},
		{"move stores", time.Second, g.migrations.RunDue},
		{"compare with WeChat", 2 * time.Second, g.ledger.InventoryDue},
		{"refresh tokens", 5 * time.Second, func(ctx context.Context) error {
			_, err := g.auth.RefreshDue(ctx)
			return err
		}},
		{"hand back unused quota", 15 * time.Second, g.auth.Quotas.HandBack},
		{"tell of quotas", 5 * time.Second, func(ctx context.Context) error { return quota.TellTenants(ctx, g.db) }},
		{"watch tickets", time.Minute, g.auth.TicketWatch},
		{"tell the age of tickets", 15 * time.Second, g.tellTickets},
		{"sweep what is old", time.Hour, func(ctx context.Context) error {
			for {
				if n, err := g.db.SweepExpired(ctx, 1000); err != nil || n == 0 {
					return err
				}
			}
		}},
		{"hold the keyset", 2 * time.Second, g.rotation.Hold},
		{"seal anew", 2 * time.Second, g.rotation.Reseal},
		{"sweep the spool", time.Hour, func(context.Context) error { return g.spool.Sweep(time.Now()) }},
	}
}

func (g *gateway) tellTickets(ctx context.Context) error {
	newest, err := g.db.NewestTickets(ctx)
	for id, at := range newest {
		g.metrics.TicketAge(id.String(), time.Since(at))
	}
	return err
}

// run does the job until ctx ends, never twice at once.
func (j job) run(ctx context.Context, background *observe.Background) {
	every := pace(j.every)
	for {
		// Spread, so that processes started together don't look together.
		wait := every/2 + rand.N(every) // #nosec G404 -- jitter
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		background.Run(ctx, j.name, j.do)
	}
}

// keep does what goes on as long as the process: an error or a panic only
// interrupts it.
func (g *gateway) keep(ctx context.Context, work string, do func(context.Context) error) {
	for ctx.Err() == nil {
		g.background.Run(ctx, work, do)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// endless is work that knows no error.
func endless(do func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error { do(ctx); return nil }
}
