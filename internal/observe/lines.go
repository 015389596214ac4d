package observe

import (
	"io"
	"sync"
	"time"
)

const (
	// linesKept is how many bytes of lines wait for one write, and linesWait for
	// how long at most.
	linesKept = 32 << 10
	linesWait = 100 * time.Millisecond
)

// RequestLine is the message of a request's line. There is one for each request,
// and no others are so many.
const RequestLine = "request"

// Lines writes the lines of requests some at a time: a write each costs as much
// as making the line. A Logger on it writes at once whatever else is said, such
// as an id that WeChat gave, warnings and errors, with what came before it. A
// process that is killed loses what waited.
type Lines struct {
	to    io.Writer
	mu    sync.Mutex
	kept  []byte
	timer *time.Timer // runs while something is kept
}

// NewLines returns Lines that go to w. Flush must be called at the end.
func NewLines(w io.Writer) *Lines {
	l := &Lines{to: w, kept: make([]byte, 0, linesKept)}
	l.timer = time.AfterFunc(linesWait, l.Flush)
	return l
}

// Write keeps a line. It never fails, as who logs could tell nobody.
func (l *Lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept)+len(line) > linesKept {
		l.flush()
	}
	if len(l.kept) == 0 {
		l.timer.Reset(linesWait)
	}
	l.kept = append(l.kept, line...)
	return len(line), nil
}

// Flush writes what is kept.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

func (l *Lines) flush() {
	if len(l.kept) == 0 {
		return
	}
	_, _ = l.to.Write(l.kept) // nobody could be told
	l.kept = l.kept[:0]
}
