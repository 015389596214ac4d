package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// News is WeChat's word on an audit, from wherever it came.
type News struct {
	Kind     string // of the audit
	AuditID  string // WeChat's; "": the audit has none, Number tells whose it is
	Status   AuditStatus
	Reason   string
	Number   string // WeChat's number of what the audit is about, where it tells one
	Natural  string // the value of its Type.Natural, where it tells one
	MapPoiID string // of a map POI; it counts once that is approved
	Changed  any    // fields of the resource that it tells, in our names
	Source   string // FromEvent, FromPoll
	InboxID  uuid.UUID
	At       time.Time // CreateTime, or when it was read

	provenOf uuid.UUID // the operation that Belongs has answered yes for
}

// An auditKind is one of the seven kinds of audits.
type auditKind struct {
	Writes []*Kind // that start such an audit
	Type   *Type   // of what it is about
	Event  string  // that tenants are told
	// Unnumbered: WeChat gives such audits no id, and their news name what the
	// audit is about.
	Unnumbered bool
	// First is the status of a submission that WeChat took; "": in_review.
	First AuditStatus
	// Deadline is how long a submission may stay in First; 0: as long as it takes.
	Deadline time.Duration
	// Poll asks WeChat how these audits, all of one merchant, stand, and applies
	// what it says (ApplyNews). nil: WeChat has no read for it.
	Poll func(ctx context.Context, l *Ledger, m authorizer.Merchant, audits []dbsqlc.Audit) error
	// Waits lie before each poll; the last one repeats.
	Waits []time.Duration
	// Usual is how long such an audit takes at most, as a rule. One that takes
	// longer is shown to the tenant as overdue.
	Usual time.Duration
	// Decide is what a decision changes in the resource; nil, or a nil decision:
	// nothing.
	Decide func(n News) *decision
	// Belongs, where set, asks WeChat whether news that name a number can be
	// about what op would have made.
	Belongs func(ctx context.Context, l *Ledger, op *Operation, n News) (bool, error)
}

// A decision is what the end of an audit does to a resource.
type decision struct {
	Status   string
	Upstream *int32   // WeChat's status, where it follows
	States   []string // from which it moves
	Event    string   // that tenants are told when it moved; "": none
}

var auditKinds = map[string]auditKind{}

func registerAudit(name string, k auditKind) struct{} {
	auditKinds[name] = k
	return struct{}{}
}

// ErrUnmatched is returned for an event whose audit nobody here knows yet: it
// came before our reply, or belongs to a submission that wasn't ours.
var ErrUnmatched = errors.New("no audit with this id is known yet")

// ApplyNews moves the audit that n tells of and what hangs on it, in one
// transaction. It may be called any number of times, in any order. The ids that
// n tells are recorded also where its audit isn't known. Errors: ErrUnmatched.
func (l *Ledger) ApplyNews(ctx context.Context, m authorizer.Merchant, n News) (dbsqlc.Audit, error) {
	a, err := l.applyNews(ctx, m, n)
	if open, ok := errors.AsType[unproven](err); ok {
		op, err := l.load(ctx, m.TenantID, open.op, nil)
		if err != nil {
			return a, err
		}
		op.Merchant = m
		ours, err := auditKinds[n.Kind].Belongs(ctx, l, op, n)
		if err != nil {
			return a, err
		}
		if !ours {
			return a, ErrUnmatched
		}
		n.provenOf = open.op
		return l.applyNews(ctx, m, n)
	}
	if !errors.Is(err, ErrUnmatched) {
		return a, err
	}
	adopted, aerr := l.adopt(ctx, m, n)
	if aerr != nil {
		return a, errors.Join(err, aerr)
	}
	if adopted {
		if a, err = l.applyNews(ctx, m, n); !errors.Is(err, ErrUnmatched) {
			return a, err
		}
	}
	// Whose they are may be found out later; that the merchant has these ids is
	// known now.
	return a, errors.Join(err, l.DB.InTenant(ctx, m.TenantID, func(tx postgres.DBTX) error {
		return l.recordNews(ctx, tx, m, n, nil)
	}))
}

