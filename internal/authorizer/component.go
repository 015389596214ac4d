package authorizer

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/wechat"
)

// ask makes one of the platform's own calls, with its token. A token that
// WeChat rejects is refreshed once, and the call made once more; so is one
// that meets 48001, which comes and goes on these calls (platform.md §9.1).
// fence, which may be nil, is asked before the second attempt: its error ends
// the call. Errors: *wechat.Error of the call, or *problem.Error when nothing
// was sent because there is no token.
func ask[T any](ctx context.Context, a *Authorizer, tenantID uuid.UUID, e *wechat.Endpoint, fence func() error, body func(tenant.Credentials) any) (T, error) {
	var none T
	creds, err := a.Tenants.Credentials(ctx, tenantID)
	if err != nil {
		return none, notSet(err)
	}
	token, err := a.componentToken(ctx, tenantID, noGen)
	if err != nil {
		return none, err
	}
	for again := false; ; again = true {
		v, err := send[T](ctx, a, tenantID, e, wechat.ComponentToken(token.token.Reveal()), body(creds))
		we := (*wechat.Error)(nil)
		if again || !errors.As(err, &we) || we.Class != wechat.TokenRejected && we.Code != codeUnauthorized {
			return v, err
		}
		if we.Class == wechat.TokenRejected {
			if token, err = a.componentToken(ctx, tenantID, token.gen); err != nil {
				return none, err
			}
		}
		if fence != nil {
			if err := fence(); err != nil {
				return none, err
			}
		}
	}
}

const codeUnauthorized = 48001

// send makes one call and reads its reply. Errors: *wechat.Error of the call,
// or upstream_circuit_open when nothing was sent.
func send[T any](ctx context.Context, a *Authorizer, tenantID uuid.UUID, e *wechat.Endpoint, token wechat.Token, body any) (T, error) {
	var none T
	b, err := wechat.Encode(body)
	if err != nil {
		return none, err
	}
	permit, err := a.permit(tenantID, e)
	if err != nil {
		return none, err
	}
	defer permit.leave()
	reply, err := a.WeChat.Do(ctx, e, token, nil, b)
	permit.judge(ctx, e, reply, err)
	if err != nil {
		return none, err
	}
	if _, we := wechat.Classify(e, reply); we != nil {
		return none, we
	}
	return wechat.Decode[T](e, reply)
}

// notSet: a tenant without credentials can't speak with WeChat.
func notSet(err error) error {
	if problem.HasCode(err, problem.CodeNotFound) {
		return problem.Of(problem.CodePlatformMisconfigured).WithErr(err)
	}
	return storage(err)
}

// componentToken is the platform's own token. Errors: component_ticket_stale
// when WeChat takes none of the tickets that are kept, and the codes of
// Problem.
func (a *Authorizer) componentToken(ctx context.Context, tenantID uuid.UUID, rejected int32) (held, error) {
	return a.obtain(ctx, a.componentRow(tenantID), rejected)
}

func (a *Authorizer) componentRow(tenantID uuid.UUID) tokenRow {
	open := func(r dbsqlc.ComponentTokenReadRow) (held, error) {
		h := held{gen: r.AccessGen, until: left(r.Remaining), leased: r.Leased}
		var err error
		if r.AccessCt != nil {
			h.token, err = a.Keyset.OpenText(placeOf("component_tokens", "access_ct", tenantID, "", ""), r.AccessCt)
		}
		return h, err
	}
	read := func(b *postgres.Batch, into *dbsqlc.ComponentTokenReadRow) {
		postgres.QueueOne(b, dbsqlc.ComponentTokenRead, dbsqlc.ComponentTokenReadParams{TenantID: tenantID}, into)
	}
	return tokenRow{
		of: "component", key: postgres.Key{Tenant: tenantID, ID: tenantID}, cache: a.components,
		read: func(ctx context.Context) (held, error) {
			var row dbsqlc.ComponentTokenReadRow
			b := a.DB.NewBatch(tenantID)
			b.Queue(dbsqlc.ComponentTokenEnsure, dbsqlc.ComponentTokenEnsureParams{TenantID: tenantID})
			read(b, &row)
			if err := a.DB.Run(ctx, b); err != nil {
				return held{}, storage(err)
			}
			return open(row)
		},
		take: func(ctx context.Context, rejected int32) (*grant, held, error) {
			var row dbsqlc.ComponentTokenReadRow
			var leases []dbsqlc.ComponentTokenLeaseRow
			b := a.DB.NewBatch(tenantID)
			postgres.QueueMany(b, dbsqlc.ComponentTokenLease, dbsqlc.ComponentTokenLeaseParams{
				Owner: a.Config.Instance, TenantID: tenantID, RejectedGen: rejected,
			}, &leases)
			read(b, &row)
			if err := a.DB.Run(ctx, b); err != nil {
				return nil, held{}, err
			}
			h, err := open(row)
			if err != nil || len(leases) == 0 {
				return nil, h, err
			}
			return &grant{leaseGen: leases[0].LeaseGen, gen: leases[0].AccessGen}, h, nil
		},
		refresh: func(ctx context.Context, g grant) (held, error) { return a.makeComponentToken(ctx, tenantID, g) },
		invalid: func(held) error { return ticketStale() },
	}
}

