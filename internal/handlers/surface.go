package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/handlers/oapi"
	"github.com/mendian/mendian/internal/inbox"
	"github.com/mendian/mendian/internal/ledger"
	"github.com/mendian/mendian/internal/migration"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/reference"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
)

// Deps is what the operations of the contract work with.
type Deps struct {
	Tenants    *tenant.Tenants
	Keys       *tenant.Keys
	Authorizer *authorizer.Authorizer
	Ledger     *ledger.Ledger
	Inbox      *inbox.Inbox
	Migrations *migration.Migrations
	DB         *postgres.DB // of the events
	Reference  *reference.Reference
	Keyset     *secret.Keyset // seals cursors
	Log        *slog.Logger
	PublicURL  string
}

// Server implements the operations of the contract, one file a resource.
type Server struct {
	Deps
	cursors Cursors
	pushes  admission
}

var _ oapi.StrictServerInterface = (*Server)(nil)

// NewServer makes a Server.
func NewServer(d Deps) *Server {
	return &Server{Deps: d, cursors: Cursors{Seal: d.Keyset.SealFor, Open: d.Keyset.OpenFor, Now: time.Now},
		pushes: newAdmission(pushesAtOnce, longestPushQueue)}
}

// acting is the merchant that a request acts for: the header Merchant-Id, or
// the only merchant that the key reaches (design api.md §2). Errors:
// merchant_required, merchant_not_found, merchant_not_allowed.
func (s *Server) acting(ctx context.Context, header *string) (authorizer.Merchant, error) {
	m, ok, err := s.actingIfGiven(ctx, header)
	if err == nil && !ok {
		err = problem.Of(problem.CodeMerchantRequired)
	}
	return m, err
}

// actingIfGiven is acting where no merchant means all that the key reaches.
func (s *Server) actingIfGiven(ctx context.Context, header *string) (m authorizer.Merchant, ok bool, err error) {
	who := CallerFrom(ctx)
	switch {
	case header != nil:
		m, err = s.Authorizer.Merchant(ctx, who.TenantID, *header)
	case len(who.Merchants) == 1:
		m, err = s.Authorizer.MerchantByID(ctx, who.TenantID, who.Merchants[0])
	default:
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if !who.MayActFor(m.ID) {
		return m, false, problem.Of(problem.CodeMerchantNotAllowed)
	}
	NoteMerchant(ctx, typeid.Format(typeid.Merchant, m.ID))
	return m, true, nil
}

// reach is the merchants that a list over a tenant may show: one if given,
// else what the key reaches; nil is all of the tenant.
func (s *Server) reach(ctx context.Context, header *string) ([]uuid.UUID, *authorizer.Merchant, error) {
	m, ok, err := s.actingIfGiven(ctx, header)
	if err != nil {
		return nil, nil, err
	}
	if ok {
		return []uuid.UUID{m.ID}, &m, nil
	}
	return CallerFrom(ctx).Merchants, nil, nil
}

// request is what every write is begun with.
func request(ctx context.Context, m authorizer.Merchant, key *string, operation string, parts ...any) (ledger.Request, error) {
	r := ledger.Request{Caller: CallerFrom(ctx), Merchant: m, ValidateOnly: validateOnly(ctx)}
	if key == nil {
		return r, nil
	}
	r.IdempotencyKey = *key
	// The body was decoded into its type: members in another order, or other
	// blanks, are the same request.
	js, err := json.Marshal(append([]any{operation}, parts...))
	sum := sha256.Sum256(js)
	r.Fingerprint = sum[:]
	return r, err
}

// position is where the next page of a list over our rows begins.
type position struct {
	Before uuid.UUID `json:"b"`
}

// offset is where the next page of a live list begins.
type offset struct {
	Offset int `json:"o"`
}

const defaultLimit = 20

func limitOf(l *oapi.Limit) int {
	if l == nil {
		return defaultLimit
	}
	return int(*l)
}

func deref[T ~string](p *T) string {
	if p == nil {
		return ""
	}
	return string(*p)
}

// valueOf is *p, and the zero value where nothing was sent.
func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func optional(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}

// orEmpty is list as JSON shows one of nothing: [] and not null.
func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func replayed(b bool) *string {
	if b {
		return new("true")
	}
	return nil
}

func formatTime(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func idPointer(p typeid.Prefix, id *uuid.UUID) *string {
	if id == nil {
		return nil
	}
	return new(typeid.Format(p, *id))
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.UTC())
}
