package spool

import (
	"bufio"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mendian/mendian/internal/fault"
	"github.com/mendian/mendian/internal/secret"
)

// Reseal ends the segment and writes all that are ended anew under the key
// that seals now, each at once or not at all. It returns the other keys that
// something is sealed by still: a segment with damaged bytes, or with a record
// that doesn't open, stays as it is until it is swept. Call it after Pending,
// and when the keyset has changed; never twice at once.
func (s *Spool) Reseal() (left []uint32, err error) {
	s.mu.Lock()
	if err = s.broken; err == nil && s.size > 0 {
		if err = s.rotate(); err != nil {
			s.broken = err
		}
	}
	current := s.file.Name()
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	segments, err := s.segments()
	if err != nil {
		return nil, err
	}
	others := map[uint32]bool{}
	for _, path := range segments {
		if path == current {
			continue
		}
		by, err := s.reseal(path)
		if errors.Is(err, os.ErrNotExist) { // swept meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, id := range by {
			others[id] = true
		}
	}
	return slices.Sorted(maps.Keys(others)), nil
}

// reseal writes one segment anew, if it has to be, and returns which keys
// besides the one that seals now its records have afterwards.
func (s *Spool) reseal(path string) ([]uint32, error) {
	now := s.keyset.SealsWith()
	others := map[uint32]bool{}
	damaged, err := each(path, func(sealed []byte) bool {
		if id, ok := secret.KeyOf(sealed); ok && id != now {
			others[id] = true
		}
		return true
	})
	left := slices.Sorted(maps.Keys(others))
	if err != nil || len(left) == 0 || damaged > 0 {
		return left, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "resealed"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name()) // gone, unless something failed
	var failed error
	w := bufio.NewWriter(f)
	damaged, err = each(path, func(sealed []byte) bool {
		plain, err := s.keyset.Open(place, sealed)
		if err != nil {
			return false
		}
		frame, _, err := seal(s.keyset, plain)
		if err == nil {
			_, err = w.Write(frame)
		}
		failed = errors.Join(failed, err)
		return true
	})
	err = errors.Join(err, failed, w.Flush(), f.Sync(), f.Close())
	if err != nil || damaged > 0 {
		return left, err
	}
	fault.At("spool_resealed")
	// It is swept when the former one would have been.
	if err := errors.Join(os.Chtimes(f.Name(), fi.ModTime(), fi.ModTime()), os.Rename(f.Name(), path), syncDir(s.dir)); err != nil {
		return left, err
	}
	if fi, err = os.Stat(path); err != nil {
		return nil, err
	}
	fault.Synced(path, fi.Size())
	return nil, nil
}

func each(path string, take func(sealed []byte) bool) (damaged int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return frames(f, take)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
