//go:build faults

// Package fault marks the places where the fault suites kill or stop a
// process, in binaries built with -tags faults.
package fault

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// GATEWAY_FAILPOINT is NAME:ACTION or NAME:ACTION:N. ACTION is kill (SIGKILL)
// or stop (SIGSTOP); it happens on the Nth time that NAME is passed, the
// first by default. GATEWAY_FAILPOINT_FILE names a file that holds the same and
// is read each time a point is passed: so a running process is made to die.
var (
	armed  = os.Getenv("GATEWAY_FAILPOINT")
	file   = os.Getenv("GATEWAY_FAILPOINT_FILE")
	passed atomic.Int64
)

// At does what the environment says when its name is this one.
func At(point string) {
	order := armed
	if file != "" {
		b, _ := os.ReadFile(file)
		order = strings.TrimSpace(string(b))
	}
	name, rest, _ := strings.Cut(order, ":")
	if point != name {
		return
	}
	action, count, _ := strings.Cut(rest, ":")
	if nth, _ := strconv.ParseInt(count, 10, 64); passed.Add(1) != max(1, nth) {
		return
	}
	sig := syscall.SIGKILL
	if action == "stop" {
		sig = syscall.SIGSTOP
	}
	_ = syscall.Kill(os.Getpid(), sig)
	if sig == syscall.SIGKILL {
		select {} // never one more instruction of ours
	}
}

// AtAttempt is At on the way of an attempt at a write. Attempts after the first
// pass a point of another name, again_…: so a suite hits the request that it
// sent, and no repetition in the background.
func AtAttempt(n int32, point string) {
	if n > 1 {
		point = "again_" + point
	}
	At(point)
}
