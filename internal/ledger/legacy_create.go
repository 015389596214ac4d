package ledger

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// legacyCreate is POST /v1/legacy-stores: poi/addpoi (document 001 §3.2). The
// number comes with the answer, before the audit. WeChat refuses no second
// store of the same name, so an attempt is never repeated, but every store
// carries the sid that it was sent with: an unknown outcome can be proven.
var legacyCreate = register(&Kind{
	Name: "legacy_store.create", Subject: "legacy_store", Endpoint: wechat.AddPoi, AuditKind: "legacy_store",
	IDs: idsNamed(map[string][]string{"poiid": {LegacyPoiID}}),
	Settle: func(b *postgres.Batch, op *Operation, out Outcome) error {
		return legacyType.settleCreation(b, op, out, "in_review", nil)
	},
	Reopen: reopen,
	Prove:  proveLegacyCreate,
})

// CreateLegacyStore submits a legacy store for audit. Its fields have been
// validated; the sid is client_reference, or our own id without one. Errors
// besides those of Do: duplicate_client_reference with the existing store.
func (l *Ledger) CreateLegacyStore(ctx context.Context, r Request, f LegacyFields, reference string) (LegacyStore, Done, error) {
	id := typeid.New()
	if f.Sid = reference; reference == "" {
		f.Sid = typeid.Format(typeid.LegacyStore, id)
	}
	body := wechat.NewAddPoiRequest(wechat.NewLegacyStore{
		Sid: f.Sid, BusinessName: f.BusinessName, BranchName: f.BranchName, Province: f.Province, City: f.City, District: f.District,
		Address: f.Address, Telephone: f.Phone, Categories: []wechat.LegacyCategory{f.CategoryPath}, OffsetType: f.OffsetType,
		Longitude: json.Number(f.Location.Longitude), Latitude: json.Number(f.Location.Latitude), PhotoList: photoList(f.Photos),
		Recommend: f.Recommendation, Special: f.Special, Introduction: f.Introduction, OpenTime: f.BusinessHoursText, AvgPrice: f.AveragePrice,
	})
	return l.LegacyStores.create(ctx, r, creation{Kind: legacyCreate, Subject: id, Body: body, Natural: f.Sid, Fields: f, ClientReference: reference})
}

// proveLegacyCreate looks for a store that wasn't there before, with the sid
// that was sent. A sid of the tenant's own may be on an older store too, which
// was rejected before it was submitted again, or which we never heard of.
func proveLegacyCreate(ctx context.Context, l *Ledger, op *Operation) (Proof, error) {
	var request wechat.AddPoiRequest
	if err := op.Unmarshal(&request); err != nil {
		return Proof{}, err
	}
	sent := request.Store()
	var found []wechat.LegacyStore
	err := l.eachLegacy(ctx, op.Merchant, func(w wechat.LegacyStore) {
		if string(w.Sid) == sent.Sid {
			found = append(found, w)
		}
	})
	if err != nil {
		return Proof{}, err
	}
	var numbers []string
	for _, w := range found {
		numbers = append(numbers, string(w.PoiID))
	}
	older, err := l.LegacyStores.numbersOlderThan(ctx, op, numbers)
	if err != nil {
		return Proof{}, err
	}
	found = slices.DeleteFunc(found, func(w wechat.LegacyStore) bool { return slices.Contains(older, string(w.PoiID)) })
	ours := sent.Sid == typeid.Format(typeid.LegacyStore, *op.SubjectID)
	switch {
	case len(found) == 0:
		return Proof{Verdict: Absent}, nil
	case len(found) == 1 && (ours || submittedAs(found[0], sent)):
		p := Proof{Verdict: Present}
		if found[0].PoiID != "" {
			p.IDs = []ID{{LegacyPoiID, string(found[0].PoiID)}}
		}
		return p, nil
	}
	p := Proof{Verdict: Inconclusive}
	for _, w := range found {
		p.Candidates = append(p.Candidates, Candidate{Type: LegacyPoiID, ID: string(w.PoiID), Name: w.BusinessName + " " + w.BranchName})
	}
	return p, nil
}

// submittedAs reports whether w can be the store that was sent: names and
// address never change (document 001 §3.6). One without a number that was
// rejected may be an earlier one.
func submittedAs(w wechat.LegacyStore, sent wechat.NewLegacyStore) bool {
	return w.BusinessName == sent.BusinessName && w.BranchName == sent.BranchName && w.Address == sent.Address &&
		(w.PoiID != "" || w.AvailableState != wechat.LegacyRejected)
}
