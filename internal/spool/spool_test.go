package spool

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/secret"
)

func keyset(t testing.TB) *secret.Keyset {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset.json")
	if err := secret.CreateKeyset(path); err != nil {
		t.Fatal(err)
	}
	k, err := secret.OpenKeyset(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t testing.TB, dir string, k *secret.Keyset) *Spool {
	t.Helper()
	s, err := Open(dir, k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func record(n int32) Record {
	return Record{Tenant: uuid.New(), Merchant: uuid.New(), Operation: uuid.New(), Attempt: n, Status: 200,
		Body: []byte(`{"errcode":0,"data":{"audit_id":111}}`), Tokens: []byte(`{"refresh":"refreshtoken@@@"}`), At: time.Now().UTC().Truncate(time.Millisecond)}
}

func TestReplayAfterReopen(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), keyset(t)
	s := open(t, dir, k)
	if _, err := Open(dir, k); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open = %v, want ErrLocked", err)
	}
	a, b, c := record(1), record(1), record(2)
	for _, r := range []Record{a, b, c} {
		if err := s.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Done(b); err != nil {
		t.Fatal(err)
	}
	instance := s.Instance()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(a); err == nil {
		t.Error("Append after Close was accepted")
	}

	s = open(t, dir, k)
	defer s.Close()
	if s.Instance() != instance {
		t.Errorf("instance changed from %s to %s", instance, s.Instance())
	}
	got, damaged, err := s.Pending()
	if diff := cmp.Diff([]Record{a, c}, got); diff != "" || damaged != 0 || err != nil {
		t.Errorf("Pending() = damaged %d, %v, diff %s", damaged, err, diff)
	}
}

func TestNothingReadable(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), keyset(t)
	s := open(t, dir, k)
	r := record(1)
	if err := s.Append(r); err != nil {
		t.Fatal(err)
	}
	raw := contents(t, dir)
	if bytes.Contains(raw, []byte("audit_id")) || bytes.Contains(raw, []byte("refreshtoken")) || bytes.Contains(raw, []byte(r.Operation.String())) {
		t.Error("the spool holds plaintext")
	}
	s.Close()
	s = open(t, dir, keyset(t)) // another keyset
	defer s.Close()
	if got, damaged, err := s.Pending(); len(got) != 0 || damaged == 0 || err != nil {
		t.Errorf("with a foreign keyset Pending() = %v, %d, %v", got, damaged, err)
	}
}

// A torn tail, as kill -9 leaves it, and flipped bits cost no other record.
func TestDamage(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), keyset(t)
	s := open(t, dir, k)
	var want []Record
	for i := range 5 {
		want = append(want, record(int32(i)))
		if err := s.Append(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	path := filepath.Join(dir, "seg-00000001.log")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	valid := map[string]bool{}
	for _, r := range want {
		valid[r.key()] = true
	}
	frame := len(whole) / 5
	check := func(name string, b []byte, atLeast int) {
		n := 0
		_, err := read(bytes.NewReader(b), k, func(r Record) {
			if n++; !valid[r.key()] {
				t.Errorf("%s: a record that nobody wrote: %v", name, r.key())
			}
		})
		if err != nil || n < atLeast {
			t.Errorf("%s: %d records, %v, want at least %d", name, n, err, atLeast)
		}
	}
	for cut := range frame - 16 { // the last one may be shorter by a time's digits
		check("cut", whole[:len(whole)-cut-1], 4)
	}
	for i := 0; i < len(whole); i += 7 {
		b := bytes.Clone(whole)
		b[i] ^= 0x40
		check("flip", b, 3) // a broken length may hide its neighbour, no more
	}
}

func TestConcurrentAppends(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), keyset(t)
	s := open(t, dir, k)
	var wg sync.WaitGroup
	const n = 200
	for i := range n {
		wg.Go(func() {
			if err := s.Append(record(int32(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.Close()
	s = open(t, dir, k)
	defer s.Close()
	if got, damaged, err := s.Pending(); len(got) != n || damaged != 0 || err != nil {
		t.Errorf("Pending() = %d records, %d damaged, %v, want %d", len(got), damaged, err, n)
	}
}

// What can't be written is found before an answer needs it, and once a second
// is enough.
func TestReadyWrites(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), keyset(t)
	s := open(t, dir, k)
	defer s.Close()
	later := func() { s.probe.at = s.probe.at.Add(-2 * probeEvery) }
	if err := s.Ready(); err != nil {
		t.Fatal(err)
	}
	probe := filepath.Join(dir, "probe")
	if _, err := os.Stat(probe); !os.IsNotExist(err) {
		t.Errorf("the probe stays: %v", err)
	}
	if err := os.Mkdir(probe, 0o700); err != nil { // no file can be made there
		t.Fatal(err)
	}
	if err := s.Ready(); err != nil {
		t.Errorf("tried again within a second: %v", err)
	}
	later()
	if err := s.Ready(); err == nil {
		t.Error("ready, and nothing can be written")
	}
	if err := os.RemoveAll(probe); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/dev/full"); err == nil { // Linux and BSD have it
		if err := os.Symlink("/dev/full", probe); err != nil {
			t.Fatal(err)
		}
		later()
		if err := s.Ready(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Ready() = %v on a full disk, want no space left", err)
		}
	}
	later()
	if err := s.Ready(); err != nil {
		t.Errorf("there is room again, and %v", err)
	}
}

func TestSweepKeepsAWeek(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), keyset(t)
	s := open(t, dir, k)
	defer s.Close()
	if err := s.Append(record(1)); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "seg-00000000.log")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(time.Now().Add(keepFor - time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err != nil {
		t.Errorf("swept before a week was over: %v", err)
	}
	if err := s.Sweep(time.Now().Add(keepFor + time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("an old segment stayed: %v", err)
	}
	if err := s.Append(record(2)); err != nil {
		t.Errorf("the current segment was swept: %v", err)
	}
}

// What the database may not know outlives the week in which it was told.
func TestSweepKeepsWhatIsPending(t *testing.T) {
	t.Parallel()
	dir, k := t.TempDir(), keyset(t)
	r := record(1)
	s := open(t, dir, k)
	if err := s.Append(r); err != nil {
		t.Fatal(err)
	}
	left := func() []Record {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, k)
		pending, _, err := s.Pending()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Sweep(time.Now().Add(keepFor + time.Minute)); err != nil {
			t.Fatal(err)
		}
		return pending
	}
	for range 2 { // in a segment of the process that wrote it, and of its successors
		if diff := cmp.Diff([]Record{r}, left()); diff != "" {
			t.Fatalf("pending after more than a week: %s", diff)
		}
	}
	if err := s.Done(r); err != nil {
		t.Fatal(err)
	}
	left()
	if _, err := os.Stat(filepath.Join(dir, "seg-00000001.log")); !os.IsNotExist(err) {
		t.Errorf("a segment stayed of which nothing is pending: %v", err)
	}
	s.Close()
}

func contents(t *testing.T, dir string) []byte {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(dir, "*"))
	var all []byte
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// Whatever becomes of a segment's bytes, the reader ends, and what it yields is a
// record that was written, whole.
func FuzzRead(f *testing.F) {
	k := keyset(f)
	dir := f.TempDir()
	s := open(f, dir, k)
	written := map[string]Record{}
	var ends []int
	path := filepath.Join(dir, "seg-00000001.log")
	for i := range int32(3) {
		r := record(i)
		r.Unwatched, r.Unproven = i > 0, i > 1
		r.Body = bytes.Repeat(r.Body, int(i))
		written[r.key()] = r
		if err := s.Append(r); err != nil {
			f.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			f.Fatal(err)
		}
		ends = append(ends, int(fi.Size()))
	}
	s.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(append(bytes.Clone(b[:20]), b...))
	f.Add(b[ends[0]:])
	f.Add(slices.Concat(b[:ends[0]], b[:ends[0]+headerLen], b[ends[1]:])) // twice, and a header that belongs to another
	f.Add(slices.Concat(b[:headerLen], b[ends[0]+headerLen:ends[1]]))
	for _, at := range []int{0, 4, 7, 8, headerLen, headerLen + 1, ends[0] - 1, ends[0], ends[1] + 5} {
		flipped := bytes.Clone(b)
		flipped[at] ^= 1
		f.Add(flipped)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := read(bytes.NewReader(b), k, func(got Record) {
			if diff := cmp.Diff(written[got.key()], got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("a record that nobody wrote: %s", diff)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// The kernel tells of a write that failed once: the sync after it succeeds, and
// has kept nothing. Who waits for that one has not been given a record on disk.
func TestSyncAfterOneThatFailed(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), keyset(t))
	defer s.Close()
	var n [2]int64
	for i := range n {
		var err error
		if n[i], err = s.write(record(int32(i))); err != nil {
			t.Fatal(err)
		}
	}
	_, unsyncable, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unsyncable.Close()
	disk := s.file
	s.file = unsyncable
	if err := s.syncTo(n[0]); err == nil {
		t.Fatal("a sync of what can't be synced succeeded")
	}
	s.file = disk
	if err := s.syncTo(n[1]); err == nil {
		t.Error("a record is said to be on disk after a sync that failed")
	}
}
