package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/problem"
)

// CursorLife is how long a cursor works.
const CursorLife = 24 * time.Hour

// Cursors makes and reads the opaque cursors of lists (design api.md §3.7).
// They are sealed: a caller can neither read nor change one, and one made for
// another tenant, merchant, list or filter doesn't open.
type Cursors struct {
	Seal func(plain, aad []byte) ([]byte, error)
	Open func(sealed, aad []byte) ([]byte, error)
	Now  func() time.Time
}

// A ListScope is what a cursor belongs to.
type ListScope struct {
	Operation string    // operationId of the list
	Tenant    uuid.UUID // zero for lists of all tenants
	Merchant  uuid.UUID // zero for lists of all merchants
	Filters   []string  // every filter's name and value, in a fixed order
}

// aad binds a cursor to its scope. The filters are hashed: their number and
// lengths are the caller's.
func (s ListScope) aad() []byte {
	h := sha256.New()
	for _, f := range s.Filters {
		_, _ = fmt.Fprintf(h, "%d:%s", len(f), f) // a hash doesn't fail
	}
	return fmt.Appendf(nil, "v1|cursor|%s|%s|%s|%x", s.Operation, s.Tenant, s.Merchant, h.Sum(nil))
}

// EncodeCursor seals the position where the next page begins. P is a small
// struct of the list.
func EncodeCursor[P any](c Cursors, scope ListScope, position P) (string, error) {
	body, err := json.Marshal(position)
	if err != nil {
		return "", err
	}
	plain := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(body)), uint64(c.Now().Add(CursorLife).Unix()))
	sealed, err := c.Seal(append(plain, body...), scope.aad())
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// DecodeCursor opens a cursor that EncodeCursor made for the same scope within
// the last day. A nil cursor is the first page: ok is false. Errors:
// invalid_cursor.
func DecodeCursor[P any](c Cursors, scope ListScope, cursor *string) (position P, ok bool, err error) {
	if cursor == nil {
		return position, false, nil
	}
	refused := problem.Of(problem.CodeInvalidCursor)
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(*cursor)
	if err != nil {
		return position, false, refused
	}
	plain, err := c.Open(sealed, scope.aad())
	if err != nil || len(plain) < 8 {
		return position, false, refused
	}
	if expires := int64(binary.BigEndian.Uint64(plain)); c.Now().Unix() > expires {
		return position, false, refused
	}
	if err := json.Unmarshal(plain[8:], &position); err != nil {
		return position, false, refused.WithErr(err)
	}
	return position, true, nil
}

// NextLink is the Link header of a page: the same request with the cursor of
// the next page. It is nil on the last page.
func NextLink(ctx context.Context, cursor *string) *string {
	s := stateOf(ctx)
	if cursor == nil || s == noState {
		return nil
	}
	q := s.url.Query()
	q.Set("cursor", *cursor)
	link := "<" + s.url.EscapedPath() + "?" + q.Encode() + `>; rel="next"`
	return &link
}
