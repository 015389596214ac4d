//go:build !faults

package main

import (
	"time"

	"github.com/mendian/mendian/internal/ledger"
)

func schedule() ledger.Schedule { return ledger.DefaultSchedule }

func pace(every time.Duration) time.Duration { return every }
