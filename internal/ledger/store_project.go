package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// projectLater brings our records up to what WeChat has just shown, after the
// answer, and only where something changed. When too many wait already it is
// left to the next reader.
func (l *Ledger) projectLater(m authorizer.Merchant, stores []wechat.Store, asked time.Time) {
	changed := stores[:0:0]
	for _, s := range stores {
		if k, ok := l.pois.Peek(poiKey(m, string(s.PoiID))); !ok || !sameContent(k.hash, contentHash(s)) {
			changed = append(changed, s)
		}
	}
	if len(changed) == 0 {
		return
	}
	select {
	case l.behind <- struct{}{}:
	default:
		return
	}
	l.work.Go(func() {
		defer func() { <-l.behind }()
		ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
		defer cancel()
		if _, err := l.project(ctx, m, changed, asked); err != nil {
			l.Log.Warn("records not brought up to date", "merchant_id", m.ID, "err", err)
		}
	})
}

// project writes what WeChat shows of these stores into our records. A store
// that we don't know is one of ours whose poi_id we had not been told, or a
// discovered one.
//
// What WeChat was asked for before a write of ours had ended may be what was
// before it. So a record that has changed since then, or may have, is left as
// it is; left says so, and that asking again would help.
func (l *Ledger) project(ctx context.Context, m authorizer.Merchant, stores []wechat.Store, asked time.Time) (left bool, _ error) {
	pois := make([]string, len(stores))
	for i, s := range stores {
		pois[i] = string(s.PoiID)
	}
	var rows []dbsqlc.StoresToProjectRow
	b := l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.StoresToProject, dbsqlc.StoresToProjectParams{TenantID: m.TenantID, MerchantID: m.ID, PoiIds: pois}, &rows)
	if err := l.DB.Run(ctx, b); err != nil {
		return false, err
	}
	// Both clocks only measure how long: whatever this took counts as doubt.
	since := time.Since(asked).Seconds()
	b = l.DB.NewBatch(m.TenantID)
	for _, s := range stores {
		if s.PoiID == "" {
			continue
		}
		poi, hash, upstream := string(s.PoiID), contentHash(s), int32(s.Status)
		row := recordOf(rows, s)
		if row != nil && sameContent(row.ContentSha256, hash) {
			l.pois.Put(poiKey(m, poi), knownStore{row.ID, row.ContentSha256})
			continue
		}
		if row != nil && row.UnchangedFor <= since {
			left = true
			continue
		}
		changed, err := json.Marshal(fieldsOf(s))
		if err != nil {
			return left, err
		}
		if row != nil {
			b.Queue(dbsqlc.StoreProject, dbsqlc.StoreProjectParams{Changed: changed, UpstreamStatus: &upstream, ContentSha256: hash,
				PoiID: &poi, TenantID: m.TenantID, ID: row.ID, Seen: row.UpdatedAt})
		} else {
			b.Queue(dbsqlc.StoreDiscover, dbsqlc.StoreDiscoverParams{TenantID: m.TenantID, ID: typeid.New(), MerchantID: m.ID, PoiID: &poi,
				Fields: changed, Status: StatusOfUpstream(int(s.Status)), UpstreamStatus: &upstream, ContentSha256: hash})
		}
		b.Queue(dbsqlc.WechatIDRecord, dbsqlc.WechatIDRecordParams{TenantID: m.TenantID, MerchantID: m.ID, IDType: PoiID, WechatID: poi, Source: FromPoll})
		l.pois.Drop(poiKey(m, poi)) // read again with its new hash
	}
	return left, l.DB.Run(ctx, b)
}

// recordOf finds our record of a store: by its number, or the one of ours that
// waits for its number and has this credential, which is unique in a merchant
// (85041).
func recordOf(rows []dbsqlc.StoresToProjectRow, s wechat.Store) *dbsqlc.StoresToProjectRow {
	var own *dbsqlc.StoresToProjectRow
	candidates := 0
	for i, row := range rows {
		switch {
		case row.PoiID != nil && *row.PoiID == string(s.PoiID):
			return &rows[i]
		case row.PoiID == nil && row.CredentialNumber != "" && row.CredentialNumber == s.QualificationNum:
			own = &rows[i]
			candidates++
		}
	}
	if candidates > 1 {
		return nil
	}
	return own
}

// eachStore reads all of the merchant's stores at WeChat, page by page.
func (l *Ledger) eachStore(ctx context.Context, m authorizer.Merchant, yield func(wechat.Store)) error {
	for offset := 0; ; {
		reply, err := authorizer.Call[wechat.GetStoreListReply](ctx, l.Authorizer, m, wechat.GetStoreList, nil,
			wechat.GetStoreListRequest{Offset: offset, Limit: wechat.MaxStorePage})
		if err != nil {
			return err
		}
		for _, s := range reply.Stores() {
			yield(s)
		}
		offset += len(reply.BusinessList)
		if len(reply.BusinessList) == 0 || offset >= int(reply.TotalCount) {
			return nil
		}
	}
}

