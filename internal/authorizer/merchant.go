package authorizer

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// What a merchant's authorisation can be in. Disabled is our own switch
// besides (Merchant.Disabled).
const (
	StatusAuthorized           = "authorized"
	StatusNeedsReauthorization = "needs_reauthorization"
	StatusDeauthorized         = "deauthorized"
	StatusDisabled             = "disabled"
)

// The kinds of account. Before WeChat has told, AccountType is empty.
const (
	OfficialAccount = "official_account"
	MiniProgram     = "mini_program"
)

// A Merchant is one account that authorised a tenant, as our rows have it. It
// holds no token.
type Merchant struct {
	TenantID        uuid.UUID
	ID              uuid.UUID
	AppID           string
	Status          string
	Disabled        bool
	PermissionSets  []int32
	AccountType     string
	UserName        string // gh_…
	Nickname        string
	PrincipalName   string
	HeadImageURL    string
	AccountStatus   *int32 // WeChat's number
	Verified        *bool
	StoreProgram    string // the state of its audit; empty: not known
	ClientReference *string
	Metadata        json.RawMessage
	AuthorizedAt    time.Time
	InfoSyncedAt    *time.Time
	Synced          map[string]time.Time // the last complete comparison with WeChat, by type of resource
	RowVersion      int64
	CreatedAt       time.Time
	UpdatedAt       time.Time
}

// ShownStatus is what callers see: disabled wins.
func (m Merchant) ShownStatus() string {
	if m.Disabled {
		return StatusDisabled
	}
	return m.Status
}

// SyncedAt is when the merchant's resources of this type were last compared
// with WeChat whole; nil: never.
func (m Merchant) SyncedAt(typ string) *time.Time {
	if at, ok := m.Synced[typ]; ok {
		at = at.UTC()
		return &at
	}
	return nil
}

func fromRow(r dbsqlc.Merchant) Merchant {
	var synced map[string]time.Time
	if err := json.Unmarshal(r.Synced, &synced); err != nil {
		synced = nil // as if it had never been compared
	}
	return Merchant{
		TenantID: r.TenantID, ID: r.ID, AppID: r.Appid, Status: r.Status, Disabled: r.DisabledAt != nil,
		PermissionSets: r.PermissionSets, AccountType: text(r.AccountType), UserName: text(r.UserName),
		Nickname: text(r.Nickname), PrincipalName: text(r.PrincipalName), HeadImageURL: text(r.HeadImageURL),
		AccountStatus: r.AccountStatus, Verified: r.Verified, StoreProgram: text(r.StoreProgram),
		ClientReference: r.ClientReference, Metadata: r.Metadata, AuthorizedAt: r.AuthorizedAt.UTC(),
		InfoSyncedAt: r.InfoSyncedAt, Synced: synced, RowVersion: r.RowVersion,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Merchant finds a merchant of the tenant by its mch_… id or its appid, from
// memory when it is warm. Errors: merchant_not_found, also for those of other
// tenants.
func (a *Authorizer) Merchant(ctx context.Context, tenantID uuid.UUID, ref string) (Merchant, error) {
	if id, err := typeid.Parse(typeid.Merchant, ref); err == nil {
		return a.MerchantByID(ctx, tenantID, id)
	}
	if len(ref) < 4 || len(ref) > 64 || ref[:2] != "wx" {
		return Merchant{}, problem.Of(problem.CodeMerchantNotFound)
	}
	id, err := a.appids.Get(ctx, postgres.Key{Tenant: tenantID, Name: ref}, func(ctx context.Context) (uuid.UUID, error) {
		var row dbsqlc.Merchant
		b := a.DB.NewBatch(tenantID)
		postgres.QueueOne(b, dbsqlc.MerchantByAppID, dbsqlc.MerchantByAppIDParams{TenantID: tenantID, Appid: ref}, &row)
		err := a.DB.Run(ctx, b)
		return row.ID, err
	})
	if err != nil {
		return Merchant{}, notFound(err)
	}
	return a.MerchantByID(ctx, tenantID, id)
}

// MerchantByID is Merchant by the id alone.
func (a *Authorizer) MerchantByID(ctx context.Context, tenantID, id uuid.UUID) (Merchant, error) {
	key := postgres.Key{Tenant: tenantID, ID: id}
	m, err := a.merchants.Get(ctx, key, func(ctx context.Context) (Merchant, error) {
		var row dbsqlc.Merchant
		var tokens []dbsqlc.AuthorizerTokenReadRow
		keep := a.tokens.Loading(key)
		b := a.DB.NewBatch(tenantID)
		postgres.QueueOne(b, dbsqlc.MerchantByID, dbsqlc.MerchantByIDParams{TenantID: tenantID, ID: id}, &row)
		queueToken(b, key, &tokens) // on the same way: nearly all who ask for a merchant call WeChat next
		if err := a.DB.Run(ctx, b); err != nil {
			return Merchant{}, err
		}
		m := fromRow(row)
		if h, err := a.openToken(m.account(), tokens); err == nil { // else whoever needs it learns why
			keep(h)
		}
		return m, nil
	})
	return m, notFound(err)
}

func notFound(err error) error {
	if postgres.IsNotFound(err) {
		return problem.Of(problem.CodeMerchantNotFound)
	}
	return storage(err)
}

// Check says whether the merchant may make the call, from memory and before
// anything is written or sent. Errors: merchant_deauthorized,
// merchant_needs_reauthorization, merchant_disabled, permission_set_missing
// with required_any_of, granted and authorization_link_hint.
//
// WeChat's own 61007 or 48001 remains the last word.
func (a *Authorizer) Check(m Merchant, e *wechat.Endpoint) error {
	if err := m.usable(); err != nil {
		return err
	}
	if e.Opens(m.PermissionSets) {
		return nil
	}
	granted := m.PermissionSets
	if granted == nil {
		granted = []int32{}
	}
	return problem.Of(problem.CodePermissionSetMissing).
		With("required_any_of", e.Sets).With("granted", granted).With("authorization_link_hint", linkHint(m.AppID))
}

// May is Check for work of our own, which leaves out what it may not see.
func (a *Authorizer) May(m Merchant, e *wechat.Endpoint) bool { return a.Check(m, e) == nil }

func (m Merchant) usable() error {
	switch {
	case m.Status == StatusDeauthorized:
		return reauthorize(problem.CodeMerchantDeauthorized, m.AppID)
	case m.Status == StatusNeedsReauthorization:
		return reauthorize(problem.CodeMerchantNeedsReauthorization, m.AppID)
	case m.Disabled:
		return problem.Of(problem.CodeMerchantDisabled)
	}
	return nil
}

// reauthorize is a problem that a new authorisation would mend.
func reauthorize(code, appid string) *problem.Error {
	return problem.Of(code).With("authorization_link_hint", linkHint(appid))
}

// linkHint is the request that would mend it: a link for this very account.
func linkHint(appid string) map[string]any {
	return map[string]any{
		"method": "POST", "path": "/v1/authorization-links",
		"body": map[string]any{"expected_appid": appid},
	}
}
