package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startThrowaway runs a copy of a cluster that was made once on this machine:
// initdb takes about a second, the copy a few hundredths.
func startThrowaway(ctx context.Context, o Options, who account, b binaries) (_ *Server, err error) {
	base, err := scratch(who, 512<<20, "/dev/shm", os.TempDir(), "/tmp", "/var/tmp")
	if err != nil {
		return nil, err
	}
	var undo cleanups
	defer func() {
		if err != nil {
			_ = undo.run()
		}
	}()
	dir, lock, err := claimDir(ctx, base)
	if err != nil {
		return nil, err
	}
	undo.add(lock.Close)
	undo.add(func() error { return os.RemoveAll(dir) })

	c := cluster{
		binaries: b, who: who,
		data: filepath.Join(dir, "data"), sock: filepath.Join(dir, "s"), log: filepath.Join(dir, "log"),
		end: syscall.SIGQUIT,
	}
	if err := mkdirFor(who, c.sock); err != nil {
		return nil, err
	}
	if err := copyInitialised(ctx, o, who, b, base, c.data); err != nil {
		return nil, err
	}
	p, err := c.start(ctx, throwawaySettings(o))
	if err != nil {
		return nil, err
	}
	watch, err := c.watch(p, dir)
	if err != nil {
		return nil, errors.Join(err, c.stop(p))
	}
	return &Server{
		dsn:      c.dsn(),
		describe: fmt.Sprintf("PostgreSQL %s (%s), throw-away data in %s", b.version, b.dir, dir),
		stop: func() error {
			watch()
			return errors.Join(c.stop(p), undo.run())
		},
	}, nil
}

// claimDir makes a directory for one throw-away cluster and locks it for as
// long as we live, and removes those whose owners have died without cleaning
// up. The lock on all of them keeps anybody from taking one that is just being
// made for abandoned.
func claimDir(ctx context.Context, base string) (dir string, lock *os.File, err error) {
	all, err := lockFile(ctx, filepath.Join(base, "lock"), time.Minute)
	if err != nil {
		return "", nil, err
	}
	defer all.Close()
	if err := sweep(base); err != nil {
		return "", nil, err
	}
	dir, err = os.MkdirTemp(base, "t-")
	if err != nil {
		return "", nil, err
	}
	// MkdirTemp's 0700 would keep the server's user out when we are root; what
	// is private is inside.
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", nil, err
	}
	lock, err = lockFile(ctx, filepath.Join(dir, "lock"), 0)
	return dir, lock, err
}

func sweep(base string) error {
	if err := sweepCaches(base); err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(base, "t-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err == nil {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
			_ = f.Close() // nobody takes it in between: we hold the lock on all
			if err != nil {
				continue
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, pid := range serversOn(filepath.Join(dir, "data")) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // its data go with it
		}
		if err := removeAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// cacheLife is short because programs that clean temporary directories remove
// single old files.
const cacheLife = 24 * time.Hour

// sweepCaches removes initialised clusters that would not be used any more. The
// locks stay: somebody may be waiting for one.
func sweepCaches(base string) error {
	locks, err := filepath.Glob(filepath.Join(base, "c-*.lock"))
	if err != nil {
		return err
	}
	for _, name := range locks {
		cached := strings.TrimSuffix(name, ".lock")
		info, err := os.Stat(cached)
		if err != nil || time.Since(info.ModTime()) < cacheLife {
			continue
		}
		lock, err := lockFile(context.Background(), name, 0)
		if err != nil {
			continue // somebody makes it anew
		}
		if err := errors.Join(removeAll(cached), lock.Close()); err != nil {
			return err
		}
	}
	return nil
}

// removeAll tries again when a process that is just ending still writes, or
// the watchdog of the dead owner removes the same files.
func removeAll(dir string) error {
	var err error
	for range 50 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		<-time.After(20 * time.Millisecond)
	}
	return err
}

// copyInitialised copies the machine's initialised cluster of this version to
// data, after making it if there is none or it is old. Test binaries that run at
// the same time wait for each other.
func copyInitialised(ctx context.Context, o Options, who account, b binaries, base, data string) error {
	cached := filepath.Join(base, "c-"+shortHash(b.dir, b.version, fmt.Sprint(who.uid)))
	lock, err := lockFile(ctx, cached+".lock", 2*time.Minute)
	if err != nil {
		return err
	}
	defer lock.Close()
	info, err := os.Stat(cached)
	if err != nil || time.Since(info.ModTime()) > cacheLife {
		o.Logf("making a PostgreSQL %s cluster for tests in %s, once a day", b.version, cached)
		fresh := cached + ".new"
		if err := errors.Join(removeAll(fresh), removeAll(cached)); err != nil {
			return err
		}
		if err := mkdirFor(who, fresh); err != nil {
			return err
		}
		if err := initdb(ctx, who, b, fresh, false); err != nil {
			return errors.Join(err, removeAll(fresh))
		}
		if err := os.Rename(fresh, cached); err != nil {
			return err
		}
	}
	return copyTree(who, cached, data)
}

func copyTree(who account, from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			return mkdirFor(who, target)
		case d.Type().IsRegular():
			if err := copyFile(path, target); err != nil {
				return err
			}
			return who.give(target)
		}
		return fmt.Errorf("%s is neither a file nor a directory", path)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}
