package tenant

import (
	"slices"
	"strings"

	"github.com/google/uuid"
)

// A Caller is who makes a request: a verified API key, and what it may do.
// Rights are already the intersection of the token and its row. It is passed
// explicitly to whatever decides by it.
type Caller struct {
	TenantID   uuid.UUID   // zero for an admin key
	KeyID      uuid.UUID   // zero for work that nobody's key asked for
	Admin      bool        // audience gateway-admin
	Scopes     []string    // "*" is all of the tenant
	Merchants  []uuid.UUID // nil: every merchant of the tenant
	ExpiresAt  int64       // unix seconds
	Actor      string      // "key_…", "cli", "gateway"; what change_log shows
	RateLimit  *RateLimit  // the key's own, or its tenant's for each key; nil: the gateway's default
	TenantRate *float64    // requests a second of all its tenant's keys together; nil: the gateway's default
}

// A RateLimit is a key's own limit of requests.
type RateLimit struct {
	PerSecond float64 `json:"per_second"`
	Burst     int     `json:"burst"`
}

// Can reports whether the caller holds scope ("stores:write"). "*" holds all.
func (c Caller) Can(scope string) bool {
	return slices.Contains(c.Scopes, "*") || slices.Contains(c.Scopes, scope)
}

// MayActFor reports whether the caller's key reaches the merchant.
func (c Caller) MayActFor(merchant uuid.UUID) bool {
	return c.Merchants == nil || slices.Contains(c.Merchants, merchant)
}

// CoversScopes reports whether every scope in want is one that c holds: a key
// creates only keys no wider than itself.
func (c Caller) CoversScopes(want []string) bool {
	for _, s := range want {
		if !c.Can(s) {
			return false
		}
	}
	return true
}

// Scopes lists what a tenant's key can be given besides "*" (design api.md §2).
var Scopes = func() []string {
	var all []string
	for _, r := range strings.Fields("merchants store-program stores map-pois goods media legacy-stores audits operations quotas migrations keys") {
		all = append(all, r+":read", r+":write")
	}
	return append(all, "reference:read", "events:read")
}()
