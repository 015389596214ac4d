package ledger

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

const (
	// pollLease is how long one process may take over one poll.
	pollLease   = 2 * time.Minute
	pollsAtOnce = 8
)

// PollDue asks WeChat about audits that it has said nothing of for a while, by
// merchant and kind: events get lost, and some audits have none. Any number of
// processes may run it.
func (l *Ledger) PollDue(ctx context.Context) error {
	return l.DB.Work(ctx, pollsAtOnce, nil, func(d postgres.Due) {
		l.Background.Run(ctx, "ask how audits stand", func(ctx context.Context) error { return l.poll(ctx, d) },
			slog.String("audit_id", typeid.Format(typeid.Audit, d.ID)))
	}, postgres.DueAudits)
}

// poll asks about the audits that are due with d, of the same merchant and kind.
func (l *Ledger) poll(ctx context.Context, d postgres.Due) error {
	var audits []dbsqlc.Audit
	b := l.DB.NewBatch(d.Tenant)
	postgres.QueueMany(b, dbsqlc.AuditsTake, dbsqlc.AuditsTakeParams{Lease: pollLease, TenantID: d.Tenant, ID: d.ID}, &audits)
	if err := l.DB.Run(ctx, b); err != nil || len(audits) == 0 {
		return err
	}
	m, err := l.Authorizer.MerchantByID(ctx, d.Tenant, audits[0].MerchantID)
	if err != nil {
		return err
	}
	k := auditKinds[audits[0].Kind]
	var asked error
	if k.Poll != nil {
		asked = k.Poll(quota.InBackground(ctx), l, m, audits)
	}
	b = l.DB.NewBatch(d.Tenant)
	for _, a := range audits {
		b.Queue(dbsqlc.AuditPolled, dbsqlc.AuditPolledParams{NextPollAt: new(time.Now().Add(l.pollWait(k, int(a.PollN)+1))), TenantID: d.Tenant, ID: a.ID})
	}
	if err := l.DB.Run(ctx, b); err != nil {
		return err
	}
	for _, a := range audits {
		if time.Since(a.SubmittedAt) < k.Usual || a.OverdueAt != nil {
			continue
		}
		if err := l.overdue(ctx, k, a); err != nil {
			return err
		}
	}
	return asked
}

// applyPolled is ApplyNews for what a poll told. News of an audit that can't be
// told from another keep nothing from those that follow.
func (l *Ledger) applyPolled(ctx context.Context, m authorizer.Merchant, n News) error {
	_, err := l.ApplyNews(ctx, m, n)
	if errors.Is(err, ErrUnmatched) {
		l.Log.InfoContext(ctx, "a poll's news match no audit", "kind", n.Kind, "merchant_id", m.ID, "status", n.Status)
		return nil
	}
	return err
}

// pollWait is how long before the poll after n; 0: there is none.
func (l *Ledger) pollWait(k auditKind, n int) time.Duration {
	if len(k.Waits) == 0 {
		return 0
	}
	wait := l.Schedule.scaled(k.Waits[min(n, len(k.Waits)-1)])
	return wait + rand.N(wait/10+1) // #nosec G404 -- jitter
}

// overdue tells the tenant, once, of an audit that takes longer than such
// audits do: somebody may have to ask WeChat.
func (l *Ledger) overdue(ctx context.Context, k auditKind, a dbsqlc.Audit) error {
	return l.DB.InTenant(ctx, a.TenantID, func(tx postgres.DBTX) error {
		a, err := l.q.AuditOverdue(ctx, tx, dbsqlc.AuditOverdueParams{TenantID: a.TenantID, ID: a.ID, Usual: k.Usual})
		if err != nil {
			return ignoreNotFound(err)
		}
		return outbox.Add(ctx, tx, a.TenantID, outbox.Event{Type: outbox.AuditOverdue, MerchantID: a.MerchantID, Object: map[string]any{
			"id": typeid.Format(typeid.Audit, a.ID), "kind": a.Kind, "status": a.Status, "wechat_audit_id": a.WechatAuditID, "submitted_at": a.SubmittedAt,
			"subject": map[string]string{"type": a.SubjectType, "id": typeid.Format(k.Type.Prefix, a.SubjectID)},
		}})
	})
}

// RefreshAudit asks WeChat at once how an audit stands. One that has ended is
// not asked for. Errors: audit_not_readable where WeChat has no read for it.
func (l *Ledger) RefreshAudit(ctx context.Context, m authorizer.Merchant, a Audit) (Audit, error) {
	if AuditStatus(a.Status).Final() {
		return a, nil
	}
	k := auditKinds[a.Kind]
	if k.Poll == nil {
		return a, problem.Of(problem.CodeAuditNotReadable)
	}
	if err := k.Poll(ctx, l, m, []dbsqlc.Audit{a.Audit}); err != nil {
		return a, err
	}
	return l.Audit(ctx, a.TenantID, a.ID)
}

