package ledger

import (
	"context"
	"time"

	"github.com/bytedance/sonic"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
)

// A Type is what is particular of one sort of thing that merchants have at
// WeChat. All sorts have the same life here and are kept in one table: our id
// first, WeChat's number once it is told, the newest audit and write.
type Type struct {
	Name   string        // "store": stored, in operations and audits too
	Prefix typeid.Prefix // of our ids
	Scope  string        // "stores": family of scopes, and path of the collection under /v1/
	Number string        // type of the id by which WeChat manages it: PoiID

	// NumberByAudit says that the decision of the creation's audit tells the
	// number, not the answer.
	NumberByAudit bool

	// Creation names the kind of write that makes one.
	Creation string
	// Natural names the field whose value is unique in a merchant, by which one
	// of ours is known that WeChat shows before it told us its number; "": none.
	Natural string
	// Shown are the statuses in which WeChat's lists show a resource: one that
	// is missing in two comparisons is gone.
	Shown []string
	// After is our status of a resource that WeChat shows. It must leave alone
	// what it can't judge, such as what was deleted here.
	After func(row dbsqlc.ResourcesToProjectRow, s Shown) string
	// Each lists all that the merchant has at WeChat; nil where WeChat has no
	// such list. It returns false where the merchant can't have any.
	Each func(ctx context.Context, l *Ledger, m authorizer.Merchant, yield func(Shown)) (bool, error)
}

// Types are all there are. Each is what audits and operations are about.
func Types() []Type {
	return []Type{storeProgramType, storeType, mapPOIType, goodsType, legacyType}
}

// Shown is a resource as WeChat shows it.
type Shown struct {
	Number   string        // WeChat's; "": it told none
	Natural  string        // value of Type.Natural
	Upstream int           // WeChat's status
	Status   string        // ours, were it new to us
	Fields   any           // those that WeChat told, in our names
	Hash     func() []byte // changes when what is shown does (sameContent)
}

// A Resource is our record of something that a merchant has at WeChat, with its
// newest audit and write. F holds what is known of it besides ids and status.
type Resource[F any] struct {
	dbsqlc.Resource
	Known     F
	Audit     *AuditBrief
	Operation *dbsqlc.Operation
}

// An AuditBrief is what a resource shows of its newest audit.
type AuditBrief struct {
	ID                                 uuid.UUID
	Kind, Status                       string
	Reason, WechatAuditID              *string
	SubmittedAt, DecidedAt, DeadlineAt *time.Time
	OperationID                        *uuid.UUID // that submitted it
}

// A resourceRow is a row of ResourceList, column by column: a resource, and its audit
// if it has one.
type resourceRow struct {
	dbsqlc.Resource
	AuditKind, AuditStatus                            *string
	AuditReason, AuditNumber                          *string
	AuditSubmittedAt, AuditDecidedAt, AuditDeadlineAt *time.Time
	AuditOperationID                                  *uuid.UUID
}

// inCopy reads JSON from a copy that it makes once, in which all strings lie.
var inCopy = sonic.Config{ValidateString: true}.Froze()

func resourceFrom[F any](row resourceRow) (Resource[F], error) {
	r := Resource[F]{Resource: row.Resource}
	if row.AuditKind != nil {
		r.Audit = &AuditBrief{ID: *row.AuditID, Kind: *row.AuditKind, Status: *row.AuditStatus, Reason: row.AuditReason, WechatAuditID: row.AuditNumber,
			SubmittedAt: row.AuditSubmittedAt, DecidedAt: row.AuditDecidedAt, DeadlineAt: row.AuditDeadlineAt, OperationID: row.AuditOperationID}
	}
	err := inCopy.Unmarshal(row.Fields, &r.Known)
	return r, err
}

// A Collection is all resources of one type. It is safe for concurrent use.
type Collection[F any] struct {
	*collection
}

// collection is the part of a Collection that looks into no fields.
type collection struct {
	Type
	l      *Ledger
	known  *postgres.Cache[*knownNumber] // by merchant and number
	behind chan struct{}                 // bounds the projections that follow answers
}

// knownOfEach is how many numbers each collection remembers for each merchant
// that is remembered.
const knownOfEach = 10

