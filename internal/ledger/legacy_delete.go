package ledger

import (
	"context"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// legacyDelete is DELETE /v1/legacy-stores/{id}: poi/delpoi (document 001
// §3.7), in the migration too, of stores that may not move (document 000
// §4.13). A store that is gone already was deleted.
var legacyDelete = register(&Kind{
	Name: "legacy_store.delete", Subject: "legacy_store", Endpoint: wechat.DelPoi,
	Judge:  goneIsDeleted,
	Settle: settleDeletion,
	Prove:  proveLegacyDelete,
})

// DeleteLegacyStore deletes a legacy store at WeChat. Its record and ids stay
// here, with status deleted. Errors besides those of Do: not_found,
// store_not_deletable, store_not_found once it is deleted, version_conflict.
func (l *Ledger) DeleteLegacyStore(ctx context.Context, r Request, id uuid.UUID, version *int64) (LegacyStore, Done, error) {
	w := change{Kind: legacyDelete, ID: id, Version: version, States: []string{"approved", "in_review", "rejected", "error"}, Refusal: problem.CodeStoreNotDeletable,
		Refusals: map[string]string{"deleted": problem.CodeStoreNotFound}}
	return l.LegacyStores.change(ctx, r, w, func(s LegacyStore) (any, error) { return wechat.PoiRef{PoiID: *s.WechatID}, nil })
}

func proveLegacyDelete(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var sent wechat.PoiRef
	if err := op.Unmarshal(&sent); err != nil {
		return Proof{}, err
	}
	_, err := l.askLegacy(ctx, op.Merchant, sent.PoiID)
	return proofOfAbsence(err)
}
