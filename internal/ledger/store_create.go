package ledger

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/tenant"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// NewStore is a store to be created. Its fields have been validated.
type NewStore struct {
	MapPoiID              string
	Photos                []string
	ContactPhone          string
	Hours                 string // "10:00-21:00"
	CredentialNumber      string
	CompanyName           string
	QualificationMediaIDs []string
	CardID                string
	LegacyPoiID           string
	ClientReference       string
}

// A Request carries what every write has besides its own fields.
type Request struct {
	Caller         tenant.Caller
	Merchant       authorizer.Merchant
	IdempotencyKey string
	Fingerprint    []byte
}

// storeCreate is POST /v1/stores: wxa/add_store (documents 000 §4.8, 002).
//
// WeChat refuses a second store of the same place or credential (85038, 85040,
// 85041), so an attempt may be repeated once absence is proven.
var storeCreate = register(&Kind{
	Name: "store.create", Subject: "store", Endpoint: wechat.AddStore, AuditKind: "store_create",
	IDs:    auditIDOf,
	Judge:  judgeStoreCreate,
	Settle: settleStoreCreate,
	Reopen: func(b *postgres.Batch, op *Operation) {
		b.Queue(dbsqlc.StoreReopen, dbsqlc.StoreReopenParams{TenantID: op.TenantID, ID: *op.SubjectID})
	},
	Prove: proveStoreCreate,
})

// CreateStore submits a store for audit. Errors besides those of Do:
// duplicate_client_reference with the existing store.
func (l *Ledger) CreateStore(ctx context.Context, r Request, n NewStore) (Store, Done, error) {
	body, err := wechat.Encode(wechat.AddStoreRequest{
		PoiID: n.LegacyPoiID, MapPoiID: n.MapPoiID, PicList: n.Photos, ContractPhone: n.ContactPhone, Hour: n.Hours,
		Credential: n.CredentialNumber, CompanyName: n.CompanyName, QualificationList: n.QualificationMediaIDs, CardID: n.CardID,
	})
	if err != nil {
		return Store{}, Done{}, err
	}
	fields, err := json.Marshal(StoreFields{
		ContactPhone: n.ContactPhone, BusinessHoursText: n.Hours, Photos: n.Photos, CardID: optional(n.CardID), CredentialNumber: n.CredentialNumber,
		CompanyName: n.CompanyName, QualificationMediaIDs: n.QualificationMediaIDs, LegacyPoiID: optional(n.LegacyPoiID),
	})
	if err != nil {
		return Store{}, Done{}, err
	}
	row := dbsqlc.StoreInsertParams{TenantID: r.Merchant.TenantID, ID: typeid.New(), MerchantID: r.Merchant.ID,
		MapPoiID: &n.MapPoiID, ClientReference: optional(n.ClientReference), Fields: fields}
	var read storeReader
	done, err := l.Do(ctx, Write{
		Kind: storeCreate, Caller: r.Caller, Merchant: r.Merchant, Subject: row.ID, Body: body, Natural: n.MapPoiID,
		Begin: func(b *postgres.Batch, op *Operation) error {
			row.AuditID, row.OperationID = op.AuditID, &op.ID
			b.Queue(dbsqlc.StoreInsert, row)
			return nil
		},
		Refused: func(ctx context.Context, err error) error {
			if postgres.IsUnique(err, "stores_client_reference_key") {
				return l.duplicateReference(ctx, r.Merchant, n.ClientReference, err)
			}
			return err
		},
		Read:           func(b *postgres.Batch, op *Operation) { read.queue(b, op.TenantID, *op.SubjectID) },
		IdempotencyKey: r.IdempotencyKey, Fingerprint: r.Fingerprint,
	})
	if err != nil {
		return Store{}, done, err
	}
	if !done.Committed {
		s, err := storeFrom(dbsqlc.Store{TenantID: row.TenantID, ID: *done.Operation.SubjectID, MerchantID: row.MerchantID, MapPoiID: row.MapPoiID,
			ClientReference: row.ClientReference, Fields: fields, Status: "outcome_unknown", CreatedAt: *done.Operation.SentAt, UpdatedAt: *done.Operation.SentAt, RowVersion: 1})
		s.Operation = &done.Operation.Operation
		return s, done, err
	}
	s, err := read.store()
	return s, done, err
}

