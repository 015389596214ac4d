package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bytedance/sonic"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/authorizer"
	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/quota"
	"github.com/mendian/mendian/internal/typeid"
	"github.com/mendian/mendian/internal/wechat"
)

// A knownNumber is what the reading of lists needs of our record.
type knownNumber struct {
	id   uuid.UUID
	hash []byte        // of what WeChat last showed
	in   atomic.Uint64 // mark of the last reply that showed this; 0: none
}

// isShown reports whether what a reply with this mark shows is what we know. A
// reply that is the same as the last one needs no look.
func (k *knownNumber) isShown(s Shown, mark wechat.Mark) bool {
	switch {
	case k == nil:
		return false
	case mark != 0 && k.in.Load() == uint64(mark):
		return true
	case !sameContent(k.hash, s.Hash()):
		return false
	}
	k.in.Store(uint64(mark))
	return true
}

func (c *collection) key(m authorizer.Merchant, number string) postgres.Key {
	return postgres.Key{Tenant: m.TenantID, ID: m.ID, Name: number}
}

// A Live is a resource as WeChat shows it now, with our id where we know it.
type Live[F any] struct {
	ID *uuid.UUID
	Shown
	Known F
}

// live is what an answer shows of these resources, which a reply with this mark
// showed, if they come from one. Our records follow in the background, where they
// differ.
func (c *Collection[F]) live(ctx context.Context, m authorizer.Merchant, shown []Shown, mark wechat.Mark, asked time.Time) ([]Live[F], error) {
	known, err := c.identify(ctx, m, shown)
	if err != nil {
		return nil, err
	}
	out := make([]Live[F], len(shown))
	var changed []Shown
	for i, s := range shown {
		out[i] = Live[F]{Shown: s, Known: s.Fields.(F)}
		if known[i] != nil {
			out[i].ID = &known[i].id
		}
		if !known[i].isShown(s, mark) {
			changed = append(changed, s)
		}
	}
	if len(changed) > 0 {
		c.projectLater(m, changed, asked)
	}
	return out, nil
}

// eachPage reads one of WeChat's lists to its end. page reads what follows the
// first offset items, and tells how many it was given and how many there are. A
// list that ends early is an error: what it left out would count as gone.
func eachPage(page func(offset int) (n, total int, err error)) error {
	for offset := 0; ; {
		n, total, err := page(offset)
		if err != nil {
			return err
		}
		offset += n
		switch {
		case offset >= total:
			return nil
		case n == 0:
			return fmt.Errorf("WeChat's list ended at %d of %d", offset, total)
		}
	}
}

// identify finds our records of what WeChat shows: in memory, and by one query
// what memory lacks. One that we don't know yet has nil.
func (c *collection) identify(ctx context.Context, m authorizer.Merchant, shown []Shown) ([]*knownNumber, error) {
	known := make([]*knownNumber, len(shown))
	var missing []string
	for i, s := range shown {
		var ok bool
		if known[i], ok = c.known.Peek(c.key(m, s.Number)); !ok {
			missing = append(missing, s.Number)
		}
	}
	if len(missing) == 0 {
		return known, nil
	}
	found, err := c.lookUp(ctx, m, missing)
	if err != nil {
		return nil, err
	}
	for i, s := range shown {
		if known[i] == nil {
			known[i] = found[s.Number]
		}
	}
	return known, nil
}

func (c *collection) lookUp(ctx context.Context, m authorizer.Merchant, numbers []string) (map[string]*knownNumber, error) {
	var rows []dbsqlc.ResourcesByNumberRow
	b := c.l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.ResourcesByNumber, dbsqlc.ResourcesByNumberParams{TenantID: m.TenantID, MerchantID: m.ID, Type: c.Name, Numbers: numbers}, &rows)
	if err := c.l.DB.Run(ctx, b); err != nil {
		return nil, err
	}
	known := map[string]*knownNumber{}
	for _, row := range rows {
		k := &knownNumber{id: row.ID, hash: row.ContentSha256}
		known[*row.WechatID] = k
		c.known.Put(c.key(m, *row.WechatID), k)
	}
	return known, nil
}

// projectLater brings our records up to what changed, after the answer. When too
// many wait already it is left to the next reader.
func (c *collection) projectLater(m authorizer.Merchant, changed []Shown, asked time.Time) {
	select {
	case c.behind <- struct{}{}:
	default:
		return
	}
	c.l.beside("bring records up to date", slog.Any("merchant_id", m.ID), func(ctx context.Context) error {
		defer func() { <-c.behind }()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := c.project(ctx, m, changed, asked)
		return err
	})
}

