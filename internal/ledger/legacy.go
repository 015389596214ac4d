package ledger

import (
	"context"
	"slices"
	"time"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// LegacyFields are what is known of a store of Store Management besides its
// ids and status. What WeChat leaves out of a reading stays as it was known:
// its list shows only some fields of a store that is not approved (document 001
// §3.5), and a single reading shows no district (§3.4).
type LegacyFields struct {
	Sid               string         `json:"sid,omitempty"`
	BusinessName      string         `json:"business_name,omitempty"`
	BranchName        string         `json:"branch_name,omitempty"`
	Province          string         `json:"province,omitempty"`
	City              string         `json:"city,omitempty"`
	District          string         `json:"district,omitempty"`
	Address           string         `json:"address,omitempty"`
	Phone             string         `json:"phone,omitempty"`
	CategoryPath      []string       `json:"category_path,omitempty"`
	OffsetType        int            `json:"offset_type,omitempty"`
	Location          *Location      `json:"location,omitempty"` // in the system that OffsetType names
	Photos            []string       `json:"photos,omitempty"`
	Recommendation    string         `json:"recommendation,omitempty"`
	Special           string         `json:"special,omitempty"`
	Introduction      string         `json:"introduction,omitempty"`
	BusinessHoursText string         `json:"business_hours_text,omitempty"`
	AveragePrice      int            `json:"average_price,omitempty"`
	UpdateInReview    bool           `json:"update_in_review"`
	Upgrade           *LegacyUpgrade `json:"upgrade,omitempty"`
}

// A LegacyUpgrade is how far the move of a store to the Store Mini Program is
// (document 000 §4.13).
type LegacyUpgrade struct {
	Status   int    `json:"status"` // wechat.UpgradePending … UpgradeNotAllowed
	Comment  string `json:"comment,omitempty"`
	MapPoiID string `json:"map_poi_id,omitempty"`
}

// A LegacyStore is our record of a store of Store Management with its newest
// audit and write.
type LegacyStore = Resource[LegacyFields]

// LegacyPoiID is a legacy store's number. A store of the Store Mini Program
// keeps it when it is migrated, and then has the same number as its PoiID.
const LegacyPoiID = "legacy_poi_id"

var legacyType = Type{
	Name: "legacy_store", Prefix: typeid.LegacyStore, Scope: "legacy-stores", Number: LegacyPoiID,
	Creation: "legacy_store.create", Natural: "sid", Shown: []string{"approved"},
	After: legacyAfter, Each: inventoryOfLegacy,
}

// legacyAfter leaves a creation of ours that is in review to its audit, which
// tells more.
func legacyAfter(row dbsqlc.ResourcesToProjectRow, s Shown) string {
	switch {
	case row.Status == "deleted" && row.MissingN > 0: // a comparison missed it
		return s.Status
	case row.Status == "deleted" || row.Status == "outcome_unknown" || row.Status == "submitting":
		return row.Status
	case row.Origin == "discovered":
		return s.Status
	case row.Status == "in_review" && s.Upstream == wechat.LegacyError, row.Status == "error" && s.Upstream == wechat.LegacyInAudit,
		row.Status == "rejected" && s.Upstream == wechat.LegacyApproved:
		return s.Status
	}
	return row.Status
}

// statusOfLegacy is our status of a legacy store that only WeChat knew
// (document 001 §3.4).
func statusOfLegacy(availableState int) string {
	switch availableState {
	case wechat.LegacyError:
		return "error"
	case wechat.LegacyInAudit:
		return "in_review"
	case wechat.LegacyRejected:
		return "rejected"
	default:
		return "approved"
	}
}

// legacyFieldsOf is what WeChat shows of a legacy store, in our names.
func legacyFieldsOf(w wechat.LegacyStore) LegacyFields {
	f := LegacyFields{
		Sid: string(w.Sid), BusinessName: w.BusinessName, BranchName: w.BranchName, Province: w.Province, City: w.City, District: w.District,
		Address: w.Address, Phone: w.Telephone, OffsetType: int(w.OffsetType), Photos: photoURLs(w.PhotoList), Recommendation: w.Recommend,
		Special: w.Special, Introduction: w.Introduction, BusinessHoursText: w.OpenTime, AveragePrice: int(w.AvgPrice), UpdateInReview: w.UpdateStatus == 1,
	}
	if len(w.Categories) > 0 {
		f.CategoryPath = w.Categories[0]
	}
	if w.Latitude != "" && w.Longitude != "" {
		f.Location = &Location{Latitude: string(w.Latitude), Longitude: string(w.Longitude)}
	}
	if w.UpgradeStatus != nil {
		f.Upgrade = &LegacyUpgrade{Status: int(*w.UpgradeStatus), Comment: w.UpgradeComment, MapPoiID: string(w.MapID)}
	}
	return f
}

func photoURLs(list []wechat.Photo) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.PhotoURL)
	}
	return out
}

func photoList(urls []string) []wechat.Photo {
	var out []wechat.Photo
	for _, u := range urls {
		out = append(out, wechat.Photo{PhotoURL: u})
	}
	return out
}

