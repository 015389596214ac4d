package localpg

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is a data directory and how to run a server on it.
type cluster struct {
	binaries
	who        account
	data, sock string
	log        string
	end        syscall.Signal // SIGINT: in order; SIGQUIT: at once
}

func keptSettings(o Options) map[string]string {
	set := map[string]string{
		"max_connections": strconv.Itoa(o.MaxConnections),
		"shared_buffers":  "128MB",
	}
	if !o.Durable {
		// What is committed still survives the death of every process, as it is
		// handed to the operating system.
		set["fsync"], set["full_page_writes"] = "off", "off"
	}
	return set
}

// throwawaySettings are for many short-lived databases on a machine that runs
// other things too.
func throwawaySettings(o Options) map[string]string {
	set := keptSettings(o)
	set["synchronous_commit"] = "off"
	set["shared_buffers"] = "64MB"
	set["dynamic_shared_memory_type"] = "mmap" // in the data directory: removed with it
	set["autovacuum"] = "off"
	set["jit"] = "off"
	set["wal_level"] = "minimal"
	set["max_wal_senders"] = "0"
	set["max_wal_size"] = "256MB"
	return set
}

func arguments(settings map[string]string) []string {
	var args []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// start returns when the server answers.
func (c cluster) start(ctx context.Context, settings map[string]string) (*process, error) {
	args := []string{"-D", c.data, "-k", c.sock, "-h", "", "-p", "5432"}
	args = append(args, arguments(settings)...)
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := command(c.who, c.data, c.end, c.path("postgres"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := launch(cmd)
	if err != nil {
		return nil, err
	}
	// After a crash the server first repeats what its log holds, which can take
	// long on a slow disk.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for !c.ready(p) {
		select {
		case <-p.done:
			return nil, fmt.Errorf("the server ended (%w): %s", p.err, tail(c.log))
		default:
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			p.signal(syscall.SIGQUIT)
			if !p.endsWithin(5 * time.Second) {
				p.signal(syscall.SIGKILL)
				<-p.done
			}
			return nil, fmt.Errorf("the server did not get ready (%w): %s", err, tail(c.log))
		}
	}
	return p, nil
}

// ready reads what the server writes when it answers, in the last line of a
// file whose first one is its process id: a file of an earlier server says
// nothing.
func (c cluster) ready(p *process) bool {
	b, err := os.ReadFile(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(b), "\n")
	return len(lines) > 7 && lines[0] == strconv.Itoa(p.cmd.Process.Pid) && strings.HasPrefix(lines[7], "ready")
}

func (c cluster) stop(p *process) error {
	p.signal(c.end)
	if c.end == syscall.SIGINT && !p.endsWithin(time.Minute) {
		p.signal(syscall.SIGQUIT)
	}
	if !p.endsWithin(10 * time.Second) {
		p.signal(syscall.SIGKILL)
		<-p.done
		return errors.New("the server had to be killed")
	}
	if c.end == syscall.SIGINT && p.err != nil {
		return fmt.Errorf("the server ended badly (%w): %s", p.err, tail(c.log))
	}
	return nil
}

func (c cluster) dsn() string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User("postgres"),
		Path:     "/postgres",
		RawQuery: url.Values{"host": {c.sock}, "port": {"5432"}}.Encode(),
	}
	return u.String()
}

func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
