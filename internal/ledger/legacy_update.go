package ledger

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// LegacyChange is what PATCH changes; nil leaves a field as it is.
type LegacyChange struct {
	Phone          *string
	Photos         []string // all of them
	Recommendation *string
	Special        *string
	Introduction   *string
	Hours          *string
	AveragePrice   *int
	IfVersion      *int64 // If-Match: the row_version that the caller saw
}

// legacyUpdate is PATCH /v1/legacy-stores/{id}: poi/updatepoi (document 001
// §3.6). Every change is audited, for up to five business days; WeChat shows
// it meanwhile, and takes no other (§3.4).
var legacyUpdate = register(&Kind{
	Name: "legacy_store.update", Subject: "legacy_store", Endpoint: wechat.UpdatePoi, AuditKind: "legacy_store_update", Audited: true,
	Settle: settleLegacyUpdate,
	Prove:  proveLegacyUpdate,
})

// UpdateLegacyStore changes a legacy store. Errors besides those of Do:
// not_found, store_not_approved, update_in_review, version_conflict.
func (l *Ledger) UpdateLegacyStore(ctx context.Context, r Request, id uuid.UUID, c LegacyChange) (LegacyStore, Done, error) {
	w := change{Kind: legacyUpdate, ID: id, Version: c.IfVersion, States: []string{"approved"}, Refusal: problem.CodeStoreNotApproved}
	return l.LegacyStores.change(ctx, r, w, func(s LegacyStore) (any, error) {
		if s.Known.UpdateInReview && !r.ValidateOnly {
			// It may have ended without a word.
			live, err := l.LiveLegacyStore(ctx, r.Merchant, *s.WechatID)
			if err != nil {
				return nil, err
			}
			s.Known.UpdateInReview = live.Known.UpdateInReview
		}
		if s.Known.UpdateInReview {
			return nil, problem.Of(problem.CodeUpdateInReview)
		}
		return wechat.NewUpdatePoiRequest(wechat.LegacyStoreChange{
			PoiID: *s.WechatID, Sid: s.Known.Sid, Telephone: c.Phone, PhotoList: photoList(c.Photos), Recommend: c.Recommendation,
			Special: c.Special, Introduction: c.Introduction, OpenTime: c.Hours, AvgPrice: c.AveragePrice,
		}), nil
	})
}

// changed lays what was sent over what was known.
func changed(f LegacyFields, sent wechat.LegacyStoreChange) LegacyFields {
	for _, text := range []struct{ from, to *string }{{sent.Telephone, &f.Phone}, {sent.Recommend, &f.Recommendation},
		{sent.Special, &f.Special}, {sent.Introduction, &f.Introduction}, {sent.OpenTime, &f.BusinessHoursText}} {
		if text.from != nil {
			*text.to = *text.from
		}
	}
	if sent.PhotoList != nil {
		f.Photos = photoURLs(sent.PhotoList)
	}
	if sent.AvgPrice != nil {
		f.AveragePrice = *sent.AvgPrice
	}
	return f
}

func settleLegacyUpdate(b *postgres.Batch, op *Operation, out Outcome) error {
	if out.Class != wechat.Executed {
		return nil
	}
	sent, err := sentLegacyUpdate(op)
	if err != nil {
		return err
	}
	p := dbsqlc.ResourceChangedParams{TenantID: op.TenantID, ID: *op.SubjectID, AuditID: op.AuditID}
	if p.Changed, err = json.Marshal(changed(LegacyFields{UpdateInReview: true}, sent)); err != nil {
		return err
	}
	b.Queue(dbsqlc.ResourceChanged, p)
	return nil
}

func sentLegacyUpdate(op *Operation) (wechat.LegacyStoreChange, error) {
	var request wechat.UpdatePoiRequest
	err := op.Unmarshal(&request)
	return request.Change(), err
}

// shows reports whether WeChat shows what was sent.
func shows(w wechat.LegacyStore, sent wechat.LegacyStoreChange) bool {
	f := legacyFieldsOf(w)
	want := changed(f, sent)
	return slices.Equal(f.Photos, want.Photos) && f.Phone == want.Phone && f.Recommendation == want.Recommendation && f.Special == want.Special &&
		f.Introduction == want.Introduction && f.BusinessHoursText == want.BusinessHoursText && f.AveragePrice == want.AveragePrice
}

// proveLegacyUpdate looks at what WeChat shows: what was sent, from the moment
// that it was taken. One that changed nothing is shown by its audit alone.
func proveLegacyUpdate(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	sent, err := sentLegacyUpdate(op)
	if err != nil {
		return Proof{}, err
	}
	var before LegacyFields
	if err := json.Unmarshal(op.Baseline, &before); err != nil {
		return Proof{}, err
	}
	w, err := l.askLegacy(ctx, op.Merchant, sent.PoiID)
	if err != nil {
		return Proof{}, err
	}
	if shows(w, sent) && (w.UpdateStatus == 1 || !reflect.DeepEqual(before, changed(before, sent))) {
		return Proof{Verdict: Present, Audited: true}, nil
	}
	return Proof{Verdict: Absent}, nil
}