func newCollection[F any](l *Ledger, t Type) *Collection[F] {
	c := &collection{Type: t, l: l, known: postgres.NewCache[*knownNumber](l.Changes, knownOfEach*l.Authorizer.Config.Remembered), behind: make(chan struct{}, 4)}
	l.collections = append(l.collections, c)
	return &Collection[F]{c}
}

// A reader reads a resource and its newest audit with a batch.
type reader[F any] struct{ rows []resourceRow }

func (r *reader[F]) queue(b *postgres.Batch, typ string, tenant, id uuid.UUID) {
	postgres.QueueMany(b, dbsqlc.ResourceShow, dbsqlc.ResourceShowParams{TenantID: tenant, ID: id, Type: typ}, &r.rows)
}

// resource returns what was read, and write as its newest one. Errors: not_found.
func (r *reader[F]) resource(write *dbsqlc.Operation) (Resource[F], error) {
	if len(r.rows) == 0 {
		return Resource[F]{}, problem.Of(problem.CodeNotFound)
	}
	s, err := resourceFrom[F](r.rows[0])
	s.Operation = write
	return s, err
}

// Get reads our record. Errors: not_found.
func (c *Collection[F]) Get(ctx context.Context, tenant, id uuid.UUID) (Resource[F], error) {
	var r reader[F]
	var writes []dbsqlc.Operation
	b := c.l.DB.NewSnapshot(tenant)
	r.queue(b, c.Name, tenant, id)
	postgres.QueueMany(b, dbsqlc.ResourceOperation, dbsqlc.ResourceOperationParams{TenantID: tenant, ID: id}, &writes)
	if err := c.l.DB.Run(ctx, b); err != nil {
		return Resource[F]{}, err
	}
	if len(writes) == 0 {
		return r.resource(nil)
	}
	return r.resource(&writes[0])
}

// ByNumber finds our id by WeChat's number, which is a merchant's own. Errors:
// not_found.
func (c *collection) ByNumber(ctx context.Context, m authorizer.Merchant, number string) (uuid.UUID, error) {
	if k, ok := c.known.Peek(c.key(m, number)); ok {
		return k.id, nil
	}
	known, err := c.lookUp(ctx, m, []string{number})
	if err != nil {
		return uuid.Nil, err
	}
	k, ok := known[number]
	if !ok {
		return uuid.Nil, problem.Of(problem.CodeNotFound)
	}
	return k.id, nil
}

// A Filter narrows a list of resources; zero fields don't.
type Filter struct {
	Merchants       []uuid.UUID // nil: all of the tenant
	Status          string      // "": all but failed and deleted ones
	ClientReference string
	Numbers         []string // WeChat's
	MapPoiID        string
	UpdatedAfter    *time.Time
	Before          *uuid.UUID // the last id of the page before
	Limit           int
}

// plain reports whether f asks for a page of one merchant and nothing else.
func (f Filter) plain() bool {
	return len(f.Merchants) == 1 && f.Status == "" && f.ClientReference == "" && f.Numbers == nil && f.MapPoiID == "" && f.UpdatedAfter == nil
}

// List lists our records, newest first.
func (c *Collection[F]) List(ctx context.Context, tenant uuid.UUID, f Filter) ([]Resource[F], error) {
	var rows []resourceRow
	b := c.l.DB.NewBatch(tenant)
	if f.plain() {
		before := uuid.Max
		if f.Before != nil {
			before = *f.Before
		}
		postgres.QueueMany(b, dbsqlc.ResourcePage, dbsqlc.ResourcePageParams{TenantID: tenant, MerchantID: f.Merchants[0], Type: c.Name, Before: before, N: int32(f.Limit)}, &rows)
	} else {
		postgres.QueueMany(b, dbsqlc.ResourceList, dbsqlc.ResourceListParams{TenantID: tenant, Type: c.Name, MerchantIds: f.Merchants, Status: optional(f.Status),
			ClientReference: optional(f.ClientReference), Numbers: f.Numbers, MapPoiID: optional(f.MapPoiID),
			UpdatedAfter: f.UpdatedAfter, Before: f.Before, N: int32(f.Limit)}, &rows)
	}
	if err := c.l.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	out := make([]Resource[F], len(rows))
	for i, row := range rows {
		var err error
		if out[i], err = resourceFrom[F](row); err != nil {
			return nil, err
		}
	}
	return out, nil
}
