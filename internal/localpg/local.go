package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startLocal runs server binaries that are installed on this machine.
func startLocal(ctx context.Context, o Options) (*Server, error) {
	who, err := serverAccount()
	if err != nil {
		return nil, err
	}
	return startBinaries(ctx, o, who, func(only int) (binaries, error) { return findBinaries(who, only) })
}

// startBinaries starts a kept or a throw-away cluster. find is asked for the
// installation once the version of the data is known, 0 if there is none yet.
func startBinaries(ctx context.Context, o Options, who account, find func(major int) (binaries, error)) (*Server, error) {
	if o.DataDir == "" {
		b, err := find(0)
		if err != nil {
			return nil, err
		}
		return startThrowaway(ctx, o, who, b)
	}
	return startKept(ctx, o, who, find)
}

func startKept(ctx context.Context, o Options, who account, find func(int) (binaries, error)) (_ *Server, err error) {
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, err
	}
	if err := makeDirs(dir, who); err != nil {
		return nil, err
	}
	lock, err := lockFile(ctx, filepath.Join(dir, "lock"), 15*time.Second)
	if err != nil {
		return nil, err
	}
	var undo cleanups
	undo.add(lock.Close)
	defer func() {
		if err != nil {
			_ = undo.run()
		}
	}()

	data := filepath.Join(dir, "data")
	made, err := dataVersion(data)
	if err != nil {
		return nil, err
	}
	b, err := find(made)
	if err != nil {
		if made > 0 {
			// Not wrapped: another way would begin with an empty database.
			return nil, fmt.Errorf("the data in %s can't be opened: %v; install that version or remove the directory", dir, err) //nolint:errorlint // see above
		}
		return nil, err
	}
	if made == 0 {
		if err := initKept(ctx, o, who, b, dir, data); err != nil {
			return nil, err
		}
	} else if who, err = ownerOf(data, who); err != nil {
		return nil, err
	}
	if blocked := who.reaches(dir); blocked != "" {
		return nil, fmt.Errorf("%s: the server runs as user %d, who may not pass %s; choose a directory that everybody may pass", dir, who.uid, blocked)
	}
	if err := endLeftovers(ctx, o, data); err != nil {
		return nil, err
	}

	base, err := scratch(who, 1<<20, os.TempDir(), "/tmp", "/dev/shm", "/var/tmp")
	if err != nil {
		return nil, err
	}
	// The same path after each restart, so that a DSN that somebody has noted
	// stays true. Nothing of the last server is needed: it has ended.
	sock := filepath.Join(base, "k-"+shortHash(data))
	if err := os.RemoveAll(sock); err != nil {
		return nil, err
	}
	undo.add(func() error { return os.RemoveAll(sock) })
	if err := mkdirFor(who, sock); err != nil {
		return nil, err
	}
	c := cluster{binaries: b, who: who, data: data, sock: sock, log: filepath.Join(dir, "server.log"), end: syscall.SIGINT}
	if err := rotate(c.log); err != nil {
		return nil, err
	}
	p, err := c.start(ctx, keptSettings(o))
	if err != nil {
		return nil, err
	}
	watch, err := c.watch(p, "")
	if err != nil {
		_ = c.stop(p)
		return nil, err
	}
	return &Server{
		dsn:      c.dsn(),
		describe: fmt.Sprintf("PostgreSQL %s (%s), data kept in %s", b.version, b.dir, dir),
		stop: func() error {
			watch()
			return errors.Join(c.stop(p), undo.run())
		},
	}, nil
}

// initKept makes the cluster beside its place and moves it there whole, so that
// one that was cut short is never taken for a cluster.
func initKept(ctx context.Context, o Options, who account, b binaries, dir, data string) error {
	fresh := data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := mkdirFor(who, fresh); err != nil {
		return err
	}
	if blocked := who.reaches(dir); blocked != "" {
		return fmt.Errorf("%s: the server runs as user %d, who may not pass %s; choose a directory that everybody may pass", dir, who.uid, blocked)
	}
	o.Logf("making a PostgreSQL %s cluster in %s", b.version, dir)
	if err := initdb(ctx, who, b, fresh, o.Durable); err != nil {
		return err
	}
	return os.Rename(fresh, data)
}

func initdb(ctx context.Context, who account, b binaries, data string, durable bool) error {
	args := []string{"-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"}
	if !durable {
		args = append(args, "--no-sync")
	}
	return runTool(ctx, who, data, b.path("initdb"), args...)
}

// dataVersion is the major version of a cluster, 0 if there is none.
func dataVersion(data string) (int, error) {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(data); err == nil {
			return 0, fmt.Errorf("%s exists and is no PostgreSQL cluster", data)
		}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	v := major(strings.TrimSpace(string(b)))
	if v == 0 {
		return 0, fmt.Errorf("%s has the version %q", data, b)
	}
	return v, nil
}

// ownerOf runs a kept cluster as the user it belongs to, also when another one
// would be chosen today.
func ownerOf(data string, who account) (account, error) {
	if who.cred == nil {
		return who, nil
	}
	info, err := os.Stat(data)
	if err != nil {
		return who, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
		return otherAccount(int(st.Uid), int(st.Gid)), nil
	}
	return who, fmt.Errorf("%s belongs to root, as whom PostgreSQL refuses to run", data)
}

// endLeftovers waits for, and if need be ends, a server that outlived the
// process that had started it. The lock on the directory says that no such
// process lives.
func endLeftovers(ctx context.Context, o Options, data string) error {
	start := time.Now()
	var asked syscall.Signal
	for {
		pids := serversOn(data)
		if len(pids) == 0 {
			return forgetPID(data)
		}
		waited := time.Since(start)
		want := syscall.SIGINT
		if waited > 20*time.Second {
			want = syscall.SIGQUIT
		}
		if waited > 40*time.Second {
			return fmt.Errorf("a server on %s does not end (processes %v)", data, pids)
		}
		if want != asked {
			o.Logf("ending the server that an earlier run left on %s", data)
			postmaster := postmasterPID(data)
			for _, pid := range pids {
				if pid == postmaster || want == syscall.SIGQUIT {
					_ = syscall.Kill(pid, want) // it may have ended meanwhile
				}
			}
			asked = want
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// forgetPID removes the pid file that a killed server left behind, which would
// stop the next one if its number belongs to another process by now. Only to be
// called when no server is on the data.
func forgetPID(data string) error {
	err := os.Remove(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func postmasterPID(data string) int {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(first))
	return pid
}

// rotate keeps the log of the runs before as one more file once it is large.
func rotate(log string) error {
	info, err := os.Stat(log)
	if err != nil || info.Size() < 10<<20 {
		return nil //nolint:nilerr // no log yet: nothing to keep
	}
	return os.Rename(log, log+".1")
}

func mkdirFor(who account, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return who.give(dir)
}
