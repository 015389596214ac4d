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
		log.Info(RequestLine, "n", "one")
		log.Info(RequestLine, "n", "two")
		after("at once", 0, "")
		time.Sleep(linesWait)
		synctest.Wait()
		after("when they have waited", 1, "two")
		time.Sleep(10 * linesWait)
		log.Info(RequestLine, "n", "three")
		after("after a pause", 1, "two")
		log.Info("wechat_id_issued", "id", "four")
		after("with what isn't a request's", 2, "four")
		if !strings.Contains(o.String(), "three") {
			t.Error("it went before what came earlier")
		}
		log.With("a", "b").WithGroup("c").Error(RequestLine)
		after("at an error", 3, `"a":"b`)
		log.Info(RequestLine, "n", "five")
		lines.Flush()
		after("at the end", 4, "five")
		lines.Flush()
		after("with nothing kept", 4, "five")
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
