package localpg

import (
	"os/exec"
	"strconv"
	"syscall"
)

// watchScript waits until its input ends, as it does when we die in whatever
// way, tells the server to end, and removes what it is told to remove. The
// number of rounds is bounded, because a process id is taken again one day.
const watchScript = `read -r line
kill "-$1" "$2" 2>/dev/null
n=0
while [ "$n" -lt 20 ] && kill -0 "$2" 2>/dev/null; do n=$((n+1)); sleep 0.1; done
[ -z "$3" ] || rm -rf -- "$3"`

// watch starts a helper that cleans up after us: it removes a throw-away
// cluster, and where the kernel does not do that, it ends the server. The
// returned function ends the helper without its doing anything.
func (c cluster) watch(p *process, remove string) (func(), error) {
	if diesWithUs && remove == "" {
		return func() {}, nil
	}
	signal := "INT"
	if c.end == syscall.SIGQUIT {
		signal = "QUIT"
	}
	cmd := exec.Command("/bin/sh", "-c", watchScript, "mendian-watchdog", signal, strconv.Itoa(p.cmd.Process.Pid), remove)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // not reached by a Ctrl-C
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed, as wanted
		_ = input.Close()
	}, nil
}
