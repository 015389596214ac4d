package ledger

import (
	"context"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// StoreFields are what is known of a store besides its ids and status. A nil
// pointer or slice is what WeChat has not told yet. The same names are kept in
// the database and shown by the REST surface.
type StoreFields struct {
	ContactPhone          string    `json:"contact_phone,omitempty"`
	BusinessHoursText     string    `json:"business_hours_text,omitempty"`
	Photos                []string  `json:"photos,omitempty"`
	CardID                *string   `json:"card_id,omitempty"`
	CredentialNumber      string    `json:"credential_number,omitempty"`
	CompanyName           string    `json:"company_name,omitempty"`
	QualificationMediaIDs []string  `json:"qualification_media_ids,omitempty"`
	LegacyPoiID           *string   `json:"legacy_poi_id,omitempty"`
	Name                  *string   `json:"name,omitempty"`
	Address               *string   `json:"address,omitempty"`
	Province              *string   `json:"province,omitempty"`
	City                  *string   `json:"city,omitempty"`
	District              *string   `json:"district,omitempty"`
	Location              *Location `json:"location,omitempty"`
	Categories            []string  `json:"categories,omitempty"`
	Upgraded              *int64    `json:"upgraded,omitempty"` // is_upgrade of the approval, as WeChat wrote it
}

// A Location is a point in GCJ-02, in WeChat's own digits.
type Location struct {
	Latitude  string `json:"latitude"`
	Longitude string `json:"longitude"`
}

// A Store is our record of a store with its newest audit and write.
type Store = Resource[StoreFields]

// storeType: a store's credential is unique in a merchant (85041).
var storeType = Type{
	Name: "store", Prefix: typeid.Store, Scope: "stores", Number: PoiID, NumberByAudit: true,
	Creation: "store.create", Natural: "credential_number", Shown: []string{"active"},
	After: storeAfter, Each: inventoryOfStores,
}

// storeAfter leaves a creation of ours that is in review to its audit, which
// tells more.
func storeAfter(row dbsqlc.ResourcesToProjectRow, s Shown) string {
	switch {
	case row.Status == "deleted" && row.MissingN > 0: // a comparison missed it
		return s.Status
	case row.Status == "deleted" || row.Status == "outcome_unknown" || row.Status == "submitting":
		return row.Status
	case s.Upstream == wechat.StoreApproved && (row.Origin == "discovered" || row.Status == "rejected"):
		return "active"
	case s.Upstream == wechat.StoreFailed && row.Origin == "discovered" && row.Status == "in_review":
		return "rejected"
	}
	return row.Status
}

// fieldsOf is what WeChat shows of a store, in our names. What is optional lies
// in w.
func fieldsOf(w *wechat.Store) StoreFields {
	f := StoreFields{
		ContactPhone: w.Telephone, BusinessHoursText: w.OpenTime, CredentialNumber: w.QualificationNum,
		CompanyName: w.QualificationName, QualificationMediaIDs: w.QualificationList, Categories: w.Categories,
		Name: unlessEmpty(&w.BusinessName), Address: unlessEmpty(&w.Address), Province: unlessEmpty(&w.Province), City: unlessEmpty(&w.City),
		District: unlessEmpty(&w.District), Photos: photoURLs(w.PhotoList),
	}
	if w.Latitude != "" && w.Longitude != "" {
		f.Location = &Location{Latitude: string(w.Latitude), Longitude: string(w.Longitude)}
	}
	return f
}

func shownStore(w *wechat.Store) Shown {
	return Shown{Number: string(w.PoiID), Natural: w.QualificationNum, Upstream: int(w.Status), Status: StatusOfUpstream(int(w.Status)),
		Fields: fieldsOf(w), Hash: func() []byte { return contentHash(*w) }}
}

// StatusOfUpstream is our status of a store that only WeChat knew.
func StatusOfUpstream(n int) string {
	switch n {
	case wechat.StoreInAudit:
		return "in_review"
	case wechat.StoreFailed:
		return "rejected"
	default:
		return "active"
	}
}

// LiveStores asks WeChat for a page of the merchant's stores. total is what
// WeChat says there are. Our records follow in the background, where they
// differ.
func (l *Ledger) LiveStores(ctx context.Context, m authorizer.Merchant, offset, limit int) (_ []Live[StoreFields], total int, err error) {
	asked := time.Now()
	reply, mark, err := authorizer.CallMarked[wechat.GetStoreListReply](ctx, l.Authorizer, m, wechat.GetStoreList, nil,
		wechat.GetStoreListRequest{Offset: offset, Limit: min(limit, wechat.MaxStorePage)})
	if err != nil {
		return nil, 0, err
	}
	out, err := l.liveStores(ctx, m, reply.Stores(), mark, asked)
	return out, int(reply.TotalCount), err
}

// LiveStore asks WeChat for one store. Errors: store_not_found and what else
// WeChat may say.
func (l *Ledger) LiveStore(ctx context.Context, m authorizer.Merchant, poi string) (Live[StoreFields], error) {
	asked := time.Now()
	w, err := l.askStore(ctx, m, poi)
	if err != nil {
		return Live[StoreFields]{}, err
	}
	out, err := l.liveStores(ctx, m, []wechat.Store{w}, 0, asked)
	if err != nil {
		return Live[StoreFields]{}, err
	}
	return out[0], nil
}

func (l *Ledger) liveStores(ctx context.Context, m authorizer.Merchant, stores []wechat.Store, mark wechat.Mark, asked time.Time) ([]Live[StoreFields], error) {
	shown := make([]Shown, len(stores))
	for i := range stores {
		shown[i] = shownStore(&stores[i])
	}
	return l.Stores.live(ctx, m, shown, mark, asked)
}

func (l *Ledger) askStore(ctx context.Context, m authorizer.Merchant, poi string) (wechat.Store, error) {
	reply, err := authorizer.Call[wechat.GetStoreInfoReply](ctx, l.Authorizer, m, wechat.GetStoreInfo, nil, wechat.StoreRef{PoiID: poi})
	w := reply.Store()
	if w.PoiID == "" {
		w.PoiID = wechat.ID(poi)
	}
	return w, err
}

// RefreshStore reads one store from WeChat and brings our record up to it, as
// after an approval.
func (l *Ledger) RefreshStore(ctx context.Context, m authorizer.Merchant, poi string) error {
	return l.Stores.refresh(ctx, m, func(ctx context.Context) (Shown, error) {
		w, err := l.askStore(ctx, m, poi)
		return shownStore(&w), err
	})
}

// eachStore reads all of the merchant's stores at WeChat.
func (l *Ledger) eachStore(ctx context.Context, m authorizer.Merchant, yield func(wechat.Store)) error {
	return eachPage(func(offset int) (int, int, error) {
		reply, err := authorizer.Call[wechat.GetStoreListReply](ctx, l.Authorizer, m, wechat.GetStoreList, nil,
			wechat.GetStoreListRequest{Offset: offset, Limit: wechat.MaxStorePage})
		for _, s := range reply.Stores() {
			yield(s)
		}
		return len(reply.BusinessList), int(reply.TotalCount), err
	})
}

// noStoreProgram is WeChat's "please apply merchant first": no stores, then.
const noStoreProgram = 85053

func inventoryOfStores(ctx context.Context, l *Ledger, m authorizer.Merchant, yield func(Shown)) (bool, error) {
	if m.AccountType == authorizer.MiniProgram || !l.Authorizer.May(m, wechat.GetStoreList) {
		return false, nil // it can't have stores that we may see
	}
	err := l.eachStore(ctx, m, func(s wechat.Store) { yield(shownStore(&s)) })
	if p, ok := problem.As(err); ok && p.Upstream != nil && p.Upstream.Errcode == noStoreProgram {
		err = nil
	}
	return true, err
}

// contentHash tells whether what WeChat shows has changed (sameContent).
// get_store_list shows categories and qualifications, get_store_info doesn't
// (documents 000 §4.10, §4.11): they have a second hash, where there are any.
func contentHash(w wechat.Store) []byte {
	more := [...]wechat.Texts{w.Categories, w.QualificationList}
	w.Categories, w.QualificationList = nil, nil
	hash := hashOf(w)
	if len(more[0])+len(more[1]) > 0 {
		hash = append(hash, hashOf(more)...)
	}
	return hash
}