// makeComponentToken tries the kept tickets, newest first; one that WeChat
// refuses is never tried again.
func (a *Authorizer) makeComponentToken(ctx context.Context, tenantID uuid.UUID, g grant) (_ held, err error) {
	defer func() {
		if err != nil && !errors.Is(err, errFenced) {
			a.releaseComponent(ctx, tenantID, g, err)
		}
	}()
	creds, err := a.Tenants.Credentials(ctx, tenantID)
	if err != nil {
		return held{}, notSet(err)
	}
	tickets, err := a.usableTickets(ctx, tenantID)
	if err != nil {
		return held{}, err
	}
	for i, ticket := range tickets {
		if i > 0 {
			if err := a.fence(ctx, tenantID, dbsqlc.ComponentTokenRenew, dbsqlc.ComponentTokenRenewParams{TenantID: tenantID, LeaseGen: g.leaseGen}); err != nil {
				return held{}, err
			}
		}
		reply, err := send[wechat.GetComponentTokenReply](ctx, a, tenantID, wechat.GetComponentToken, wechat.NoToken, wechat.GetComponentTokenRequest{
			ComponentAppID: creds.AppID, ComponentAppSecret: creds.Secret.Reveal(), ComponentVerifyTicket: ticket.value.Reveal(),
		})
		if we := (*wechat.Error)(nil); errors.As(err, &we) && we.Class == wechat.TicketRefused {
			a.Log.WarnContext(ctx, "WeChat refuses a ticket", "tenant_id", tenantID, "errcode", we.Code)
			if err := a.rejectTicket(ctx, tenantID, ticket); err != nil {
				return held{}, err
			}
			continue
		}
		switch {
		case err != nil && isCode(err, 40001): // there is no token in this call: the secret is wrong
			return held{}, withUpstream(problem.Of(problem.CodePlatformMisconfigured), err)
		case err != nil:
			return held{}, Problem(err)
		case reply.ComponentAccessToken == "":
			return held{}, problem.Of(problem.CodeWeChatUnknownError).WithErr(errors.New("no token in the reply"))
		}
		fault.At("component_token_answered")
		return a.storeComponentToken(ctx, tenantID, g, reply)
	}
	return held{}, ticketStale()
}

func ticketStale() error {
	p := problem.Of(problem.CodeComponentTicketStale)
	p.RetryAfter = ticketRetry
	return p
}

func (a *Authorizer) storeComponentToken(ctx context.Context, tenantID uuid.UUID, g grant, reply wechat.GetComponentTokenReply) (held, error) {
	token := secret.NewText(reply.ComponentAccessToken)
	ct, err := a.Keyset.SealText(placeOf("component_tokens", "access_ct", tenantID, "", ""), token)
	if err != nil {
		return held{}, err
	}
	seconds := lifetime(int64(reply.ExpiresIn))
	err = a.commit(ctx, func() error {
		return a.fence(ctx, tenantID, dbsqlc.ComponentTokenStore, dbsqlc.ComponentTokenStoreParams{
			AccessCt: ct, AccessGen: g.gen + 1, Seconds: seconds, TenantID: tenantID, LeaseGen: g.leaseGen,
		})
	})
	fault.At("component_token_stored")
	return held{token: token, gen: g.gen + 1, until: left(seconds)}, err
}

// releaseComponent gives the lease back after a failure: at once when WeChat
// was not asked, so that the next ticket is tried when it comes.
func (a *Authorizer) releaseComponent(ctx context.Context, tenantID uuid.UUID, g grant, cause error) {
	code, cool := "error", coolDown.Seconds()
	if p, ok := problem.As(cause); ok {
		if code = p.Code; code == problem.CodeComponentTicketStale {
			cool = 0
		}
	}
	b := a.DB.NewBatch(tenantID)
	b.Queue(dbsqlc.ComponentTokenRelease, dbsqlc.ComponentTokenReleaseParams{
		Cool: cool, InvalidReason: &code, TenantID: tenantID, LeaseGen: g.leaseGen,
	})
	if err := a.DB.Run(ctx, b); err != nil {
		a.Log.WarnContext(ctx, "a lease was not given back", "tenant_id", tenantID, "err", err)
	}
}

// fence runs a statement that returns one row as long as the lease is ours.
func (a *Authorizer) fence(ctx context.Context, tenantID uuid.UUID, sql string, params any) error {
	var gens []int32
	b := a.DB.NewBatch(tenantID)
	b.QueueRows(sql, params, func(rows pgx.Rows) (err error) {
		gens, err = pgx.CollectRows(rows, pgx.RowTo[int32])
		return err
	})
	if err := a.DB.Run(ctx, b); err != nil {
		return storage(err)
	}
	if len(gens) == 0 {
		return errFenced
	}
	return nil
}

func placeOf(table, column string, tenantID uuid.UUID, appid, row string) secret.Place {
	return secret.Place{Table: table, Column: column, Tenant: tenantID, AppID: appid, Row: row}
}

// isCode reports whether err is WeChat's answer with one of these errcodes.
func isCode(err error, codes ...int64) bool {
	we := (*wechat.Error)(nil)
	if !errors.As(err, &we) {
		return false
	}
	for _, c := range codes {
		if we.Code == c {
			return true
		}
	}
	return false
}
