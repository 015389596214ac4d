// Package tenant knows who is asking: tenants and their credentials at WeChat,
// API keys and the ring of keys that signs them, and the rights of a caller.
//
// A tenant is one third-party platform. Everything here that changes something
// writes its line of change_log in the same transaction. Nothing here may ever
// return a secret that was stored, but to the two packages that speak with
// WeChat (Credentials), and a key's token is given out once, when it is made.
package tenant

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
)

// Deps is what this package works with.
type Deps struct {
	DB      *postgres.DB
	Keyset  *secret.Keyset
	Changes *postgres.Changes // must be running where caches are to outlive five seconds
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now

	// Production refuses http origins, which are otherwise allowed for localhost.
	Production bool
	// DefaultRate is the limit of a key that has none of its own; a key can't
	// make one with a higher limit. Zero: 100 a second, burst 200.
	DefaultRate RateLimit
}

func (d Deps) withDefaults() Deps {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.DefaultRate == (RateLimit{}) {
		d.DefaultRate = RateLimit{PerSecond: 100, Burst: 200}
	}
	return d
}

// A Status says what a tenant may do.
type Status string

// Suspended tenants' keys are refused for now and pushes still taken; deleted
// is for good, with every row kept.
const (
	Active    Status = "active"
	Suspended Status = "suspended"
	Deleted   Status = "deleted"
)

// Limits replace the gateway's defaults for one tenant; nil is the default.
type Limits struct {
	RequestsPerSecond      *float64 `json:"requests_per_second,omitempty"`
	KeyRequestsPerSecond   *float64 `json:"key_requests_per_second,omitempty"`
	KeyBurst               *int     `json:"key_burst,omitempty"`
	InFlight               *int     `json:"in_flight,omitempty"`
	MerchantInFlight       *int     `json:"merchant_in_flight,omitempty"`
	MerchantWritesInFlight *int     `json:"merchant_writes_in_flight,omitempty"`
}

// A Tenant is one third-party platform.
type Tenant struct {
	ID                 uuid.UUID
	Ref                string // the random part of its push URLs; reduces noise, protects nothing
	Name               string
	ComponentAppID     string
	Status             Status
	ReturnURLAllowList []string
	CORSOrigins        []string
	ReleaseCheck       bool
	Limits             Limits
	CreatedAt          time.Time
	UpdatedAt          time.Time
}

// PushURLs are what belongs into the console of WeChat's open platform: the
// URL of authorisation events, and that of messages with its placeholder.
func (t Tenant) PushURLs(publicURL string) (component, messages string) {
	base := strings.TrimSuffix(publicURL, "/") + "/wechat/" + t.Ref
	return base + "/component", base + "/messages/$APPID$"
}

// Details is a Tenant with the fingerprints of its credentials, for operators.
type Details struct {
	Tenant
	Credentials *Fingerprints // nil: none are set
}

// Tenants keeps the tenants. It is safe for concurrent use.
type Tenants struct {
	Deps
	q           *dbsqlc.Queries
	byID        *postgres.Cache[*Tenant]
	byRef       *postgres.Cache[uuid.UUID]
	origins     *postgres.Cache[map[string]bool]
	credentials *postgres.Cache[Credentials]
}

// New makes a Tenants whose caches follow d.Changes.
func New(d Deps) *Tenants {
	t := &Tenants{
		Deps: d.withDefaults(), q: dbsqlc.New(),
		byID:        postgres.NewCache[*Tenant](d.Changes, 10_000, "tenants"),
		byRef:       postgres.NewCache[uuid.UUID](d.Changes, 10_000),
		origins:     postgres.NewCache[map[string]bool](d.Changes, 1),
		credentials: postgres.NewCache[Credentials](d.Changes, 10_000, "component_credentials", "tenants"),
	}
	d.Changes.Subscribe("tenants", func(_, _ uuid.UUID) { t.origins.Drop(originsKey) })
	return t
}

// NewTenant is what a tenant is made from.
type NewTenant struct {
	Name               string
	ComponentAppID     string
	ReturnURLAllowList []string
	CORSOrigins        []string
	ReleaseCheck       bool
	Limits             Limits
	Credentials        *NewCredentials // nil: set later
}

