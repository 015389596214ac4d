// Package spool is the disk between WeChat's answer and our commit: what
// WeChat told is written and synced here before the database hears of it, so
// that no id is lost when the process or the database dies in between.
//
// One process owns a directory (a lock sees to it). Records are sealed: the
// directory holds no plaintext. A record that was damaged is never returned
// as another one.
package spool

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/secret"
)

const (
	segmentSize = 4 << 20
	keepFor     = 7 * 24 * time.Hour // for a person, should the database be restored to an earlier time
	maxRecord   = 12 << 20
	maxUsed     = 80 // percent of the file system
	probeEvery  = time.Second
)

// A Record is an answer of WeChat, tokens that it gave, or a push, that the
// database may not know yet.
type Record struct {
	Tenant    uuid.UUID `json:"tenant"`
	Merchant  uuid.UUID `json:"merchant"`
	Operation uuid.UUID `json:"operation"`
	Attempt   int32     `json:"attempt"`
	Status    int       `json:"status"`
	Body      []byte    `json:"body"`
	At        time.Time `json:"at"`
	// Unwatched says that the reconciler sent the attempt: nobody waits for it.
	Unwatched bool `json:"unwatched,omitempty"`
	// Unproven says that it followed one whose fate nobody knows: a refusal may
	// then mean something else.
	Unproven bool `json:"unproven,omitempty"`
	// Push says that it is a push: Operation is its number in the inbox, Body
	// what package inbox makes of it.
	Push bool `json:"push,omitempty"`
	// Tokens is what package authorizer makes of a reply that gave a merchant's
	// tokens: Operation is a number of its own then. They are never in Body,
	// which is written to the log where nobody knows the operation.
	Tokens json.RawMessage `json:"tokens,omitempty"`
	// Done says that the database has it: there is nothing to replay.
	Done bool `json:"done,omitempty"`
}

func (r Record) key() string { return fmt.Sprint(r.Operation, " ", r.Attempt) }

// ErrLocked is returned by Open when another process owns the directory.
var ErrLocked = errors.New("another process uses this spool directory")

// Spool is safe for concurrent use.
type Spool struct {
	dir      string
	instance string
	keyset   *secret.Keyset
	lock     *os.File

	mu      sync.Mutex
	file    *os.File
	size    int64
	seq     int
	written int64 // records
	synced  int64 // of which on disk
	broken  error // nothing more is accepted
	// undone are the records that no Done follows, and the segment of each.
	undone map[string]string
	// damaged are the segments that can't be read whole.
	damaged []string
	known   bool // undone and damaged are: Pending has read
	settled int  // the database has all that is in segments up to this one

	probe struct {
		sync.Mutex
		at  time.Time
		err error
	}
}

// Open takes the directory, makes it if need be, and starts a new segment.
// Errors: ErrLocked, or what the file system said.
func Open(dir string, keyset *secret.Keyset) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
		}
		return nil, err
	}
	s := &Spool{dir: dir, keyset: keyset, lock: lock, undone: map[string]string{}}
	if err := s.open(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Spool) open() error {
	path := filepath.Join(s.dir, "instance")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
		b = []byte(uuid.NewString())
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return err
	}
	s.instance = strings.TrimSpace(string(b))
	segments, err := s.segments()
	if err != nil {
		return err
	}
	if n := len(segments); n > 0 {
		s.seq = number(segments[n-1])
	}
	if b, err = os.ReadFile(filepath.Join(s.dir, "settled")); err == nil {
		s.settled, _ = strconv.Atoi(string(b)) // 0, if it can't be read: all are read then
	}
	return s.rotate()
}

// Instance names the directory, and so the process that owns it and its
// successors: what a dead one left is theirs to take over at once.
func (s *Spool) Instance() string { return s.instance }

// Close syncs and gives the directory up.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.file.Sync()
	if s.broken == nil {
		err = errors.Join(err, s.settle(s.seq))
		s.broken = errors.New("spool is closed")
	}
	return errors.Join(err, s.file.Close(), s.lock.Close())
}

// Ready returns nil when an answer can be kept as far as is known: no write has
// failed, the file system is not over 80 % full with less than 1 GiB left, and
// something could be written and synced there within the last second. Writes
// are refused before WeChat is called otherwise.
func (s *Spool) Ready() error {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		return broken
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return err
	}
	if used := st.Blocks - st.Bfree; st.Blocks > 0 && used*100/(used+st.Bavail) >= maxUsed && st.Bavail*uint64(st.Bsize) < 1<<30 {
		return fmt.Errorf("the file system of %s is over %d %% full", s.dir, maxUsed)
	}
	return s.probed()
}

