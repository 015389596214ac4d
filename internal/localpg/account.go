package localpg

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is who the server runs as: ourselves, or, because PostgreSQL refuses
// root, an unprivileged user.
type account struct {
	uid, gid int
	cred     *syscall.Credential // nil: ourselves
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid > 0 {
			return otherAccount(uid, gid), nil
		}
	}
	return account{}, &unavailable{"PostgreSQL refuses to run as root, and there is neither a user postgres nor a user nobody to run it as"}
}

func otherAccount(uid, gid int) account {
	return account{uid: uid, gid: gid, cred: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// give makes the server's user the owner of what we made as root.
func (a account) give(path string) error {
	if a.cred == nil {
		return nil
	}
	if err := os.Lchown(path, a.uid, a.gid); err != nil {
		return &unavailable{fmt.Sprintf("root may not act as another user here: %v", err)}
	}
	return nil
}

// reaches reports the first directory on the way to path that the account may
// not pass, or an empty string. Only its own id and group count, as only those
// are given to the server.
func (a account) reaches(path string) (blocked string) {
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return dir
		}
		bit := os.FileMode(0o001)
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			switch {
			case int(st.Uid) == a.uid:
				bit = 0o100
			case int(st.Gid) == a.gid:
				bit = 0o010
			}
		}
		if info.IsDir() && info.Mode()&bit == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}
