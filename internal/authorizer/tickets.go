package authorizer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/wechat"
)

// A ticket is a component_verify_ticket: good for 12 hours, one comes every
// ten minutes (platform.md §2). The last three are kept.
type ticket struct {
	sha256 []byte
	value  secret.Text
}

func ticketPlace(tenantID uuid.UUID, sum []byte) secret.Place {
	return placeOf("component_tickets", "ticket_ct", tenantID, "", hex.EncodeToString(sum))
}

// skewAlarm is how far a push's CreateTime may be off before somebody hears of
// it. It is no reason to refuse the push.
const skewAlarm = 10 * time.Minute

// keepTicket stores a ticket. The smaller of its CreateTime and its arrival
// orders it: a retry of an old one doesn't replace a newer one, and one from
// the future is replaced by the next.
func (a *Authorizer) keepTicket(ctx context.Context, tenantID uuid.UUID, value secret.Text, created, received time.Time) error {
	skew := received.Sub(created)
	if skew > skewAlarm || skew < -skewAlarm {
		a.Log.WarnContext(ctx, "a ticket's CreateTime is far off", "tenant_id", tenantID, "skew", skew.String())
	}
	if a.Metrics.TicketReceived != nil {
		a.Metrics.TicketReceived(tenantID, skew)
	}
	sum := sha256.Sum256([]byte(value.Reveal()))
	ct, err := a.Keyset.SealText(ticketPlace(tenantID, sum[:]), value)
	if err != nil {
		return err
	}
	if received.Before(created) {
		created = received
	}
	b := a.DB.NewBatch(tenantID)
	b.Queue(dbsqlc.TicketInsert, dbsqlc.TicketInsertParams{TenantID: tenantID, TicketSha256: sum[:], TicketCt: ct, IssuedAt: created})
	b.Queue(dbsqlc.TicketPrune, dbsqlc.TicketPruneParams{TenantID: tenantID})
	return storage(a.DB.Run(ctx, b))
}

// usableTickets are the kept ones that WeChat hasn't refused, newest first.
func (a *Authorizer) usableTickets(ctx context.Context, tenantID uuid.UUID) ([]ticket, error) {
	var rows []dbsqlc.TicketsUsableRow
	b := a.DB.NewBatch(tenantID)
	postgres.QueueMany(b, dbsqlc.TicketsUsable, dbsqlc.TicketsUsableParams{TenantID: tenantID}, &rows)
	if err := a.DB.Run(ctx, b); err != nil {
		return nil, storage(err)
	}
	out := make([]ticket, len(rows))
	for i, r := range rows {
		value, err := a.Keyset.OpenText(ticketPlace(tenantID, r.TicketSha256), r.TicketCt)
		if err != nil {
			return nil, storage(err)
		}
		out[i] = ticket{r.TicketSha256, value}
	}
	return out, nil
}

func (a *Authorizer) rejectTicket(ctx context.Context, tenantID uuid.UUID, t ticket) error {
	b := a.DB.NewBatch(tenantID)
	b.Queue(dbsqlc.TicketReject, dbsqlc.TicketRejectParams{TenantID: tenantID, TicketSha256: t.sha256})
	return storage(a.DB.Run(ctx, b))
}

// withoutTicket lists the platforms whose last ticket came over an hour ago,
// and that nobody helped within the last one.
const withoutTicket = `SELECT tenant_id, tenant_id FROM tenants_without_ticket($2, $3, $1)`

const (
	silence      = time.Hour
	restartAgain = time.Hour
)

// TicketWatch asks WeChat to push tickets again to every platform that has
// heard nothing for an hour, once an hour each (platform.md §2.2). It is to be
// called every minute or so, by any number of processes.
func (a *Authorizer) TicketWatch(ctx context.Context) error {
	due, err := a.DB.Due(ctx, withoutTicket, 100, silence, restartAgain)
	if err != nil {
		return storage(err)
	}
	for _, d := range due {
		if err := a.RestartTickets(ctx, d.Tenant, restartAgain); err != nil {
			a.Log.WarnContext(ctx, "can't restart the ticket pushes", "tenant_id", d.Tenant, "err", err)
		}
	}
	return nil
}

// RestartTickets asks WeChat to push tickets to the tenant again, unless
// somebody did within the time given.
func (a *Authorizer) RestartTickets(ctx context.Context, tenantID uuid.UUID, unlessWithin time.Duration) error {
	err := a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) error {
		if err := a.q.ComponentTokenEnsure(ctx, tx, dbsqlc.ComponentTokenEnsureParams{TenantID: tenantID}); err != nil {
			return err
		}
		_, err := a.q.TicketRestartClaim(ctx, tx, dbsqlc.TicketRestartClaimParams{TenantID: tenantID, Seconds: unlessWithin.Seconds()})
		return err
	})
	if postgres.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return storage(err)
	}
	creds, err := a.Tenants.Credentials(ctx, tenantID)
	if err != nil {
		return notSet(err)
	}
	_, err = send[struct{}](ctx, a, tenantID, wechat.StartPushTicket, wechat.NoToken, wechat.StartPushTicketRequest{
		ComponentAppID: creds.AppID, ComponentSecret: creds.Secret.Reveal(),
	})
	return Problem(err)
}
