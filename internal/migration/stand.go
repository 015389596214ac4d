package migration

import "github.com/mendian/mendian/internal/wechat"

// Desired is what a person wants of a migration.
type Desired string

// What may be wanted. Planned is how one begins that is only to be planned.
const (
	WantPlan   Desired = "planned"
	WantRun    Desired = "running"
	WantPause  Desired = "paused"
	WantCancel Desired = "cancelled"
)

// A Status is where a migration stands.
type Status string

// The statuses. Completed, Incomplete and Cancelled are final.
const (
	Planning   Status = "planning" // WeChat's list is being read
	Planned    Status = "planned"  // nothing was written; it waits to be run
	Running    Status = "running"
	Halted     Status = "blocked"    // what is left waits for a person
	Paused     Status = "paused"     // nothing new is begun
	Completed  Status = "completed"  // every store that WeChat lists has moved
	Incomplete Status = "incomplete" // all is done but for stores that were skipped
	Cancelled  Status = "cancelled"
)

// Final reports whether nothing can follow.
func (s Status) Final() bool { return s == Completed || s == Incomplete || s == Cancelled }

// A Phase is what a migration is at (design api.md §5.11). Its first, the
// check of the Store Mini Program, is over before there is a migration.
type Phase string

// The phases.
const (
	PhaseListing    Phase = "listing"
	PhasePlanning   Phase = "planning"
	PhaseSubmitting Phase = "submitting"
	PhaseAudits     Phase = "waiting_audits"
	PhaseVerifying  Phase = "verifying"
	PhaseCompleted  Phase = "completed"
)

// Counts are how many items stand where.
type Counts map[ItemStatus]int

// Total is how many items there are.
func (c Counts) Total() (n int) {
	for _, k := range c {
		n += k
	}
	return n
}

// Ended is how many there is nothing left to do with.
func (c Counts) Ended() int { return c[Migrated] + c[Deleted] + c[Skipped] }

// Waiting is how many wait for a person.
func (c Counts) Waiting() int { return c[Blocked] + c[Failed] }

// Percent is how far a migration is, whose stores were listed.
func (c Counts) Percent() int {
	if c.Total() == 0 {
		return 100
	}
	return 100 * c.Ended() / c.Total()
}

// Shown are the counts as callers see them.
func (c Counts) Shown() map[string]int {
	out := map[string]int{"total": c.Total(), "submitting": c[Submitting] + c[Deleting]}
	for _, s := range []ItemStatus{Pending, Blocked, InReview, Migrated, Failed, Deleted, Skipped} {
		out[string(s)] = c[s]
	}
	return out
}

// count counts items.
func count(items []Item) Counts {
	c := Counts{}
	for _, i := range items {
		c[i.Status]++
	}
	return c
}

// verified reports whether WeChat's newest list bears out that all is done:
// "Only when the upgrade_status is 3 (Successful) for all the stores in the
// list, the upgrade is completed" (document 000 §4.13), but for the skipped.
func verified(items []Item) bool {
	for _, i := range items {
		moved := i.Shown.List == isListed && i.Shown.Upgrade == wechat.UpgradeDone
		if i.Status != Skipped && i.Shown.List != isGone && !moved {
			return false
		}
	}
	return true
}

// Stand is where a migration stands that had not ended before.
func Stand(want Desired, listed bool, c Counts, verified bool) Status {
	switch {
	case want == WantCancel:
		return Cancelled
	case want == WantPause:
		return Paused
	case !listed:
		return Planning
	case want == WantPlan:
		return Planned
	case c.Ended()+c.Waiting() < c.Total():
		return Running
	case c.Waiting() > 0:
		return Halted
	case !verified:
		return Running
	case c[Skipped] > 0:
		return Incomplete
	}
	return Completed
}

// PhaseOf is what a migration is at.
func PhaseOf(s Status, listed bool, c Counts) Phase {
	switch {
	case s == Completed || s == Incomplete:
		return PhaseCompleted
	case !listed:
		return PhaseListing
	case s == Planned:
		return PhasePlanning
	case c[Pending]+c[Submitting]+c[Deleting] > 0:
		return PhaseSubmitting
	case c[InReview] > 0:
		return PhaseAudits
	case c.Waiting() > 0:
		return PhasePlanning
	}
	return PhaseVerifying
}