func (l *Ledger) duplicateReference(ctx context.Context, m authorizer.Merchant, ref string, cause error) error {
	p := problem.Of(problem.CodeDuplicateClientReference).
		WithFields(problem.Field{Pointer: "/client_reference", Code: "duplicate", Detail: "used by another resource of this merchant"}).WithErr(cause)
	var rows []dbsqlc.Store
	b := l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.StoreByReference, dbsqlc.StoreByReferenceParams{TenantID: m.TenantID, MerchantID: m.ID, ClientReference: &ref}, &rows)
	if err := l.DB.Run(ctx, b); err != nil || len(rows) == 0 {
		return p
	}
	return p.With("existing", "/v1/stores/"+typeid.Format(typeid.Store, rows[0].ID))
}

// auditIDOf reads data.audit_id, which add_store and update_store give.
func auditIDOf(r wechat.Reply) []ID {
	var reply struct {
		Data struct {
			AuditID wechat.ID `json:"audit_id"`
		} `json:"data"`
	}
	if json.Unmarshal(r.JSON(), &reply) != nil || reply.Data.AuditID == "" || reply.Data.AuditID == "0" {
		return nil
	}
	return []ID{{AuditID, string(reply.Data.AuditID)}}
}

// alreadyThere are the refusals that an earlier attempt of ours may be the
// reason of (design api.md §6, note 1).
var alreadyThere = []int64{85038, 85040, 85041}

func judgeStoreCreate(op *Operation, class wechat.Class, err *wechat.Error) wechat.Class {
	if op.Attempt > 1 && slices.Contains(alreadyThere, err.Code) {
		return wechat.Ambiguous
	}
	return class
}

func settleStoreCreate(b *postgres.Batch, op *Operation, out Outcome) error {
	status := map[wechat.Class]string{wechat.Executed: "in_review", wechat.Ambiguous: "outcome_unknown"}[out.Class]
	if status == "" {
		status = "failed"
	}
	b.Queue(dbsqlc.StoreSettle, dbsqlc.StoreSettleParams{TenantID: op.TenantID, ID: *op.SubjectID, Status: status, PoiID: optional(out.ID(PoiID))})
	return nil
}

// proveStoreCreate looks for a store that wasn't there before, with the same
// credential, phone and hours. Credentials are unique in a merchant (85041).
func proveStoreCreate(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var sent wechat.AddStoreRequest
	if err := op.Unmarshal(&sent); err != nil {
		return Proof{}, err
	}
	var found []wechat.Store
	err := l.eachStore(ctx, op.Merchant, func(s wechat.Store) {
		if s.QualificationNum == sent.Credential {
			found = append(found, s)
		}
	})
	if err != nil {
		return Proof{}, err
	}
	pois := make([]string, len(found))
	for i, s := range found {
		pois[i] = string(s.PoiID)
	}
	older, err := l.poisOlderThan(ctx, op, pois)
	if err != nil {
		return Proof{}, err
	}
	found = slices.DeleteFunc(found, func(s wechat.Store) bool { return slices.Contains(older, string(s.PoiID)) })
	exact := slices.DeleteFunc(slices.Clone(found), func(s wechat.Store) bool {
		return s.Telephone != sent.ContractPhone || s.OpenTime != sent.Hour
	})
	if len(exact) == 1 {
		found = exact
	}
	switch len(found) {
	case 0:
		refused, err := l.lastRefusal(ctx, op, alreadyThere)
		return Proof{Verdict: Absent, Refused: refused}, err
	case 1:
		p := Proof{Verdict: Present}
		if found[0].PoiID != "" {
			p.IDs = []ID{{PoiID, string(found[0].PoiID)}}
		}
		return p, nil
	}
	p := Proof{Verdict: Inconclusive}
	for _, s := range found {
		p.Candidates = append(p.Candidates, Candidate{Type: PoiID, ID: string(s.PoiID), Name: s.BusinessName})
	}
	return p, nil
}