// probed tells whether a file can be written in the directory, and tries it if
// that is longer ago than a second. Whoever comes meanwhile waits for the same
// try: a disk that hangs lets nothing through.
func (s *Spool) probed() error {
	s.probe.Lock()
	defer s.probe.Unlock()
	if s.probe.at.IsZero() || time.Since(s.probe.at) > probeEvery {
		s.probe.err = writeProbe(filepath.Join(s.dir, "probe"))
		s.probe.at = time.Now()
	}
	return s.probe.err
}

// writeProbe writes and removes a file as long as any usual answer. It is a new
// file each time: to overwrite one takes no room, and proves none.
func writeProbe(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = put(f, make([]byte, 64<<10))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(path))
}

func put(f *os.File, b []byte) (int, error) {
	if err := fault.Room(); err != nil {
		return 0, err
	}
	return f.Write(b)
}

// Append writes r and returns when it is on disk. Concurrent calls share a sync.
func (s *Spool) Append(r Record) error {
	n, err := s.write(r)
	if err != nil {
		return err
	}
	fault.AtAttempt(r.Attempt, "spool_written")
	return s.syncTo(n)
}

// Done notes that the database has r. It isn't synced: a lost note means a
// replay, which changes nothing.
func (s *Spool) Done(r Record) error {
	r.Done, r.Body, r.Tokens = true, nil, nil
	_, err := s.write(r)
	return err
}

func (s *Spool) write(r Record) (int64, error) {
	plain, err := json.Marshal(r)
	if err != nil {
		return 0, err
	}
	frame, by, err := seal(s.keyset, plain)
	if err != nil {
		return 0, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return 0, s.broken
	}
	if by != s.keyset.SealsWith() { // what follows Reseal must not be what it ended
		if frame, _, err = seal(s.keyset, plain); err != nil {
			return 0, err
		}
	}
	if s.size+int64(len(frame)) > fault.Segment(segmentSize) && s.size > 0 {
		if err := s.rotate(); err != nil {
			s.broken = err
			return 0, err
		}
		fault.At("spool_rotated")
	}
	if _, err := put(s.file, frame); err != nil {
		// The tail is torn now, and what follows it could be unreadable.
		if rerr := s.rotate(); rerr != nil {
			s.broken = rerr
		}
		return 0, err
	}
	s.size += int64(len(frame))
	s.written++
	s.note(r, s.file.Name())
	return s.written, nil
}

// syncTo returns when n records are on disk. Whoever waits for the mutex
// meanwhile writes first and is covered by the next sync: they share it.
func (s *Spool) syncTo(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced >= n {
		return nil
	}
	if s.broken != nil {
		// After a sync that failed the kernel may report the next one as done.
		return s.broken
	}
	if fault.Sabotaged("spool_unsynced") {
		return nil // as if it were
	}
	if err := syscall.Fdatasync(int(s.file.Fd())); err != nil {
		// The kernel may have dropped the pages: nothing more can be promised.
		s.broken = fmt.Errorf("sync: %w", err)
		return s.broken
	}
	s.synced = s.written
	fault.Synced(s.file.Name(), s.size)
	return nil
}

// rotate closes the segment, synced, and starts the next one.
func (s *Spool) rotate() error {
	if s.file != nil {
		if err := errors.Join(s.file.Sync(), s.file.Close()); err != nil {
			return err
		}
		s.synced = s.written
		fault.Synced(s.file.Name(), s.size)
		_ = s.settle(s.seq) // or more is read at the next start, no more than that
	}
	s.seq++
	f, err := os.OpenFile(filepath.Join(s.dir, fmt.Sprintf("seg-%08d.log", s.seq)), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.file, s.size = f, 0
	fault.Synced(f.Name(), 0)
	return syncDir(s.dir)
}

// settle notes that the database has all that is in segments up to this one, or
// as far as that is so: Pending need not read them again. A start would take
// longer and longer otherwise, with a week of them.
func (s *Spool) settle(segment int) error {
	if !s.known {
		return nil
	}
	for _, path := range s.damaged {
		segment = min(segment, number(path)-1)
	}
	for _, path := range s.undone {
		segment = min(segment, number(path)-1)
	}
	if segment <= s.settled {
		return nil
	}
	path := filepath.Join(s.dir, "settled")
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(segment))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	s.settled = segment
	return syncDir(s.dir)
}

// number is a segment's, by its path.
func number(path string) (n int) {
	_, _ = fmt.Sscanf(filepath.Base(path), "seg-%d.log", &n)
	return n
}

