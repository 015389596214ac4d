//go:build faults

package main

import (
	"os"
	"strconv"
	"time"

	"github.com/mendian/mendian/internal/ledger"
)

// schedule is the default one, shortened by GATEWAY_FAULT_SCHEDULE (0.02 is
// fifty times as fast): only fault builds know it.
func schedule() ledger.Schedule {
	if f := haste(); f > 0 {
		return ledger.DefaultSchedule.Scaled(f)
	}
	return ledger.DefaultSchedule
}

// pace is how often a job looks for what is due: five times as often where the
// schedule is shortened, so that a look isn't waited for longer than its turn.
func pace(every time.Duration) time.Duration {
	if haste() > 0 {
		return every / 5
	}
	return every
}

func haste() float64 {
	f, _ := strconv.ParseFloat(os.Getenv("GATEWAY_FAULT_SCHEDULE"), 64)
	return f
}
