package secret

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// AddKey adds a key to the file that opens and doesn't seal yet. note is told
// its id before; if that fails, the file stays as it is.
func AddKey(path string, note func(id uint32) error) (id uint32, err error) {
	err = rewrite(path, func(m *keyset.Manager) error {
		if id, err = m.Add(aead.AES256GCMKeyTemplate()); err != nil {
			return err
		}
		return note(id)
	})
	return id, err
}

// Promote lets a key of the file seal from now on. The one that did stays, and opens.
func Promote(path string, id uint32) error {
	return rewrite(path, func(m *keyset.Manager) error { return m.SetPrimary(id) })
}

// RemoveKey takes a key that doesn't seal out of the file, and keeps the former
// file beside it, as kept: backups of the database and of spools from before
// are opened with that one only. AddKey and Promote take nothing away, and so
// keep nothing.
func RemoveKey(path string, id uint32) (kept string, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	kept = fmt.Sprintf("%s.with-%d", path, id)
	return kept, rewrite(path, func(m *keyset.Manager) error {
		if err := m.Delete(id); err != nil {
			return err
		}
		if err := os.Link(path, kept); err != nil && !errors.Is(err, os.ErrExist) { // from an attempt that was cut off
			return err
		}
		return nil
	})
}

// rewrite replaces the file by what change makes of it. Whoever reads it
// meanwhile, or after a crash, finds the former file or the new one, whole;
// and two that change it at once come one after the other.
func rewrite(path string, change func(*keyset.Manager) error) (err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close() // gives the lock up
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	former, err := readKeys(path)
	if err != nil {
		return err
	}
	m := keyset.NewManagerFromHandle(former.handle)
	if err := change(m); err != nil {
		return err
	}
	handle, err := m.Handle()
	if err != nil {
		return err
	}
	b, err := encode(handle)
	if err != nil {
		return err
	}
	if err := replace(path, b); err != nil {
		return err
	}
	return dir.Sync()
}

// replace puts a file in path's place that belongs to the same user, mode 0600.
func replace(path string, b []byte) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keyset-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone, unless something failed
	_, err = f.Write(b)
	if owner, ok := fi.Sys().(*syscall.Stat_t); ok && err == nil && int(owner.Uid) != os.Geteuid() {
		err = f.Chown(int(owner.Uid), int(owner.Gid)) // or those who serve could not read it
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// WithRole are the ids of the keys that have this role.
func WithRole(keys []KeyInfo, role Role) (ids []uint32) {
	for _, k := range keys {
		if k.Role == role {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// HasKey reports whether a key is among these.
func HasKey(keys []KeyInfo, id uint32) bool {
	return slices.ContainsFunc(keys, func(k KeyInfo) bool { return k.ID == id })
}