// Create makes a tenant, with its credentials when they are given. Errors:
// validation_failed, name_taken, component_appid_taken.
func (t *Tenants) Create(ctx context.Context, who Caller, n NewTenant) (_ Details, err error) {
	defer wrap(&err, "tenant.Create(%q)", n.Name)
	row := dbsqlc.Tenant{
		ID: typeid.New(), Name: n.Name, PushRef: strings.ToLower(rand.Text()), ComponentAppid: n.ComponentAppID, Status: string(Active),
		ReturnURLAllowList: notNil(n.ReturnURLAllowList), CorsOrigins: notNil(n.CORSOrigins), ReleaseCheck: n.ReleaseCheck,
	}
	if row.Limits, err = json.Marshal(n.Limits); err != nil {
		return Details{}, err
	}
	fields := t.check(row, n.Limits)
	if n.Credentials != nil {
		fields = append(fields, n.Credentials.check(true)...)
	}
	if len(fields) > 0 {
		return Details{}, invalid(fields)
	}
	var d Details
	err = t.DB.InTenant(ctx, row.ID, func(tx postgres.DBTX) error {
		d = Details{}
		saved, err := t.q.TenantInsert(ctx, tx, dbsqlc.TenantInsertParams{
			ID: row.ID, Name: row.Name, PushRef: row.PushRef, ComponentAppid: row.ComponentAppid, ReturnURLAllowList: row.ReturnURLAllowList,
			CorsOrigins: row.CorsOrigins, ReleaseCheck: row.ReleaseCheck, Limits: row.Limits,
		})
		if err != nil {
			return taken(err)
		}
		if d.Tenant, err = fromRow(saved); err != nil {
			return err
		}
		if err := RecordChange(ctx, tx, who, &row.ID, "tenant.create", typeid.Format(typeid.Tenant, row.ID), nil, d.state()); err != nil {
			return err
		}
		if n.Credentials == nil {
			return nil
		}
		d.Credentials, err = t.insertCredentials(ctx, tx, who, row.ID, *n.Credentials)
		return err
	})
	return d, err
}

// Get returns a tenant, a deleted one too. Errors: not_found.
func (t *Tenants) Get(ctx context.Context, id uuid.UUID) (_ Details, err error) {
	defer wrap(&err, "tenant.Get")
	var d Details
	err = t.DB.InTenant(ctx, id, func(tx postgres.DBTX) error {
		row, err := t.q.TenantByID(ctx, tx, dbsqlc.TenantByIDParams{ID: id})
		if err != nil {
			return found(err)
		}
		d, err = t.details(ctx, tx, row)
		return err
	})
	return d, err
}

// A Page is a piece of a list, newest first.
type Page struct {
	Before *uuid.UUID // only older ones than this; nil starts at the newest
	Limit  int
}

// A Filter narrows List. Zero members don't.
type Filter struct {
	Status         Status
	ComponentAppID string
}

// List returns a page of tenants, deleted ones among them, and whether there are more.
func (t *Tenants) List(ctx context.Context, f Filter, p Page) (_ []Details, more bool, err error) {
	defer wrap(&err, "tenant.List")
	var rows []dbsqlc.Tenant
	err = t.DB.InSystem(ctx, func(tx postgres.DBTX) error {
		rows, err = t.q.TenantList(ctx, tx, dbsqlc.TenantListParams{
			Status: orNil(string(f.Status)), ComponentAppid: orNil(f.ComponentAppID), Before: p.Before, N: int32(p.Limit) + 1,
		})
		return err
	})
	if err != nil {
		return nil, false, err
	}
	rows, more = cut(rows, p.Limit)
	out := make([]Details, len(rows))
	for i, row := range rows {
		// The fingerprints lie under row-level security, each behind its own tenant.
		if err := t.DB.InTenant(ctx, row.ID, func(tx postgres.DBTX) (err error) {
			out[i], err = t.details(ctx, tx, row)
			return err
		}); err != nil {
			return nil, false, err
		}
	}
	return out, more, nil
}

// An Update changes what isn't nil; lists and limits are replaced as a whole.
type Update struct {
	Name               *string
	ComponentAppID     *string
	Status             *Status
	ReturnURLAllowList *[]string
	CORSOrigins        *[]string
	ReleaseCheck       *bool
	Limits             *Limits

	// Precondition, when set, sees the tenant as it is, locked. Its error ends the change.
	Precondition func(Details) error
}

// Update changes a tenant. The component's appid can change only until a
// merchant authorised it: tokens and merchants belong to the platform that it
// names. Errors: not_found (also when deleted), validation_failed, name_taken,
// component_appid_taken.
func (t *Tenants) Update(ctx context.Context, who Caller, id uuid.UUID, u Update) (_ Details, err error) {
	defer wrap(&err, "tenant.Update")
	return t.update(ctx, who, id, "tenant.update", u)
}

// Delete ends a tenant: its keys are refused and its pushes have no effect,
// its rows are kept. Deleting twice is no error. Errors: not_found.
func (t *Tenants) Delete(ctx context.Context, who Caller, id uuid.UUID, precondition func(Details) error) (err error) {
	defer wrap(&err, "tenant.Delete")
	gone := Deleted
	_, err = t.update(ctx, who, id, "tenant.delete", Update{Status: &gone, Precondition: precondition})
	return err
}