func (s *Spool) segments() ([]string, error) {
	list, err := filepath.Glob(filepath.Join(s.dir, "seg-*.log"))
	slices.Sort(list)
	return list, err
}

func (s *Spool) note(r Record, segment string) {
	if r.Done {
		delete(s.undone, r.key())
	} else {
		s.undone[r.key()] = segment
	}
}

// Pending reads the records that no Done follows, oldest first, from the segments
// that aren't settled: call it once after Open, before anything is appended.
// Damaged bytes are skipped and counted.
func (s *Spool) Pending() (records []Record, damaged int, err error) {
	segments, err := s.segments()
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	type numbered struct {
		n int
		Record
	}
	pending, n := map[string]numbered{}, 0 // a week's records would not fit
	for _, path := range segments {
		if number(path) <= s.settled {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, damaged, err
		}
		bad, err := read(f, s.keyset, func(r Record) {
			s.note(r, path)
			if r.Done {
				delete(pending, r.key())
				return
			}
			n++
			pending[r.key()] = numbered{n, r}
		})
		_ = f.Close()
		if damaged += bad; bad > 0 {
			s.damaged = append(s.damaged, path)
		}
		if err != nil {
			return nil, damaged, err
		}
	}
	s.known = true
	for _, p := range slices.SortedFunc(maps.Values(pending), func(a, b numbered) int { return a.n - b.n }) {
		records = append(records, p.Record)
	}
	return records, damaged, nil
}

// Sweep removes segments that were last written over a week ago and hold
// nothing that the database may not know.
func (s *Spool) Sweep(now time.Time) error {
	segments, err := s.segments()
	if err != nil {
		return err
	}
	s.mu.Lock()
	kept := map[string]bool{s.file.Name(): true}
	for _, path := range s.undone {
		kept[path] = true
	}
	s.mu.Unlock()
	var errs []error
	for _, path := range segments {
		fi, err := os.Stat(path)
		if err != nil || kept[path] || now.Sub(fi.ModTime()) < keepFor {
			continue
		}
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

var (
	place      = secret.Place{Table: "spool", Column: "record"}
	magic      = []byte("MSP1")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const headerLen = 12

// seal makes a record's frame, and tells by which key.
func seal(keyset *secret.Keyset, plain []byte) (frame []byte, by uint32, err error) {
	sealed, err := keyset.Seal(place, plain)
	if err != nil {
		return nil, 0, err
	}
	frame = make([]byte, headerLen, headerLen+len(sealed))
	copy(frame, magic)
	binary.BigEndian.PutUint32(frame[4:], uint32(len(sealed)))
	binary.BigEndian.PutUint32(frame[8:], crc32.Checksum(sealed, castagnoli))
	by, _ = secret.KeyOf(sealed)
	return append(frame, sealed...), by, nil
}

// read yields the records of one segment. After damage it looks for the next
// frame; a checksum and the seal stand between bytes and a Record.
func read(r io.Reader, keyset *secret.Keyset, yield func(Record)) (damaged int, err error) {
	return frames(r, func(sealed []byte) bool {
		var rec Record
		plain, err := keyset.Open(place, sealed)
		if err != nil || json.Unmarshal(plain, &rec) != nil {
			return false
		}
		yield(rec)
		return true
	})
}

// frames gives what was sealed in one segment to take, which says whether that
// is a record.
func frames(r io.Reader, take func(sealed []byte) bool) (damaged int, err error) {
	br := bufio.NewReaderSize(r, maxRecord+headerLen)
	skipping := false
	skip := func() {
		if !skipping {
			damaged++
			skipping = true
		}
		_, _ = br.Discard(1)
	}
	for {
		header, err := br.Peek(headerLen)
		if len(header) == 0 && errors.Is(err, io.EOF) {
			return damaged, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return damaged, err
		}
		if len(header) < headerLen || string(header[:4]) != string(magic) {
			skip()
			continue
		}
		n := int(binary.BigEndian.Uint32(header[4:]))
		sum := binary.BigEndian.Uint32(header[8:])
		if n > maxRecord {
			skip()
			continue
		}
		frame, err := br.Peek(headerLen + n)
		if err != nil && !errors.Is(err, io.EOF) {
			return damaged, err
		}
		if len(frame) < headerLen+n || crc32.Checksum(frame[headerLen:], castagnoli) != sum || !take(frame[headerLen:]) {
			skip()
			continue
		}
		skipping = false
		_, _ = br.Discard(headerLen + n)
	}
}
