package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat/msgcrypt"
)

const (
	// applyWithin bounds one try. One that takes longer is a dead process's.
	applyWithin = 45 * time.Second
	// retryAtMost is between two tries of what fails again and again.
	retryAtMost = time.Hour
	// retryUnmatched is when an event whose audit isn't known is looked at
	// again, if the audit doesn't wake it before.
	retryUnmatched = 15 * time.Second
	// attentionAfter is when a person should look.
	attentionAfter = 24 * time.Hour
	// appliedAtOnce is of all tenants; one has at most half of it.
	appliedAtOnce = 8
)

// apply does what a kept push says. It may run any number of times.
func (in *Inbox) apply(ctx context.Context, row dbsqlc.EventInbox) error {
	plain, err := in.Keyset.Open(payloadPlace(row.TenantID, row.ID), row.PayloadCt)
	if err != nil {
		return err
	}
	msg, err := msgcrypt.ParseMessage(plain)
	if err != nil {
		return err
	}
	state := dbsqlc.EventInboxStateParams{State: "applied", TenantID: row.TenantID, ID: row.ID}
	b := in.DB.NewBatch(row.TenantID)
	err = in.dispatch(ctx, row, msg)
	fault.At("event_applied")
	switch {
	case errors.Is(err, ledger.ErrUnmatched):
		audit := msg.Get("audit_id")
		state.State, state.AuditID, state.NextAt = "unmatched", &audit, new(time.Now().Add(retryUnmatched))
		if time.Since(row.ReceivedAt) > attentionAfter {
			state.State, state.NextAt = "needs_attention", nil
			in.Log.ErrorContext(ctx, "event of an audit that nobody knows", "tenant_id", row.TenantID, "appid", row.Appid, "event", row.Event, "audit_id", audit)
		}
	case errors.Is(err, errNotOurs):
		state.State, state.Error = "unprocessed", new(err.Error())
		in.Log.InfoContext(ctx, "push kept and not applied", "tenant_id", row.TenantID, "appid", row.Appid, "event", row.Event, "reason", err)
		if err := in.tell(ctx, b, row, msg); err != nil {
			return err
		}
	case err != nil:
		in.Metrics.InboxApplied(label(row.Event), "failed", time.Since(row.ReceivedAt))
		return err
	}
	in.Metrics.InboxApplied(label(row.Event), state.State, time.Since(row.ReceivedAt))
	b.Queue(dbsqlc.EventInboxState, state)
	return in.DB.Run(ctx, b)
}

// tell shows the tenant a push that is none of ours: what subscribers write and
// tap in its merchants' accounts comes to the same URL. The push itself stays
// here, sealed: Raw opens it.
func (in *Inbox) tell(ctx context.Context, b *postgres.Batch, row dbsqlc.EventInbox, msg msgcrypt.Message) error {
	e := outbox.Event{ID: row.ID, Type: outbox.PushOther, Object: object(row, msg)}
	if m, err := in.Authorizer.Merchant(ctx, row.TenantID, row.Appid); err == nil {
		e.MerchantID = m.ID
	}
	return outbox.Queue(b, row.TenantID, e)
}

// object is what callers see of a push besides its XML.
func object(row dbsqlc.EventInbox, msg msgcrypt.Message) map[string]any {
	return map[string]any{"appid": row.Appid, "msg_type": msg.Get("MsgType"), "event": msg.Get("Event"), "create_time": row.CreateTime}
}

// A RawPush is a push as WeChat sent it, decrypted.
type RawPush struct {
	ID         uuid.UUID
	MerchantID *uuid.UUID // nil: no merchant of ours
	ReceivedAt time.Time
	Object     map[string]any // appid, msg_type, event, create_time, xml
}

