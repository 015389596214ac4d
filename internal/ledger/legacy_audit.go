package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// The event is poi_check_notify (document 001 §3.3), which names the store by
// its number and its sid: such audits have no id.
var _ = registerAudit("legacy_store", auditKind{
	Writes: []*Kind{legacyCreate}, Type: &legacyType, Event: outbox.LegacyStoreAuditDecided, Unnumbered: true,
	Poll: pollLegacy, Waits: storeAuditWaits, Usual: storeAuditUsual,
	Decide: func(n News) *decision {
		switch n.Status {
		case Approved:
			return &decision{Status: "approved", Upstream: new(int32(wechat.LegacyApproved)),
				States: []string{"submitting", "outcome_unknown", "failed", "in_review", "error", "rejected"}}
		case Rejected:
			return &decision{Status: "rejected", Upstream: new(int32(wechat.LegacyRejected)),
				States: []string{"submitting", "outcome_unknown", "in_review", "error"}}
		}
		return nil
	},
})

// No event tells how an update ended, "within 5 business days" (document 001
// §3.4): only what WeChat shows then.
var _ = registerAudit("legacy_store_update", auditKind{
	Writes: []*Kind{legacyUpdate}, Type: &legacyType, Event: outbox.LegacyStoreAuditDecided, Unnumbered: true,
	Poll: pollLegacy, Waits: []time.Duration{6 * time.Hour, 12 * time.Hour}, Usual: 8 * 24 * time.Hour,
	Decide: func(News) *decision { return &decision{Status: "approved", States: []string{"approved"}} },
})

// pollLegacy reads the stores of these audits, one by one. What WeChat says of
// one keeps it from no other; that it doesn't answer holds for all.
func pollLegacy(ctx context.Context, l *Ledger, m authorizer.Merchant, audits []dbsqlc.Audit) error {
	stores, err := l.LegacyStores.ofAudits(ctx, m, audits)
	if err != nil {
		return err
	}
	updates, err := l.writesOf(ctx, m, audits, legacyUpdate)
	if err != nil {
		return err
	}
	var refused []error
	for _, a := range audits {
		s, ok := stores[a.ID]
		if !ok {
			return problem.Of(problem.CodeNotFound)
		}
		err := l.pollLegacyStore(ctx, m, a, s, updates[a.ID])
		if p, ok := problem.As(err); ok && p.Upstream != nil {
			refused = append(refused, fmt.Errorf("legacy store %s: %w", typeid.Format(legacyType.Prefix, s.ID), err))
		} else if err != nil {
			return errors.Join(append(refused, err)...)
		}
	}
	return errors.Join(refused...)
}

// pollLegacyStore asks for the store of one audit. update is what began it, nil
// where that was a creation.
func (l *Ledger) pollLegacyStore(ctx context.Context, m authorizer.Merchant, a dbsqlc.Audit, s LegacyStore, update *Operation) error {
	n := News{Kind: a.Kind, Natural: s.Known.Sid, Source: FromPoll, At: time.Now()}
	w, err := l.findLegacy(ctx, m, s)
	switch {
	case saysGone(err):
		n.Status, n.Number = Expired, *s.WechatID
	case err != nil || w == nil:
		return err
	default:
		if n.Status, err = legacyAuditStatus(update, *w); err != nil {
			return err
		}
		shown := shownLegacy(*w)
		n.Number, n.Changed = shown.Number, shown.Fields
		if _, err := l.LegacyStores.project(ctx, m, []Shown{shown}, n.At); err != nil {
			return err
		}
	}
	if n.Status == "" {
		return nil
	}
	return l.applyPolled(ctx, m, n)
}

// findLegacy reads s from WeChat, by its number or, as long as WeChat has told
// none, by its sid; nil where no store has it.
func (l *Ledger) findLegacy(ctx context.Context, m authorizer.Merchant, s LegacyStore) (*wechat.LegacyStore, error) {
	if s.WechatID != nil {
		w, err := l.askLegacy(ctx, m, *s.WechatID)
		return &w, err
	}
	var found *wechat.LegacyStore
	err := l.eachLegacy(ctx, m, func(w wechat.LegacyStore) {
		if string(w.Sid) == s.Known.Sid {
			found = &w // the newest is the last
		}
	})
	return found, err
}

// legacyAuditStatus is how an audit ended by what WeChat shows of the store;
// "": it goes on. An update, nil where the store was created, whose fields
// aren't there was not adopted.
func legacyAuditStatus(update *Operation, w wechat.LegacyStore) (AuditStatus, error) {
	if update == nil {
		return map[int]AuditStatus{wechat.LegacyApproved: Approved, wechat.LegacyRejected: Rejected}[int(w.AvailableState)], nil
	}
	if w.UpdateStatus == 1 {
		return "", nil
	}
	sent, err := sentLegacyUpdate(update)
	if err != nil {
		return "", err
	}
	if shows(w, sent) {
		return Approved, nil
	}
	return Rejected, nil
}
