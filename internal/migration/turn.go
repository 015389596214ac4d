package migration

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

const (
	// turnLease is how long a process may be silent in a turn before another
	// one goes on with the migration; each write renews it.
	turnLease   = 2 * time.Minute
	turnsAtOnce = 8
	// askAgain is how soon a write whose outcome is unknown is asked after;
	// its end wakes the migration too.
	askAgain = 10 * time.Second
	// holdFor is how long a migration rests that something holds up, restFor
	// one that only a person can help.
	holdFor = time.Minute
	restFor = 10 * time.Minute
)

// listWaits lie between two lists, longer and longer as long as nothing new is
// seen: the events of WeChat's audits say more, and sooner.
var listWaits = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// RunDue goes on with the migrations that are due, each by one turn. Any number
// of processes may run it; in one process it must not run twice at once.
func (s *Migrations) RunDue(ctx context.Context) error {
	return s.DB.Work(ctx, turnsAtOnce, nil, func(d postgres.Due) {
		s.Background.Run(ctx, "move stores", func(ctx context.Context) error { return s.turn(ctx, d) }, slog.String("migration_id", typeid.Format(typeid.StoreMigration, d.ID)))
	}, postgres.DueMigrations, s.Instance)
}

// A turn is one look at a migration: what became of its writes, what WeChat's
// list shows if that is due, what is to be written next, and where it stands.
type turn struct {
	*Migrations
	row      dbsqlc.StoreMigration
	merchant authorizer.Merchant
	policy   Policy
	items    []*item
	news     bool  // something moved
	listed   bool  // WeChat's list was read in this turn
	held     error // what keeps all of it from going on
}

func (s *Migrations) turn(ctx context.Context, d postgres.Due) error {
	var rows []dbsqlc.StoreMigration
	b := s.DB.NewBatch(d.Tenant)
	postgres.QueueMany(b, dbsqlc.StoreMigrationTake, dbsqlc.StoreMigrationTakeParams{LeaseOwner: &s.Instance, Lease: turnLease, TenantID: d.Tenant, ID: d.ID}, &rows)
	if err := s.DB.Run(ctx, b); err != nil || len(rows) == 0 {
		return err
	}
	t := &turn{Migrations: s, row: rows[0]}
	err := t.run(ctx)
	if err != nil && t.held == nil {
		t.held = err
	}
	return errors.Join(err, t.release(ctx))
}

