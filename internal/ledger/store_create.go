package ledger

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
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

// storeCreate is POST /v1/stores: wxa/add_store (documents 000 §4.8, 002).
//
// WeChat refuses a second store of the same place or credential (85038, 85040,
// 85041), so an attempt may be repeated once absence is proven.
var storeCreate = register(&Kind{
	Name: "store.create", Subject: "store", Endpoint: wechat.AddStore, AuditKind: "store_create",
	IDs:   idsNamed(auditIDs),
	Judge: judgeStoreCreate,
	Settle: func(b *postgres.Batch, op *Operation, out Outcome) error {
		return storeType.settleCreation(b, op, out, "in_review", nil)
	},
	Reopen: reopen,
	Prove:  proveStoreCreate,
})

// CreateStore submits a store for audit. Errors besides those of Do:
// duplicate_client_reference with the existing store.
func (l *Ledger) CreateStore(ctx context.Context, r Request, n NewStore) (Store, Done, error) {
	return l.Stores.create(ctx, r, creation{
		Kind: storeCreate, Natural: n.MapPoiID, MapPoiID: &n.MapPoiID, ClientReference: n.ClientReference,
		Media: mediaList("/qualification_media_ids", n.QualificationMediaIDs),
		Body: wechat.AddStoreRequest{
			PoiID: n.LegacyPoiID, MapPoiID: n.MapPoiID, PicList: n.Photos, ContractPhone: n.ContactPhone, Hour: n.Hours,
			Credential: n.CredentialNumber, CompanyName: n.CompanyName, QualificationList: n.QualificationMediaIDs, CardID: n.CardID,
		},
		Fields: StoreFields{
			ContactPhone: n.ContactPhone, BusinessHoursText: n.Hours, Photos: n.Photos, CardID: optional(n.CardID), CredentialNumber: n.CredentialNumber,
			CompanyName: n.CompanyName, QualificationMediaIDs: n.QualificationMediaIDs, LegacyPoiID: optional(n.LegacyPoiID),
		},
	})
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
	if sent.PoiID != "" {
		return l.proveMigration(ctx, op, sent, found)
	}
	pois := make([]string, len(found))
	for i, s := range found {
		pois[i] = string(s.PoiID)
	}
	older, err := l.Stores.numbersOlderThan(ctx, op, pois)
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

// proveMigration looks for the store that a legacy one became. It keeps its
// number, so one whose earlier move failed is shown already; the number is the
// new record's once the move is approved.
func (l *Ledger) proveMigration(ctx context.Context, op *Operation, sent wechat.AddStoreRequest, found []wechat.Store) (Proof, error) {
	moves := func(s wechat.Store) bool { return string(s.PoiID) == sent.PoiID && s.Status != wechat.StoreFailed }
	if slices.ContainsFunc(found, moves) {
		return Proof{Verdict: Present}, nil
	}
	refused, err := l.lastRefusal(ctx, op, alreadyThere)
	return Proof{Verdict: Absent, Refused: refused}, err
}

// lastRefusal is the refusal that the newest attempt met, if it is one of codes.
func (l *Ledger) lastRefusal(ctx context.Context, op *Operation, codes []int64) (*problem.Error, error) {
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
	return shown(&wechat.Error{Endpoint: op.Kind.Endpoint.Name, Family: op.Kind.Endpoint.Family, Class: wechat.Refused, Code: *last.Errcode}), nil
}

// createdBy reports whether the store that n names is the one that op sent:
// somebody may have made another one at WeChat meanwhile. Credentials are
// unique in a merchant (85041).
func createdBy(ctx context.Context, l *Ledger, op *Operation, n News) (bool, error) {
	var sent wechat.AddStoreRequest
	if err := op.Unmarshal(&sent); err != nil {
		return false, err
	}
	w, err := l.askStore(ctx, op.Merchant, n.Number)
	return w.QualificationNum == sent.Credential, err
}

// The event is add_store_audit_info (document 000 §4.8).
var _ = registerAudit("store_create", auditKind{
	Writes: []*Kind{storeCreate}, Type: &storeType, Event: outbox.StoreAuditDecided, Belongs: createdBy,
	Poll: pollStores, Waits: storeAuditWaits, Usual: storeAuditUsual,
	Decide: func(n News) *decision {
		if n.Status != Approved {
			return &decision{Status: "rejected", Upstream: new(int32(wechat.StoreFailed)), States: []string{"submitting", "in_review", "outcome_unknown"}}
		}
		return &decision{Status: "active", Upstream: new(int32(wechat.StoreApproved)), Event: outbox.StoreActivated,
			States: []string{"submitting", "outcome_unknown", "failed", "in_review", "rejected"}}
	},
})

func ignoreNotFound(err error) error {
	if postgres.IsNotFound(err) {
		return nil
	}
	return err
}

// derived makes an id that is the same each time for the same operation and
// purpose, for rows that a repeated batch must not write twice.
func derived(op uuid.UUID, purpose string) uuid.UUID { return uuid.NewSHA1(op, []byte(purpose)) }
