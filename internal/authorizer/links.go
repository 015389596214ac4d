package authorizer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// The states of a link.
const (
	LinkOpen       = "open"
	LinkAuthorized = "authorized"
	LinkExpired    = "expired"
)

// AnyAccount lets an administrator choose any kind of account.
const AnyAccount = "any"

// A Link lets one merchant's administrator authorise the tenant: seven days
// long, once. Its URL is known only to whoever made it.
type Link struct {
	TenantID        uuid.UUID
	ID              uuid.UUID
	AccountType     string
	ExpectedAppID   *string
	ClientReference *string
	ReturnURL       *string
	Status          string
	MerchantID      *uuid.UUID
	LastError       *LinkError
	CreatedAt       time.Time
	ExpiresAt       time.Time
	UsedAt          *time.Time
}

// A LinkError says why the last try by a link failed.
type LinkError struct {
	Code string    `json:"code"`
	At   time.Time `json:"at"`
}

func linkError(code string) *string {
	b, err := json.Marshal(LinkError{code, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return &code
	}
	s := string(b)
	return &s
}

func linkFromRow(r dbsqlc.AuthorizationLink, expired bool) Link {
	l := Link{
		TenantID: r.TenantID, ID: r.ID, AccountType: r.AccountType, ExpectedAppID: r.ExpectedAppid, ClientReference: r.ClientReference,
		ReturnURL: r.ReturnURL, Status: LinkOpen, MerchantID: r.MerchantID, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), UsedAt: r.UsedAt,
	}
	switch {
	case r.UsedAt != nil:
		l.Status = LinkAuthorized
	case expired:
		l.Status = LinkExpired
	}
	if r.LastError != nil {
		l.LastError = new(LinkError)
		if json.Unmarshal([]byte(*r.LastError), l.LastError) != nil {
			l.LastError = nil
		}
	}
	return l
}

// NewLink is what a link is made from.
type NewLink struct {
	AccountType     string // empty: any
	ExpectedAppID   string // empty: any account of that type
	ClientReference string
	ReturnURL       string // empty: our own page says that it is done
}

// CreateLink makes a link and its URL, which is not kept: only the hash of its
// random part is. Errors: validation_failed when the tenant's list doesn't
// allow the return URL, duplicate_client_reference.
func (a *Authorizer) CreateLink(ctx context.Context, who tenant.Caller, n NewLink) (_ Link, url string, err error) {
	defer problem.Wrap(&err, "authorizer.CreateLink")
	p := dbsqlc.LinkInsertParams{
		TenantID: who.TenantID, ID: typeid.New(), AccountType: n.AccountType, ExpectedAppid: orNil(n.ExpectedAppID),
		ClientReference: orNil(n.ClientReference), CreatedBy: who.Actor,
	}
	if p.AccountType == "" {
		p.AccountType = AnyAccount
	}
	if n.ReturnURL != "" {
		t, err := a.Tenants.Tenant(ctx, who.TenantID)
		if err != nil {
			return Link{}, "", storage(err)
		}
		back, ok := t.ReturnURL(n.ReturnURL)
		if !ok {
			return Link{}, "", problem.Of(problem.CodeValidationFailed).WithFields(problem.Field{
				Pointer: "/return_url", Code: "not_allowed", Detail: "must start with an entry of the tenant's list of return URLs",
			})
		}
		p.ReturnURL = &back
	}
	state := randomText()
	p.StateSha256 = sum(state)
	var row dbsqlc.AuthorizationLink
	err = a.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		if p.ClientReference != nil {
			taken, err := a.q.LinkReferenceTaken(ctx, tx, dbsqlc.LinkReferenceTakenParams{
				TenantID: who.TenantID, ClientReference: n.ClientReference, ExpectedAppid: p.ExpectedAppid,
			})
			if err != nil {
				return err
			}
			if taken {
				return problem.Of(problem.CodeDuplicateClientReference)
			}
		}
		if row, err = a.q.LinkInsert(ctx, tx, p); err != nil {
			return err
		}
		return tenant.RecordChange(ctx, tx, who, &who.TenantID, "authorization_link.create", typeid.Format(typeid.AuthorizationLink, row.ID), nil,
			map[string]any{"account_type": p.AccountType, "expected_appid": p.ExpectedAppid, "client_reference": p.ClientReference, "return_url": p.ReturnURL})
	})
	if err != nil {
		return Link{}, "", storage(err)
	}
	return linkFromRow(row, false), a.Config.PublicURL + "/connect/" + state, nil
}

