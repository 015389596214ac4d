package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// startGiven takes the server that DATABASE_URL names. It only looks at it.
func startGiven(ctx context.Context, o Options) (*Server, error) {
	dsn, err := givenDSN(o.Getenv)
	if err != nil {
		return nil, err
	}
	if dsn == "" {
		return nil, &unavailable{"not set"}
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("it is not a valid connection string") // pgx's own text repeats it, with the password if it misread it
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		if isOurSocket(cfg.Host) && gone(err) {
			o.Logf("DATABASE_URL names the server of an earlier run, which has ended; it is ignored")
			return nil, &unavailable{"names the server of an earlier run, which has ended"}
		}
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	version := conn.PgConn().ParameterStatus("server_version")
	if major(version) < oldest {
		return nil, fmt.Errorf("it is version %s, needed is %d or newer", version, oldest)
	}
	where := cfg.Host
	if !filepath.IsAbs(where) {
		where = net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
	}
	return &Server{
		dsn:      dsn,
		external: true,
		describe: fmt.Sprintf("PostgreSQL %s of DATABASE_URL, database %s at %s, neither started nor stopped by us", version, cfg.Database, where),
	}, nil
}

func givenDSN(getenv func(string) string) (string, error) {
	if dsn := getenv("DATABASE_URL"); dsn != "" {
		return dsn, nil
	}
	path := getenv("DATABASE_URL_FILE")
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("DATABASE_URL_FILE: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// isOurSocket recognises a DSN that a server of this package had, as a shell
// keeps it that has read .env.dev.
func isOurSocket(host string) bool {
	return strings.Contains(host, "/"+scratchPrefix)
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// major reads 15 out of 15.18, 15beta1 and 15devel.
func major(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	n, err := strconv.Atoi(version[:end])
	if err != nil {
		return 0
	}
	return n
}
