//go:build faults

package main

import (
	"os"
	"strconv"

	"github.com/mendian/mendian/internal/ledger"
)

// schedule is the default one, shortened by GATEWAY_FAULT_SCHEDULE (0.02 is
// fifty times as fast): only fault builds know it.
func schedule() ledger.Schedule {
	f, err := strconv.ParseFloat(os.Getenv("GATEWAY_FAULT_SCHEDULE"), 64)
	if err != nil || f <= 0 {
		return ledger.DefaultSchedule
	}
	return ledger.DefaultSchedule.Scaled(f)
}
