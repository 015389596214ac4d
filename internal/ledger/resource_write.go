package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// A Request carries what every write has besides its own fields.
type Request struct {
	Caller         tenant.Caller
	Merchant       authorizer.Merchant
	IdempotencyKey string
	Fingerprint    []byte
	ValidateOnly   bool // see Write
}

// A creation is what Collection.create needs besides the request.
type creation struct {
	Kind            *Kind
	Body            any // what WeChat is sent
	Natural         string
	Fields          any // of the record
	MapPoiID        *string
	ClientReference string
	Subject         uuid.UUID // zero: a new id. Given where the body names it
	Baseline        any
	Media           []MediaRef // that the body names
}

// create makes a record and what it stands for at WeChat. Errors besides those
// of Do: duplicate_client_reference with the existing resource.
func (c *Collection[F]) create(ctx context.Context, r Request, n creation) (Resource[F], Done, error) {
	body, err := wechat.Encode(n.Body)
	if err != nil {
		return Resource[F]{}, Done{}, err
	}
	fields, err := json.Marshal(n.Fields)
	if err != nil {
		return Resource[F]{}, Done{}, err
	}
	if n.Subject == uuid.Nil {
		n.Subject = typeid.New()
	}
	row := dbsqlc.ResourceInsertParams{TenantID: r.Merchant.TenantID, ID: n.Subject, MerchantID: r.Merchant.ID, Type: c.Name,
		MapPoiID: n.MapPoiID, ClientReference: optional(n.ClientReference), Fields: fields}
	var read reader[F]
	done, err := c.l.Do(ctx, Write{
		Request: r, Kind: n.Kind, Subject: row.ID, Body: body, Natural: n.Natural, Baseline: n.Baseline, Media: n.Media,
		Begin: func(b *postgres.Batch, op *Operation) error {
			row.AuditID, row.OperationID = op.AuditID, &op.ID
			b.Queue(dbsqlc.ResourceInsert, row)
			return nil
		},
		Refused: func(ctx context.Context, err error) error {
			if postgres.IsUnique(err, "resources_client_reference_key") {
				return c.duplicateReference(ctx, r.Merchant, n.ClientReference, err)
			}
			return err
		},
		Read: func(b *postgres.Batch, op *Operation) { read.queue(b, c.Name, op.TenantID, *op.SubjectID) },
	})
	if err != nil {
		return Resource[F]{}, done, err
	}
	if !done.Committed {
		s, err := resourceFrom[F](resourceRow{Resource: dbsqlc.Resource{TenantID: row.TenantID, ID: *done.Operation.SubjectID, MerchantID: row.MerchantID, Type: row.Type, MapPoiID: row.MapPoiID,
			ClientReference: row.ClientReference, Fields: fields, Status: "outcome_unknown", CreatedAt: *done.Operation.SentAt, UpdatedAt: *done.Operation.SentAt, RowVersion: 1}})
		s.Operation = &done.Operation.Operation
		return s, done, err
	}
	s, err := c.written(ctx, done, &read, Resource[F]{}, nil)
	return s, done, err
}

func (c *collection) duplicateReference(ctx context.Context, m authorizer.Merchant, ref string, cause error) error {
	p := problem.Of(problem.CodeDuplicateClientReference).
		WithFields(problem.Field{Pointer: "/client_reference", Code: "duplicate", Detail: "used by another resource of this merchant"}).WithErr(cause)
	var rows []dbsqlc.Resource
	b := c.l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.ResourceByReference, dbsqlc.ResourceByReferenceParams{TenantID: m.TenantID, MerchantID: m.ID, Type: c.Name, ClientReference: &ref}, &rows)
	if err := c.l.DB.Run(ctx, b); err != nil || len(rows) == 0 {
		return p
	}
	return p.With("existing", "/v1/"+c.Scope+"/"+typeid.Format(c.Prefix, rows[0].ID))
}

// settleCreation is Kind.Settle of a creation. executed is the status of what
// WeChat accepted; changed, where not nil, are fields that its answer told.
func (t Type) settleCreation(b *postgres.Batch, op *Operation, out Outcome, executed string, changed any) error {
	p := dbsqlc.ResourceSettleParams{TenantID: op.TenantID, ID: *op.SubjectID, Status: "failed", WechatID: optional(out.ID(t.Number)),
		States: []string{"submitting", "outcome_unknown", "failed"}}
	switch out.Class {
	case wechat.Executed:
		p.Status = executed
	case wechat.Ambiguous:
		p.Status = "outcome_unknown"
	default:
		p.States = append(p.States, executed) // where WeChat's refusal overrules what a look concluded
	}
	if changed != nil {
		var err error
		if p.Changed, err = json.Marshal(changed); err != nil {
			return err
		}
	}
	b.Queue(dbsqlc.ResourceSettle, p)
	return nil
}

// reopen is Kind.Reopen of a creation.
func reopen(b *postgres.Batch, op *Operation) {
	b.Queue(dbsqlc.ResourceReopen, dbsqlc.ResourceReopenParams{TenantID: op.TenantID, ID: *op.SubjectID})
}

