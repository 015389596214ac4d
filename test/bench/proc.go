package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A proc is a process that is measured, with all that it starts.
type proc struct {
	cmd  *exec.Cmd
	done chan struct{}
	log  string
}

// start starts a program whose output goes to a file: in memory where there is
// such a place, so that writing it takes nothing from Postgres' disk.
func start(dir string, env []string, name string, args ...string) (*proc, error) {
	shm := "/dev/shm"
	if _, err := os.Stat(shm); err != nil {
		shm = dir
	}
	log, err := os.CreateTemp(shm, "mendian-bench-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own
	p := &proc{cmd: exec.Command(name, args...), done: make(chan struct{}), log: log.Name()}
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = dir, append(os.Environ(), env...), log, log
	// They end with us, however we end.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.Remove(log.Name()))
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	return p, nil
}

// stop ends it as a service manager would.
func (p *proc) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return errors.Join(fmt.Errorf("%s had to be killed", p.cmd.Path), os.Remove(p.log))
	}
	return os.Remove(p.log)
}

// tail is the end of what it said.
func (p *proc) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// answers waits until try does not fail, looking often.
func (p *proc) answers(try func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.tail())
		case <-time.After(500 * time.Microsecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer: %w: %s", p.cmd.Path, err, p.tail())
		}
	}
}

// tree is a process and those that it started.
func tree(pid int) []int {
	out := []int{pid}
	for i := 0; i < len(out); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", out[i]))
		for _, list := range lists {
			b, _ := os.ReadFile(list)
			for f := range strings.FieldsSeq(string(b)) {
				if child, err := strconv.Atoi(f); err == nil {
					out = append(out, child)
				}
			}
		}
	}
	return out
}

// ticksPerSecond is the unit of /proc/PID/stat, the same on every Linux.
const ticksPerSecond = 100

// cpu is what a process and its children have used. It reads the process's own
// clock, which is utime and stime of /proc/PID/stat over all threads in
// nanoseconds instead of hundredths, and the stat of children that have ended.
func cpu(pid int) time.Duration {
	var sum time.Duration
	for _, p := range tree(pid) {
		var ts syscall.Timespec
		clock := int32(^p<<3 | 2) // CPUCLOCK_SCHED of the whole process, see clock_getcpuclockid(3)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&ts)), 0); errno == 0 {
			sum += time.Duration(ts.Nano())
		}
		for _, ticks := range stat(p)[13:15] { // cutime, cstime
			sum += time.Duration(ticks) * (time.Second / ticksPerSecond)
		}
	}
	return sum
}

// stat is /proc/PID/stat from its third field on; zeros where it is gone.
func stat(pid int) []int64 {
	out := make([]int64, 50)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return out
	}
	_, rest, _ := bytes.Cut(b[bytes.LastIndexByte(b, ')'):], []byte(" "))
	for i, f := range bytes.Fields(rest) {
		if i < len(out) {
			out[i], _ = strconv.ParseInt(string(f), 10, 64)
		}
	}
	return out
}

// memory is what a process and its children hold, in MiB, each shared page once.
func memory(pid int) float64 {
	kb := 0.0
	for _, p := range tree(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				kb += n
			}
		}
	}
	return kb / 1024
}

// busy is the time that all processes of the machine have used, and what a
// hypervisor took.
func busy() (used, stolen time.Duration) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	at := func(i int) time.Duration {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return time.Duration(n) * (time.Second / ticksPerSecond)
	}
	// user nice system idle iowait irq softirq steal
	return at(1) + at(2) + at(3) + at(6) + at(7) + at(8), at(8)
}

// freeAddr is an address that nobody listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
