package spool

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mendian/mendian/internal/secret"
)

// rotated is a keyset with a further key that has been told to seal, once
// promote was called.
func rotated(t *testing.T) (k *secret.Keyset, promote func(), remove func(uint32)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset.json")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	reload := func() {
		t.Helper()
		_, err := k.Reload()
		must(err)
	}
	must(secret.CreateKeyset(path))
	k, err := secret.OpenKeyset(path)
	must(err)
	next, err := secret.AddKey(path, func(uint32) error { return nil })
	must(err)
	reload()
	return k, func() { t.Helper(); must(secret.Promote(path, next)); reload() },
		func(id uint32) { t.Helper(); _, err := secret.RemoveKey(path, id); must(err); reload() }
}

// What an old key sealed is readable after Reseal without that key: while
// others append, and as old as before.
func TestReseal(t *testing.T) {
	t.Parallel()
	k, promote, remove := rotated(t)
	old := k.SealsWith()
	dir := t.TempDir()
	s := open(t, dir, k)
	var want []Record
	for i := range 20 {
		want = append(want, record(int32(i)))
		if err := s.Append(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Done(want[0]); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, dir, k) // with a segment of its own
	first := filepath.Join(dir, "seg-00000001.log")
	yesterday := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	if err := os.Chtimes(first, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	written := make([][]Record, 64)
	over := make(chan struct{})
	for i := range written {
		wg.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				r := record(1)
				if err := s.Append(r); err != nil {
					t.Error(err)
					return
				}
				written[i] = append(written[i], r)
			}
		})
	}
	promote()
	left, err := s.Reseal()
	close(over)
	wg.Wait()
	if len(left) != 0 || err != nil {
		t.Fatalf("Reseal = %v, %v", left, err)
	}
	beside := slices.Concat(written...)
	// Nothing came after it that was sealed before it.
	segments, err := s.segments()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range segments {
		if _, err := each(path, func(sealed []byte) bool {
			if id, ok := secret.KeyOf(sealed); !ok || id == old {
				t.Errorf("%s has a record that key %d sealed", path, id)
			}
			return true
		}); err != nil {
			t.Error(err)
		}
	}
	if fi, err := os.Stat(first); err != nil || !fi.ModTime().Equal(yesterday) {
		t.Errorf("the segment is of %v, %v, want %v", fi.ModTime(), err, yesterday)
	}
	s.Close()
	remove(old)
	s = open(t, dir, k)
	defer s.Close()
	got, damaged, err := s.Pending()
	if damaged != 0 || err != nil {
		t.Fatalf("Pending: %d damaged, %v", damaged, err)
	}
	keys := map[string]bool{}
	for _, r := range got {
		keys[r.key()] = true
	}
	for _, r := range append(want[1:], beside...) {
		if !keys[r.key()] {
			t.Errorf("%s is lost", r.key())
		}
	}
	if keys[want[0].key()] || len(got) != len(want)-1+len(beside) {
		t.Errorf("%d records, the done one among them: %t", len(got), keys[want[0].key()])
	}
	if diff := cmp.Diff(want[1], got[0]); diff != "" {
		t.Errorf("the first one (-want +got):\n%s", diff)
	}
}

// Damaged bytes may be a record that somebody can save: they stay, with all
// around them, and Reseal says that the old key is still needed.
func TestResealKeepsDamage(t *testing.T) {
	t.Parallel()
	k, promote, _ := rotated(t)
	old := k.SealsWith()
	dir := t.TempDir()
	s := open(t, dir, k)
	defer s.Close()
	for range 3 {
		if err := s.Append(record(1)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "seg-00000001.log")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	promote()
	left, err := s.Reseal()
	if diff := cmp.Diff([]uint32{old}, left); diff != "" || err != nil {
		t.Errorf("Reseal = %v, %v, want %d", left, err, old)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(b) {
		t.Errorf("the damaged segment was changed, %v", err)
	}
	if left, err = s.Reseal(); len(left) != 1 || err != nil {
		t.Errorf("the second time: %v, %v", left, err)
	}
	if err := s.Append(record(2)); err != nil {
		t.Error(err)
	}
}