// RefreshStore reads one store from WeChat and brings our record up to it, as
// after an approval.
func (l *Ledger) RefreshStore(ctx context.Context, m authorizer.Merchant, poi string) error {
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		asked := time.Now()
		reply, err := authorizer.Call[wechat.GetStoreInfoReply](ctx, l.Authorizer, m, wechat.GetStoreInfo, nil, wechat.StoreRef{PoiID: poi})
		if err != nil {
			return err
		}
		w := reply.Store()
		if w.PoiID == "" {
			w.PoiID = wechat.ID(poi)
		}
		left, err := l.project(ctx, m, []wechat.Store{w}, asked)
		switch {
		case err != nil || !left:
			return err
		case wait > 2*time.Second:
			return fmt.Errorf("the record of store %s changes all the time", poi)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

const (
	inventoryLease    = 5 * time.Minute
	inventoryEvery    = 24 * time.Hour
	inventoriesAtOnce = 4
)

// InventoryDue compares the stores of merchants that are due, all of them,
// with what WeChat has: once when a merchant authorises, then nightly. It is
// the last net under everything else: an object that WeChat has and we don't
// is found here.
func (l *Ledger) InventoryDue(ctx context.Context) error {
	due, err := l.DB.Due(ctx, postgres.DueInventories, 20)
	if err != nil {
		return err
	}
	var lists errgroup.Group
	lists.SetLimit(inventoriesAtOnce)
	for _, d := range due {
		lists.Go(func() error {
			if err := l.inventory(ctx, d); err != nil {
				l.Log.Warn("inventory of stores", "merchant_id", d.ID, "err", err)
			}
			return nil
		})
	}
	return lists.Wait()
}

func (l *Ledger) inventory(ctx context.Context, d postgres.Due) error {
	m, err := l.Authorizer.MerchantByID(ctx, d.Tenant, d.ID)
	if err != nil {
		return err
	}
	taken := true
	err = l.DB.InTenant(ctx, d.Tenant, func(tx postgres.DBTX) error {
		_, err := l.q.InventoryTake(ctx, tx, dbsqlc.InventoryTakeParams{Lease: inventoryLease, TenantID: d.Tenant, ID: d.ID})
		if postgres.IsNotFound(err) {
			taken = false
			return l.q.InventoryGiveUp(ctx, tx, dbsqlc.InventoryGiveUpParams{TenantID: d.Tenant, ID: d.ID})
		}
		return err
	})
	if err != nil || !taken {
		return err
	}
	started := time.Now()
	if m.AccountType == "mini_program" || l.Authorizer.Check(m, wechat.GetStoreList) != nil {
		return l.inventoryDone(ctx, d, nil) // it can't have stores that we may see
	}
	if err := l.storeProgram(ctx, m); err != nil {
		return fmt.Errorf("read the store program: %w", err)
	}
	var seen []string
	var page []wechat.Store
	err = l.eachStore(ctx, m, func(s wechat.Store) {
		seen = append(seen, string(s.PoiID))
		page = append(page, s)
	})
	if p, ok := problem.As(err); ok && p.Upstream != nil && p.Upstream.Errcode == noStoreProgram {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("list stores: %w", err)
	}
	for len(page) > 0 {
		n := min(len(page), wechat.MaxStorePage)
		if _, err := l.project(ctx, m, page[:n], started); err != nil {
			return err
		}
		page = page[n:]
	}
	if err := l.markMissing(ctx, d, seen, started); err != nil {
		return err
	}
	next := time.Now().Add(inventoryEvery + rand.N(time.Hour)) // #nosec G404 -- jitter
	return l.inventoryDone(ctx, d, &next)
}

// storeProgram notes where the merchant's Store Mini Program itself stands
// (document 000 §4.3): without an approved one there are no stores.
func (l *Ledger) storeProgram(ctx context.Context, m authorizer.Merchant) error {
	reply, err := authorizer.Call[wechat.GetMerchantAuditInfoReply](ctx, l.Authorizer, m, wechat.GetMerchantAuditInfo, nil, nil)
	if err != nil {
		return err
	}
	status, ok := map[wechat.Int]string{wechat.MerchantNotSubmitted: "not_submitted", wechat.MerchantApproved: "approved", wechat.MerchantInAudit: "in_review",
		wechat.MerchantFailed: "rejected", wechat.MerchantAdminRefused: "rejected_by_admin"}[reply.Data.Status]
	if !ok {
		return nil // a number that no document names tells us nothing
	}
	return l.DB.InTenant(ctx, m.TenantID, func(tx postgres.DBTX) error {
		return l.q.MerchantStoreProgram(ctx, tx, dbsqlc.MerchantStoreProgramParams{StoreProgram: &status, TenantID: m.TenantID, ID: m.ID})
	})
}

// noStoreProgram is WeChat's "please apply merchant first": no stores, then.
const noStoreProgram = 85053

func (l *Ledger) markMissing(ctx context.Context, d postgres.Due, seen []string, started time.Time) error {
	return l.DB.InTenant(ctx, d.Tenant, func(tx postgres.DBTX) error {
		_, err := l.q.StoresMissing(ctx, tx, dbsqlc.StoresMissingParams{TenantID: d.Tenant, MerchantID: d.ID, Seen: append([]string{}, seen...), StartedAt: started})
		return err
	})
}

func (l *Ledger) inventoryDone(ctx context.Context, d postgres.Due, next *time.Time) error {
	return l.DB.InTenant(ctx, d.Tenant, func(tx postgres.DBTX) error {
		return l.q.MerchantStoresSynced(ctx, tx, dbsqlc.MerchantStoresSyncedParams{NextDue: next, TenantID: d.Tenant, ID: d.ID})
	})
}
