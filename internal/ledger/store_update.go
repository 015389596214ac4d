package ledger

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// StoreChange is what PATCH changes; nil leaves a field as it is.
type StoreChange struct {
	Hours        *string
	ContactPhone *string
	Photos       []string
	CardID       *string
	IfVersion    *int64 // If-Match: the row_version that the caller saw
}

// storeUpdate is PATCH /v1/stores/{id}: wxa/update_store (documents 000 §4.9,
// 003). WeChat overwrites hours, phone and pictures each time; new pictures
// are audited, the same ones are exempt, so a repetition does no harm.
var storeUpdate = register(&Kind{
	Name: "store.update", Subject: "store", Endpoint: wechat.UpdateStore, AuditKind: "store_update",
	IDs:    auditIDOf,
	Settle: settleStoreUpdate,
	Prove:  proveStoreUpdate,
})

// freshFor is how old our record may be to fill in what a change leaves out.
const freshFor = 10 * time.Minute

// UpdateStore changes a store. Errors besides those of Do: not_found,
// store_not_updatable, store_state_unknown, version_conflict.
func (l *Ledger) UpdateStore(ctx context.Context, r Request, id uuid.UUID, c StoreChange) (Store, Done, error) {
	if s, done, found, err := l.writtenStore(ctx, r, storeUpdate); found || err != nil {
		return s, done, err
	}
	s, err := l.writable(ctx, r.Merchant, id, c.IfVersion, problem.CodeStoreNotUpdatable)
	if err != nil {
		return s, Done{}, err
	}
	known := s.Known
	if s.SyncedAt == nil || time.Since(*s.SyncedAt) > freshFor {
		liveStore, err := l.LiveStore(ctx, r.Merchant, *s.PoiID)
		if err != nil {
			return s, Done{}, err
		}
		known.BusinessHoursText, known.ContactPhone, known.Photos = liveStore.Known.BusinessHoursText, liveStore.Known.ContactPhone, liveStore.Known.Photos
	}
	req := wechat.UpdateStoreRequest{PoiID: *s.PoiID, Hour: known.BusinessHoursText, ContractPhone: known.ContactPhone, PicList: known.Photos}
	if s.MapPoiID != nil {
		req.MapPoiID = *s.MapPoiID
	}
	if c.Hours != nil {
		req.Hour = *c.Hours
	}
	if c.ContactPhone != nil {
		req.ContractPhone = *c.ContactPhone
	}
	if c.Photos != nil {
		req.PicList = c.Photos
	}
	if c.CardID != nil {
		req.CardID = *c.CardID
	}
	if req.Hour == "" || req.ContractPhone == "" || len(req.PicList) == 0 {
		return s, Done{}, problem.Of(problem.CodeStoreStateUnknown)
	}
	body, err := wechat.Encode(req)
	if err != nil {
		return s, Done{}, err
	}
	return l.writeStore(ctx, r, storeUpdate, s, body, c.IfVersion, problem.CodeStoreNotUpdatable)
}

// writtenStore answers a request whose Idempotency-Key was seen before, ahead
// of the checks that its own first execution may have made fail.
func (l *Ledger) writtenStore(ctx context.Context, r Request, k *Kind) (Store, Done, bool, error) {
	if r.IdempotencyKey == "" {
		return Store{}, Done{}, false, nil
	}
	var read storeReader
	done, found, err := l.repeat(ctx, Write{Kind: k, Caller: r.Caller, Merchant: r.Merchant, IdempotencyKey: r.IdempotencyKey, Fingerprint: r.Fingerprint,
		Read: func(b *postgres.Batch, op *Operation) { read.queue(b, op.TenantID, *op.SubjectID) }})
	if err != nil || !found || !done.Committed {
		return Store{}, done, found, err
	}
	s, err := read.store()
	return s, done, true, err
}

// writable reads a store that a write is to change, and refuses early what T1
// would refuse. refusal is the code for a store that isn't active.
func (l *Ledger) writable(ctx context.Context, m authorizer.Merchant, id uuid.UUID, version *int64, refusal string) (Store, error) {
	s, err := l.Store(ctx, m.TenantID, id)
	switch {
	case err != nil:
		return s, err
	case s.MerchantID != m.ID:
		return s, problem.Of(problem.CodeNotFound)
	case version != nil && *version != s.RowVersion:
		return s, problem.Of(problem.CodeVersionConflict)
	case s.Status != "active" || s.PoiID == nil:
		return s, problem.Of(refusal)
	}
	return s, nil
}

