package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
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
type Store struct {
	dbsqlc.Store
	Known     StoreFields
	Audit     *dbsqlc.Audit
	Operation *dbsqlc.Operation
}

func storeFrom(row dbsqlc.Store) (Store, error) {
	s := Store{Store: row}
	return s, json.Unmarshal(row.Fields, &s.Known)
}

// fieldsOf is what WeChat shows of a store, in our names.
func fieldsOf(w wechat.Store) StoreFields {
	f := StoreFields{
		ContactPhone: w.Telephone, BusinessHoursText: w.OpenTime, CredentialNumber: w.QualificationNum,
		CompanyName: w.QualificationName, QualificationMediaIDs: w.QualificationList, Categories: w.Categories,
		Name: optional(w.BusinessName), Address: optional(w.Address), Province: optional(w.Province), City: optional(w.City), District: optional(w.District),
	}
	for _, p := range w.PhotoList {
		f.Photos = append(f.Photos, p.PhotoURL)
	}
	if w.Latitude != "" && w.Longitude != "" {
		f.Location = &Location{Latitude: string(w.Latitude), Longitude: string(w.Longitude)}
	}
	return f
}

// LiveStore is a store as WeChat shows it now, with our id where we know it.
type LiveStore struct {
	ID     *uuid.UUID
	PoiID  string
	Status int // WeChat's: 1 approved, 2 in audit, 3 failed
	Known  StoreFields
}

