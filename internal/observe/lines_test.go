package observe

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An out is a writer that counts how often it was written to.
type out struct {
	bytes.Buffer
	writes int
}

func (o *out) Write(p []byte) (int, error) {
	o.writes++
	return o.Buffer.Write(p)
}

func TestLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o out
		lines := NewLines(&o)
		log, err := NewLogger(lines, "info")
		if err != nil {
			t.Fatal(err)
		}
		after := func(what string, writes int, last string) {
			t.Helper()
			lines.mu.Lock()
			defer lines.mu.Unlock()
			if text := o.String(); o.writes != writes || !strings.HasSuffix(text, last+"\"}\n") && text+last != "" {
				t.Errorf("%s: %d writes: %s", what, o.writes, text)
			}
		}
		log.Info("one")
		log.Info("two")
		after("at once", 0, "")
		time.Sleep(linesWait)
		synctest.Wait()
		after("when they have waited", 1, "two")
		time.Sleep(10 * linesWait)
		log.Info("three")
		after("after a pause", 1, "two")
		log.With("a", "b").WithGroup("c").Error("four")
		after("at an error", 2, `"a":"b`)
		if !strings.Contains(o.String(), "three") {
			t.Error("an error went before what came earlier")
		}
		log.Info("five")
		lines.Flush()
		after("at the end", 3, "five")
		lines.Flush()
		after("with nothing kept", 3, "five")
	})
}

// Not one line is lost or torn, however many write and however long they are.
func TestLinesOfMany(t *testing.T) {
	t.Parallel()
	var o out
	lines := NewLines(&o)
	var wg sync.WaitGroup
	line := strings.Repeat("x", 1000) + "\n"
	long := strings.Repeat("y", 2*linesKept) + "\n"
	for range 8 {
		wg.Go(func() {
			for range 100 {
				_, _ = lines.Write([]byte(line))
			}
			_, _ = lines.Write([]byte(long))
		})
	}
	wg.Wait()
	lines.Flush()
	if text := o.String(); strings.Count(text, line) != 800 || strings.Count(text, long) != 8 || len(text) != 800*len(line)+8*len(long) {
		t.Errorf("%d bytes in %d writes", len(text), o.writes)
	}
	if o.writes > 60 {
		t.Errorf("%d writes of %d KB", o.writes, len(o.String())>>10)
	}
}
