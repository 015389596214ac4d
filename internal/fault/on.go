//go:build faults

// Package fault marks the places where the fault suites kill or stop a
// process, and where they break the protocol to see that they notice, in
// binaries built with -tags faults.
package fault

import (
	"context"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// GATEWAY_FAILPOINT is NAME:ACTION or NAME:ACTION:N. ACTION is kill (SIGKILL),
// stop (SIGSTOP), or power (SIGKILL, and what was written to disk and not synced
// is gone); it happens on the Nth time that NAME is passed, the first by
// default. GATEWAY_FAILPOINT_FILE names a file that holds the same and
// is read each time a point is passed: so a running process is made to die.
// disk:full there is of no point: as long as it stands nothing more can be
// written to the spool.
var (
	armed  = os.Getenv("GATEWAY_FAILPOINT")
	file   = os.Getenv("GATEWAY_FAILPOINT_FILE")
	passed atomic.Int64
)

// At does what the environment says when its name is this one.
func At(point string) {
	name, rest, _ := strings.Cut(order(), ":")
	if point != name {
		return
	}
	action, count, _ := strings.Cut(rest, ":")
	if nth, _ := strconv.ParseInt(count, 10, 64); passed.Add(1) != max(1, nth) {
		return
	}
	sig := syscall.SIGKILL
	switch action {
	case "stop":
		sig = syscall.SIGSTOP
	case "power":
		losePower()
	}
	_ = syscall.Kill(os.Getpid(), sig)
	if sig == syscall.SIGKILL {
		select {} // never one more instruction of ours
	}
	// The signal may reach another thread first, while this one goes on. By the
	// time that somebody lets the process go on, this has long passed.
	<-time.After(time.Second)
}

func order() string {
	if file == "" {
		return armed
	}
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

// Room is what a write to the spool's disk fails with, if it is to.
func Room() error {
	if order() == "disk:full" {
		return syscall.ENOSPC
	}
	return nil
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

type attemptKey struct{}

// leaving is how long a request needs to leave.
const leaving = 10 * time.Millisecond

// Mark marks ctx as that of the nth attempt at a write.
func Mark(ctx context.Context, n int32) context.Context {
	return context.WithValue(ctx, attemptKey{}, n)
}

// AtWire is AtAttempt on the wire, for a request that is sent with the context
// that it returns: at written when it is under way, for which the server must
// take longer than leaving to answer, and at begun once the first byte of the
// reply has come. It does nothing to what is no attempt at a write.
func AtWire(ctx context.Context, written, begun string) context.Context {
	n, ok := ctx.Value(attemptKey{}).(int32)
	if !ok {
		return ctx
	}
	trace := &httptrace.ClientTrace{
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			if i.Err == nil { // and net/http is about to flush it
				time.AfterFunc(leaving, func() { AtAttempt(n, written) })
			}
		},
		GotFirstResponseByte: func() { AtAttempt(n, begun) },
	}
	if Sabotaged("call_ends_with_client") {
		// The call outlives its context, and not its connection.
		stop := func() bool { return true }
		trace.GotConn = func(c httptrace.GotConnInfo) { stop = context.AfterFunc(ctx, func() { _ = c.Conn.Close() }) }
		trace.GotFirstResponseByte = func() { stop() }
	}
	return httptrace.WithClientTrace(ctx, trace)
}

// Segment is how large a file of the spool may be: n, or what
// GATEWAY_FAULT_SEGMENT says, so that a suite sees one being replaced.
func Segment(n int64) int64 {
	if v, err := strconv.ParseInt(os.Getenv("GATEWAY_FAULT_SEGMENT"), 10, 64); err == nil {
		return v
	}
	return n
}

// disk is how far each file is known to be synced.
var disk = struct {
	sync.Mutex
	synced map[string]int64
}{synced: map[string]int64{}}

// Synced tells that the file's first size bytes have reached the disk. From the
// moment that power is lost it never returns: nobody hears of a later sync.
func Synced(path string, size int64) {
	disk.Lock()
	defer disk.Unlock()
	disk.synced[path] = size
}

// losePower leaves of each file what a power loss certainly leaves. SIGKILL
// alone would leave all of it, because the page cache is the kernel's.
func losePower() {
	disk.Lock()
	for path, size := range disk.synced {
		_ = os.Truncate(path, size)
	}
}

var sabotage = os.Getenv("GATEWAY_SABOTAGE")

// Sabotaged reports whether GATEWAY_SABOTAGE names this breach of the protocol.
// Each exists to prove that a suite notices it (test/torture). Inlined, a name
// would be compared piece by piece, and a test that looks for it find none.
//
//go:noinline
func Sabotaged(breach string) bool { return sabotage == breach }