func (t *turn) run(ctx context.Context) (err error) {
	if t.merchant, err = t.Authorizer.MerchantByID(ctx, t.row.TenantID, t.row.MerchantID); err != nil {
		return err
	}
	if t.policy, err = policyOf(t.row); err != nil {
		return err
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	want := Desired(t.row.Desired)
	if want == WantRun || want == WantPlan {
		if t.row.ListedAt == nil || !time.Now().Before(t.row.ListAt) {
			t.hold(t.list(ctx))
		}
		if want == WantRun && t.held == nil {
			t.hold(t.submit(ctx))
		}
		if c := count(t.plain()); t.held == nil && !t.listed && c.Ended() == c.Total() && !verified(t.plain()) {
			t.hold(t.list(ctx)) // all is done, if WeChat's list bears it out
		}
	}
	return t.stand(ctx)
}

// hold keeps what holds the migration up. It is no failure of the turn.
func (t *turn) hold(err error) {
	if t.held == nil {
		t.held = err
	}
}

func (t *turn) plain() []Item {
	out := make([]Item, len(t.items))
	for i, it := range t.items {
		out[i] = it.Item
	}
	return out
}

// settle reads the items, and moves them on by what became of their writes.
func (t *turn) settle(ctx context.Context) error {
	var rows []dbsqlc.StoreMigrationItemsWithOutcomesRow
	err := t.DB.InTenant(ctx, t.row.TenantID, func(tx postgres.DBTX) (err error) {
		rows, err = t.q.StoreMigrationItemsWithOutcomes(ctx, tx, dbsqlc.StoreMigrationItemsWithOutcomesParams{TenantID: t.row.TenantID, MigrationID: t.row.ID})
		return err
	})
	if err != nil {
		return err
	}
	var moved []*item
	for _, row := range rows {
		it, err := itemOf(row.StoreMigrationItem)
		if err != nil {
			return err
		}
		t.items = append(t.items, &it)
		if row.OperationState == nil {
			continue
		}
		o := Outcome{Operation: *row.OperationState, Audit: row.AuditStatus, Reason: row.AuditReason}
		p := ledger.OperationRecord{Operation: dbsqlc.Operation{ID: *it.row.OperationID, Error: row.OperationError}}.Problem()
		if o.Operation == "failed" && p != nil {
			o.Retryable = p.Retryable
		}
		now := t.policy.Settle(it.Item, o)
		if now.Status == it.Status {
			continue
		}
		if it.Item = now; now.Status == Failed && o.Operation == "failed" {
			it.row.Error = encode(p)
		}
		moved = append(moved, &it)
	}
	t.news = len(moved) > 0
	return t.save(ctx, moved...)
}

// save writes items that have moved. One that somebody else has changed
// meanwhile is left as it is there: the next turn, which comes at once, reads it.
func (t *turn) save(ctx context.Context, moved ...*item) error {
	if len(moved) == 0 {
		return nil
	}
	saved := make([][]dbsqlc.StoreMigrationItem, len(moved))
	b := t.DB.NewBatch(t.row.TenantID)
	for i, it := range moved {
		p, err := it.save()
		if err != nil {
			return err
		}
		postgres.QueueMany(b, dbsqlc.StoreMigrationItemSave, p, &saved[i])
	}
	if err := t.DB.Run(ctx, b); err != nil {
		return err
	}
	for i, it := range moved {
		if it.raced = len(saved[i]) == 0; !it.raced {
			it.row = saved[i][0]
		}
	}
	return nil
}

// list reads WeChat's list, whole, and moves the items on by it.
func (t *turn) list(ctx context.Context) error {
	if err := t.Authorizer.Check(t.merchant, wechat.GetPoiList); err != nil {
		return err
	}
	live, err := t.Ledger.AllLegacyStores(quota.InBackground(ctx), t.merchant)
	if err != nil {
		return err
	}
	var wishes map[string]Wish
	if t.row.ListedAt == nil {
		if err := json.Unmarshal(t.row.Given, &wishes); err != nil {
			return err
		}
	}
	known := map[string]*item{}
	for _, it := range t.items {
		known[it.row.PoiID] = it
	}
	var fresh, moved []*item
	seen := map[string]bool{}
	see := func(poi string, now *Shown, id *uuid.UUID, name string) {
		it, ok := known[poi]
		if !ok {
			it = &item{row: dbsqlc.StoreMigrationItem{TenantID: t.row.TenantID, MigrationID: t.row.ID, PoiID: poi}}
			it.Item = Item{Given: wishes[poi].Details, Action: wishes[poi].Action}
			t.items, fresh = append(t.items, it), append(fresh, it)
		}
		before := it.Item
		it.Item = t.policy.See(it.Item, now)
		if id != nil {
			it.row.LegacyStoreID, it.row.Name = id, &name
		}
		if ok && !reflect.DeepEqual(before, it.Item) {
			moved = append(moved, it)
		}
	}
	for _, l := range live {
		if l.Number == "" || seen[l.Number] {
			continue // WeChat hasn't numbered it: it can be neither moved nor deleted
		}
		seen[l.Number] = true
		now := shown(l.Known, l.Status)
		see(l.Number, &now, l.ID, nameOf(l.Known))
	}
	for poi := range wishes {
		if !seen[poi] {
			seen[poi] = true
			see(poi, nil, nil, "")
		}
	}
	for poi := range known {
		if !seen[poi] {
			see(poi, nil, nil, "")
		}
	}
	if err := t.insert(ctx, fresh); err != nil {
		return err
	}
	if err := t.save(ctx, moved...); err != nil {
		return err
	}
	t.news = t.news || len(fresh) > 0 || len(moved) > 0
	now := time.Now()
	t.row.ListedAt, t.listed = &now, true
	return nil
}

func nameOf(f ledger.LegacyFields) string {
	if f.BranchName == "" {
		return f.BusinessName
	}
	return f.BusinessName + " (" + f.BranchName + ")"
}

// insert keeps items that are new to us.
func (t *turn) insert(ctx context.Context, fresh []*item) error {
	if len(fresh) == 0 {
		return nil
	}
	b := t.DB.NewBatch(t.row.TenantID)
	for _, it := range fresh {
		p, err := it.save()
		if err != nil {
			return err
		}
		b.Queue(dbsqlc.StoreMigrationItemInsert, dbsqlc.StoreMigrationItemInsertParams{TenantID: p.TenantID, MigrationID: p.MigrationID, PoiID: p.PoiID,
			LegacyStoreID: p.LegacyStoreID, Name: p.Name, Status: p.Status, BlockedBy: p.BlockedBy, Action: p.Action, Given: p.Given, Shown: p.Shown})
		it.row.RowVersion = 1
	}
	return t.DB.Run(ctx, b)
}

// submit begins the writes that are due, a few at a time, and goes on with
// those that a process left in the middle. It ends with the first thing that
// would hold up the others too.
func (t *turn) submit(ctx context.Context) error {
	var writes errgroup.Group
	writes.SetLimit(int(t.row.Concurrency))
	var held atomic.Bool
	for _, it := range t.items {
		left := (it.Status == Submitting || it.Status == Deleting) && !it.Ours
		if it.Status == Pending { // its details may have changed since it was planned
			it.Item = t.policy.Plan(it.Item)
		}
		if it.Status != Pending && !left || it.row.LegacyStoreID == nil {
			continue
		}
		if held.Load() {
			break
		}
		t.news = true
		writes.Go(func() error {
			err := t.write(ctx, it, left)
			if err != nil {
				held.Store(true)
			}
			return err
		})
	}
	return writes.Wait()
}

// errNotRunning is why no further write is begun: the migration is to rest, or
// another process goes on with it.
var errNotRunning = errors.New("the migration is not to go on here")

// write carries out one item's write. The item's row says that it was begun
// before anything is sent, and the same attempt has the same Idempotency-Key:
// whoever comes after a crash meets what was done.
func (t *turn) write(ctx context.Context, it *item, left bool) error {
	if !left {
		next := t.policy.Claim(it.Item)
		var rows []dbsqlc.StoreMigrationItem
		b := t.DB.NewBatch(t.row.TenantID)
		postgres.QueueMany(b, dbsqlc.StoreMigrationItemClaim, dbsqlc.StoreMigrationItemClaimParams{Lease: turnLease, TenantID: t.row.TenantID, MigrationID: t.row.ID,
			LeaseOwner: &t.Instance, Status: string(next.Status), Deletes: next.Deletes, PoiID: it.row.PoiID, RowVersion: it.row.RowVersion}, &rows)
		if err := t.DB.Run(ctx, b); err != nil {
			return err
		}
		if len(rows) == 0 {
			return errNotRunning
		}
		it.Item, it.row = next, rows[0]
	}
	fault.At("migration_claimed")
	op, store, err := t.send(ctx, it)
	fault.At("migration_sent")
	p, isProblem := problem.As(err)
	var hold error
	switch {
	case err == nil:
		it.Ours, it.row.OperationID, it.row.AuditID, it.row.StoreID = true, &op.ID, op.AuditID, store
		it.Item = t.policy.Settle(it.Item, Outcome{Operation: op.State})
	case !isProblem || p.Code == problem.CodeIdempotencyInFlight:
		return err // the same attempt again, later
	case p.Code == problem.CodeOperationInProgress: // somebody else's, of the same place
		it.Item = t.policy.Unclaim(it.Item)
	case p.Retryable, slices.Contains(holding, p.Code):
		it.Item = t.policy.Unclaim(it.Item)
		hold = p
	default:
		it.Status, it.row.Error = Failed, encode(p)
		if id, err := typeid.Parse(typeid.Operation, p.OperationID); err == nil {
			it.Ours, it.row.OperationID = true, &id
		}
	}
	return errors.Join(hold, t.save(ctx, it))
}

// holding are the refusals that all items of a merchant would meet.
var holding = []string{problem.CodePermissionSetMissing, problem.CodeMerchantDeauthorized, problem.CodeMerchantNeedsReauthorization, problem.CodeMerchantDisabled,
	problem.CodeStoreProgramRequired, problem.CodeWeChatAPINotEnabled}

// send is the item's write, by the ledger.
func (t *turn) send(ctx context.Context, it *item) (*ledger.Operation, *uuid.UUID, error) {
	key := fmt.Sprintf("%s:poi_%s:%d", typeid.Format(typeid.StoreMigration, t.row.ID), it.row.PoiID, it.Attempt)
	// The key alone names the attempt: what WeChat shows of the store may have
	// changed since it was begun.
	sum := sha256.Sum256([]byte(key))
	r := ledger.Request{Caller: tenant.Caller{TenantID: t.row.TenantID, Actor: t.row.RequestedBy}, Merchant: t.merchant, IdempotencyKey: key, Fingerprint: sum[:]}
	if it.Deletes {
		if err := t.Authorizer.Check(t.merchant, wechat.DelPoi); err != nil {
			return nil, nil, err
		}
		_, done, err := t.Ledger.DeleteLegacyStore(ctx, r, *it.row.LegacyStoreID, nil)
		return done.Operation, nil, err
	}
	if err := t.Authorizer.Check(t.merchant, wechat.AddStore); err != nil {
		return nil, nil, err
	}
	d := t.policy.Details(it.Item)
	st, done, err := t.Ledger.CreateStore(ctx, r, ledger.NewStore{MapPoiID: d.MapPoiID, Photos: d.Photos, ContactPhone: d.ContactPhone, Hours: d.BusinessHours,
		CredentialNumber: d.CredentialNumber, CompanyName: d.CompanyName, QualificationMediaIDs: d.QualificationMediaIDs, CardID: d.CardID, LegacyPoiID: it.row.PoiID})
	return done.Operation, &st.ID, err
}

// stand says where the migration stands now, and tells the tenant where that
// is the end, or nothing goes on without it.
func (t *turn) stand(ctx context.Context) error {
	items := t.plain()
	c := count(items)
	now := Stand(Desired(t.row.Desired), t.row.ListedAt != nil, c, verified(items))
	if p, ok := problem.As(t.held); ok && !p.Retryable && now == Running {
		now = Halted
	}
	if string(now) == t.row.Status {
		return nil
	}
	return t.DB.InTenant(ctx, t.row.TenantID, func(tx postgres.DBTX) error {
		row, err := t.q.StoreMigrationStand(ctx, tx, dbsqlc.StoreMigrationStandParams{Status: string(now), ListedAt: t.row.ListedAt, TenantID: t.row.TenantID, ID: t.row.ID, Desired: t.row.Desired})
		if postgres.IsNotFound(err) {
			return nil // something else is wanted of it meanwhile
		}
		if err != nil {
			return err
		}
		e := outbox.Event{MerchantID: row.MerchantID, PreviousStatus: t.row.Status, Object: map[string]any{
			"id": typeid.Format(typeid.StoreMigration, row.ID), "status": row.Status, "counts": c.Shown()}}
		switch {
		case now == Halted:
			e.Type = outbox.MigrationBlocked
		case now.Final():
			e.Type = outbox.MigrationFinished
		}
		if t.row.Status = row.Status; e.Type == "" {
			return nil
		}
		return outbox.Add(ctx, tx, row.TenantID, e)
	})
}

// release ends the turn and says when the next one is due.
func (t *turn) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	now := time.Now()
	p := dbsqlc.StoreMigrationReleaseParams{ListedAt: t.row.ListedAt, ListedFor: t.row.ListAt, ListAt: t.row.ListAt, ListN: t.row.ListN,
		TenantID: t.row.TenantID, ID: t.row.ID, LeaseOwner: &t.Instance}
	if t.listed {
		if p.ListN++; t.news {
			p.ListN = 0
		}
		p.ListAt = now.Add(t.paced(listWaits[min(int(p.ListN), len(listWaits)-1)]))
	}
	switch s := Status(t.row.Status); {
	case s.Final() || s == Paused || s == Planned:
	case t.held != nil:
		wait := holdFor
		switch why, ok := problem.As(t.held); {
		case ok && !why.Retryable:
			p.Error, wait = encode(why), restFor
		case ok:
			p.Error, wait = encode(why), max(wait, why.RetryAfter)
		}
		if !errors.Is(t.held, errNotRunning) {
			t.Log.Warn("migration held up", "migration_id", typeid.Format(typeid.StoreMigration, t.row.ID), "err", t.held)
		}
		p.NextCheckAt = new(now.Add(t.paced(wait)))
	case slices.ContainsFunc(t.items, func(it *item) bool { return it.raced }):
		p.NextCheckAt = &now
	default:
		next := p.ListAt
		for _, it := range t.items {
			if again := now.Add(t.paced(askAgain)); (it.Status == Submitting || it.Status == Deleting || it.Status == Pending) && again.Before(next) {
				next = again
			}
		}
		p.NextCheckAt = &next
	}
	return t.DB.InTenant(ctx, t.row.TenantID, func(tx postgres.DBTX) error { return t.q.StoreMigrationRelease(ctx, tx, p) })
}

