package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/mendian/mendian/test/world"
)

// done is what the caller of a write was told, and what the harness knows of
// its fate.
type done struct {
	mu        sync.Mutex
	told      []*world.Answer // every answer that wasn't "try again", in order
	operation string          // Operation-Id of any answer
	Fate      string          // how its process died, if that is known
	Forgotten bool            // the process died between WeChat's reply and the spool, or its spool is gone
	Unsent    bool            // the process died before WeChat was called
}

// patience of a caller who repeats a request until it is answered, all through
// a storm, on a machine that may have other things to do.
const patience = 10 * time.Minute

// ask sends the write once. It returns an error when the caller has to repeat
// it: there is no answer, or one that says so.
func (a *Arena) ask(w *Write, url string) (*world.Answer, error) { return a.askOver(w, url, transport) }

func (a *Arena) askOver(w *Write, url string, over *http.Transport) (*world.Answer, error) {
	c := world.NewClient(a.t, url, a.World.Key, over).For(w.Merchant)
	answer, err := c.Try(w.Method, w.Path, w.Body, "Idempotency-Key", w.Key)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := answer.Header.Get("Operation-Id"); id != "" {
		if w.operation != "" && w.operation != id && !w.repeatable() {
			a.t.Errorf("%s %s: one key, two operations: %s and %s", w.Method, w.Path, w.operation, id)
		}
		w.operation = id
	}
	if answer.Status >= 400 && answer.Get("retryable") == "true" {
		return nil, fmt.Errorf("%d %s", answer.Status, answer.Body)
	}
	w.told = append(w.told, answer)
	return answer, nil
}

// transport keeps no connection: the other end is killed all the time.
var transport = &http.Transport{DisableKeepAlives: true}

// hangUp sends the write and gives up soon. It reports whether that was before
// an answer came.
func (a *Arena) hangUp(w *Write, url string, after time.Duration) bool {
	_, err := a.askOver(w, url, &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: after})
	return errors.Is(err, context.DeadlineExceeded)
}

// drive repeats the write, at whatever process answers, until its caller is
// told how it went.
func (a *Arena) drive(w *Write, urls []string, r *rand.Rand) {
	deadline := time.Now().Add(patience)
	var failures error
	for time.Now().Before(deadline) {
		answer, err := a.ask(w, urls[r.IntN(len(urls))])
		if err == nil {
			if answer.Status >= 400 {
				a.t.Errorf("%s %s = %d %s", w.Kind, w.Path, answer.Status, answer.Body)
			}
			return
		}
		failures = err
		a.repeats.Add(1)
		time.Sleep(time.Duration(20+r.IntN(200)) * time.Millisecond)
	}
	a.t.Errorf("%s %s %s: not answered within %s: %v", w.Kind, w.Method, w.Path, patience, failures)
}
