// Package localpg finds or starts a real PostgreSQL for `gateway dev` and for
// the tests, so that neither ever needs a person to install, configure or
// stop one. It takes the first of these that there is:
//
//  1. DATABASE_URL, a server that somebody else runs,
//  2. installed server binaries of version 15 or newer,
//  3. a container, if a Docker daemon answers,
//  4. server binaries that it downloads.
//
// GATEWAY_POSTGRES=local, docker or download takes that one, also when
// DATABASE_URL is set.
//
// It must never stop or change a server that it did not start, never run two
// servers on one data directory, and never serve production: its clusters
// trust whoever can reach their private socket.
package localpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// oldest is the first major version that has all that the migrations and the
// tests use.
const oldest = 15

// Options say what kind of server is wanted. The zero value is a throw-away
// cluster.
type Options struct {
	// DataDir keeps the cluster over restarts. Empty means a throw-away cluster
	// in memory or in the temporary directory, gone after Stop, and also when
	// this process dies without it. A path is given by DefaultDataDir.
	DataDir string
	// Durable makes a commit survive a crash of the machine. Tests do without.
	Durable bool
	// MaxConnections is PostgreSQL's max_connections, by default 100.
	MaxConnections int
	// Logf is told what takes long or surprises. By default nobody is told.
	Logf func(format string, args ...any)
	// Getenv reads DATABASE_URL (or the file that DATABASE_URL_FILE names) and
	// GATEWAY_POSTGRES. By default os.Getenv.
	Getenv func(string) string
}

// Server is a PostgreSQL that answers. Its methods may be called at any time,
// from several goroutines.
type Server struct {
	dsn      string
	external bool
	describe string
	stop     func() error

	once    sync.Once
	stopErr error
}

// running keeps each server until it is stopped, also for a caller who only
// keeps its DSN: its lock and the watchdog's pipe are files, which the garbage
// collector closes when nobody holds them.
var running sync.Map

// DSN names a database of a role that may create databases and roles. It is a
// URL (a given DATABASE_URL is returned as it was given) for pgx and psql; in a
// shell it needs quotes.
func (s *Server) DSN() string { return s.dsn }

// External reports whether the server was given by DATABASE_URL: then it was
// not started here, and Stop leaves it alone.
func (s *Server) External() bool { return s.external }

// Describe says in one line what the server is and where its data lies. It
// holds no password.
func (s *Server) Describe() string { return s.describe }

// Stop ends the server: at once, with its data, if it is a throw-away cluster,
// else after its clients were disconnected and everything was written. A second
// call does nothing and returns what the first one returned.
func (s *Server) Stop() error {
	s.once.Do(func() {
		if s.stop != nil {
			s.stopErr = s.stop()
		}
		running.Delete(s)
	})
	return s.stopErr
}

// unavailable is why one way does not exist on this machine, so that the next
// one is tried. Any other error of a way ends the search: a kept cluster that
// does not start must not be replaced by an empty one in a container.
type unavailable struct{ reason string }

func (u *unavailable) Error() string { return u.reason }

// Start returns a server that answers, or an error that names all the ways to
// get one. The context bounds the start only; the server runs until Stop, or
// until this process ends in whatever way.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	o.MaxConnections = cmp.Or(o.MaxConnections, 100)

	forced := o.Getenv("GATEWAY_POSTGRES")
	var tried []string
	if forced == "" {
		s, err := startGiven(ctx, o)
		if err == nil {
			return s, nil
		}
		var none *unavailable
		if !errors.As(err, &none) {
			return nil, fmt.Errorf("the PostgreSQL of DATABASE_URL: %w", err)
		}
		tried = append(tried, "DATABASE_URL: "+none.reason)
	}
	for _, way := range []struct {
		name  string
		start func(context.Context, Options) (*Server, error)
	}{
		{"local", startLocal},
		{"docker", startDocker},
		{"download", startDownload},
	} {
		if forced != "" && forced != way.name {
			continue
		}
		s, err := way.start(ctx, o)
		if err == nil {
			running.Store(s, nil)
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start PostgreSQL (%s): %w", way.name, err)
		}
		var none *unavailable
		if !errors.As(err, &none) {
			return nil, fmt.Errorf("start PostgreSQL (%s): %w; GATEWAY_POSTGRES=local, docker or download takes another way", way.name, err)
		}
		tried = append(tried, way.name+": "+none.reason)
	}
	if len(tried) == 0 {
		return nil, fmt.Errorf("GATEWAY_POSTGRES is %q: it can be local, docker or download", forced)
	}
	return nil, fmt.Errorf(`no PostgreSQL found:
  %s
There are four ways, one is enough:
  set DATABASE_URL to a server of version %d or newer, of a role with CREATEDB and CREATEROLE
  install the server (Debian, Ubuntu: apt install postgresql; macOS: brew install postgresql@17)
  start Docker
  let it be downloaded from repo1.maven.org
GATEWAY_POSTGRES=local, docker or download forces one of the last three`,
		strings.Join(tried, "\n  "), oldest)
}
