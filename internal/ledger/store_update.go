package ledger

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/outbox"
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
	IDs:    idsNamed(auditIDs),
	Settle: settleStoreUpdate,
	Prove:  proveStoreUpdate,
})

// freshFor is how old our record may be to fill in what a change leaves out.
const freshFor = 10 * time.Minute

// UpdateStore changes a store. Errors besides those of Do: not_found,
// store_not_updatable, store_state_unknown, version_conflict.
func (l *Ledger) UpdateStore(ctx context.Context, r Request, id uuid.UUID, c StoreChange) (Store, Done, error) {
	w := change{Kind: storeUpdate, ID: id, Version: c.IfVersion, States: storeWritable, Refusal: problem.CodeStoreNotUpdatable}
	return l.Stores.change(ctx, r, w, func(s Store) (any, error) {
		known := s.Known
		old := s.SyncedAt == nil || time.Since(*s.SyncedAt) > freshFor
		if old && !r.ValidateOnly { // a validation asks WeChat nothing
			liveStore, err := l.LiveStore(ctx, r.Merchant, *s.WechatID)
			if err != nil {
				return nil, err
			}
			known.BusinessHoursText, known.ContactPhone, known.Photos = liveStore.Known.BusinessHoursText, liveStore.Known.ContactPhone, liveStore.Known.Photos
		}
		req := wechat.UpdateStoreRequest{PoiID: *s.WechatID, Hour: known.BusinessHoursText, ContractPhone: known.ContactPhone, PicList: known.Photos}
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
		whole := req.Hour != "" && req.ContractPhone != "" && len(req.PicList) > 0
		if unread := old && r.ValidateOnly; !whole && !unread {
			return nil, problem.Of(problem.CodeStoreStateUnknown)
		}
		return req, nil
	})
}

// storeWritable are the statuses in which a store takes writes.
var storeWritable = []string{"active"}

// The event is modify_store_audit_info (document 000 §4.9). The store is read
// from WeChat afterwards.
var _ = registerAudit("store_update", auditKind{
	Writes: []*Kind{storeUpdate}, Type: &storeType, Event: outbox.StoreAuditDecided,
	Poll: pollStores, Waits: storeAuditWaits, Usual: storeAuditUsual,
})

func settleStoreUpdate(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class != wechat.Executed {
		return nil
	}
	var sent wechat.UpdateStoreRequest
	if err := op.Unmarshal(&sent); err != nil {
		return err
	}
	now := StoreFields{ContactPhone: sent.ContractPhone, BusinessHoursText: sent.Hour, CardID: optional(sent.CardID)}
	p := dbsqlc.ResourceChangedParams{TenantID: op.TenantID, ID: *op.SubjectID}
	if out.ID(AuditID) == "" && !out.Audited {
		now.Photos = sent.PicList
	} else {
		p.AuditID = op.AuditID // the pictures count once they are approved
	}
	var err error
	if p.Changed, err = json.Marshal(now); err != nil {
		return err
	}
	b.Queue(dbsqlc.ResourceChanged, p)
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
	store, err := l.askStore(ctx, op.Merchant, sent.PoiID)
	if err != nil {
		return Proof{}, err
	}
	shown := fieldsOf(&store)
	switch {
	case shown.ContactPhone != sent.ContractPhone || shown.BusinessHoursText != sent.Hour:
		return Proof{Verdict: Absent}, nil
	case slices.Equal(shown.Photos, sent.PicList):
		return Proof{Verdict: Present, Audited: !slices.Equal(before.Photos, sent.PicList)}, nil
	case store.Status != wechat.StoreInAudit:
		return Proof{Verdict: Absent}, nil
	}
	ours, err := l.Stores.Get(ctx, op.TenantID, *op.SubjectID)
	if err != nil {
		return Proof{}, err
	}
	if a := ours.Audit; a != nil && a.Kind == op.Kind.AuditKind && !AuditStatus(a.Status).Final() {
		return Proof{Verdict: Inconclusive}, nil // it may be this audit that goes on
	}
	return Proof{Verdict: Present, Audited: true}, nil
}
