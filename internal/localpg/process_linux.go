package localpg

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// diesWithUs says that the kernel signals a child when we end, however we end.
const diesWithUs = true

// childAttributes puts the child in a process group of its own, so that a
// Ctrl-C in the terminal reaches us and not the server that we still need to
// shut down in order.
func childAttributes(who account, onOurDeath syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: who.cred, Setpgid: true, Pdeathsig: onOurDeath}
}

// serversOn lists the processes that work in a data directory, the postmaster
// and its children: each has it as its working directory. postmaster.pid alone
// would not do: after a kill -9 its number may be another process's by now.
// What has ended but was not waited for has no working directory any more.
func serversOn(data string) []int {
	data, err := filepath.EvalSymlinks(data)
	if err != nil {
		return nil
	}
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil
	}
	var pids []int
	for _, link := range links {
		if cwd, err := os.Readlink(link); err != nil || cwd != data {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		pids = append(pids, pid)
	}
	return pids
}