// project writes what WeChat shows into our records. What we don't know is one
// of ours whose number we had not been told, or a discovered one.
//
// What WeChat was asked for before a write of ours had ended may be what was
// before it. So a record that has changed since then, or may have, is left as
// it is, and so is what a creation that hasn't ended may have made; left says
// so, and that asking again would help.
func (c *collection) project(ctx context.Context, m authorizer.Merchant, shown []Shown, asked time.Time) (left bool, _ error) {
	numbers := make([]string, len(shown))
	for i, s := range shown {
		numbers[i] = s.Number
	}
	var rows []dbsqlc.ResourcesToProjectRow
	b := c.l.DB.NewBatch(m.TenantID)
	postgres.QueueMany(b, dbsqlc.ResourcesToProject, dbsqlc.ResourcesToProjectParams{TenantID: m.TenantID, MerchantID: m.ID, Type: c.Name,
		NaturalField: c.Natural, Numbers: numbers}, &rows)
	if err := c.l.DB.Run(ctx, b); err != nil {
		return false, err
	}
	// Both clocks only measure how long: whatever this took counts as doubt.
	since := time.Since(asked).Seconds()
	b = c.l.DB.NewBatch(m.TenantID)
	for _, s := range shown {
		if s.Number == "" {
			continue
		}
		upstream := int32(s.Upstream)
		row := c.recordOf(rows, s)
		hash := s.Hash()
		if row != nil && row.MissingN == 0 && sameContent(row.ContentSha256, hash) {
			c.known.Put(c.key(m, s.Number), &knownNumber{id: row.ID, hash: row.ContentSha256})
			continue
		}
		if row != nil && row.UnchangedFor <= since {
			left = true
			continue
		}
		changed, err := json.Marshal(s.Fields)
		if err != nil {
			return left, err
		}
		if row != nil {
			b.Queue(dbsqlc.ResourceProject, dbsqlc.ResourceProjectParams{Changed: changed, UpstreamStatus: &upstream, ContentSha256: hash,
				WechatID: &s.Number, Status: c.After(*row, s), TenantID: m.TenantID, ID: row.ID, Seen: row.UpdatedAt})
		} else {
			b.QueueRows(dbsqlc.ResourceDiscover, dbsqlc.ResourceDiscoverParams{TenantID: m.TenantID, ID: typeid.New(), MerchantID: m.ID, Type: c.Name, WechatID: &s.Number,
				Fields: changed, Status: s.Status, UpstreamStatus: &upstream, ContentSha256: hash, Creation: c.Creation}, func(rows pgx.Rows) error {
				left = !rows.Next() || left
				return rows.Err()
			})
		}
		b.Queue(dbsqlc.WechatIDRecord, dbsqlc.WechatIDRecordParams{TenantID: m.TenantID, MerchantID: m.ID, IDType: c.Number, WechatID: s.Number, Source: FromPoll})
		c.known.Drop(c.key(m, s.Number)) // read again with its new hash
	}
	err := c.l.DB.Run(ctx, b)
	return left, err
}

// projectAll is project of a whole list.
func (c *collection) projectAll(ctx context.Context, m authorizer.Merchant, shown []Shown, asked time.Time) (left bool, _ error) {
	for page := range slices.Chunk(shown, projectedAtOnce) {
		some, err := c.project(ctx, m, page, asked)
		if err != nil {
			return left, err
		}
		left = left || some
	}
	return left, nil
}

// recordOf finds our record of what is shown: by its number, or the one of ours
// that waits for its number and has the same natural value.
func (c *collection) recordOf(rows []dbsqlc.ResourcesToProjectRow, s Shown) *dbsqlc.ResourcesToProjectRow {
	var own *dbsqlc.ResourcesToProjectRow
	candidates := 0
	for i, row := range rows {
		switch {
		case row.WechatID != nil && *row.WechatID == s.Number:
			return &rows[i]
		case row.WechatID == nil && row.Natural != "" && row.Natural == s.Natural:
			own = &rows[i]
			candidates++
		}
	}
	if candidates > 1 {
		return nil
	}
	return own
}

