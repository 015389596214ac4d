package localpg

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// DefaultDataDir returns a directory to keep a cluster (or another thing of
// that name) in: the same one whenever it is called in the same working
// directory by the same user. It exists then.
//
// An ordinary user gets .dev/name below the working directory, or, where that
// can't be written or reached by its full path, a directory of his state
// ($XDG_STATE_HOME, ~/.local/state) or of the temporary directory. Root gets
// one below /var/lib/mendian or /var/tmp, because the server runs as another
// user, who may not reach the working directory.
func DefaultDataDir(name string) (string, error) {
	wd, wdErr := os.Getwd()
	own := "dev-" + shortHash(wd)
	var candidates []string
	if os.Geteuid() == 0 {
		candidates = []string{
			filepath.Join("/var/lib/mendian", own, name),
			filepath.Join("/var/tmp/mendian-0", own, name),
		}
	} else {
		if wdErr == nil {
			candidates = append(candidates, filepath.Join(wd, ".dev", name))
		}
		if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
			candidates = append(candidates, filepath.Join(state, "mendian", own, name))
		}
		if home := os.Getenv("HOME"); filepath.IsAbs(home) {
			candidates = append(candidates, filepath.Join(home, ".local/state/mendian", own, name))
		}
		candidates = append(candidates, filepath.Join(os.TempDir(), fmt.Sprintf("mendian-%d", os.Geteuid()), own, name))
	}
	who, err := serverAccount()
	if err != nil {
		who = account{uid: os.Geteuid(), gid: os.Getegid()} // a container or DATABASE_URL needs no such user
	}
	return firstUsable(candidates, who)
}

// firstUsable makes the first of the directories that can be made, written by
// us and reached by who.
func firstUsable(candidates []string, who account) (string, error) {
	var errs []error
	for _, dir := range candidates {
		err := makeDirs(dir, who)
		if err == nil {
			if blocked := who.reaches(dir); blocked != "" {
				err = fmt.Errorf("%s: the server's user may not pass %s", dir, blocked)
			}
		}
		if err == nil {
			err = tryWrite(dir)
		}
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no directory for data can be used: %w", errors.Join(errs...))
}

// makeDirs is os.MkdirAll for directories that who can pass whatever the umask
// is. Below a directory that anybody may write to, whatever exists already must
// be ours: somebody else could have laid it there.
func makeDirs(dir string, who account) error {
	parent := filepath.Dir(dir)
	info, err := os.Stat(parent)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err = makeDirs(parent, who); err == nil {
			info, err = os.Stat(parent)
		}
	}
	if err != nil {
		return err
	}
	perm := os.FileMode(0o700)
	if who.cred != nil {
		perm = 0o711
	}
	switch err := os.Mkdir(dir, perm); {
	case err == nil:
		return os.Chmod(dir, perm)
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	if info.Mode()&0o002 == 0 {
		return nil
	}
	return isOurs(dir)
}

func isOurs(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() || info.Mode()&0o022 != 0 {
		return fmt.Errorf("%s is not a directory of ours alone", dir)
	}
	return nil
}

func tryWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".try-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	return f.Close()
}

// scratchPrefix begins the names of the directories in which sockets and
// throw-away clusters live, one directory a user.
const scratchPrefix = "mendian-pg-"

// scratch makes this user's directory of things that need not last, in the
// first place that will do. A socket's whole path must be shorter than 100
// bytes. Memory is the fastest place for a cluster, but a container's /dev/shm
// can be 64 MB: need is how much must be free.
func scratch(who account, need uint64, places ...string) (string, error) {
	var errs []error
	for _, place := range places {
		dir := filepath.Join(place, fmt.Sprintf("%s%d", scratchPrefix, os.Geteuid()))
		if len(dir) > 60 {
			errs = append(errs, fmt.Errorf("%s is too long for a socket's path", dir))
			continue
		}
		if room := free(place); room < need {
			errs = append(errs, fmt.Errorf("%s has %d MB free", place, room>>20))
			continue
		}
		got, err := firstUsable([]string{dir}, who)
		if err == nil {
			return got, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no place for a socket or a throw-away cluster: %w", errors.Join(errs...))
}

func free(place string) uint64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(place, &st); err != nil {
		return 0
	}
	return st.Bavail * uint64(st.Bsize)
}

func shortHash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:6])
}
