package handlers

import (
	"context"
	"time"

	"github.com/mendian/mendian/internal/problem"
)

// longestQueue is how long a request waits for its turn. A longer queue would
// answer requests whose clients have given up.
const longestQueue = 100 * time.Millisecond

// admission lets so many requests be served at the same time and no more: the
// process stays able to finish what it began.
type admission chan struct{}

func newAdmission(most int) admission { return make(admission, most) }

// enter waits for a place. Errors: overloaded.
func (a admission) enter(ctx context.Context) (release func(), err error) {
	select {
	case a <- struct{}{}:
		return a.leave, nil
	default:
	}
	t := time.NewTimer(longestQueue)
	defer t.Stop()
	select {
	case a <- struct{}{}:
		return a.leave, nil
	case <-ctx.Done():
		return nil, problem.Of(problem.CodeOverloaded).WithErr(ctx.Err())
	case <-t.C:
		return nil, problem.Of(problem.CodeOverloaded)
	}
}

func (a admission) leave() { <-a }