// Raw reads those of these pushes that are kept. Pushes to the platform itself
// hold secrets and are never shown, nor are they at a merchant's URL, where
// whoever has a copy of one can send it: the path is not signed.
func (in *Inbox) Raw(ctx context.Context, tenantID uuid.UUID, ids []uuid.UUID) (map[uuid.UUID]RawPush, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	var rows []dbsqlc.EventInbox
	b := in.DB.NewBatch(tenantID)
	postgres.QueueMany(b, dbsqlc.EventInboxByID, dbsqlc.EventInboxByIDParams{TenantID: tenantID, Ids: ids}, &rows)
	if err := in.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	cred, err := in.Tenants.Credentials(ctx, tenantID)
	if err != nil {
		return nil, err
	}
	out := make(map[uuid.UUID]RawPush, len(rows))
	for _, row := range rows {
		if row.Appid == cred.AppID {
			continue
		}
		plain, err := in.Keyset.Open(payloadPlace(tenantID, row.ID), row.PayloadCt)
		if err != nil {
			return nil, err
		}
		msg, err := msgcrypt.ParseMessage(plain)
		if err != nil {
			return nil, err
		}
		if msg.Get("InfoType") != "" {
			continue
		}
		p := RawPush{ID: row.ID, ReceivedAt: row.ReceivedAt, Object: object(row, msg)}
		p.Object["xml"] = string(plain)
		if m, err := in.Authorizer.Merchant(ctx, tenantID, row.Appid); err == nil {
			p.MerchantID = &m.ID
		}
		out[row.ID] = p
	}
	return out, nil
}

// label bounds what the metrics tell apart: senders choose event names.
func label(event string) string {
	switch event {
	case "component_verify_ticket", "authorized", "updateauthorized", "unauthorized", "add_store_audit_info", "modify_store_audit_info", "create_map_poi_audit_info", "poi_check_notify", "apply_merchant_audit_info":
		return event
	}
	return "other"
}

// errNotOurs is wrapped by the reason why a push has no effect here.
var errNotOurs = errors.New("not ours")

func notOurs(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errNotOurs, fmt.Sprintf(format, args...))
}

func (in *Inbox) dispatch(ctx context.Context, row dbsqlc.EventInbox, msg msgcrypt.Message) error {
	cred, err := in.Tenants.Credentials(ctx, row.TenantID)
	if err != nil {
		return err
	}
	if row.Appid == cred.AppID {
		err := in.Authorizer.ApplyComponentEvent(ctx, row.TenantID, msg, row.ReceivedAt)
		switch {
		case errors.Is(err, authorizer.ErrUnknownInfoType):
			return notOurs("InfoType %q", row.Event)
		case errors.Is(err, authorizer.ErrNotOurs):
			return notOurs("%v", err)
		}
		return err
	}
	m, err := in.Authorizer.Merchant(ctx, row.TenantID, row.Appid)
	if problem.HasCode(err, "merchant_not_found") {
		return notOurs("no merchant has this appid")
	}
	if err != nil {
		return err
	}
	if m.UserName != "" && msg.Get("ToUserName") != m.UserName {
		return notOurs("ToUserName is another account's")
	}
	switch row.Event {
	case "add_store_audit_info", "modify_store_audit_info":
		return in.storeAudit(ctx, m, row, msg)
	case "apply_merchant_audit_info":
		return in.programAudit(ctx, m, row, msg)
	case "create_map_poi_audit_info":
		return in.mapPOIAudit(ctx, m, row, msg)
	case "poi_check_notify":
		return in.legacyAudit(ctx, m, row, msg)
	default:
		return notOurs("event %q", row.Event)
	}
}

// storeAudit applies the decision on a store (document 000 §4.8, §4.9) and
// then reads the store once: its name, address and pictures are known only now.
func (in *Inbox) storeAudit(ctx context.Context, m authorizer.Merchant, row dbsqlc.EventInbox, msg msgcrypt.Message) error {
	ev := ledger.News{Kind: "store_create", Source: ledger.FromEvent, AuditID: msg.Get("audit_id"), Reason: msg.Get("reason"), InboxID: row.ID, At: time.Unix(row.CreateTime, 0)}
	if row.Event == "modify_store_audit_info" {
		ev.Kind = "store_update"
	}
	var ok bool
	if ev.Status, ok = ledger.EventStatus(row.Event, msg.Get("status")); !ok {
		return notOurs("status %q", msg.Get("status"))
	}
	if !digits(ev.AuditID) {
		return notOurs("audit_id is no number")
	}
	if poi := msg.Get("poiid"); ev.Kind == "store_create" && ev.Status == ledger.Approved {
		if !digits(poi) {
			return notOurs("approved without a poiid")
		}
		ev.Number = poi
	}
	if n, err := strconv.ParseInt(msg.Get("is_upgrade"), 10, 64); err == nil {
		ev.Changed = ledger.StoreFields{Upgraded: &n}
	}
	audit, err := in.Ledger.ApplyNews(ctx, m, ev)
	if err != nil {
		return err
	}
	if ev.Status != ledger.Approved {
		return nil
	}
	poi := ev.Number
	if poi == "" {
		s, err := in.Ledger.Stores.Get(ctx, m.TenantID, audit.SubjectID)
		if err != nil || s.WechatID == nil {
			return err
		}
		poi = *s.WechatID
	}
	return in.Ledger.RefreshStore(ctx, m, poi)
}