func live(w wechat.Store) LiveStore {
	return LiveStore{PoiID: string(w.PoiID), Status: int(w.Status), Known: fieldsOf(w)}
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

// A storeReader reads a store, its newest audit and write, with a batch.
type storeReader struct {
	rows   []dbsqlc.Store
	audits []dbsqlc.Audit
	writes []dbsqlc.Operation
}

func (r *storeReader) queue(b *postgres.Batch, tenant, id uuid.UUID) {
	postgres.QueueMany(b, dbsqlc.StoreGet, dbsqlc.StoreGetParams{TenantID: tenant, ID: id}, &r.rows)
	postgres.QueueMany(b, dbsqlc.StoreAudit, dbsqlc.StoreAuditParams{TenantID: tenant, ID: id}, &r.audits)
	postgres.QueueMany(b, dbsqlc.StoreOperation, dbsqlc.StoreOperationParams{TenantID: tenant, ID: id}, &r.writes)
}

// store returns what was read. Errors: not_found.
func (r *storeReader) store() (Store, error) {
	if len(r.rows) == 0 {
		return Store{}, problem.Of(problem.CodeNotFound)
	}
	s, err := storeFrom(r.rows[0])
	if len(r.audits) > 0 {
		s.Audit = &r.audits[0]
	}
	if len(r.writes) > 0 {
		s.Operation = &r.writes[0]
	}
	return s, err
}

// Store reads our record of a store. Errors: not_found.
func (l *Ledger) Store(ctx context.Context, tenant, id uuid.UUID) (Store, error) {
	var r storeReader
	b := l.DB.NewBatch(tenant)
	r.queue(b, tenant, id)
	if err := l.DB.Run(ctx, b); err != nil {
		return Store{}, err
	}
	return r.store()
}

// StoreID finds our id by WeChat's number, which is a merchant's own. Errors:
// not_found.
func (l *Ledger) StoreID(ctx context.Context, m authorizer.Merchant, poi string) (uuid.UUID, error) {
	if k, ok := l.pois.Peek(poiKey(m, poi)); ok {
		return k.id, nil
	}
	known, err := l.knownPois(ctx, m, []string{poi})
	if err != nil {
		return uuid.Nil, err
	}
	k, ok := known[poi]
	if !ok {
		return uuid.Nil, problem.Of(problem.CodeNotFound)
	}
	return k.id, nil
}

// A StoreFilter narrows a list of stores; zero fields don't.
type StoreFilter struct {
	Merchants       []uuid.UUID // nil: all of the tenant
	Status          string      // "": all but failed and deleted ones
	ClientReference string
	PoiID           string
	MapPoiID        string
	UpdatedAfter    *time.Time
	Before          *uuid.UUID // the last id of the page before
	Limit           int
}

// Stores lists our records, newest first.
func (l *Ledger) Stores(ctx context.Context, tenant uuid.UUID, f StoreFilter) ([]Store, error) {
	var out []Store
	err := l.DB.InTenant(ctx, tenant, func(tx postgres.DBTX) error {
		rows, err := l.q.StoreList(ctx, tx, dbsqlc.StoreListParams{TenantID: tenant, MerchantIds: f.Merchants, Status: optional(f.Status),
			ClientReference: optional(f.ClientReference), PoiID: optional(f.PoiID), MapPoiID: optional(f.MapPoiID),
			UpdatedAfter: f.UpdatedAfter, Before: f.Before, N: int32(f.Limit)})
		if err != nil {
			return err
		}
		var auditIDs []uuid.UUID
		for _, row := range rows {
			s, err := storeFrom(row)
			if err != nil {
				return err
			}
			out = append(out, s)
			if row.AuditID != nil {
				auditIDs = append(auditIDs, *row.AuditID)
			}
		}
		if len(auditIDs) == 0 {
			return nil
		}
		audits, err := l.q.AuditsByID(ctx, tx, dbsqlc.AuditsByIDParams{TenantID: tenant, Ids: auditIDs})
		if err != nil {
			return err
		}
		byID := map[uuid.UUID]*dbsqlc.Audit{}
		for i := range audits {
			byID[audits[i].ID] = &audits[i]
		}
		for i := range out {
			if out[i].AuditID != nil {
				out[i].Audit = byID[*out[i].AuditID]
			}
		}
		return nil
	})
	return out, err
}

// LiveStores asks WeChat for a page of the merchant's stores. total is what
// WeChat says there are. Our records follow in the background, where they
// differ.
func (l *Ledger) LiveStores(ctx context.Context, m authorizer.Merchant, offset, limit int) (_ []LiveStore, total int, err error) {
	asked := time.Now()
	reply, err := authorizer.Call[wechat.GetStoreListReply](ctx, l.Authorizer, m, wechat.GetStoreList, nil,
		wechat.GetStoreListRequest{Offset: offset, Limit: min(limit, wechat.MaxStorePage)})
	if err != nil {
		return nil, 0, err
	}
	stores := reply.Stores()
	out := make([]LiveStore, len(stores))
	for i, s := range stores {
		out[i] = live(s)
	}
	if err := l.identify(ctx, m, out); err != nil {
		return nil, 0, err
	}
	l.projectLater(m, stores, asked)
	return out, int(reply.TotalCount), nil
}

// LiveStore asks WeChat for one store. Errors: store_not_found and what else
// WeChat may say.
func (l *Ledger) LiveStore(ctx context.Context, m authorizer.Merchant, poi string) (LiveStore, error) {
	asked := time.Now()
	reply, err := authorizer.Call[wechat.GetStoreInfoReply](ctx, l.Authorizer, m, wechat.GetStoreInfo, nil, wechat.StoreRef{PoiID: poi})
	if err != nil {
		return LiveStore{}, err
	}
	w := reply.Store()
	if w.PoiID == "" {
		w.PoiID = wechat.ID(poi)
	}
	out := []LiveStore{live(w)}
	if err := l.identify(ctx, m, out); err != nil {
		return LiveStore{}, err
	}
	l.projectLater(m, []wechat.Store{w}, asked)
	return out[0], nil
}

// A knownStore is what the reading of lists needs of our record.
type knownStore struct {
	id   uuid.UUID
	hash []byte // of what WeChat last showed
}

// identify fills in our ids: from memory, and by one query for what memory lacks.
func (l *Ledger) identify(ctx context.Context, m authorizer.Merchant, stores []LiveStore) error {
	var missing []string
	for i := range stores {
		if k, ok := l.pois.Peek(poiKey(m, stores[i].PoiID)); ok {
			stores[i].ID = &k.id
		} else {
			missing = append(missing, stores[i].PoiID)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	known, err := l.knownPois(ctx, m, missing)
	if err != nil {
		return err
	}
	for i := range stores {
		if k, ok := known[stores[i].PoiID]; ok {
			stores[i].ID = &k.id
		}
	}
	return nil
}

func (l *Ledger) knownPois(ctx context.Context, m authorizer.Merchant, pois []string) (map[string]knownStore, error) {
	var rows []dbsqlc.StoresByPoiRow
	b := l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.StoresByPoi, dbsqlc.StoresByPoiParams{TenantID: m.TenantID, MerchantID: m.ID, PoiIds: pois}, &rows)
	if err := l.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	known := map[string]knownStore{}
	for _, row := range rows {
		k := knownStore{row.ID, row.ContentSha256}
		known[*row.PoiID] = k
		l.pois.Put(poiKey(m, *row.PoiID), k)
	}
	return known, nil
}

func poiKey(m authorizer.Merchant, poi string) postgres.Key {
	return postgres.Key{Tenant: m.TenantID, ID: m.ID.String() + " " + poi}
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

// sameContent reports whether what is shown is what we know, or a part of it.
func sameContent(known, shown []byte) bool { return bytes.HasPrefix(known, shown) }

func hashOf(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(b)
	return sum[:]
}
