package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a child that ends when we do. The kernel's promise (Pdeathsig) is
// tied to the thread that forked, so the goroutine that started the child keeps
// its thread until the child has ended.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has been waited for
	err  error         // how it ended; to be read after done
}

func launch(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	err := <-started
	if err != nil && cmd.SysProcAttr.Credential != nil && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)) {
		return nil, &unavailable{fmt.Sprintf("root may not act as another user here: %v", err)}
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// signal tolerates a process that has just ended.
func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// endsWithin waits for the end, at most so long.
func (p *process) endsWithin(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// command builds a call of one of the server's programs. It inherits nothing of
// our environment or working directory: the server's user may not be able to
// read the latter, and PG* variables and a locale of ours would change what the
// programs do.
func command(who account, dir string, onOurDeath syscall.Signal, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = childAttributes(who, onOurDeath)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// runTool runs a program to its end; its output is the error's text.
func runTool(ctx context.Context, who account, dir, program string, args ...string) error {
	cmd := command(who, dir, syscall.SIGKILL, program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := launch(cmd)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
		<-p.done
		return ctx.Err()
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w: %s", program, p.err, strings.TrimSpace(out.String()))
	}
	return nil
}
