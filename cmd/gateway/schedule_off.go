//go:build !faults

package main

import "github.com/mendian/mendian/internal/ledger"

func schedule() ledger.Schedule { return ledger.DefaultSchedule }
