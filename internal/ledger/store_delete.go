package ledger

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// gone are WeChat's "poi_id is not exist" and "this POI has been deleted".
var gone = []int64{46005, 65115, 65116}

// storeDelete is DELETE /v1/stores/{id}: wxa/del_store (document 000 §4.12),
// where -1 means "not deleted". A store that is gone already was deleted.
var storeDelete = register(&Kind{
	Name: "store.delete", Subject: "store", Endpoint: wechat.DelStore,
	Judge:  goneIsDeleted,
	Settle: settleStoreDelete,
	Prove:  proveStoreDelete,
})

// goneIsDeleted is Kind.Judge of a deletion.
func goneIsDeleted(_ *Operation, class wechat.Class, err *wechat.Error) wechat.Class {
	if slices.Contains(gone, err.Code) {
		return wechat.Executed
	}
	return class
}

// settleDeletion is Kind.Settle of a deletion.
func settleDeletion(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class == wechat.Executed {
		b.Queue(dbsqlc.ResourceDeleted, dbsqlc.ResourceDeletedParams{TenantID: op.TenantID, ID: *op.SubjectID})
	}
	return nil
}

// saysGone reports whether err is WeChat's word that there is no such store.
func saysGone(err error) bool {
	p, ok := problem.As(err)
	return ok && p.Upstream != nil && slices.Contains(gone, p.Upstream.Errcode)
}

// proofOfAbsence is Kind.Prove of a deletion, after a reading of what it was to
// delete that ended with err.
func proofOfAbsence(err error) (Proof, error) {
	switch {
	case saysGone(err):
		return Proof{Verdict: Present}, nil
	case err != nil:
		return Proof{}, err
	}
	return Proof{Verdict: Absent}, nil // it is still there
}

// DeleteStore deletes a store at WeChat. Its record and ids stay here, with
// status deleted. Errors as UpdateStore's, with store_not_deletable.
func (l *Ledger) DeleteStore(ctx context.Context, r Request, id uuid.UUID, version *int64) (Store, Done, error) {
	w := change{Kind: storeDelete, ID: id, Version: version, States: storeWritable, Refusal: problem.CodeStoreNotDeletable,
		Refusals: map[string]string{"deleted": problem.CodeStoreNotFound}}
	return l.Stores.change(ctx, r, w, func(s Store) (any, error) { return wechat.StoreRef{PoiID: *s.WechatID}, nil })
}

func settleStoreDelete(b *postgres.Batch, op *Operation, out Outcome) error {
	if err := settleDeletion(b, op, out); err != nil || out.Class != wechat.Executed {
		return err
	}
	return outbox.Queue(b, op.TenantID, outbox.Event{ID: derived(op.ID, "deleted"), Type: outbox.StoreDeleted, MerchantID: op.Merchant.ID,
		Object: map[string]any{"id": typeid.Format(typeid.Store, *op.SubjectID), "status": "deleted"}})
}

func proveStoreDelete(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var sent wechat.StoreRef
	if err := op.Unmarshal(&sent); err != nil {
		return Proof{}, err
	}
	_, err := l.askStore(ctx, op.Merchant, sent.PoiID)
	return proofOfAbsence(err)
}
