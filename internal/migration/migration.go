// Package migration moves a merchant's stores from Store Management to the
// Store Mini Program (document 000 §4.13): one operation over many stores, that
// takes days, and that any process can go on with at any moment.
//
// What becomes of each store is decided by pure functions (item.go, stand.go)
// over what WeChat's list shows, what a person said, and what became of the
// store's writes. Those are ordinary operations of the ledger, each under an
// Idempotency-Key that names the migration, the store and the attempt.
//
// It must never write to WeChat but through the ledger, never begin a second
// write of a store while the end of the first is unknown, and never delete a
// store without a person's word.
package migration

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/observe"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// Deps is what Migrations works with.
type Deps struct {
	DB         *postgres.DB
	Authorizer *authorizer.Authorizer
	Ledger     *ledger.Ledger
	Background *observe.Background
	Log        *slog.Logger
	Instance   string  // of the process, the same after a restart
	Pace       float64 // multiplies the waits between lists; 0 counts as 1
}

// Migrations is safe for concurrent use.
type Migrations struct {
	Deps
	q *dbsqlc.Queries
}

// New makes a Migrations.
func New(d Deps) *Migrations {
	if d.Pace == 0 {
		d.Pace = 1
	}
	return &Migrations{Deps: d, q: dbsqlc.New()}
}

// Begin is a migration to begin. Its fields have been validated.
type Begin struct {
	Run          bool // else it is only planned
	DeleteBarred bool // consent to delete every store that WeChat lets not move
	Concurrency  int
	Defaults     Details
	Items        map[string]Wish // by poi_id
}

// A Wish is what a person says of one store.
type Wish struct {
	Details
	Action Action `json:"action,omitempty"`
}

// A Migration is what is known of one: a row of StoreMigrations.
type Migration struct {
	dbsqlc.StoreMigration
	Counts    Counts
	Submitted time.Time // the newest of those in review
}

// Listed reports whether WeChat's list was read whole.
func (m Migration) Listed() bool { return m.ListedAt != nil }

// Phase is what it is at.
func (m Migration) Phase() Phase { return PhaseOf(Status(m.Status), m.Listed(), m.Counts) }

// usualReview is how long WeChat's reviews of stores take at most, as a rule.
const usualReview = 10 * 24 * time.Hour

// ETA is by when it is done, as a rule; nil where that depends on a person, or
// nothing is under review.
func (m Migration) ETA() *time.Time {
	if Status(m.Status) != Running || m.Counts[InReview] == 0 || m.Counts.Waiting() > 0 {
		return nil
	}
	return new(m.Submitted.Add(usualReview))
}

// Create begins a migration, and tells whether an earlier request with the
// same key did. Errors: migration_in_progress with the existing one,
// store_program_required, idempotency_key_reused, and what Authorizer.Check
// returns; ledger.ErrValid where it was only to be validated.
func (s *Migrations) Create(ctx context.Context, r ledger.Request, n Begin) (_ Migration, replayed bool, _ error) {
	m := r.Merchant
	if r.IdempotencyKey != "" && !r.ValidateOnly {
		seen, found, err := s.seen(ctx, r)
		if found || err != nil {
			return seen, found, err
		}
	}
	if err := s.allowed(m); err != nil {
		return Migration{}, false, err
	}
	if err := s.noneActive(ctx, m, nil); err != nil {
		return Migration{}, false, err
	}
	// A validation asks nobody: then what we heard last counts, if we heard.
	has, err := m.StoreProgram == "approved" || m.StoreProgram == "", error(nil)
	if !r.ValidateOnly {
		has, err = s.Ledger.HasStoreProgram(ctx, m)
	}
	if err == nil && !has {
		err = problem.Of(problem.CodeStoreProgramRequired)
	}
	if err != nil {
		return Migration{}, false, err
	}
	p := dbsqlc.StoreMigrationInsertParams{TenantID: m.TenantID, ID: typeid.New(), MerchantID: m.ID, Desired: string(WantPlan), OnNotAllowed: "block",
		Concurrency: int32(n.Concurrency), RequestedBy: r.Caller.Actor}
	if n.Run {
		p.Desired = string(WantRun)
	}
	if n.DeleteBarred {
		p.OnNotAllowed = "delete"
	}
	if r.IdempotencyKey != "" && !r.ValidateOnly {
		p.IdempotencyKey, p.Fingerprint = &r.IdempotencyKey, r.Fingerprint
	}
	if p.Defaults, err = json.Marshal(n.Defaults); err != nil {
		return Migration{}, false, err
	}
	if p.Given, err = json.Marshal(n.Items); err != nil {
		return Migration{}, false, err
	}
	var row dbsqlc.StoreMigration
	err = s.DB.InTenant(ctx, m.TenantID, func(tx postgres.DBTX) error {
		var err error
		if row, err = s.q.StoreMigrationInsert(ctx, tx, p); err != nil {
			return err
		}
		if r.ValidateOnly {
			return ledger.ErrValid
		}
		return s.changed(ctx, tx, r.Caller, row, "store_migration.create", nil,
			map[string]any{"merchant_id": typeid.Format(typeid.Merchant, m.ID), "desired": p.Desired, "on_not_allowed": p.OnNotAllowed, "items": n.Items})
	})
	switch {
	case postgres.IsUnique(err, "store_migrations_key"):
		return s.mustHaveSeen(ctx, r, err)
	case postgres.IsUnique(err, "store_migrations_one_active"):
		return Migration{}, false, s.noneActive(ctx, m, err)
	}
	return Migration{StoreMigration: row, Counts: Counts{}}, false, err
}

