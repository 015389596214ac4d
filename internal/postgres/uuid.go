package postgres

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// uuidCodec carries a uuid.UUID as the sixteen bytes that it is. pgx would ask
// it for its text, try that as bytes, fail, and make the text anew, for each of
// the dozens that a write sends.
type uuidCodec struct{ pgtype.UUIDCodec }

// PlanEncode implements pgtype.Codec.
func (c uuidCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if format == pgtype.BinaryFormatCode {
		switch value.(type) {
		case uuid.UUID, *uuid.UUID:
			return uuidToBytes{}
		}
	}
	return c.UUIDCodec.PlanEncode(m, oid, format, value)
}

// PlanScan implements pgtype.Codec.
func (c uuidCodec) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	if _, ok := target.(*uuid.UUID); ok && format == pgtype.BinaryFormatCode {
		return uuidFromBytes{}
	}
	return c.UUIDCodec.PlanScan(m, oid, format, target)
}

type uuidToBytes struct{}

// Encode implements pgtype.EncodePlan.
func (uuidToBytes) Encode(value any, buf []byte) ([]byte, error) {
	switch id := value.(type) {
	case uuid.UUID:
		return append(buf, id[:]...), nil
	case *uuid.UUID: // nil is NULL before it comes here
		return append(buf, id[:]...), nil
	}
	return nil, fmt.Errorf("%T is no uuid.UUID", value)
}

type uuidFromBytes struct{}

// Scan implements pgtype.ScanPlan.
func (uuidFromBytes) Scan(src []byte, target any) error {
	id, ok := target.(*uuid.UUID)
	if !ok || len(src) != len(id) { // NULL has no bytes
		return fmt.Errorf("%d bytes are no uuid.UUID", len(src))
	}
	copy(id[:], src)
	return nil
}
