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
// plenty of one tenant keeps nobody else waiting: every second, when all that
// was found has been begun, and when wake, which may be nil, says that there is
// something. A row that is still due after do is begun again with the next
// second. An error of a look ends it as soon as the calls that are under way
// have returned. do must not panic.
func (db *DB) Work(ctx context.Context, crew int, wake <-chan struct{}, do func(Due), question string, args ...any) error {
	var due []Due
	var err error
	var found bool // by the last look, what had not been begun
	at, of, begun := map[Due]bool{}, map[uuid.UUID]int{}, map[Due]bool{}
	look := func() {
		if err != nil {
			return
		}
		due, err = db.Due(ctx, question, dueAtOnce, args...)
		due = slices.DeleteFunc(due, func(d Due) bool { return begun[d] })
		found = len(due) > 0
	}
	ended, second := make(chan Due), time.NewTicker(lookEvery)
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
		if len(at) == 0 {
			return err
		}
		woken := wake
		if len(due) > 0 || len(at) >= crew {
			woken = nil // there is enough to do
		}
		select {
		case d := <-ended:
			delete(at, d)
			of[d.Tenant]--
			if found && len(due) == 0 {
				look()
			}
		case <-woken:
			look()
		case <-second.C:
			begun = maps.Clone(at)
			look()
		}
	}
}
