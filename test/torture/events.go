package torture

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mendian/mendian/internal/sandbox"
)

// CheckEvents reads the whole feed of events twice: every event is there once,
// in order, without a gap, and stays what it was.
func (a *Arena) CheckEvents() {
	a.t.Helper()
	first, second := a.feed(), a.feed()
	if len(first) == 0 || len(second) < len(first) {
		a.t.Errorf("%d events, before %d", len(second), len(first))
		return
	}
	seen := map[string]bool{}
	for i, e := range first {
		if e.ID == "" || seen[e.ID] {
			a.t.Errorf("event %d, %q, is listed twice", i, e.ID)
		}
		seen[e.ID] = true
		if e.Sequence != fmt.Sprint(i+1) {
			a.t.Errorf("event %d has the sequence %s", i+1, e.Sequence)
		}
		if second[i] != e {
			a.t.Errorf("event %d was %v, and is %v", i, e, second[i])
		}
	}
}

type event struct{ ID, Sequence, Whole string }

func (a *Arena) feed() (all []event) {
	a.t.Helper()
	c := a.Client(a.Settled, "")
	for after := int64(0); ; {
		var page struct {
			Data      []map[string]any
			NextAfter int64 `json:"next_after"`
			HasMore   bool  `json:"has_more"`
		}
		c.Do("GET", fmt.Sprintf("/v1/events?limit=100&after=%d", after), nil).Want(200).Into(&page)
		for _, e := range page.Data {
			all = append(all, event{fmt.Sprint(e["id"]), fmt.Sprint(e["sequence"]), fmt.Sprint(e)})
		}
		if after = page.NextAfter; !page.HasMore {
			return all
		}
	}
}

// CheckLogs looks for secrets in what the processes said.
func (a *Arena) CheckLogs() {
	a.t.Helper()
	files, err := filepath.Glob(filepath.Join(a.logs, "*.log"))
	if err != nil || len(files) == 0 {
		a.t.Fatalf("no logs in %s: %v", a.logs, err)
	}
	for _, file := range files {
		said, err := os.ReadFile(file)
		if err != nil {
			a.t.Fatal(err)
		}
		for _, secret := range []string{sandbox.DefaultComponentSecret, sandbox.DefaultMessageToken, sandbox.DefaultEncodingAESKey, a.World.Key} {
			if bytes.Contains(said, []byte(secret)) {
				a.t.Errorf("%s holds a secret", file)
			}
		}
	}
}
