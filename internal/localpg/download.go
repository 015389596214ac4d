package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	downloadVersion = embeddedpostgres.V15
	downloadName    = "postgresql-"
)

// source is where binaries come from, and the directories of which the first
// usable one keeps them.
type source struct {
	repository string
	keep       []string
}

// startDownload fetches server binaries, once a machine and user, and then runs
// them exactly as if they had been installed.
func startDownload(ctx context.Context, o Options) (*Server, error) {
	return startDownloadFrom(ctx, o, source{"https://repo1.maven.org/maven2", downloadDirs()})
}

func startDownloadFrom(ctx context.Context, o Options, from source) (*Server, error) {
	who, err := serverAccount()
	if err != nil {
		return nil, err
	}
	return startBinaries(ctx, o, who, func(only int) (binaries, error) {
		if got := major(string(downloadVersion)); only > 0 && only != got {
			return binaries{}, fmt.Errorf("it was made by version %d, version %d would be downloaded", only, got)
		}
		return download(ctx, o, who, from)
	})
}

func download(ctx context.Context, o Options, who account, from source) (binaries, error) {
	base, err := firstUsable(from.keep, who)
	if err != nil {
		return binaries{}, err
	}
	lock, err := lockFile(ctx, filepath.Join(base, "lock"), 10*time.Minute)
	if err != nil {
		return binaries{}, err
	}
	defer lock.Close()
	home := filepath.Join(base, downloadName+string(downloadVersion))
	if b, err := inspect(who, filepath.Join(home, "bin")); err == nil {
		return b, nil
	}
	o.Logf("downloading PostgreSQL %s from %s to %s, once", downloadVersion, from.repository, home)
	fresh := home + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.RemoveAll(home)); err != nil {
		return binaries{}, err
	}
	if err := fetch(ctx, base, fresh, from.repository); err != nil {
		return binaries{}, err
	}
	if err := openUp(fresh); err != nil {
		return binaries{}, err
	}
	if err := os.Rename(fresh, home); err != nil {
		return binaries{}, err
	}
	return inspect(who, filepath.Join(home, "bin"))
}

// downloadDirs are outside any data directory: the library empties its runtime
// path at each start.
func downloadDirs() []string {
	if os.Geteuid() == 0 {
		return []string{"/var/lib/mendian/postgres", "/var/tmp/mendian-0/postgres"}
	}
	var dirs []string
	if cache, err := os.UserCacheDir(); err == nil && filepath.IsAbs(cache) {
		dirs = append(dirs, filepath.Join(cache, "mendian/postgres"))
	}
	return append(dirs, filepath.Join(os.TempDir(), fmt.Sprintf("mendian-%d", os.Geteuid()), "postgres"))
}

// fetch uses the library for what it knows best: which archive fits this
// machine, its checksum, and how to unpack it. It has no call for that alone,
// and its server would neither start as root nor end with us, nor be closed to
// other users of the machine. So it gets a data path that can't be made, below
// a file, and its Start ends, with an error that says nothing, once everything
// is unpacked.
func fetch(ctx context.Context, base, target, repository string) error {
	work, err := os.MkdirTemp(base, "work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	file := filepath.Join(work, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	var said strings.Builder
	lib := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(downloadVersion).
		BinaryRepositoryURL(repository).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(filepath.Join(work, "runtime")).
		BinariesPath(target).
		DataPath(filepath.Join(file, "data")).
		Port(0).
		Logger(&said))
	ended := make(chan error, 1)
	go func() { ended <- lib.Start() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		return ctx.Err() // the library has no way to be told; it ends with us
	}
	if _, statErr := os.Stat(filepath.Join(target, "bin", "postgres")); statErr != nil {
		return &unavailable{fmt.Sprintf("%s: %v", repository, err)}
	}
	return nil
}

// openUp lets the server's user read and run what root has unpacked.
func openUp(root string) error {
	return filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if d.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}