func (t *Tenants) update(ctx context.Context, who Caller, id uuid.UUID, action string, u Update) (Details, error) {
	var after Details
	err := t.DB.InTenant(ctx, id, func(tx postgres.DBTX) error {
		row, err := t.q.TenantLock(ctx, tx, dbsqlc.TenantLockParams{ID: id})
		if err != nil {
			return found(err)
		}
		before, err := t.details(ctx, tx, row)
		if err != nil {
			return err
		}
		if before.Status == Deleted {
			if u.Status != nil && *u.Status == Deleted {
				return nil
			}
			return problem.Of(problem.CodeNotFound)
		}
		if u.Precondition != nil {
			if err := u.Precondition(before); err != nil {
				return err
			}
		}
		limits := before.Limits
		apply(&row.Name, u.Name)
		apply(&row.ComponentAppid, u.ComponentAppID)
		apply(&row.Status, (*string)(u.Status))
		apply(&row.ReturnURLAllowList, u.ReturnURLAllowList)
		apply(&row.CorsOrigins, u.CORSOrigins)
		apply(&row.ReleaseCheck, u.ReleaseCheck)
		apply(&limits, u.Limits)
		if row.Limits, err = json.Marshal(limits); err != nil {
			return err
		}
		fields := t.check(row, limits)
		if row.ComponentAppid != before.ComponentAppID {
			if used, err := t.q.TenantHasMerchants(ctx, tx, dbsqlc.TenantHasMerchantsParams{TenantID: id}); err != nil {
				return err
			} else if used {
				fields = append(fields, problem.Field{Pointer: "/component_appid", Code: "not_changeable", Detail: "merchants have authorised this platform: make a tenant for another one"})
			}
		}
		if len(fields) > 0 {
			return invalid(fields)
		}
		row, err = t.q.TenantUpdate(ctx, tx, dbsqlc.TenantUpdateParams{
			ID: id, Name: row.Name, ComponentAppid: row.ComponentAppid, Status: row.Status, ReturnURLAllowList: notNil(row.ReturnURLAllowList),
			CorsOrigins: notNil(row.CorsOrigins), ReleaseCheck: row.ReleaseCheck, Limits: row.Limits,
		})
		if err != nil {
			return taken(err)
		}
		after = Details{Credentials: before.Credentials}
		if after.Tenant, err = fromRow(row); err != nil {
			return err
		}
		return RecordChange(ctx, tx, who, &id, action, typeid.Format(typeid.Tenant, id), before.state(), after.state())
	})
	return after, err
}

func apply[T any](dst *T, v *T) {
	if v != nil {
		*dst = *v
	}
}

func (t *Tenants) details(ctx context.Context, tx postgres.DBTX, row dbsqlc.Tenant) (d Details, err error) {
	if d.Tenant, err = fromRow(row); err != nil {
		return d, err
	}
	c, err := t.q.CredentialsByTenant(ctx, tx, dbsqlc.CredentialsByTenantParams{TenantID: row.ID})
	if postgres.IsNotFound(err) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	d.Credentials, err = fingerprints(c)
	return d, err
}

func fromRow(row dbsqlc.Tenant) (Tenant, error) {
	t := Tenant{
		ID: row.ID, Ref: row.PushRef, Name: row.Name, ComponentAppID: row.ComponentAppid, Status: Status(row.Status),
		ReturnURLAllowList: row.ReturnURLAllowList, CORSOrigins: row.CorsOrigins, ReleaseCheck: row.ReleaseCheck,
		CreatedAt: row.CreatedAt.UTC(), UpdatedAt: row.UpdatedAt.UTC(),
	}
	err := json.Unmarshal(row.Limits, &t.Limits)
	return t, err
}

// state is what change_log keeps of a tenant.
func (t Tenant) state() any {
	return struct {
		Name               string   `json:"name"`
		ComponentAppID     string   `json:"component_appid"`
		Status             Status   `json:"status"`
		ReturnURLAllowList []string `json:"return_url_allow_list"`
		CORSOrigins        []string `json:"cors_origins"`
		ReleaseCheck       bool     `json:"release_check"`
		Limits             Limits   `json:"limits"`
	}{t.Name, t.ComponentAppID, t.Status, t.ReturnURLAllowList, t.CORSOrigins, t.ReleaseCheck, t.Limits}
}

// found turns "no such row" into not_found; any other error stays.
func found(err error) error {
	if postgres.IsNotFound(err) {
		return problem.Of(problem.CodeNotFound).WithErr(err)
	}
	return err
}

func taken(err error) error {
	switch {
	case postgres.IsUnique(err, "tenants_name_key"):
		return problem.Of(problem.CodeNameTaken).WithErr(err)
	case postgres.IsUnique(err, "tenants_component_appid_key"):
		return problem.Of(problem.CodeComponentAppIDTaken).WithErr(err)
	}
	return err
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// cut takes the row off that was read only to know whether there are more.
func cut[T any](rows []T, limit int) ([]T, bool) {
	if len(rows) > limit {
		return rows[:limit], true
	}
	return rows, false
}
