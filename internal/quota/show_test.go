package quota

import (
	"testing"
	"time"
)

// A quota is WeChat's for a day of Shanghai, whatever the day is here.
func TestResets(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]time.Duration{
		"2026-11-21T15:59:59Z": time.Second, "2026-11-21T16:00:00Z": 24 * time.Hour, "2026-11-21T04:00:00Z": 12 * time.Hour,
	} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := Resets(now).Sub(now); got != want {
			t.Errorf("at %s the quotas reset in %s, want %s", at, got, want)
		}
	}
}
