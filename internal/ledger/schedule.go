package ledger

import "time"

// A Schedule says when an operation whose outcome is unknown is looked at, by
// reading WeChat, counted from the moment it was sent. Tests of faults shorten
// it; nothing else does.
type Schedule struct {
	// Looks are the moments; after the last one a look follows every Every.
	Looks []time.Duration
	Every time.Duration
	// Settled is how long after the send a look that finds nothing begins to
	// count: WeChat may show an effect late. Two that count, Apart from each
	// other, make absence certain.
	Settled time.Duration
	Apart   time.Duration
	// GiveUp is when an operation that can't be proven either way is left to
	// a person.
	GiveUp time.Duration
	// Polls multiplies the waits between polls of audits; 0 counts as 1.
	Polls float64
}

// DefaultSchedule is design reliability.md §4: reads at 2, 10, 42 and 103 s,
// of which the last two count, then at 10 and 30 minutes and hourly.
var DefaultSchedule = Schedule{
	Looks:   []time.Duration{2 * time.Second, 10 * time.Second, 42 * time.Second, 103 * time.Second, 10 * time.Minute, 30 * time.Minute},
	Every:   time.Hour,
	Settled: 40 * time.Second,
	Apart:   60 * time.Second,
	GiveUp:  24 * time.Hour,
}

// Scaled is the same schedule with every time multiplied by f.
func (s Schedule) Scaled(f float64) Schedule {
	scale := func(d time.Duration) time.Duration { return time.Duration(float64(d) * f) }
	out := Schedule{Polls: f, Every: scale(s.Every), Settled: scale(s.Settled), Apart: scale(s.Apart), GiveUp: scale(s.GiveUp)}
	for _, d := range s.Looks {
		out.Looks = append(out.Looks, scale(d))
	}
	return out
}

// scaled is a time that WeChat's people take.
func (s Schedule) scaled(d time.Duration) time.Duration {
	if s.Polls > 0 {
		return time.Duration(float64(d) * s.Polls)
	}
	return d
}

// deadline is when an operation of the kind is left to a person, unless its
// outcome is known by then. What only an audit's event tells waits for as long
// as such an audit takes.
func (s Schedule) deadline(k *Kind, sent time.Time) time.Time {
	wait := s.GiveUp
	if k.toldByEvent() {
		wait = max(wait, s.scaled(auditKinds[k.AuditKind].Usual))
	}
	return sent.Add(wait)
}

// Next is the moment of the first look that lies after now. since is the first
// look that found nothing and counted: one that comes too early after it would
// decide nothing, so it waits until it can, and not much longer: who waits for
// the outcome has waited long enough when the looks have become rare.
func (s Schedule) Next(sent, now time.Time, since *time.Time) time.Time {
	next := now.Add(s.Every)
	for _, d := range s.Looks {
		if t := sent.Add(d); t.After(now) {
			next = t
			break
		}
	}
	if since == nil {
		return next
	}
	decides := since.Add(s.Apart)
	if next.Before(decides) || decides.After(now) && next.After(decides.Add(s.Apart)) {
		return decides
	}
	return next
}

// Again is when to look again after WeChat couldn't be asked: as Next says, and
// at the latest when one more minute has gone by.
func (s Schedule) Again(sent, now time.Time, since *time.Time) time.Time {
	if next := s.Next(sent, now, since); next.Before(now.Add(s.Apart)) {
		return next
	}
	return now.Add(s.Apart)
}

// Absence judges a look at the time now that found nothing. since is the first
// such look that counted, nil if there was none; the new value is returned.
func (s Schedule) Absence(sent, now time.Time, since *time.Time) (certain bool, _ *time.Time) {
	switch {
	case now.Sub(sent) < s.Settled:
		return false, since
	case since == nil:
		return false, &now
	default:
		return now.Sub(*since) >= s.Apart, since
	}
}
