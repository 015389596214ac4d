package spool

import (
	"os"
	"path/filepath"
	"testing"
)

// What the database has all of is not read again at each start, whose time would
// grow with all that was ever written. What it may not have is.
func TestSettledSegmentsAreNotReadAgain(t *testing.T) {
	t.Parallel()
	k, dir := keyset(t), t.TempDir()
	s := open(t, dir, k)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pending := func(want ...int32) (damaged int) {
		t.Helper()
		records, damaged, err := s.Pending()
		must(err)
		got := []int32{}
		for _, r := range records {
			got = append(got, r.Attempt)
		}
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("pending: %v, want %v", got, want)
		}
		return damaged
	}
	again := func() {
		t.Helper()
		must(s.Close())
		s = open(t, dir, k)
	}
	// spoil damages the first segment, so that who reads it tells.
	first := filepath.Join(dir, "seg-00000001.log")
	spoil := func(by byte) {
		t.Helper()
		b, err := os.ReadFile(first)
		must(err)
		b[len(b)/2] ^= by
		must(os.WriteFile(first, b, 0o600))
	}

	big := record(1)
	big.Body = make([]byte, segmentSize*2/3) // in base64 a segment is full of it
	must(s.Append(big))
	must(s.Done(big))
	again() // nobody has read what is pending: nothing is settled by that
	if _, err := os.Stat(filepath.Join(dir, "settled")); err == nil {
		t.Error("settled by one who never read what is pending")
	}
	pending()
	again()
	spoil(1)
	if damaged := pending(); damaged != 0 {
		t.Errorf("settled, and read: %d damaged", damaged)
	}
	must(os.Remove(filepath.Join(dir, "settled")))
	s.settled = 0
	if damaged := pending(); damaged == 0 {
		t.Error("the first segment isn't damaged: the test shows nothing")
	}
	again() // what can't be read whole is never settled
	if damaged := pending(); damaged == 0 {
		t.Error("the damage was forgotten")
	}
}

// A process that dies leaves what it has settled before, and what is open in an
// old segment keeps that one and all that follow from being settled.
func TestSettledUpToWhatIsOpen(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), keyset(t))
	if _, _, err := s.Pending(); err != nil {
		t.Fatal(err)
	}
	for n := range int32(4) {
		r := record(n)
		r.Body = make([]byte, segmentSize*2/3)
		if err := s.Append(r); err != nil {
			t.Fatal(err)
		}
		if n != 2 {
			if err := s.Done(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.seq != 4 || s.settled != 2 {
		t.Errorf("in segment %d, settled up to %d, want 2: the third one's record is open", s.seq, s.settled)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
