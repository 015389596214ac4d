// Package typeid writes and reads the ids that callers see: a prefix that
// names the kind of thing, an underscore, and a UUIDv7 in 26 characters of
// lower-case Crockford base32 (the TypeID specification, v0.3). The database
// stores the plain UUID.
//
// An id is a name, never a right: nothing may be allowed because somebody
// knows an id.
package typeid

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// A Prefix names a kind of resource.
type Prefix string

// The prefixes of the REST surface (design api.md §2).
const (
	Tenant            Prefix = "ten"
	Key               Prefix = "key"
	Merchant          Prefix = "mch"
	AuthorizationLink Prefix = "lnk"
	Store             Prefix = "sto"
	MapPOI            Prefix = "poi"
	LegacyStore       Prefix = "lst"
	Goods             Prefix = "gds"
	StoreProgram      Prefix = "spr"
	StoreMigration    Prefix = "mig"
	Audit             Prefix = "aud"
	Operation         Prefix = "op"
	Event             Prefix = "evt"
	Change            Prefix = "chg"
	Request           Prefix = "req"
)

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// encodedLen is the number of base32 characters that hold 128 bits.
const encodedLen = 26

// ErrInvalid is returned by Parse for anything that Format can't have written.
var ErrInvalid = errors.New("not an id of this kind")

var decode = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// New makes a UUIDv7: ids sort by the time they were made.
func New() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// Format writes id with the prefix p.
func Format(p Prefix, id uuid.UUID) string {
	var room [8 + encodedLen]byte // longer prefixes get more
	out := append(append(room[:0], p...), '_')
	// 130 bits: two zero bits lead, then the 128 of the UUID.
	var acc uint32
	bits := 2
	for _, b := range id {
		acc = acc<<8 | uint32(b)
		bits += 8
		for bits >= 5 {
			bits -= 5
			out = append(out, alphabet[acc>>bits&31])
		}
	}
	return string(out)
}

// Parse reads what Format wrote with the same prefix. Upper-case letters,
// other prefixes and values over 128 bits are ErrInvalid.
func Parse(p Prefix, s string) (uuid.UUID, error) {
	rest, ok := strings.CutPrefix(s, string(p)+"_")
	if !ok || len(rest) != encodedLen || decode[rest[0]] > 7 {
		return uuid.Nil, fmt.Errorf("%q: %w (%s_…)", clip(s), ErrInvalid, p)
	}
	var id uuid.UUID
	var acc uint32
	bits, n := -2, 0
	for i := range encodedLen {
		v := decode[rest[i]]
		if v == 0xff {
			return uuid.Nil, fmt.Errorf("%q: %w (%s_…)", clip(s), ErrInvalid, p)
		}
		acc = acc<<5 | uint32(v)
		if bits += 5; bits >= 8 {
			bits -= 8
			id[n] = byte(acc >> bits)
			n++
		}
	}
	return id, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
