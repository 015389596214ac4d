package ledger

import (
	"context"
	"strings"
	"time"

	"github.com/mendian/mendian/internal/outbox"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// MapPOIFields are what is known of a place that was proposed to Tencent's map,
// besides its ids and status.
type MapPOIFields struct {
	Name             string       `json:"name,omitempty"`
	Location         *Location    `json:"location,omitempty"` // as its caller gave it
	CoordinateSystem string       `json:"coordinate_system,omitempty"`
	MarsLocation     *Location    `json:"mars_location,omitempty"` // as WeChat was sent it
	Province         string       `json:"province,omitempty"`
	City             string       `json:"city,omitempty"`
	District         string       `json:"district,omitempty"`
	DistrictID       string       `json:"district_id,omitempty"`
	Address          string       `json:"address,omitempty"`
	CategoryPath     []string     `json:"category_path,omitempty"`
	Phones           []string     `json:"phones,omitempty"`
	PhotoURL         string       `json:"photo_url,omitempty"`
	LicenseURL       string       `json:"license_url,omitempty"`
	Introduction     string       `json:"introduction,omitempty"`
	LegacyPoiID      *string      `json:"legacy_poi_id,omitempty"`
	RichID           *string      `json:"rich_id,omitempty"`
	Remark           *string      `json:"remark,omitempty"`
	Decided          *MapPOIShown `json:"decided,omitempty"`
}

// MapPOIShown is a place as the event of its audit shows it.
type MapPOIShown struct {
	Name     string    `json:"name"`
	Address  string    `json:"address"`
	Location *Location `json:"location"`
}

// A MapPOI is our record of a proposed place with its newest audit and write.
type MapPOI = Resource[MapPOIFields]

// mapPOIType: WeChat shows nobody what was proposed, so that the answer and the
// event are all that is ever known of it.
var mapPOIType = Type{Name: "map_poi", Prefix: typeid.MapPOI, Scope: "map-pois", Number: BaseID, Creation: "map_poi.create"}

// The ids of a proposed place.
const (
	BaseID = "base_id" // its audit's id too
	RichID = "rich_id"
)

// mapPOICreate is POST /v1/map-pois: wxa/create_map_poi (document 000 §4.7).
//
// A second one makes a second place, and no call shows what was proposed: an
// attempt whose answer was lost is never repeated, and is proven by the audit's
// event alone, up to three business days later. A person who knows may decide
// before.
var mapPOICreate = register(&Kind{
	Name: "map_poi.create", Subject: "map_poi", Endpoint: wechat.CreateMapPOI, AuditKind: "map_poi",
	IDs: idsNamed(map[string][]string{"baseid": {BaseID, AuditID}, "richid": {RichID}}),
	Settle: func(b *postgres.Batch, op *Operation, out Outcome) error {
		return mapPOIType.settleCreation(b, op, out, "in_review", MapPOIFields{RichID: optional(out.ID(RichID))})
	},
	Reopen: reopen,
})

// CreateMapPOI proposes a place. Its fields have been validated, MarsLocation
// among them. Errors besides those of Do: duplicate_client_reference with the
// existing one.
func (l *Ledger) CreateMapPOI(ctx context.Context, r Request, f MapPOIFields, reference string) (MapPOI, Done, error) {
	body := wechat.CreateMapPOIRequest{
		Name: f.Name, Longitude: f.MarsLocation.Longitude, Latitude: f.MarsLocation.Latitude, Province: f.Province, City: f.City,
		District: f.District, Address: f.Address, Category: f.CategoryPath, Telephone: f.Phones, Photo: f.PhotoURL, License: f.LicenseURL,
		Introduct: f.Introduction, DistrictID: f.DistrictID,
	}
	if f.LegacyPoiID != nil {
		body.PoiID = *f.LegacyPoiID
	}
	return l.MapPOIs.create(ctx, r, creation{Kind: mapPOICreate, Body: body, Fields: f, ClientReference: reference,
		Natural: strings.Join([]string{f.DistrictID, f.Name, f.Address}, "\n")})
}

// The event is create_map_poi_audit_info (document 000 §4.7).
var _ = registerAudit("map_poi", auditKind{
	Writes: []*Kind{mapPOICreate}, Type: &mapPOIType, Event: outbox.MapPOIAuditDecided,
	Waits: []time.Duration{24 * time.Hour}, Usual: 7 * 24 * time.Hour, // three business days (document 000 §4.7)
	// Whoever else acts for the account proposes places too: the event tells
	// the name that it was proposed by.
	Belongs: func(_ context.Context, _ *Ledger, op *Operation, n News) (bool, error) {
		var sent wechat.CreateMapPOIRequest
		if err := op.Unmarshal(&sent); err != nil {
			return false, err
		}
		told, ok := n.Changed.(MapPOIFields)
		return ok && told.Decided != nil && told.Decided.Name == sent.Name, nil
	},
	Decide: func(n News) *decision {
		if n.Status != Approved {
			return &decision{Status: "rejected", States: []string{"submitting", "in_review", "outcome_unknown"}}
		}
		return &decision{Status: "approved", States: []string{"submitting", "in_review", "outcome_unknown", "failed", "rejected"}}
	},
})
