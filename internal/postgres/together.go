package postgres

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/mendian/mendian/internal/observe"
)

const (
	// lanes are the transactions of RunTogether that a Share has under way at
	// most. More of them would make smaller groups.
	lanes = 2
	// groupOf bounds a group: how much one transaction does, and how many wait
	// for what one of them waits for.
	groupOf = 32
	// groupWithin bounds a group's transaction.
	groupWithin = 5 * time.Second
	// patience is how long one may keep others waiting, whatever it waits for
	// itself: a lane that is busy for longer counts as free, and a group in which
	// one waits longer for a lock is refused, so that each runs alone.
	patience = 200 * time.Millisecond
)

// A gathering makes groups of the batches that come while all lanes are busy:
// the next lane that is free takes all who wait. So a commit, a round trip and
// two wake-ups are shared by as many as there are, and who comes alone waits
// for nobody.
type gathering struct {
	mu      sync.Mutex
	busy    int
	waiting []*passenger
}

// A passenger is a batch in a group.
type passenger struct {
	ctx   context.Context
	batch *Batch
	about uuid.UUID
	lead  chan []*passenger // the group that it is to send, itself among them
	done  chan struct{}     // closed once err tells how it ended
	err   error
}

// compare is the order in which groups take rows, and 0 for those who may want
// the same ones.
func (p *passenger) compare(q *passenger) int {
	return cmp.Or(bytes.Compare(p.batch.tenant[:], q.batch.tenant[:]), bytes.Compare(p.about[:], q.about[:]))
}

// errAlone tells the passengers of a group that was refused because of one of
// them that nothing was committed.
var errAlone = errors.New("to be run alone")

// RunTogether is Run, in one transaction with the batches that others run at
// the same moment. Where the whole is refused, each is run by itself, so what
// is wrong with one is no other's business. It is for what many do at once and
// what is seldom refused. What b reads may be read twice.
//
// about names what of the tenant's b is about: only batches about the same may
// wait for each other's rows. A group has one of those, and all groups take
// them in one order, so that two never wait for each other.
func (db *DB) RunTogether(ctx context.Context, b *Batch, about uuid.UUID) error {
	g := &db.gatherings[shareOf(ctx)%Share(len(db.pools))]
	p := &passenger{ctx: ctx, batch: b, about: about, lead: make(chan []*passenger, 1), done: make(chan struct{})}
	if g.enter(p) {
		g.send(db, []*passenger{p})
		return p.err
	}
	select {
	case group := <-p.lead:
		g.send(db, group)
	case <-p.done:
	case <-ctx.Done():
		if g.leave(p) {
			return fmt.Errorf("%w: %w", ErrNotAsked, ctx.Err())
		}
		// It is on its way: until that ends, what b reads into is written to.
		select {
		case group := <-p.lead:
			g.send(db, group)
		case <-p.done:
		}
	}
	if errors.Is(p.err, errAlone) {
		return db.Run(ctx, b)
	}
	return p.err
}

// enter reports whether a lane is p's at once; else p waits.
func (g *gathering) enter(p *passenger) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy < lanes {
		g.busy++
		return true
	}
	g.waiting = append(g.waiting, p)
	return false
}

// leave takes p out of those who wait, if it still does.
func (g *gathering) leave(p *passenger) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, p)
	if i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
	}
	return i >= 0
}

// next gives a lane to the first of those who wait, with the others, or frees it.
func (g *gathering) next() {
	g.mu.Lock()
	defer g.mu.Unlock()
	var group, rest []*passenger
	for _, p := range g.waiting {
		if len(group) < groupOf && !slices.ContainsFunc(group, func(q *passenger) bool { return p.compare(q) == 0 }) {
			group = append(group, p)
		} else {
			rest = append(rest, p)
		}
	}
	g.waiting = rest
	if len(group) == 0 {
		g.busy--
		return
	}
	group[0].lead <- group
}

// send runs a group, tells each how that ended, and hands on its lane, at the
// latest when others have waited for patience.
func (g *gathering) send(db *DB, group []*passenger) {
	err := errors.New("running a group panicked")
	late := time.AfterFunc(patience, g.next)
	defer func() {
		if late.Stop() {
			g.next()
		}
		for _, p := range group {
			if err != nil {
				p.err = err
			}
			close(p.done)
		}
	}()
	if len(group) == 1 {
		err = db.Run(group[0].ctx, group[0].batch)
		return
	}
	err = db.runGroup(group)
	_, unwritten := errors.AsType[pgx.ErrPreprocessingBatch](err) // as one has a value that is none of Postgres's
	if unwritten || Refused(err) || pgconn.SafeToRetry(err) {
		err = errAlone
	}
}

const setPatience = `SELECT set_config('lock_timeout', $1, true)`

// runGroup runs a group as one transaction: nil, and only nil, means that it
// was committed. Then each one's err is what its own reading returned. It ends
// when nobody waits for it any more.
func (db *DB) runGroup(group []*passenger) error {
	slices.SortFunc(group, (*passenger).compare)
	var all pgx.Batch
	all.Queue(setPatience, strconv.FormatInt(patience.Milliseconds(), 10))
	most := time.Now().Add(groupWithin)
	var until time.Time
	for i, p := range group {
		end, ok := p.ctx.Deadline()
		if !ok || end.After(most) {
			end = most
		}
		if end.After(until) {
			until = end
		}
		queries := p.batch.b.QueuedQueries
		if i > 0 {
			count(p.ctx) // the first one's is counted by its context
			if p.batch.tenant == group[i-1].batch.tenant {
				queries = queries[1:] // the tenant is set
			}
		}
		for _, q := range queries {
			all.Queue(q.SQL, q.Arguments...).Fn = p.reading(q.Fn)
		}
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(group[0].ctx), until)
	defer cancel()
	return db.with(ctx, func(c *pgxpool.Conn) error { return c.SendBatch(ctx, &all).Close() })
}

// reading is how p reads one result. Whatever p makes of it, the others read on,
// unless Postgres refused the statement or the connection broke: that is
// everyone's, also where p failed before it came to that.
func (p *passenger) reading(read func(pgx.BatchResults) error) func(pgx.BatchResults) error {
	if read == nil {
		return nil
	}
	return func(br pgx.BatchResults) error {
		own := ownResults{BatchResults: br}
		p.err = cmp.Or(p.err, observe.Caught(func() error { return read(&own) }))
		return own.rows.Err()
	}
}

// ownResults are results that one may fail to read without the others: pgx
// takes a value that doesn't fit for an error of the whole.
type ownResults struct {
	pgx.BatchResults
	rows pgx.Rows // those of Query, which package pgx calls and closes
}

func (r *ownResults) Query() (_ pgx.Rows, err error) {
	r.rows, err = r.BatchResults.Query()
	return ownRows{r.rows}, err
}

type ownRows struct{ pgx.Rows }

func (r ownRows) Scan(into ...any) error {
	return pgx.ScanRow(r.Conn().TypeMap(), r.FieldDescriptions(), r.RawValues(), into...)
}