// ofAudits reads at once what the audits are about, by the audit's id.
func (c *Collection[F]) ofAudits(ctx context.Context, m authorizer.Merchant, audits []dbsqlc.Audit) (map[uuid.UUID]Resource[F], error) {
	subjects := make([][]resourceRow, len(audits))
	b := c.l.DB.NewBatch(m.TenantID)
	for i, a := range audits {
		postgres.QueueMany(b, dbsqlc.ResourceShow, dbsqlc.ResourceShowParams{TenantID: m.TenantID, ID: a.SubjectID, Type: c.Name}, &subjects[i])
	}
	if err := c.l.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	out := map[uuid.UUID]Resource[F]{}
	for i, a := range audits {
		for _, row := range subjects[i] {
			r, err := resourceFrom[F](row)
			if err != nil {
				return nil, err
			}
			out[a.ID] = r
		}
	}
	return out, nil
}

// writesOf reads at once the writes of kind k that began these audits, by the
// audit's id.
func (l *Ledger) writesOf(ctx context.Context, m authorizer.Merchant, audits []dbsqlc.Audit, k *Kind) (map[uuid.UUID]*Operation, error) {
	rows := make([]dbsqlc.Operation, len(audits))
	b := l.DB.NewBatch(m.TenantID)
	for i, a := range audits {
		if a.Kind == k.AuditKind && a.OperationID != nil {
			postgres.QueueOne(b, dbsqlc.OperationGet, dbsqlc.OperationGetParams{TenantID: m.TenantID, ID: *a.OperationID}, &rows[i])
		}
	}
	if err := l.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	out := map[uuid.UUID]*Operation{}
	for i, a := range audits {
		if rows[i].ID == uuid.Nil {
			continue
		}
		op, err := l.opened(rows[i])
		if err != nil {
			return nil, err
		}
		out[a.ID] = op
	}
	return out, nil
}

// Audits of stores are decided in one to seven working days and told by
// events; a poll finds what an event that was lost would have told.
var (
	storeAuditWaits = []time.Duration{time.Hour, 6 * time.Hour, 24 * time.Hour}
	storeAuditUsual = 10 * 24 * time.Hour
)

// pollStores reads the merchant's stores, of which each tells by its status how
// its newest audit ended (platform.md §11.2), without the reason.
func pollStores(ctx context.Context, l *Ledger, m authorizer.Merchant, audits []dbsqlc.Audit) error {
	asked := time.Now()
	var shown []Shown
	if _, err := inventoryOfStores(ctx, l, m, func(s Shown) { shown = append(shown, s) }); err != nil {
		return err
	}
	if _, err := l.Stores.projectAll(ctx, m, shown, asked); err != nil {
		return err
	}
	stores, err := l.Stores.ofAudits(ctx, m, audits)
	if err != nil {
		return err
	}
	updates, err := l.writesOf(ctx, m, audits, storeUpdate)
	if err != nil {
		return err
	}
	for _, a := range audits {
		number := stores[a.ID].WechatID
		if number == nil {
			number = stores[a.ID].Known.LegacyPoiID // which a store keeps when it is migrated
		}
		i := slices.IndexFunc(shown, func(w Shown) bool { return number != nil && w.Number == *number })
		if i < 0 || a.SubmittedAt.After(asked) {
			continue // not shown yet, or asked before it was submitted
		}
		status, err := storeAuditStatus(updates[a.ID], shown[i])
		if err != nil {
			return err
		}
		if status == "" {
			continue
		}
		n := News{Kind: a.Kind, AuditID: deref(a.WechatAuditID), Status: status, Number: shown[i].Number, Source: FromPoll, At: asked}
		if status != Approved {
			n.Number = ""
		}
		if err := l.applyPolled(ctx, m, n); err != nil {
			return err
		}
	}
	return nil
}

// storeAuditStatus is how a store's audit ended by what WeChat shows of the
// store; "": it goes on. New pictures are shown once they are approved: update
// is what sent them, nil for the audit of a creation.
func storeAuditStatus(update *Operation, s Shown) (AuditStatus, error) {
	switch {
	case s.Upstream == wechat.StoreFailed:
		return Rejected, nil
	case s.Upstream != wechat.StoreApproved:
		return "", nil
	case update == nil:
		return Approved, nil
	}
	var sent wechat.UpdateStoreRequest
	if err := update.Unmarshal(&sent); err != nil {
		return "", err
	}
	if slices.Equal(s.Fields.(StoreFields).Photos, sent.PicList) {
		return Approved, nil
	}
	return Rejected, nil
}
