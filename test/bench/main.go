// Command bench measures the gateway's binary beside its peers, as `make bench`
// and `make bench-scale` run it: the price of what the gateway does for a call
// (docs/performance.md).
//
// All runs on one machine: generator, gateway or peer, upstream stub, Postgres
// with fsync. So ratios within one run are what to trust, and the CPU time that
// a process spends on a request, which depends least on what else is going on.
// It drives the binary over HTTP only, and no figure is printed that was not
// measured in that run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func run(ctx context.Context, args []string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 2 && args[0] == "stub":
		return serveStub(ctx, root, args[1])
	case len(args) == 1 && args[0] == "scale":
		return scale(ctx, root)
	case len(args) == 2 && args[0] == "profile":
		return profile(ctx, root, args[1])
	case len(args) == 0:
		return compare(ctx, root)
	}
	return errors.New("usage: bench [scale | profile read|local|write|push]; SHORT=1 or FULL=1 in the environment")
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
}

// binary is what `make build` has built: the release binary.
func binary(root string) (string, error) {
	path := filepath.Join(root, "gateway")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: make build", err)
	}
	return path, nil
}

// A plan is how long and how often is measured.
type plan struct {
	Rounds   int
	Phase    time.Duration // of one load
	Patience time.Duration // with others who use the machine, before each subject
	Noise    float64       // how much of the machine they may use in a phase that counts
	Full     bool
	Short    bool
}

func planned() plan {
	p := plan{Rounds: 5, Phase: 3 * time.Second, Patience: 20 * time.Second, Noise: quietEnough, Full: os.Getenv("FULL") == "1", Short: os.Getenv("SHORT") == "1"}
	if p.Short {
		p.Rounds, p.Phase, p.Patience = 2, time.Second, time.Second
	}
	if n, err := strconv.ParseFloat(os.Getenv("NOISE"), 64); err == nil {
		p.Noise = n
	}
	return p
}

// compare is `make bench`.
func compare(ctx context.Context, root string) error {
	gateway, err := binary(root)
	if err != nil {
		return err
	}
	begun := time.Now()
	w, err := newWorld(ctx, root, gateway, size{tenants: 10, merchants: 2000, keys: 100})
	if err != nil {
		return err
	}
	defer func() {
		if err := w.close(); err != nil {
			logf("clean up: %v", err)
		}
	}()
	b, err := newBench(ctx, w, planned())
	if err != nil {
		return err
	}
	for i := range b.plan.Rounds {
		if err := b.round(ctx); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		logf("round %d of %d done, %s since the start", i+1, b.plan.Rounds, time.Since(begun).Round(time.Second))
	}
	return b.report(time.Since(begun))
}
