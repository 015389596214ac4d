package handlers

import (
	"context"
	"time"

	"github.com/mendian/mendian/internal/problem"
)

const (
	// longestQueue is how long a request waits for its turn. A longer queue
	// would answer requests whose clients have given up.
	longestQueue = 100 * time.Millisecond
	// pushesAtOnce and longestPushQueue are the same for WeChat's pushes, which
	// have places of their own, so that no tenant's requests keep them out.
	// WeChat waits 5 s, and gives up after three tries.
	pushesAtOnce     = 128
	longestPushQueue = 2 * time.Second
)

// admission lets so many requests be served at the same time and no more: the
// process stays able to finish what it began.
type admission struct {
	places chan struct{}
	queue  time.Duration // that one waits for a place
}

func newAdmission(most int, queue time.Duration) admission {
	return admission{make(chan struct{}, most), queue}
}

// enter waits for a place, which the caller leaves again. Errors: overloaded.
func (a admission) enter(ctx context.Context) error {
	select {
	case a.places <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(a.queue)
	defer t.Stop()
	select {
	case a.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return problem.Of(problem.CodeOverloaded).WithErr(ctx.Err())
	case <-t.C:
		return problem.Of(problem.CodeOverloaded)
	}
}

func (a admission) leave() { <-a.places }
