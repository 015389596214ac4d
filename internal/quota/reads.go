package quota

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
	"github.com/mendian/mendian/internal/wechat"
)

const (
	blockSize = 20
	// askAgain is how long a refusal is believed without asking the database:
	// another process may have given something back.
	askAgain = time.Second
	// idleAfter is how long a process keeps calls that it doesn't make.
	idleAfter = time.Minute
)

// Reads hands out the calls of reads, from blocks that this process holds. It
// is safe for concurrent use.
type Reads struct {
	db  *postgres.DB
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	blocks map[key]*block
}

type key struct {
	tenant, merchant uuid.UUID
	bucket           string
	background       bool
}

// A block is what this process holds of a bucket. Its lock is held while more
// is fetched, so that one fetch serves all who wait.
type block struct {
	mu      sync.Mutex
	gone    bool // no longer in the map: nobody may use it
	left    int
	day     pgtype.Date // on which the calls are counted
	ends    time.Time   // when that day ends
	refused time.Time   // until when a refusal is believed
	used    time.Time
	state   State // when it was fetched
}

// NewReads makes a Reads that lets go of what it holds when changes tells that
// WeChat closed a bucket.
func NewReads(db *postgres.DB, changes *postgres.Changes, log *slog.Logger) *Reads {
	r := &Reads{db: db, log: log, now: time.Now, blocks: map[key]*block{}}
	changes.Subscribe("quota_buckets", func(tenant, id uuid.UUID) {
		go r.letGo(context.Background(), func(k key, _ *block) bool { return k.tenant == tenant && k.merchant == id })
	})
	return r
}

// A Call is one counted read.
type Call struct {
	State State // after it
	r     *Reads
	key   key
	day   pgtype.Date
}

// Take counts one call of e, which must have a quota. Errors:
// wechat_quota_exhausted, and those of the database. The state is known also
// where none is left.
func (r *Reads) Take(ctx context.Context, tenant, merchant uuid.UUID, e *wechat.Endpoint) (Call, error) {
	k := key{tenant, merchant, e.Quota.Name, IsInBackground(ctx)}
	b := r.locked(k)
	defer b.mu.Unlock()
	now := r.now()
	b.used = now
	if over := !now.Before(b.ends); over || b.left == 0 && !now.Before(b.refused) {
		if err := r.fetch(ctx, k, b, e.Quota); err != nil {
			return Call{}, err
		}
	}
	c := Call{State: b.state, r: r, key: k, day: b.day}
	c.State.Resets = b.ends.Sub(now)
	if b.left == 0 {
		return c, spent(c.State)
	}
	b.left--
	c.State.Left += b.left
	return c, nil
}

// fetch takes a block, and gives back what is left of one whose day is over.
func (r *Reads) fetch(ctx context.Context, k key, b *block, bucket wechat.Bucket) error {
	// Not the caller's context: what was granted would be lost with it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	began := r.now()
	var row dbsqlc.QuotaTakeRow
	batch := r.db.NewBatch(k.tenant)
	queueGiveBack(batch, k, b.day, b.left)
	b.left = 0
	postgres.QueueOne(batch, dbsqlc.QuotaTake, dbsqlc.QuotaTakeParams{TenantID: k.tenant, MerchantID: k.merchant, Bucket: k.bucket,
		InBackground: k.background, Most: int32(bucket.PerDay), N: blockSize}, &row)
	if err := r.db.Run(ctx, batch); err != nil {
		return err
	}
	b.left, b.day, b.state = int(row.Granted), row.Day, stateOf(k.merchant, bucket, row)
	// The database's clock counts. began is before it was read, so this is
	// never later than the day's end.
	b.ends = began.Add(b.state.Resets)
	if b.left == 0 {
		b.refused = began.Add(askAgain)
	}
	return nil
}

// NotSent gives the call back.
func (c Call) NotSent(ctx context.Context) {
	b := c.r.locked(c.key)
	same := b.day == c.day
	if same {
		b.left++
	}
	b.mu.Unlock()
	if !same {
		c.r.giveBack(ctx, c.key, c.day, 1)
	}
}

// Spent heeds WeChat's word that nothing is left of the day, for all processes.
func (c Call) Spent(ctx context.Context) {
	b := c.r.locked(c.key)
	rest := 0
	if b.day == c.day {
		rest, b.left = b.left, 0
	}
	b.mu.Unlock()
	batch := c.r.db.NewBatch(c.key.tenant)
	batch.Queue(dbsqlc.QuotaClose, dbsqlc.QuotaCloseParams{TenantID: c.key.tenant, MerchantID: c.key.merchant, Bucket: c.key.bucket, Day: c.day})
	queueGiveBack(batch, c.key, c.day, rest)
	c.r.run(ctx, batch)
}

// HandBack gives back what this process holds of days that are over, and what
// it hasn't used for a minute.
func (r *Reads) HandBack(ctx context.Context) error {
	now := r.now()
	r.letGo(ctx, func(_ key, b *block) bool { return !now.Before(b.ends) || now.Sub(b.used) > idleAfter })
	return nil
}

// Close gives back everything. Reads that come later would take new blocks.
func (r *Reads) Close(ctx context.Context) {
	r.letGo(ctx, func(key, *block) bool { return true })
}

// locked is the block of k, which the caller unlocks.
func (r *Reads) locked(k key) *block {
	for {
		r.mu.Lock()
		b := r.blocks[k]
		if b == nil {
			b = &block{}
			r.blocks[k] = b
		}
		r.mu.Unlock()
		b.mu.Lock()
		if !b.gone {
			return b
		}
		b.mu.Unlock()
	}
}

// letGo forgets the blocks that which chooses, and gives their rest back.
func (r *Reads) letGo(ctx context.Context, which func(key, *block) bool) {
	r.mu.Lock()
	all := maps.Clone(r.blocks)
	r.mu.Unlock()
	for k, b := range all {
		b.mu.Lock()
		rest := 0
		if !b.gone && which(k, b) {
			b.gone, rest = true, b.left
			r.mu.Lock()
			delete(r.blocks, k)
			r.mu.Unlock()
		}
		b.mu.Unlock()
		if rest > 0 {
			r.giveBack(ctx, k, b.day, rest)
		}
	}
}

func (r *Reads) giveBack(ctx context.Context, k key, day pgtype.Date, n int) {
	batch := r.db.NewBatch(k.tenant)
	queueGiveBack(batch, k, day, n)
	r.run(ctx, batch)
}

func queueGiveBack(b *postgres.Batch, k key, day pgtype.Date, n int) {
	if n > 0 {
		b.Queue(dbsqlc.QuotaGiveBack, dbsqlc.QuotaGiveBackParams{TenantID: k.tenant, MerchantID: k.merchant, Bucket: k.bucket, Day: day,
			N: int32(n), InBackground: k.background})
	}
}

// run does what may fail: then calls stay counted that were not made.
func (r *Reads) run(ctx context.Context, b *postgres.Batch) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := r.db.Run(ctx, b); err != nil {
		r.log.WarnContext(ctx, "quota not given back", "err", err)
	}
}
