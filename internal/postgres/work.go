package postgres

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
)

const (
	lookEvery = time.Second
	dueAtOnce = 100 // rows that one look finds
)

// Work asks question, as Due does, and calls do for each row, until nothing is
// due and all calls have returned: at most crew at a time, of which one tenant
// has at most half. What comes due meanwhile is found too, so what is slow or
// plenty of one tenant keeps nobody else waiting: every second, and when all that
// was found has been begun. A row that is still due after do is begun again with
// the next second. An error of a look, and the end of ctx, end it as soon as the
// calls that are under way have returned. do must not panic.
//
// With news, which tells of rows that are due before a look would find them, it
// goes on until then whether anything is due or not.
func (db *DB) Work(ctx context.Context, crew int, news <-chan Due, do func(Due), question string, args ...any) error {
	var due []Due
	var err error
	var found bool // by the last look, what had not been begun
	at, of, begun := map[Due]bool{}, map[uuid.UUID]int{}, map[Due]bool{}
	look := func() {
		if err == nil && ctx.Err() == nil {
			due, err = db.Due(ctx, question, dueAtOnce, args...)
			due = slices.DeleteFunc(due, func(d Due) bool { return begun[d] })
			found = len(due) > 0
		}
	}
	ended, second, over := make(chan Due), time.NewTicker(lookEvery), ctx.Done()
	defer second.Stop()
	look()
	for {
		due = slices.DeleteFunc(due, func(d Due) bool {
			if len(at) >= crew || of[d.Tenant] >= max(1, crew/2) {
				return false
			}
			at[d], begun[d] = true, true
			of[d.Tenant]++
			go func() { do(d); ended <- d }()
			return true
		})
		if len(at) == 0 && (news == nil || err != nil) {
			return err
		}
		more := news
		if len(due) > 0 || len(at) >= crew || err != nil {
			more = nil // there is enough to do, or nothing more is begun
		}
		select {
		case d := <-ended:
			delete(at, d)
			if of[d.Tenant]--; of[d.Tenant] == 0 {
				delete(of, d.Tenant)
			}
			if found && len(due) == 0 {
				look()
			}
		case d := <-more:
			if !begun[d] {
				due = append(due, d)
			}
		case <-second.C:
			begun = maps.Clone(at)
			look()
		case <-over:
			due, news, over = nil, nil, nil
		}
	}
}