// recordNews writes down every id that n tells, and the operation that they are
// of, if that is known.
func (l *Ledger) recordNews(ctx context.Context, tx postgres.DBTX, m authorizer.Merchant, n News, operation *uuid.UUID) error {
	for _, id := range []ID{{AuditID, n.AuditID}, {auditKinds[n.Kind].Type.Number, n.Number}, {MapPoiID, n.MapPoiID}} {
		if id.Value == "" {
			continue
		}
		if err := l.q.WechatIDRecord(ctx, tx, dbsqlc.WechatIDRecordParams{TenantID: m.TenantID, MerchantID: m.ID, IDType: id.Type,
			WechatID: id.Value, Source: n.Source, OperationID: operation}); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) applyNews(ctx context.Context, m authorizer.Merchant, n News) (a dbsqlc.Audit, _ error) {
	kind := auditKinds[n.Kind]
	err := l.DB.InTenant(ctx, m.TenantID, func(tx postgres.DBTX) error {
		var err error
		if a, err = l.auditOf(ctx, tx, m, kind, n); err != nil {
			return err
		}
		if err := l.recordNews(ctx, tx, m, n, a.OperationID); err != nil {
			return err
		}
		p := dbsqlc.AuditAdvanceParams{Status: string(n.Status), StatusRank: n.Status.rank(), Reason: optional(n.Reason),
			Source: n.Source, WechatAuditID: optional(n.AuditID), TenantID: m.TenantID, ID: a.ID}
		if n.Status.Final() {
			p.DecidedAt = &n.At
		}
		moved, err := l.q.AuditAdvance(ctx, tx, p)
		if postgres.IsNotFound(err) { // it was as far already
			if n.Reason == "" {
				return nil
			}
			return l.q.AuditReason(ctx, tx, dbsqlc.AuditReasonParams{Reason: &n.Reason, TenantID: m.TenantID, ID: a.ID, Status: string(n.Status)})
		}
		if err != nil {
			return err
		}
		previous := a.Status
		a = moved
		if err := l.q.AuditHistoryInsert(ctx, tx, dbsqlc.AuditHistoryInsertParams{TenantID: m.TenantID, AuditID: a.ID, Status: a.Status, Source: n.Source, InboxID: nullable(n.InboxID)}); err != nil {
			return err
		}
		if n.Status.Final() {
			err = outbox.Add(ctx, tx, m.TenantID, outbox.Event{Type: kind.Event, MerchantID: m.ID, PreviousStatus: previous, Object: map[string]any{
				"id": typeid.Format(typeid.Audit, a.ID), "kind": a.Kind, "status": a.Status, "reason": a.Reason, "wechat_audit_id": a.WechatAuditID,
				"subject": map[string]string{"type": a.SubjectType, "id": typeid.Format(kind.Type.Prefix, a.SubjectID)},
			}})
			if err != nil {
				return err
			}
		}
		return l.decide(ctx, tx, kind, a, n)
	})
	return a, err
}

// decide changes what the audit is about.
func (l *Ledger) decide(ctx context.Context, tx postgres.DBTX, kind auditKind, a dbsqlc.Audit, n News) error {
	if kind.Decide == nil {
		return nil
	}
	d := kind.Decide(n)
	if d == nil {
		return nil
	}
	p := dbsqlc.ResourceDecideParams{TenantID: a.TenantID, ID: a.SubjectID, Status: d.Status, UpstreamStatus: d.Upstream, States: d.States,
		WechatID: optional(n.Number)}
	if n.Status == Approved {
		p.MapPoiID = optional(n.MapPoiID)
	}
	if n.Number != "" {
		err := l.q.ResourceReleaseNumber(ctx, tx, dbsqlc.ResourceReleaseNumberParams{TenantID: a.TenantID, MerchantID: a.MerchantID,
			Type: kind.Type.Name, WechatID: &n.Number, ID: a.SubjectID})
		if err != nil {
			return err
		}
	}
	if n.Changed != nil {
		var err error
		if p.Changed, err = json.Marshal(n.Changed); err != nil {
			return err
		}
	}
	row, err := l.q.ResourceDecide(ctx, tx, p)
	if err != nil || d.Event == "" {
		return ignoreNotFound(err)
	}
	return outbox.Add(ctx, tx, a.TenantID, outbox.Event{Type: d.Event, MerchantID: a.MerchantID, Object: map[string]any{
		"id": typeid.Format(kind.Type.Prefix, row.ID), kind.Type.Number: row.WechatID, "map_poi_id": row.MapPoiID,
		"client_reference": row.ClientReference, "status": row.Status,
	}})
}

// auditOf finds the audit that n tells of. Errors: ErrUnmatched.
func (l *Ledger) auditOf(ctx context.Context, tx postgres.DBTX, m authorizer.Merchant, kind auditKind, n News) (dbsqlc.Audit, error) {
	if kind.Unnumbered {
		return l.newestAudit(ctx, tx, m, kind, n)
	}
	if n.AuditID != "" {
		a, err := l.q.AuditByWechatID(ctx, tx, dbsqlc.AuditByWechatIDParams{TenantID: m.TenantID, MerchantID: m.ID, Kind: n.Kind, WechatAuditID: &n.AuditID})
		if !postgres.IsNotFound(err) {
			return a, err
		}
	}
	return l.anonymousAudit(ctx, tx, m, kind, n)
}

// newestAudit is the newest audit of the kind of what n names: by its number,
// or as long as we weren't told that, by its natural value. Errors:
// ErrUnmatched.
func (l *Ledger) newestAudit(ctx context.Context, tx postgres.DBTX, m authorizer.Merchant, kind auditKind, n News) (dbsqlc.Audit, error) {
	r, err := l.q.ResourceByNumber(ctx, tx, dbsqlc.ResourceByNumberParams{TenantID: m.TenantID, MerchantID: m.ID, Type: kind.Type.Name, WechatID: &n.Number})
	if postgres.IsNotFound(err) && n.Natural != "" {
		r, err = l.q.ResourceByNatural(ctx, tx, dbsqlc.ResourceByNaturalParams{TenantID: m.TenantID, MerchantID: m.ID, Type: kind.Type.Name,
			NaturalField: kind.Type.Natural, Value: n.Natural})
	}
	var a dbsqlc.Audit
	if err == nil {
		a, err = l.q.AuditNewestOf(ctx, tx, dbsqlc.AuditNewestOfParams{TenantID: m.TenantID, SubjectID: r.ID, Kind: n.Kind})
	}
	if postgres.IsNotFound(err) {
		err = ErrUnmatched
	}
	return a, err
}

// anonymousAudit is the open audit of the kind whose id WeChat gave in an
// answer that never arrived, or never gives: that of the very resource, where
// the news name one, or the only one that there is.
func (l *Ledger) anonymousAudit(ctx context.Context, tx postgres.DBTX, m authorizer.Merchant, kind auditKind, n News) (dbsqlc.Audit, error) {
	if n.Number != "" {
		a, err := l.auditOfNumber(ctx, tx, m, kind, n)
		if err == nil || !postgres.IsNotFound(err) {
			return a, err
		}
	}
	rows, err := l.q.AuditsWithoutWechatID(ctx, tx, dbsqlc.AuditsWithoutWechatIDParams{TenantID: m.TenantID, MerchantID: m.ID, Kind: n.Kind})
	if err != nil {
		return dbsqlc.Audit{}, err
	}
	if len(rows) > 1 { // what follows one that was given up is more likely meant
		rows = slices.DeleteFunc(rows, func(a dbsqlc.Audit) bool { return a.Status == string(Expired) })
	}
	if len(rows) != 1 {
		return dbsqlc.Audit{}, ErrUnmatched
	}
	// The row was made when the outcome became known; what was sent before
	// may have been decided before.
	since := rows[0].SubmittedAt
	if id := rows[0].OperationID; id != nil {
		op, err := l.q.OperationGet(ctx, tx, dbsqlc.OperationGetParams{TenantID: m.TenantID, ID: *id})
		if err != nil {
			return dbsqlc.Audit{}, err
		}
		since = op.CreatedAt
	}
	if n.At.Before(since.Add(-clockSkew)) {
		return dbsqlc.Audit{}, ErrUnmatched
	}
	if n.Number != "" {
		r, err := l.q.ResourceGet(ctx, tx, dbsqlc.ResourceGetParams{TenantID: m.TenantID, ID: rows[0].SubjectID, Type: kind.Type.Name})
		if err != nil {
			return dbsqlc.Audit{}, err
		}
		if r.WechatID != nil && *r.WechatID != n.Number {
			return dbsqlc.Audit{}, ErrUnmatched // another one's
		}
		if id := rows[0].OperationID; r.WechatID == nil && kind.Belongs != nil && id != nil && *id != n.provenOf {
			return dbsqlc.Audit{}, unproven{*id}
		}
	}
	return rows[0], nil
}

// unproven says that news which name a number may be about what op made, or
// about something that was made without us: only Belongs tells.
type unproven struct{ op uuid.UUID }

func (unproven) Error() string { return "whose news these are is not known yet" }

// auditOfNumber is the open audit, its id unknown, of the resource that n
// names. Errors: pgx.ErrNoRows.
func (l *Ledger) auditOfNumber(ctx context.Context, tx postgres.DBTX, m authorizer.Merchant, kind auditKind, n News) (dbsqlc.Audit, error) {
	r, err := l.q.ResourceByNumber(ctx, tx, dbsqlc.ResourceByNumberParams{TenantID: m.TenantID, MerchantID: m.ID, Type: kind.Type.Name, WechatID: &n.Number})
	if err != nil || r.AuditID == nil {
		return dbsqlc.Audit{}, errors.Join(err, pgx.ErrNoRows)
	}
	a, err := l.q.AuditGet(ctx, tx, dbsqlc.AuditGetParams{TenantID: m.TenantID, ID: *r.AuditID})
	if err == nil && (a.Kind != n.Kind || a.WechatAuditID != nil || AuditStatus(a.Status).Final()) {
		err = pgx.ErrNoRows
	}
	return a, err
}

// clockSkew is how far WeChat's clock may be behind ours.
const clockSkew = time.Minute

// naturalOf is the Write.Natural of an operation.
func naturalOf(op dbsqlc.Operation) string {
	var key struct {
		Natural string `json:"natural"`
	}
	if json.Unmarshal(op.MatchKey, &key) != nil {
		return ""
	}
	return key.Natural
}

// adopt gives the news to the one operation of its kind whose outcome is
// unknown and that they can be about: they prove that it was executed, and
// bring the id that the lost reply held.
func (l *Ledger) adopt(ctx context.Context, m authorizer.Merchant, n News) (bool, error) {
	kind := auditKinds[n.Kind]
	var open []dbsqlc.Operation
	b := l.DB.NewBatch(m.TenantID)
	for _, w := range kind.Writes {
		b.QueueRows(dbsqlc.OperationOpenOf, dbsqlc.OperationOpenOfParams{TenantID: m.TenantID, MerchantID: &m.ID, Kind: w.Name}, func(rows pgx.Rows) error {
			list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[dbsqlc.Operation])
			open = append(open, list...)
			return err
		})
	}
	if err := l.DB.Run(ctx, b); err != nil {
		return false, err
	}
	var op *Operation
	for _, o := range open {
		if n.At.Before(o.CreatedAt.Add(-clockSkew)) || n.Natural != "" && naturalOf(o) != n.Natural {
			continue
		}
		may, err := l.load(ctx, m.TenantID, o.ID, nil)
		if err != nil {
			return false, err
		}
		may.Merchant = m
		if n.Number != "" && kind.Belongs != nil {
			ours, err := kind.Belongs(ctx, l, may, n)
			if err != nil {
				return false, err
			}
			if !ours {
				continue
			}
		}
		if op != nil {
			return false, nil // it could be either
		}
		op = may
	}
	// One that is executing has its own reply to wait for.
	if op == nil || op.State == "executing" {
		return false, nil
	}
	var ids []ID
	for _, id := range []ID{{AuditID, n.AuditID}, {kind.Type.Number, n.Number}} {
		if id.Value != "" {
			ids = append(ids, id)
		}
	}
	return true, l.settle(ctx, op, Outcome{Class: wechat.Executed, Source: n.Source, IDs: ids, Audited: true}, nil)
}