// allowed refuses a merchant for whom a migration's calls can't be made.
func (s *Migrations) allowed(m authorizer.Merchant) error {
	for _, e := range []*wechat.Endpoint{wechat.GetMerchantAuditInfo, wechat.GetPoiList, wechat.AddStore, wechat.DelPoi} {
		if err := s.Authorizer.Check(m, e); err != nil {
			return err
		}
	}
	return nil
}

// seen finds the migration that an earlier request with the same key began.
func (s *Migrations) seen(ctx context.Context, r ledger.Request) (Migration, bool, error) {
	rows, err := s.read(ctx, dbsqlc.StoreMigrationsParams{TenantID: r.Merchant.TenantID, MerchantIds: []uuid.UUID{r.Merchant.ID}, IdempotencyKey: &r.IdempotencyKey, N: 1})
	switch {
	case err != nil || len(rows) == 0:
		return Migration{}, false, err
	case !bytes.Equal(rows[0].Fingerprint, r.Fingerprint):
		return Migration{}, false, problem.Of(problem.CodeIdempotencyKeyReused)
	}
	return rows[0], true, nil
}

func (s *Migrations) mustHaveSeen(ctx context.Context, r ledger.Request, cause error) (Migration, bool, error) {
	out, found, err := s.seen(ctx, r)
	if err == nil && !found {
		err = cause
	}
	return out, found, err
}

// noneActive refuses a second migration of a merchant beside one that goes on.
// cause, if not nil, says that there is one.
func (s *Migrations) noneActive(ctx context.Context, m authorizer.Merchant, cause error) error {
	var ids []uuid.UUID
	err := s.DB.InTenant(ctx, m.TenantID, func(tx postgres.DBTX) (err error) {
		ids, err = s.q.StoreMigrationActive(ctx, tx, dbsqlc.StoreMigrationActiveParams{TenantID: m.TenantID, MerchantID: m.ID})
		return err
	})
	if err != nil || len(ids) == 0 && cause == nil {
		return err
	}
	p := problem.Of(problem.CodeMigrationInProgress).WithErr(cause)
	if len(ids) > 0 {
		return p.With("existing", path(ids[0]))
	}
	return p
}

func path(id uuid.UUID) string {
	return "/v1/store-migrations/" + typeid.Format(typeid.StoreMigration, id)
}

// changed records who wanted what: consent to deletions above all.
func (s *Migrations) changed(ctx context.Context, tx postgres.DBTX, who tenant.Caller, m dbsqlc.StoreMigration, action string, before, after any) error {
	return tenant.RecordChange(ctx, tx, who, &m.TenantID, action, typeid.Format(typeid.StoreMigration, m.ID), before, after)
}