// writeStore is Do for a store that exists.
func (l *Ledger) writeStore(ctx context.Context, r Request, k *Kind, s Store, body []byte, version *int64, refusal string) (Store, Done, error) {
	var read storeReader
	done, err := l.Do(ctx, Write{
		Kind: k, Caller: r.Caller, Merchant: r.Merchant, Subject: s.ID, Body: body, Natural: *s.PoiID, Baseline: s.Known,
		Begin: func(b *postgres.Batch, op *Operation) error {
			b.Queue(dbsqlc.StoreClaimForWrite, dbsqlc.StoreClaimForWriteParams{TenantID: s.TenantID, ID: s.ID, OperationID: &op.ID, RowVersion: version})
			return nil
		},
		Refused: func(ctx context.Context, err error) error {
			if !postgres.IsCode(err, postgres.RefusedState) {
				return err
			}
			if _, werr := l.writable(ctx, r.Merchant, s.ID, version, refusal); werr != nil {
				return werr
			}
			return problem.Of(problem.CodeOperationInProgress).WithErr(err)
		},
		Read:           func(b *postgres.Batch, op *Operation) { read.queue(b, op.TenantID, *op.SubjectID) },
		IdempotencyKey: r.IdempotencyKey, Fingerprint: r.Fingerprint,
	})
	if err != nil || !done.Committed {
		if done.Operation != nil {
			s.Operation = &done.Operation.Operation
		}
		return s, done, err
	}
	s, err = read.store()
	return s, done, err
}

func settleStoreUpdate(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class != wechat.Executed {
		return nil
	}
	var sent wechat.UpdateStoreRequest
	if err := op.Unmarshal(&sent); err != nil {
		return err
	}
	now := StoreFields{ContactPhone: sent.ContractPhone, BusinessHoursText: sent.Hour, CardID: optional(sent.CardID)}
	p := dbsqlc.StoreUpdatedParams{TenantID: op.TenantID, ID: *op.SubjectID}
	if out.ID(AuditID) == "" && !out.Audited {
		now.Photos = sent.PicList
	} else {
		p.AuditID = op.AuditID // the pictures count once they are approved
	}
	var err error
	if p.Changed, err = json.Marshal(now); err != nil {
		return err
	}
	b.Queue(dbsqlc.StoreUpdated, p)
	return nil
}

// proveStoreUpdate looks at what WeChat shows. New pictures are not shown while
// they are in audit, but hours and phone are, and the status says so
// (platform.md §11.2); an update then is refused with 65118.
func proveStoreUpdate(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var sent wechat.UpdateStoreRequest
	if err := op.Unmarshal(&sent); err != nil {
		return Proof{}, err
	}
	var before StoreFields
	if err := json.Unmarshal(op.Baseline, &before); err != nil {
		return Proof{}, err
	}
	reply, err := authorizer.Call[wechat.GetStoreInfoReply](ctx, l.Authorizer, op.Merchant, wechat.GetStoreInfo, nil, wechat.StoreRef{PoiID: sent.PoiID})
	if err != nil {
		return Proof{}, err
	}
	store := reply.Store()
	shown := fieldsOf(store)
	switch {
	case shown.ContactPhone != sent.ContractPhone || shown.BusinessHoursText != sent.Hour:
		return Proof{Verdict: Absent}, nil
	case slices.Equal(shown.Photos, sent.PicList):
		return Proof{Verdict: Present, Audited: !slices.Equal(before.Photos, sent.PicList)}, nil
	case store.Status != wechat.StoreInAudit:
		return Proof{Verdict: Absent}, nil
	}
	ours, err := l.Store(ctx, op.TenantID, *op.SubjectID)
	if err != nil {
		return Proof{}, err
	}
	if a := ours.Audit; a != nil && a.Kind == op.Kind.AuditKind && !AuditStatus(a.Status).Final() {
		return Proof{Verdict: Inconclusive}, nil // it may be this audit that goes on
	}
	return Proof{Verdict: Present, Audited: true}, nil
}
