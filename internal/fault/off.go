//go:build !faults

// Package fault marks the places where the fault suites kill or stop a
// process. In a release build it is nothing: At is an empty function, and a
// test finds no name of such a place in the binary.
package fault

// At does nothing.
func At(string) {}

// AtAttempt does nothing.
func AtAttempt(int32, string) {}
