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
// first by default.
var (
	name, action string
	nth          int64 = 1
	passed       atomic.Int64
)

func init() {
	parts := strings.Split(os.Getenv("GATEWAY_FAILPOINT"), ":")
	if len(parts) < 2 {
		return
	}
	name, action = parts[0], parts[1]
	if len(parts) > 2 {
		nth, _ = strconv.ParseInt(parts[2], 10, 64)
	}
}

// At does what GATEWAY_FAILPOINT says when its name is this one.
func At(point string) {
	if point != name || passed.Add(1) != nth {
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
