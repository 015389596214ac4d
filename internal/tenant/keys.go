package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/mendian/mendian/internal/memory"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/secret"
	"github.com/mendian/mendian/internal/typeid"
)

const (
	// maxMerchants keeps the longest token below maxToken.
	maxMerchants    = 60
	defaultLifetime = 90 * 24 * time.Hour
	// MaxOverlap is how long a replaced key may go on working.
	MaxOverlap = 7 * 24 * time.Hour
)

// Keys issues and verifies API keys. It is safe for concurrent use.
type Keys struct {
	Deps
	q        *dbsqlc.Queries
	tenants  *Tenants
	rings    *postgres.Cache[*ring]
	rows     *postgres.Cache[*keyRow]
	admins   *postgres.Cache[*keyRow]
	verified *lru.Cache[[sha256.Size]byte, *verified]
	used     *used
}

// NewKeys makes a Keys on the same dependencies as t.
func NewKeys(t *Tenants) *Keys {
	k := &Keys{
		Deps: t.Deps, q: dbsqlc.New(), tenants: t,
		rings: postgres.NewCache[*ring](t.Changes, 1),
		rows:  postgres.NewCache[*keyRow](t.Changes, 50_000, "api_keys"),
		// The table has no tenant: its notifications carry the row's id in that place.
		admins:   postgres.NewCache[*keyRow](t.Changes, 1_000, "admin_keys"),
		verified: memory.New[[sha256.Size]byte, *verified](50_000),
		used:     newUsed(),
	}
	k.Changes.Subscribe("signing_keys", func(_, _ uuid.UUID) { k.rings.Drop(ringKey) })
	return k
}

// A Key is an API key without its token, which nobody can read again.
type Key struct {
	ID          uuid.UUID
	TenantID    uuid.UUID // zero for an admin key
	Name        string
	Scopes      []string
	Merchants   []uuid.UUID // nil: every merchant of the tenant
	RateLimit   *RateLimit
	RotatedFrom *uuid.UUID
	CreatedBy   string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	RevokedAt   *time.Time
	LastUsedAt  *time.Time
}

// Status is active, revoked or expired.
func (k Key) Status(now time.Time) string {
	switch {
	case k.RevokedAt != nil:
		return "revoked"
	case !now.Before(k.ExpiresAt):
		return "expired"
	}
	return "active"
}

// NewKey is what an API key is made from.
type NewKey struct {
	Name      string
	Scopes    []string
	Merchants []string   // ids mch_… or appids; nil: those of the key that asks
	ExpiresAt time.Time  // zero: 90 days, or the asking key's own end if that is sooner
	RateLimit *RateLimit // nil: the default, or the asking key's own
}

// CLI is the caller that the command line acts as: all of one tenant, or of the
// installation where tenant is zero.
func CLI(tenant uuid.UUID) Caller {
	return Caller{TenantID: tenant, Scopes: []string{"*"}, Actor: "cli"}
}

// Issue makes a key of who's tenant and returns its token, once. The key is
// never wider than who in scopes, merchants, time or rate. For a browser a
// tenant's back end makes one of minutes for one merchant. Errors:
// validation_failed, merchant_not_found, key_exceeds_own_rights, not_found
// when the tenant is gone.
func (k *Keys) Issue(ctx context.Context, who Caller, n NewKey) (_ Key, _ secret.Text, err error) {
	defer wrap(&err, "tenant.Issue(%q)", n.Name)
	now := k.Now().Truncate(time.Second)
	if n.ExpiresAt.IsZero() {
		n.ExpiresAt = who.until(now.Add(defaultLifetime))
	}
	n.ExpiresAt = n.ExpiresAt.Truncate(time.Second)
	fields := checkName(n.Name)
	fields = append(fields, checkScopes(n.Scopes)...)
	fields = append(fields, checkLifetime(now, n.ExpiresAt, maxLifetime)...)
	if n.Merchants != nil && (len(n.Merchants) == 0 || len(n.Merchants) > maxMerchants) {
		fields = append(fields, problem.Field{Pointer: "/merchant_ids", Code: "invalid_length", Detail: fmt.Sprintf("1 to %d merchants, or null for all", maxMerchants)})
	}
	if r := n.RateLimit; r != nil && (!(r.PerSecond > 0) || r.Burst < 1) {
		fields = append(fields, problem.Field{Pointer: "/rate_limit", Code: "invalid", Detail: "per_second and burst must be over 0"})
	}
	if len(fields) > 0 {
		return Key{}, secret.Text{}, invalid(fields)
	}
	var key Key
	var token string
	err = k.DB.InTenant(ctx, who.TenantID, func(tx postgres.DBTX) error {
		maker, err := k.maker(ctx, tx, who)
		if err != nil {
			return err
		}
		merchants, err := k.resolve(ctx, tx, who, n.Merchants)
		if err != nil {
			return err
		}
		want := Key{
			ID: typeid.New(), TenantID: who.TenantID, Name: n.Name, Scopes: slices.Compact(slices.Sorted(slices.Values(n.Scopes))),
			Merchants: merchants, ExpiresAt: n.ExpiresAt, RateLimit: n.RateLimit,
		}
		if want.RateLimit == nil {
			want.RateLimit = maker.RateLimit
		}
		if err := k.covers(who, want); err != nil {
			return err
		}
		if key, token, err = k.insert(ctx, tx, who, want, now); err != nil {
			return err
		}
		return RecordChange(ctx, tx, who, &key.TenantID, "api_key.create", typeid.Format(typeid.Key, key.ID), nil, key.state(token))
	})
	return key, secret.NewText(token), err
}