// A change is what Collection.change needs besides the request.
type change struct {
	Kind    *Kind
	ID      uuid.UUID
	Version *int64 // If-Match: the row_version that the caller saw
	// States are the statuses in which the write is allowed. Elsewhere the code
	// is that of Refusals, or Refusal.
	States   []string
	Refusals map[string]string
	Refusal  string
	Baseline any        // nil: what is known of the resource
	Media    []MediaRef // that the body names
}

// change writes to something that exists. prepare makes the body that WeChat is
// sent from our record as it stands. Errors besides those of Do and of prepare:
// not_found, version_conflict, and Refusal.
func (c *Collection[F]) change(ctx context.Context, r Request, w change, prepare func(Resource[F]) (any, error)) (Resource[F], Done, error) {
	var read reader[F]
	write := Write{Request: r, Kind: w.Kind, Media: w.Media, Read: func(b *postgres.Batch, op *Operation) { read.queue(b, c.Name, op.TenantID, *op.SubjectID) }}
	if r.IdempotencyKey != "" && !r.ValidateOnly {
		// Seen before: answered ahead of the checks that its own first execution
		// may have made fail.
		done, found, err := c.l.repeat(ctx, write)
		if found || err != nil {
			s, err := c.written(ctx, done, &read, Resource[F]{}, err)
			return s, done, err
		}
	}
	s, err := c.writable(ctx, r.Merchant, w)
	if err != nil {
		return s, Done{}, err
	}
	req, err := prepare(s)
	if err != nil {
		return s, Done{}, err
	}
	if write.Body, err = wechat.Encode(req); err != nil {
		return s, Done{}, err
	}
	write.Subject, write.Natural, write.Baseline = s.ID, *s.WechatID, w.Baseline
	if write.Baseline == nil {
		write.Baseline = s.Known
	}
	write.Begin = func(b *postgres.Batch, op *Operation) error {
		b.Queue(dbsqlc.ResourceClaimForWrite, dbsqlc.ResourceClaimForWriteParams{TenantID: s.TenantID, ID: s.ID, OperationID: &op.ID,
			States: w.States, RowVersion: w.Version})
		return nil
	}
	write.Refused = func(ctx context.Context, err error) error {
		if !postgres.IsCode(err, postgres.RefusedState) {
			return err
		}
		if _, werr := c.writable(ctx, r.Merchant, w); werr != nil {
			return werr
		}
		return problem.Of(problem.CodeOperationInProgress).WithErr(err)
	}
	done, err := c.l.Do(ctx, write)
	s, err = c.written(ctx, done, &read, s, err)
	return s, done, err
}

// written is the resource after a write: as it was read with the outcome, else
// before, with the operation that is still open. After a repeated request it is
// as it stands, where another write may be open by now.
func (c *Collection[F]) written(ctx context.Context, done Done, read *reader[F], before Resource[F], err error) (Resource[F], error) {
	if err != nil || done.Operation == nil {
		return before, err
	}
	switch {
	case done.Replayed:
		return c.Get(ctx, done.Operation.TenantID, *done.Operation.SubjectID)
	case done.Committed:
		return read.resource(&done.Operation.Operation)
	}
	if before.ID == uuid.Nil {
		if before, err = c.Get(ctx, done.Operation.TenantID, *done.Operation.SubjectID); err != nil {
			return before, err
		}
	}
	before.Operation = &done.Operation.Operation
	return before, nil
}

// writable reads what a write is to change, and refuses early what T1 would
// refuse.
func (c *Collection[F]) writable(ctx context.Context, m authorizer.Merchant, w change) (Resource[F], error) {
	s, err := c.Get(ctx, m.TenantID, w.ID)
	switch {
	case err != nil:
		return s, err
	case s.MerchantID != m.ID:
		return s, problem.Of(problem.CodeNotFound)
	case w.Version != nil && *w.Version != s.RowVersion:
		return s, problem.Of(problem.CodeVersionConflict)
	case !slices.Contains(w.States, s.Status) || s.WechatID == nil:
		return s, problem.Of(cmp.Or(w.Refusals[s.Status], w.Refusal))
	}
	return s, nil
}

// numbersOlderThan tells which of these numbers were known before op began.
func (c *collection) numbersOlderThan(ctx context.Context, op *Operation, numbers []string) ([]string, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	var rows []*string
	err := c.l.DB.InTenant(ctx, op.TenantID, func(tx postgres.DBTX) (err error) {
		rows, err = c.l.q.ResourceNumbersOlderThan(ctx, tx, dbsqlc.ResourceNumbersOlderThanParams{TenantID: op.TenantID, MerchantID: op.Merchant.ID,
			Type: c.Name, Numbers: numbers, Before: op.CreatedAt, ID: *op.SubjectID})
		return err
	})
	var out []string
	for _, p := range rows {
		out = append(out, *p)
	}
	return out, err
}