// Get reads one. Errors: not_found.
func (s *Migrations) Get(ctx context.Context, tenantID, id uuid.UUID) (Migration, error) {
	rows, err := s.read(ctx, dbsqlc.StoreMigrationsParams{TenantID: tenantID, ID: &id, N: 1})
	if err == nil && len(rows) == 0 {
		err = problem.Of(problem.CodeNotFound)
	}
	if err != nil {
		return Migration{}, err
	}
	return rows[0], nil
}

// A Filter narrows a list of migrations; zero fields don't.
type Filter struct {
	Merchants []uuid.UUID
	Status    *string
	Before    *uuid.UUID
	Limit     int
}

// List lists migrations, newest first.
func (s *Migrations) List(ctx context.Context, tenantID uuid.UUID, f Filter) ([]Migration, error) {
	return s.read(ctx, dbsqlc.StoreMigrationsParams{TenantID: tenantID, MerchantIds: f.Merchants, Status: f.Status, Before: f.Before, N: int32(f.Limit)})
}

func (s *Migrations) read(ctx context.Context, p dbsqlc.StoreMigrationsParams) (rows []Migration, _ error) {
	b := s.DB.NewBatch(p.TenantID)
	postgres.QueueMany(b, dbsqlc.StoreMigrations, p, &rows)
	err := s.DB.Run(ctx, b)
	return rows, err
}

// Items lists a migration's items by their numbers, those after one, if given.
func (s *Migrations) Items(ctx context.Context, tenantID, id uuid.UUID, status, after *string, limit int) ([]dbsqlc.StoreMigrationItem, error) {
	var rows []dbsqlc.StoreMigrationItem
	b := s.DB.NewBatch(tenantID)
	postgres.QueueMany(b, dbsqlc.StoreMigrationItemPage, dbsqlc.StoreMigrationItemPageParams{TenantID: tenantID, MigrationID: id, Status: status,
		After: after, N: int32(limit)}, &rows)
	err := s.DB.Run(ctx, b)
	return rows, err
}

// Steer says what is wanted of a migration from now on. Errors: not_found,
// migration_ended; ledger.ErrValid where it was only to be validated.
func (s *Migrations) Steer(ctx context.Context, who tenant.Caller, id uuid.UUID, want Desired, validateOnly bool) (Migration, error) {
	err := s.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		row, err := s.locked(ctx, tx, who.TenantID, id)
		switch {
		case err != nil:
			return err
		case validateOnly:
			return ledger.ErrValid
		case row.Desired == string(want):
			return nil
		}
		// Whether anything is left to do is for the next turn to say.
		status := Stand(want, row.ListedAt != nil, Counts{Pending: 1}, false)
		p := dbsqlc.StoreMigrationSteerParams{Desired: string(want), Status: string(status), TenantID: who.TenantID, ID: id}
		if err := s.q.StoreMigrationSteer(ctx, tx, p); err != nil {
			return err
		}
		return s.changed(ctx, tx, who, row, "store_migration.update", map[string]string{"desired": row.Desired}, map[string]string{"desired": string(want)})
	})
	if err != nil {
		return Migration{}, err
	}
	return s.Get(ctx, who.TenantID, id)
}

// locked reads a migration that may be changed. Errors: not_found,
// migration_ended.
func (s *Migrations) locked(ctx context.Context, tx postgres.DBTX, tenantID, id uuid.UUID) (dbsqlc.StoreMigration, error) {
	row, err := s.q.StoreMigrationLock(ctx, tx, dbsqlc.StoreMigrationLockParams{TenantID: tenantID, ID: id})
	switch {
	case postgres.IsNotFound(err):
		err = problem.Of(problem.CodeNotFound)
	case err == nil && Status(row.Status).Final():
		err = problem.Of(problem.CodeMigrationEnded)
	}
	return row, err
}

// A Change is what a person says of an item later on.
type Change struct {
	Details
	Action *Action
}