func (l *Ledger) poisOlderThan(ctx context.Context, op *Operation, pois []string) ([]string, error) {
	if len(pois) == 0 {
		return nil, nil
	}
	var rows []*string
	err := l.DB.InTenant(ctx, op.TenantID, func(tx postgres.DBTX) (err error) {
		rows, err = l.q.StorePoiOlderThan(ctx, tx, dbsqlc.StorePoiOlderThanParams{TenantID: op.TenantID, MerchantID: op.Merchant.ID,
			PoiIds: pois, Before: op.CreatedAt, ID: *op.SubjectID})
		return err
	})
	var out []string
	for _, p := range rows {
		out = append(out, *p)
	}
	return out, err
}

// lastRefusal is the refusal that the newest attempt met, if it is one of codes.
func (l *Ledger) lastRefusal(ctx context.Context, op *Operation, codes []int64) (*wechat.Error, error) {
	var rows []dbsqlc.OperationAttempt
	b := l.DB.NewBatch(op.TenantID)
	postgres.QueueMany(b, dbsqlc.OperationAttempts, dbsqlc.OperationAttemptsParams{TenantID: op.TenantID, OperationIds: []uuid.UUID{op.ID}}, &rows)
	if err := l.DB.Run(ctx, b); err != nil || len(rows) == 0 {
		return nil, err
	}
	last := rows[len(rows)-1]
	if last.Errcode == nil || !slices.Contains(codes, *last.Errcode) {
		return nil, nil
	}
	return &wechat.Error{Endpoint: op.Kind.Endpoint.Name, Family: op.Kind.Endpoint.Family, Class: wechat.Refused, Code: *last.Errcode}, nil
}

// createdBy reports whether the store that ev names is the one that op sent:
// somebody may have made another one at WeChat meanwhile. Credentials are
// unique in a merchant (85041).
func createdBy(ctx context.Context, l *Ledger, op *Operation, ev AuditEvent) (bool, error) {
	var sent wechat.AddStoreRequest
	if err := op.Unmarshal(&sent); err != nil {
		return false, err
	}
	reply, err := authorizer.Call[wechat.GetStoreInfoReply](ctx, l.Authorizer, op.Merchant, wechat.GetStoreInfo, nil, wechat.StoreRef{PoiID: ev.PoiID})
	if err != nil {
		return false, err
	}
	return reply.Store().QualificationNum == sent.Credential, nil
}

// applyStoreCreated is the event add_store_audit_info (document 000 §4.8).
func applyStoreCreated(ctx context.Context, l *Ledger, tx postgres.DBTX, a dbsqlc.Audit, ev AuditEvent) error {
	if ev.Status != Approved {
		_, err := l.q.StoreReject(ctx, tx, dbsqlc.StoreRejectParams{TenantID: a.TenantID, ID: a.SubjectID})
		return ignoreNotFound(err)
	}
	var poi *string
	if ev.PoiID != "" {
		poi = &ev.PoiID
		if err := l.q.StoreReleasePoi(ctx, tx, dbsqlc.StoreReleasePoiParams{TenantID: a.TenantID, MerchantID: a.MerchantID, PoiID: poi, ID: a.SubjectID}); err != nil {
			return err
		}
	}
	changed, err := json.Marshal(StoreFields{Upgraded: ev.Upgraded})
	if err != nil {
		return err
	}
	row, err := l.q.StoreActivate(ctx, tx, dbsqlc.StoreActivateParams{TenantID: a.TenantID, ID: a.SubjectID, PoiID: poi, Changed: changed})
	if postgres.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return outbox.Add(ctx, tx, a.TenantID, outbox.Event{Type: outbox.StoreActivated, MerchantID: a.MerchantID, Object: map[string]any{
		"id": typeid.Format(typeid.Store, row.ID), "poi_id": row.PoiID, "map_poi_id": row.MapPoiID, "client_reference": row.ClientReference, "status": row.Status,
	}})
}

func ignoreNotFound(err error) error {
	if postgres.IsNotFound(err) {
		return nil
	}
	return err
}

// derived makes an id that is the same each time for the same operation and
// purpose, for rows that a repeated batch must not write twice.
func derived(op uuid.UUID, purpose string) uuid.UUID { return uuid.NewSHA1(op, []byte(purpose)) }