func shownLegacy(w wechat.LegacyStore) Shown {
	return Shown{Number: string(w.PoiID), Natural: string(w.Sid), Upstream: int(w.AvailableState), Status: statusOfLegacy(int(w.AvailableState)),
		Fields: legacyFieldsOf(w), Hash: func() []byte { return legacyHash(w) }}
}

func legacyHash(w wechat.LegacyStore) []byte {
	// Only the list shows these; they have a hash of their own (sameContent).
	more := [...]any{w.District, w.UpgradeStatus, w.UpgradeComment, w.MapID}
	shown := w.District != "" || w.UpgradeStatus != nil
	w.District, w.UpgradeStatus, w.UpgradeComment, w.MapID = "", nil, "", ""
	hash := hashOf(w)
	if shown {
		hash = append(hash, hashOf(more)...)
	}
	return hash
}

// LiveLegacyStores asks WeChat for a page of the merchant's legacy stores.
// total is what WeChat says there are. Our records follow in the background,
// where they differ.
func (l *Ledger) LiveLegacyStores(ctx context.Context, m authorizer.Merchant, begin, limit int) (_ []Live[LegacyFields], total int, err error) {
	asked := time.Now()
	reply, mark, err := authorizer.CallMarked[wechat.GetPoiListReply](ctx, l.Authorizer, m, wechat.GetPoiList, nil,
		wechat.GetPoiListRequest{Begin: begin, Limit: min(limit, wechat.MaxPoiPage)})
	if err != nil {
		return nil, 0, err
	}
	var shown []Shown
	for _, w := range reply.Stores() {
		shown = append(shown, shownLegacy(w))
	}
	out, err := l.LegacyStores.live(ctx, m, shown, mark, asked)
	return out, int(reply.TotalCount), err
}

// AllLegacyStores reads all of the merchant's legacy stores from WeChat, and
// brings our records up to them. One that a creation of ours may have made has
// no ID yet.
func (l *Ledger) AllLegacyStores(ctx context.Context, m authorizer.Merchant) ([]Live[LegacyFields], error) {
	asked := time.Now()
	var shown []Shown
	if err := l.eachLegacy(ctx, m, func(w wechat.LegacyStore) { shown = append(shown, shownLegacy(w)) }); err != nil {
		return nil, err
	}
	if _, err := l.LegacyStores.projectAll(ctx, m, shown, asked); err != nil {
		return nil, err
	}
	return l.LegacyStores.live(ctx, m, shown, 0, asked)
}

// LiveLegacyStore asks WeChat for one legacy store. Errors: store_not_found and
// what else WeChat may say.
func (l *Ledger) LiveLegacyStore(ctx context.Context, m authorizer.Merchant, poi string) (Live[LegacyFields], error) {
	asked := time.Now()
	w, err := l.askLegacy(ctx, m, poi)
	if err != nil {
		return Live[LegacyFields]{}, err
	}
	out, err := l.LegacyStores.live(ctx, m, []Shown{shownLegacy(w)}, 0, asked)
	if err != nil {
		return Live[LegacyFields]{}, err
	}
	return out[0], nil
}

func (l *Ledger) askLegacy(ctx context.Context, m authorizer.Merchant, poi string) (wechat.LegacyStore, error) {
	reply, err := authorizer.Call[wechat.GetPoiReply](ctx, l.Authorizer, m, wechat.GetPoi, nil, wechat.PoiRef{PoiID: poi})
	w := reply.Store()
	w.PoiID = wechat.ID(poi) // the document's example shows none
	return w, err
}

// RefreshLegacyStore reads one legacy store from WeChat and brings our record
// up to it, as after an approval.
func (l *Ledger) RefreshLegacyStore(ctx context.Context, m authorizer.Merchant, poi string) error {
	return l.LegacyStores.refresh(ctx, m, func(ctx context.Context) (Shown, error) {
		w, err := l.askLegacy(ctx, m, poi)
		return shownLegacy(w), err
	})
}

// eachLegacy reads all of the merchant's legacy stores at WeChat.
func (l *Ledger) eachLegacy(ctx context.Context, m authorizer.Merchant, yield func(wechat.LegacyStore)) error {
	return eachPage(func(begin int) (int, int, error) {
		reply, err := authorizer.Call[wechat.GetPoiListReply](ctx, l.Authorizer, m, wechat.GetPoiList, nil,
			wechat.GetPoiListRequest{Begin: begin, Limit: wechat.MaxPoiPage})
		for _, w := range reply.Stores() {
			yield(w)
		}
		return len(reply.BusinessList), int(reply.TotalCount), err
	})
}

// withoutManagement are WeChat's answers to an account that hasn't Store
// Management: it has no legacy stores (platform.md §11.1 no. 19).
var withoutManagement = []int64{48001}

func inventoryOfLegacy(ctx context.Context, l *Ledger, m authorizer.Merchant, yield func(Shown)) (bool, error) {
	if m.AccountType == authorizer.MiniProgram || !l.Authorizer.May(m, wechat.GetPoiList) {
		return false, nil // it can't have legacy stores that we may see
	}
	err := l.eachLegacy(ctx, m, func(w wechat.LegacyStore) { yield(shownLegacy(w)) })
	if p, ok := problem.As(err); ok && p.Upstream != nil && slices.Contains(withoutManagement, p.Upstream.Errcode) {
		return false, nil
	}
	return true, err
}