// randomText is 32 random bytes in 43 characters that a URL and a cookie take.
func randomText() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails, by its contract
	return base64.RawURLEncoding.EncodeToString(b)
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// GetLink shows what became of a link of the tenant. Errors: not_found.
func (a *Authorizer) GetLink(ctx context.Context, tenantID, id uuid.UUID) (Link, error) {
	var row dbsqlc.LinkByIDRow
	err := a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) (err error) {
		row, err = a.q.LinkByID(ctx, tx, dbsqlc.LinkByIDParams{TenantID: tenantID, ID: id})
		return err
	})
	if postgres.IsNotFound(err) {
		return Link{}, problem.Of(problem.CodeNotFound)
	}
	return linkFromRow(row.AuthorizationLink, row.Expired), storage(err)
}

// linkFor is the link that an authorisation of the account may use up: nil
// when there is none, it was used or has expired, or expects another account,
// which it is told. The merchant belongs to the tenant all the same.
func (a *Authorizer) linkFor(ctx context.Context, tx postgres.DBTX, tenantID uuid.UUID, id *uuid.UUID, appid string) (*dbsqlc.AuthorizationLink, error) {
	if id == nil {
		return nil, nil
	}
	row, err := a.q.LinkByID(ctx, tx, dbsqlc.LinkByIDParams{TenantID: tenantID, ID: *id})
	if err != nil {
		return nil, err
	}
	l := row.AuthorizationLink
	if l.UsedAt != nil || row.Expired {
		return nil, nil
	}
	if l.ExpectedAppid != nil && *l.ExpectedAppid != appid {
		return nil, a.linkFailed(ctx, tx, tenantID, *id, problem.CodeUnexpectedAccount)
	}
	return &l, nil
}

// useLink uses the link up in the transaction that writes the merchant. Of two
// codes at once one gets it; the other gets nil.
func (a *Authorizer) useLink(ctx context.Context, tx postgres.DBTX, tenantID, id, merchantID uuid.UUID) (*uuid.UUID, error) {
	row, err := a.q.LinkUse(ctx, tx, dbsqlc.LinkUseParams{MerchantID: &merchantID, TenantID: tenantID, ID: id})
	if postgres.IsNotFound(err) {
		return nil, nil
	}
	return &row.ID, err
}

func (a *Authorizer) linkFailed(ctx context.Context, tx postgres.DBTX, tenantID, id uuid.UUID, code string) error {
	return a.q.LinkFailed(ctx, tx, dbsqlc.LinkFailedParams{LastError: linkError(code), TenantID: tenantID, ID: id})
}

// bindLink gives an authorisation that is already written the link that it
// came by. The signed push (pushed) knows best: where a callback had named
// another link, that one is opened again.
func (a *Authorizer) bindLink(ctx context.Context, tenantID uuid.UUID, v arrival) (dbsqlc.AuthorizationCode, error) {
	var code dbsqlc.AuthorizationCode
	err := a.DB.InTenant(ctx, tenantID, func(tx postgres.DBTX) (err error) {
		if code, err = a.q.CodeLock(ctx, tx, dbsqlc.CodeLockParams{TenantID: tenantID, CodeSha256: v.hash}); err != nil {
			return err
		}
		if v.link == nil || code.MerchantID == nil || code.LinkID != nil && (*code.LinkID == *v.link || !v.pushed()) {
			return nil
		}
		row, err := a.q.MerchantByID(ctx, tx, dbsqlc.MerchantByIDParams{TenantID: tenantID, ID: *code.MerchantID})
		if err != nil {
			return err
		}
		link, err := a.linkFor(ctx, tx, tenantID, v.link, row.Appid)
		if err != nil {
			return err
		}
		if code.LinkID != nil {
			a.Log.ErrorContext(ctx, "a callback had claimed another link's authorization code", "tenant_id", tenantID, "link_id", *code.LinkID)
			err := a.q.LinkReopen(ctx, tx, dbsqlc.LinkReopenParams{
				LastError: linkError(problem.CodeUnexpectedAccount), TenantID: tenantID, ID: *code.LinkID, MerchantID: code.MerchantID,
			})
			if err != nil {
				return err
			}
			code.LinkID = nil
		}
		if link != nil {
			if code.LinkID, err = a.useLink(ctx, tx, tenantID, link.ID, row.ID); err != nil {
				return err
			}
			if code.LinkID != nil && link.ClientReference != nil {
				err := a.q.MerchantReference(ctx, tx, dbsqlc.MerchantReferenceParams{ClientReference: *link.ClientReference, TenantID: tenantID, ID: row.ID})
				if err != nil {
					return err
				}
			}
		}
		return a.q.CodeLink(ctx, tx, dbsqlc.CodeLinkParams{LinkID: code.LinkID, TenantID: tenantID, CodeSha256: v.hash})
	})
	return code, storage(err)
}