// insert signs and stores a key that was found allowed.
func (k *Keys) insert(ctx context.Context, tx postgres.DBTX, who Caller, want Key, now time.Time) (Key, string, error) {
	tenant, err := k.q.TenantByID(ctx, tx, dbsqlc.TenantByIDParams{ID: want.TenantID})
	if err != nil {
		return Key{}, "", found(err)
	}
	if tenant.Status == string(Deleted) {
		return Key{}, "", problem.Of(problem.CodeNotFound)
	}
	c := newClaims(want.ID, now, want.ExpiresAt)
	c.Audience, c.Tenant, c.Scope = audienceAPI, typeid.Format(typeid.Tenant, want.TenantID), strings.Join(want.Scopes, " ")
	for _, m := range want.Merchants {
		c.Merchants = append(c.Merchants, typeid.Format(typeid.Merchant, m))
	}
	kid, signer, err := k.signer(ctx, tx)
	if err != nil {
		return Key{}, "", err
	}
	token, err := c.sign(kid, signer)
	if err != nil {
		return Key{}, "", err
	}
	if len(token) > maxToken {
		return Key{}, "", invalid([]problem.Field{{Pointer: "/merchant_ids", Code: "too_many", Detail: "the token would be too long: name fewer merchants or scopes"}})
	}
	var rate json.RawMessage
	if want.RateLimit != nil {
		if rate, err = json.Marshal(want.RateLimit); err != nil {
			return Key{}, "", err
		}
	}
	sum := sha256.Sum256([]byte(token))
	row, err := k.q.APIKeyInsert(ctx, tx, dbsqlc.APIKeyInsertParams{
		TenantID: want.TenantID, ID: want.ID, Name: want.Name, Scopes: want.Scopes, MerchantIds: want.Merchants, RateLimit: rate,
		TokenSha256: sum[:], RotatedFrom: want.RotatedFrom, CreatedBy: who.Actor, ExpiresAt: want.ExpiresAt,
	})
	if err != nil {
		return Key{}, "", err
	}
	key, err := keyFromRow(row)
	return key, token, err
}

func newClaims(id uuid.UUID, now, expires time.Time) *claims {
	return &claims{
		Issuer: issuer, Subject: typeid.Format(typeid.Key, id), ID: id.String(), Version: tokenVersion,
		IssuedAt: now.Unix(), NotBefore: now.Unix(), ExpiresAt: expires.Unix(),
	}
}

