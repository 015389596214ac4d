//go:build !faults

// Package fault marks the places where the fault suites kill or stop a
// process, and where they break the protocol to see that they notice. In a
// release build it is nothing: each function is empty, and a test finds no name
// of such a place in the binary.
package fault

import "context"

// At does nothing.
func At(string) {}

// AtAttempt does nothing.
func AtAttempt(int32, string) {}

// Mark returns ctx.
func Mark(ctx context.Context, _ int32) context.Context { return ctx }

// AtWire returns ctx.
func AtWire(ctx context.Context, _, _ string) context.Context { return ctx }

// Segment returns n.
func Segment(n int64) int64 { return n }

// Room is nil.
func Room() error { return nil }

// Sabotaged is false: the compiler drops what stands behind it.
func Sabotaged(string) bool { return false }

// Synced does nothing.
func Synced(string, int64) {}