// ChangeItem takes what a person says of one item. Errors: not_found,
// migration_ended, migration_item_fixed; ledger.ErrValid where it was only to
// be validated.
func (s *Migrations) ChangeItem(ctx context.Context, who tenant.Caller, id uuid.UUID, poi string, c Change, validateOnly bool) (dbsqlc.StoreMigrationItem, error) {
	var saved dbsqlc.StoreMigrationItem
	err := s.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		row, err := s.locked(ctx, tx, who.TenantID, id)
		if err != nil {
			return err
		}
		before, err := s.q.StoreMigrationItemLock(ctx, tx, dbsqlc.StoreMigrationItemLockParams{TenantID: who.TenantID, MigrationID: id, PoiID: poi})
		if postgres.IsNotFound(err) {
			return problem.Of(problem.CodeNotFound)
		}
		if err != nil {
			return err
		}
		policy, err := policyOf(row)
		if err != nil {
			return err
		}
		it, err := itemOf(before)
		if err != nil {
			return err
		}
		it.Item, err = policy.Change(it.Item, c.Action, c.Details)
		if err != nil {
			return problem.Of(problem.CodeMigrationItemFixed).WithErr(err)
		}
		if validateOnly {
			return ledger.ErrValid
		}
		p, err := it.save()
		if err != nil {
			return err
		}
		if saved, err = s.q.StoreMigrationItemSave(ctx, tx, p); err != nil {
			return err
		}
		if err := s.q.StoreMigrationWake(ctx, tx, dbsqlc.StoreMigrationWakeParams{TenantID: who.TenantID, ID: id}); err != nil {
			return err
		}
		return s.changed(ctx, tx, who, row, "store_migration.item", map[string]any{"legacy_poi_id": poi, "action": before.Action, "given": before.Given},
			map[string]any{"legacy_poi_id": poi, "action": saved.Action, "given": saved.Given})
	})
	return saved, err
}

func policyOf(row dbsqlc.StoreMigration) (Policy, error) {
	p := Policy{DeleteNotAllowed: row.OnNotAllowed == "delete"}
	err := json.Unmarshal(row.Defaults, &p.Defaults)
	return p, err
}

// An item is an Item with its row.
type item struct {
	Item
	row   dbsqlc.StoreMigrationItem
	raced bool // somebody else changed it while a turn moved it
}

func itemOf(row dbsqlc.StoreMigrationItem) (item, error) {
	it := item{row: row, Item: Item{Status: ItemStatus(row.Status), Attempt: int(row.Attempt), Deletes: row.Deletes, Ours: row.OperationID != nil}}
	if len(row.BlockedBy) > 0 { // nothing is nil in an Item
		it.BlockedBy = row.BlockedBy
	}
	if row.Action != nil {
		it.Action = Action(*row.Action)
	}
	if err := json.Unmarshal(row.Given, &it.Given); err != nil {
		return it, err
	}
	err := json.Unmarshal(row.Shown, &it.Shown)
	return it, err
}

// View is an item as it stands: what its next write would send, or its newest
// sent, and whether that deletes the store.
func (m Migration) View(row dbsqlc.StoreMigrationItem) (_ Item, sends Details, deletes bool, _ error) {
	it, err := itemOf(row)
	if err != nil {
		return it.Item, sends, false, err
	}
	p, err := policyOf(m.StoreMigration)
	if deletes = it.Deletes; it.Status == Pending {
		deletes = p.deletes(it.Item)
	}
	return it.Item, p.Details(it.Item), deletes, err
}

// save is the item's row as it is to be.
func (it item) save() (dbsqlc.StoreMigrationItemSaveParams, error) {
	p := dbsqlc.StoreMigrationItemSaveParams{LegacyStoreID: it.row.LegacyStoreID, Name: it.row.Name, Status: string(it.Status), BlockedBy: append([]string{}, it.BlockedBy...),
		StoreID: it.row.StoreID, OperationID: it.row.OperationID, AuditID: it.row.AuditID, Error: it.row.Error,
		TenantID: it.row.TenantID, MigrationID: it.row.MigrationID, PoiID: it.row.PoiID, RowVersion: it.row.RowVersion}
	if it.Action != "" {
		p.Action = new(string(it.Action))
	}
	if !it.Ours {
		p.OperationID, p.AuditID = nil, nil
	}
	if it.Status != Failed {
		p.Error = nil
	}
	var err error
	if p.Given, err = json.Marshal(it.Given); err == nil {
		p.Shown, err = json.Marshal(it.Shown)
	}
	return p, err
}
