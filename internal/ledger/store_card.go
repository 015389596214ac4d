package ledger

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// storeCard is PUT /v1/stores/{id}/card: card/storewxa/set (document 000 §14,
// step 2). The same card again changes nothing.
var storeCard = register(&Kind{
	Name: "store.set_card", Subject: "store", Endpoint: wechat.SetStoreCard,
	Settle: settleStoreCard,
	Prove:  proveStoreCard,
})

// SetStoreCard makes a store show a card. Errors besides those of Do:
// not_found, store_not_updatable, version_conflict.
func (l *Ledger) SetStoreCard(ctx context.Context, r Request, id uuid.UUID, version *int64, card string) (Store, Done, error) {
	w := change{Kind: storeCard, ID: id, Version: version, States: storeWritable, Refusal: problem.CodeStoreNotUpdatable}
	return l.Stores.change(ctx, r, w, func(s Store) (any, error) {
		return wechat.SetStoreCardRequest{PoiID: json.Number(*s.WechatID), CardID: card}, nil
	})
}

func settleStoreCard(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class != wechat.Executed {
		return nil
	}
	var sent wechat.SetStoreCardRequest
	if err := op.Unmarshal(&sent); err != nil {
		return err
	}
	changed, err := json.Marshal(StoreFields{CardID: &sent.CardID})
	b.Queue(dbsqlc.ResourceChanged, dbsqlc.ResourceChangedParams{TenantID: op.TenantID, ID: *op.SubjectID, Changed: changed})
	return err
}

func proveStoreCard(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var sent wechat.SetStoreCardRequest
	if err := op.Unmarshal(&sent); err != nil {
		return Proof{}, err
	}
	card, err := l.askStoreCard(ctx, op.Merchant, string(sent.PoiID))
	switch {
	case err != nil:
		return Proof{}, err
	case card == sent.CardID:
		return Proof{Verdict: Present}, nil
	}
	return Proof{Verdict: Absent}, nil
}

// askStoreCard reads which card a store shows; "" is none.
func (l *Ledger) askStoreCard(ctx context.Context, m authorizer.Merchant, poi string) (string, error) {
	reply, err := authorizer.Call[wechat.GetStoreCardReply](ctx, l.Authorizer, m, wechat.GetStoreCard, nil, wechat.GetStoreCardRequest{PoiID: json.Number(poi)})
	return reply.CardID, err
}

// StoreCard asks WeChat which card a store shows; "" is none. Our record of the
// store follows in the background, where it says otherwise: no other call of
// WeChat's tells.
func (l *Ledger) StoreCard(ctx context.Context, m authorizer.Merchant, s Store) (string, error) {
	if s.WechatID == nil {
		return "", problem.Of(problem.CodeStoreStateUnknown)
	}
	card, err := l.askStoreCard(ctx, m, *s.WechatID)
	if err != nil || card == deref(s.Known.CardID) {
		return card, err
	}
	changed, err := json.Marshal(map[string]*string{"card_id": optional(card)})
	if err != nil {
		return card, err
	}
	l.beside("keep a store's card", slog.String("store_id", typeid.Format(typeid.Store, s.ID)), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		b := l.DB.NewBatch(s.TenantID)
		b.Queue(dbsqlc.ResourceShown, dbsqlc.ResourceShownParams{TenantID: s.TenantID, ID: s.ID, Changed: changed, Seen: s.UpdatedAt})
		return l.DB.Run(ctx, b)
	})
	return card, nil
}
