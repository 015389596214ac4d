package postgres

import (
	"context"
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
// plenty of one tenant keeps nobody else waiting. An error of a look ends it as
// soon as the calls that are under way have returned. do must not panic.
func (db *DB) Work(ctx context.Context, crew int, do func(Due), question string, args ...any) error {
	due, err := db.Due(ctx, question, dueAtOnce, args...)
	ended, look := make(chan Due), time.NewTicker(lookEvery)
	defer look.Stop()
	at, of := map[Due]bool{}, map[uuid.UUID]int{}
	for {
		due = slices.DeleteFunc(due, func(d Due) bool {
			if !at[d] && (len(at) >= crew || of[d.Tenant] >= max(1, crew/2)) {
				return false
			}
			if !at[d] {
				at[d] = true
				of[d.Tenant]++
				go func() { do(d); ended <- d }()
			}
			return true
		})
		if len(at) == 0 {
			return err
		}
		select {
		case d := <-ended:
			delete(at, d)
			of[d.Tenant]--
		case <-look.C:
			if err == nil {
				due, err = db.Due(ctx, question, dueAtOnce, args...)
			}
		}
	}
}
