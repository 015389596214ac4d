//go:build unix && !linux

package localpg

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// diesWithUs says that the kernel signals a child when we end. Only Linux does;
// elsewhere the watchdog does it.
const diesWithUs = false

func childAttributes(who account, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: who.cred, Setpgid: true}
}

// serversOn finds the postmaster of a data directory by its pid file, if that
// process still is a postgres.
func serversOn(data string) []int {
	pid := postmasterPID(data)
	if pid <= 0 {
		return nil
	}
	out, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
	if err != nil || !strings.HasPrefix(filepath.Base(strings.TrimSpace(string(out))), "postgres") {
		return nil
	}
	return []int{pid}
}