func (s *Migrations) paced(d time.Duration) time.Duration { return time.Duration(float64(d) * s.Pace) }

// held is a problem at rest: of an item, or of all of a migration.
type held struct {
	Code      string                 `json:"code"`
	Detail    string                 `json:"detail,omitempty"`
	Retryable bool                   `json:"retryable"`
	Fields    []problem.Field        `json:"fields,omitempty"`
	Upstream  *problem.UpstreamError `json:"upstream,omitempty"`
}

func encode(p *problem.Error) json.RawMessage {
	if p == nil {
		return nil
	}
	js, err := json.Marshal(held{p.Code, p.Detail, p.Retryable, p.Fields, p.Upstream})
	if err != nil {
		panic(err) // texts and numbers only
	}
	return js
}

// Problem is what keeps an item or a migration from going on, from its row; nil
// if nothing does.
func Problem(row json.RawMessage) *problem.Error {
	if len(row) == 0 {
		return nil
	}
	var h held
	if err := json.Unmarshal(row, &h); err != nil {
		return problem.Of(problem.CodeInternal).WithErr(err)
	}
	p := problem.Of(h.Code)
	p.Detail, p.Retryable, p.Fields, p.Upstream = h.Detail, h.Retryable, h.Fields, h.Upstream
	return p
}