// legacyAudit applies the decision on a store of Store Management (document 001
// §3.3), which names the store by its number and the sid that it was created
// with.
func (in *Inbox) legacyAudit(ctx context.Context, m authorizer.Merchant, row dbsqlc.EventInbox, msg msgcrypt.Message) error {
	n := ledger.News{Kind: "legacy_store", Source: ledger.FromEvent, Natural: msg.Get("UniqId"), Reason: msg.Get("msg"), InboxID: row.ID, At: time.Unix(row.CreateTime, 0)}
	switch msg.Get("Result") {
	case "succ":
		n.Status, n.Reason = ledger.Approved, ""
	case "fail":
		n.Status = ledger.Rejected
	default:
		return notOurs("Result %q", msg.Get("Result"))
	}
	if poi := msg.Get("PoiId"); digits(poi) && poi != "0" {
		n.Number = poi
	}
	if n.Number == "" && (n.Natural == "" || n.Status == ledger.Approved) {
		return notOurs("neither a PoiId nor a UniqId")
	}
	_, err := in.Ledger.ApplyNews(ctx, m, n)
	switch {
	case errors.Is(err, ledger.ErrUnmatched) && n.Number != "":
		return in.legacyOfOthers(ctx, m, n.Number, err)
	case err != nil || n.Status != ledger.Approved:
		return err
	}
	return in.Ledger.RefreshLegacyStore(ctx, m, n.Number)
}

// legacyOfOthers brings our record of a legacy store up to date that was
// submitted elsewhere, and so has no audit here.
func (in *Inbox) legacyOfOthers(ctx context.Context, m authorizer.Merchant, number string, unmatched error) error {
	id, err := in.Ledger.LegacyStores.ByNumber(ctx, m, number)
	if err != nil {
		return unmatched // nor do we know the store: an inventory may find it
	}
	st, err := in.Ledger.LegacyStores.Get(ctx, m.TenantID, id)
	switch {
	case err != nil:
		return err
	case st.Origin != "discovered":
		return unmatched
	}
	if err := in.Ledger.RefreshLegacyStore(ctx, m, number); err != nil {
		return err
	}
	return notOurs("the legacy store was submitted elsewhere")
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != "" && len(s) <= 20
}

// Work applies what is due until ctx ends: what has come, what failed and is to
// be tried again, and what waited for its audit. What came to this process it
// begins at once, and within a second what another one left.
func (in *Inbox) Work(ctx context.Context) error {
	return in.DB.Work(ctx, appliedAtOnce, in.arrived, func(d postgres.Due) {
		in.Background.Run(ctx, "apply a push", func(ctx context.Context) error { return in.try(ctx, d) }, slog.Any("inbox_id", d.ID))
	}, postgres.DueInbox)
}

// try applies a push, unless another process does or has.
func (in *Inbox) try(ctx context.Context, d postgres.Due) error {
	var taken []dbsqlc.EventInbox
	b := in.DB.NewBatch(d.Tenant)
	postgres.QueueMany(b, dbsqlc.EventInboxTake, dbsqlc.EventInboxTakeParams{TenantID: d.Tenant, ID: d.ID, Lease: applyWithin}, &taken)
	if err := in.DB.Run(ctx, b); err != nil || len(taken) == 0 {
		return err
	}
	row := taken[0]
	within, cancel := context.WithTimeout(ctx, applyWithin)
	defer cancel()
	err := in.apply(within, row)
	if err == nil {
		return nil
	}
	again := dbsqlc.EventInboxAgainParams{Wait: retryAfter(row.Attempts), TenantID: d.Tenant, ID: d.ID}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	b = in.DB.NewBatch(d.Tenant)
	b.Queue(dbsqlc.EventInboxAgain, again)
	return errors.Join(err, in.DB.Run(ctx, b))
}

// retryAfter is how long a push waits after so many tries: 1, 16, 81, 256
// seconds, and so on.
func retryAfter(attempts int32) time.Duration {
	n := int64(min(attempts, 8))
	return min(time.Duration(n*n*n*n)*time.Second, retryAtMost)
}
