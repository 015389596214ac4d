package faults

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// turns counts, on the connections to Postgres themselves, how often a gateway
// spoke after Postgres had spoken: what a link adds its latency to.
type turns struct {
	mu sync.Mutex
	by map[string]int // of the connections of this application_name
}

func (n *turns) of(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.by[name]
}

// countTurns stands between a gateway and its database until the test ends.
func countTurns(t *testing.T, dsn string) (string, *turns) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	network, to := "tcp", u.Host
	query := u.Query()
	if dir := query.Get("host"); dir != "" {
		network, to = "unix", dir+"/.s.PGSQL."+query.Get("port")
		query.Del("host")
		query.Del("port")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = ln.Addr().String(), query.Encode()
	n := &turns{by: map[string]int{}}
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go n.carry(near, network, to)
		}
	}()
	return u.String(), n
}

func (n *turns) carry(near net.Conn, network, to string) {
	defer near.Close()
	far, err := net.Dial(network, to)
	if err != nil {
		return
	}
	defer far.Close()
	name, begin, err := startup(near)
	if err != nil {
		return
	}
	if _, err := far.Write(begin); err != nil {
		return
	}
	spoke := true // Postgres answers the startup
	heard := func(asks bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if asks && !spoke {
			n.by[name]++
		}
		spoke = asks
	}
	go func() {
		defer near.Close()
		pass(near, far, func() { heard(false) })
	}()
	pass(far, near, func() { heard(true) })
}

// pass copies until an end; each is called before what came is passed on.
func pass(to io.Writer, from io.Reader, each func()) {
	chunk := make([]byte, 64<<10)
	for {
		k, err := from.Read(chunk)
		if k > 0 {
			each()
			if _, err := to.Write(chunk[:k]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// startup reads the first message of a connection, which names the application.
func startup(r io.Reader) (name string, message []byte, err error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", nil, err
	}
	message = append(head, make([]byte, binary.BigEndian.Uint32(head)-4)...)
	if _, err := io.ReadFull(r, message[4:]); err != nil {
		return "", nil, err
	}
	words := bytes.Split(message[8:], []byte{0})
	for i := 0; i+1 < len(words); i += 2 {
		if string(words[i]) == "application_name" {
			name = string(words[i+1])
		}
	}
	return name, message, nil
}