// resolve finds the merchants that refs name, in who's tenant.
func (k *Keys) resolve(ctx context.Context, tx postgres.DBTX, who Caller, refs []string) ([]uuid.UUID, error) {
	if refs == nil {
		return who.Merchants, nil
	}
	p := dbsqlc.APIKeyMerchantsParams{TenantID: who.TenantID, Ids: []uuid.UUID{}, Appids: []string{}}
	for _, ref := range refs {
		if id, err := typeid.Parse(typeid.Merchant, ref); err == nil {
			p.Ids = append(p.Ids, id)
		} else {
			p.Appids = append(p.Appids, ref)
		}
	}
	rows, err := k.q.APIKeyMerchants(ctx, tx, p)
	if err != nil {
		return nil, err
	}
	out := make([]uuid.UUID, 0, len(rows))
	for i, ref := range refs {
		at := slices.IndexFunc(rows, func(r dbsqlc.APIKeyMerchantsRow) bool {
			return r.Appid == ref || typeid.Format(typeid.Merchant, r.ID) == ref
		})
		if at < 0 {
			return nil, problem.Of(problem.CodeMerchantNotFound).WithFields(problem.Field{
				Pointer: "/merchant_ids/" + strconv.Itoa(i), Code: "not_found", Detail: "no merchant of this tenant",
			})
		}
		if id := rows[at].ID; !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out, nil
}

// covers refuses a key that is wider than who in anything.
func (k *Keys) covers(who Caller, want Key) error {
	var fields []problem.Field
	wider := func(pointer, detail string) {
		fields = append(fields, problem.Field{Pointer: pointer, Code: "exceeds_own_rights", Detail: detail})
	}
	if !who.CoversScopes(want.Scopes) {
		wider("/scopes", "scopes that your own key lacks")
	}
	if !who.reaches(want) {
		wider("/merchant_ids", "merchants that your own key may not act for")
	}
	if want.ExpiresAt.After(who.until(want.ExpiresAt)) {
		wider("/expires_at", "later than your own key ends")
	}
	if who.KeyID != uuid.Nil && want.RateLimit != nil {
		own := k.DefaultRate
		apply(&own, who.RateLimit)
		if want.RateLimit.PerSecond > own.PerSecond || want.RateLimit.Burst > own.Burst {
			wider("/rate_limit", "higher than your own key's")
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return problem.Of(problem.CodeKeyExceedsOwnRights).WithFields(fields...)
}

// maker reads the key that makes another one, locked, so that a revoked key
// makes no more even while its revocation is still on its way to the caches.
func (k *Keys) maker(ctx context.Context, tx postgres.DBTX, who Caller) (Key, error) {
	if who.KeyID == uuid.Nil {
		return Key{}, nil
	}
	row, err := k.q.APIKeyLock(ctx, tx, dbsqlc.APIKeyLockParams{TenantID: who.TenantID, ID: who.KeyID})
	switch {
	case postgres.IsNotFound(err), err == nil && row.RevokedAt != nil:
		return Key{}, errRevoked
	case err != nil:
		return Key{}, err
	}
	return keyFromRow(row)
}

// until is the earlier of at and the end of c's own key.
func (c Caller) until(at time.Time) time.Time {
	if own := time.Unix(c.ExpiresAt, 0); c.ExpiresAt != 0 && own.Before(at) {
		return own
	}
	return at
}

// reaches reports whether key is bound to no merchant but c's.
func (c Caller) reaches(key Key) bool {
	return c.Merchants == nil || key.Merchants != nil && !slices.ContainsFunc(key.Merchants, func(m uuid.UUID) bool { return !c.MayActFor(m) })
}

func checkScopes(scopes []string) []problem.Field {
	if len(scopes) == 0 {
		return []problem.Field{{Pointer: "/scopes", Code: "required", Detail: "at least one scope"}}
	}
	var fields []problem.Field
	for i, s := range scopes {
		if s != "*" && !slices.Contains(Scopes, s) {
			fields = append(fields, problem.Field{Pointer: "/scopes/" + strconv.Itoa(i), Code: "unknown_scope", Detail: "one of *, " + strings.Join(Scopes, ", ")})
		}
	}
	return fields
}

// checkLifetime gives a caller whose clock is a little behind the benefit of
// the leeway that verification has too.
func checkLifetime(now, expires time.Time, most time.Duration) []problem.Field {
	switch life := expires.Sub(now); {
	case life < minLifetime-leeway:
		return []problem.Field{{Pointer: "/expires_at", Code: "too_soon", Detail: "at least five minutes ahead"}}
	case life > most:
		return []problem.Field{{Pointer: "/expires_at", Code: "too_late", Detail: fmt.Sprintf("at most %s ahead", days(most))}}
	}
	return nil
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return fmt.Sprintf("%d hours", d/time.Hour)
}

func keyFromRow(r dbsqlc.APIKey) (Key, error) {
	k := Key{
		ID: r.ID, TenantID: r.TenantID, Name: r.Name, Scopes: r.Scopes, Merchants: r.MerchantIds, RotatedFrom: r.RotatedFrom,
		CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), RevokedAt: utc(r.RevokedAt), LastUsedAt: utc(r.LastUsedAt),
	}
	if r.RateLimit != nil {
		err := json.Unmarshal(r.RateLimit, &k.RateLimit)
		return k, err
	}
	return k, nil
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// state is what change_log keeps of a key that was made with this token.
func (k Key) state(token string) any {
	s := struct {
		Name        string     `json:"name"`
		Scopes      []string   `json:"scopes,omitempty"`
		Merchants   []string   `json:"merchant_ids,omitempty"`
		ExpiresAt   time.Time  `json:"expires_at"`
		RateLimit   *RateLimit `json:"rate_limit,omitempty"`
		RotatedFrom string     `json:"rotated_from,omitempty"`
		TokenSHA256 string     `json:"token_sha256"`
	}{Name: k.Name, Scopes: k.Scopes, ExpiresAt: k.ExpiresAt, RateLimit: k.RateLimit}
	for _, m := range k.Merchants {
		s.Merchants = append(s.Merchants, typeid.Format(typeid.Merchant, m))
	}
	if k.RotatedFrom != nil {
		s.RotatedFrom = typeid.Format(typeid.Key, *k.RotatedFrom)
	}
	sum := sha256.Sum256([]byte(token))
	s.TokenSHA256 = hex.EncodeToString(sum[:4])
	return s
}