// refresh reads one resource with show and brings our record up to it, as after
// an approval.
func (c *collection) refresh(ctx context.Context, m authorizer.Merchant, show func(context.Context) (Shown, error)) error {
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		asked := time.Now()
		s, err := show(ctx)
		if err != nil {
			return err
		}
		left, err := c.project(ctx, m, []Shown{s}, asked)
		switch {
		case err != nil || !left:
			return err
		case wait > 2*time.Second:
			return fmt.Errorf("the record of %s %s changes all the time", c.Name, s.Number)
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
	inventoryAgain    = 15 * time.Minute
	inventoriesAtOnce = 8
	projectedAtOnce   = 50
)

// InventoryDue compares the resources of merchants that are due, all of them,
// with what WeChat has: once when a merchant authorises, then nightly. It is
// the last net under everything else: an object that WeChat has and we don't
// is found here. A merchant of which something had to be left, as it was being
// written, is compared again soon.
func (l *Ledger) InventoryDue(ctx context.Context) error {
	return l.DB.Work(ctx, inventoriesAtOnce, nil, func(d postgres.Due) {
		l.Background.Run(ctx, "compare with WeChat", func(ctx context.Context) error { return l.inventory(ctx, d) }, slog.Any("merchant_id", d.ID))
	}, postgres.DueInventories)
}

func (l *Ledger) inventory(ctx context.Context, d postgres.Due) error {
	m, err := l.Authorizer.MerchantByID(ctx, d.Tenant, d.ID)
	if err != nil {
		return err
	}
	var lease *time.Time
	err = l.DB.InTenant(ctx, d.Tenant, func(tx postgres.DBTX) error {
		lease, err = l.q.InventoryTake(ctx, tx, dbsqlc.InventoryTakeParams{Lease: inventoryLease, TenantID: d.Tenant, ID: d.ID})
		if postgres.IsNotFound(err) {
			return l.q.InventoryGiveUp(ctx, tx, dbsqlc.InventoryGiveUpParams{TenantID: d.Tenant, ID: d.ID})
		}
		return err
	})
	if err != nil || lease == nil {
		return err
	}
	var again bool
	var next *time.Time // nil: nothing of it is kept at WeChat where we may look
	for _, c := range l.collections {
		if c.Each == nil {
			continue
		}
		has, left, err := c.inventory(quota.InBackground(ctx), m)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		again = again || left
		if has {
			next = new(time.Now().Add(inventoryEvery + rand.N(time.Hour))) // #nosec G404 -- jitter
		}
	}
	if again {
		next = new(time.Now().Add(inventoryAgain))
	}
	return l.DB.InTenant(ctx, d.Tenant, func(tx postgres.DBTX) error {
		return l.q.InventoryNext(ctx, tx, dbsqlc.InventoryNextParams{NextDue: next, TenantID: d.Tenant, ID: d.ID, Lease: lease})
	})
}

// inventory compares all of a merchant's resources of one type.
func (c *collection) inventory(ctx context.Context, m authorizer.Merchant) (has, left bool, _ error) {
	started := time.Now()
	seen := []string{}
	var shown []Shown
	has, err := c.Each(ctx, c.l, m, func(s Shown) {
		seen = append(seen, s.Number)
		shown = append(shown, s)
	})
	if err != nil {
		return has, left, err
	}
	if left, err = c.projectAll(ctx, m, shown, started); err != nil {
		return has, left, err
	}
	return has, left, c.l.DB.InTenant(ctx, m.TenantID, func(tx postgres.DBTX) error {
		if has {
			_, err := c.l.q.ResourcesMissing(ctx, tx, dbsqlc.ResourcesMissingParams{TenantID: m.TenantID, MerchantID: m.ID, Type: c.Name,
				States: c.Shown, Seen: seen, StartedAt: started})
			if err != nil {
				return err
			}
		}
		return c.l.q.MerchantSynced(ctx, tx, dbsqlc.MerchantSyncedParams{Type: c.Name, TenantID: m.TenantID, ID: m.ID})
	})
}

// sameContent reports whether what is shown is what we know, or a part of it:
// a list may show less than a single reading, by whole hashes (contentHash).
func sameContent(known, shown []byte) bool { return bytes.HasPrefix(known, shown) }

func hashOf(v any) []byte {
	b, err := sonic.ConfigStd.Marshal(v) // as encoding/json writes it: hashes are kept
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(b)
	return sum[:]
}
