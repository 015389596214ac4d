package torture

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mendian/mendian/test/world"
)

// A Proxy stands on one TCP link of one gateway, to WeChat or to Postgres, and
// does to it what a network does. Its address is the gateway's for good; where
// it leads may change.
type Proxy struct {
	Addr string
	ln   net.Listener

	mu     sync.Mutex
	target string
	fault  Toxic
	links  map[*link]bool

	hit atomic.Int64 // connections and chunks that a fault touched
}

// A Toxic is what goes wrong on a link while it is set. The zero value is
// nothing.
type Toxic struct {
	Name  string
	Up    bool          // of the two directions, the one from the gateway
	Delay time.Duration // of every chunk
	Drip  int           // bytes that pass every 5 ms; 0: all
	Cut   int64         // bytes of a connection that still pass before it is reset; 0: all
	Half  bool          // that direction is closed, as by FIN, and the other one goes on
	Mute  bool          // that direction carries nothing, and nobody is told
	Reset bool          // RST for everyone there, and for everyone who comes
	Down  bool          // nobody listens
}

// A link is one connection through the proxy. passed counts the bytes of the
// direction that a Cut is about, from the fault on.
type link struct {
	near, far *net.TCPConn
	passed    atomic.Int64
}

// NewProxy leads to target, which listens there or will.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{Addr: world.FreeAddr(t), target: target, links: map[*link]bool{}}
	p.listen(t)
	t.Cleanup(p.close)
	return p
}

func (p *Proxy) listen(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	p.ln = ln
	go p.accept(ln)
}

func (p *Proxy) accept(ln net.Listener) {
	for {
		near, err := ln.Accept()
		if err != nil {
			return
		}
		go p.serve(near.(*net.TCPConn))
	}
}

func (p *Proxy) serve(near *net.TCPConn) {
	if toxic := p.toxic(); toxic.Reset || toxic.Down {
		p.hit.Add(1)
		abort(near)
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	far, err := net.DialTimeout("tcp", target, 2*time.Second)
	if err != nil {
		abort(near)
		return
	}
	l := &link{near: near, far: far.(*net.TCPConn)}
	p.mu.Lock()
	p.links[l] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.carry(l, l.far, l.near, true) })
	both.Go(func() { p.carry(l, l.near, l.far, false) })
	both.Wait()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
	near.Close()
	far.Close()
}

// carry moves one direction until its end.
func (p *Proxy) carry(l *link, to, from *net.TCPConn, up bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && !p.pass(l, to, buffer[:n], up) {
			l.abort()
			return
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite()
			return
		}
		if err != nil {
			l.abort()
			return
		}
	}
}

// pass writes a chunk as the fault of the moment lets it, and reports whether
// the connection goes on.
func (p *Proxy) pass(l *link, to *net.TCPConn, chunk []byte, up bool) bool {
	toxic := p.toxic()
	if toxic.Up != up || toxic.Name == "" {
		_, err := to.Write(chunk)
		return err == nil
	}
	p.hit.Add(1)
	switch {
	case toxic.Mute:
		return true // read, and told to nobody
	case toxic.Half:
		_ = to.CloseWrite()
		return true
	case toxic.Delay > 0:
		time.Sleep(toxic.Delay)
	case toxic.Cut > 0:
		if room := toxic.Cut - l.passed.Load(); int64(len(chunk)) > room {
			_, _ = to.Write(chunk[:max(0, room)])
			return false
		}
		l.passed.Add(int64(len(chunk)))
	case toxic.Drip > 0:
		for len(chunk) > toxic.Drip && p.toxic().Drip > 0 {
			if _, err := to.Write(chunk[:toxic.Drip]); err != nil {
				return false
			}
			chunk = chunk[toxic.Drip:]
			time.Sleep(5 * time.Millisecond)
		}
	}
	_, err := to.Write(chunk)
	return err == nil
}

func (p *Proxy) toxic() Toxic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// Set begins a fault.
func (p *Proxy) Set(toxic Toxic) {
	p.mu.Lock()
	p.fault = toxic
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		l.passed.Store(0)
		links = append(links, l)
	}
	p.mu.Unlock()
	if toxic.Down {
		p.ln.Close()
	}
	if toxic.Reset || toxic.Down {
		for _, l := range links {
			p.hit.Add(1)
			l.abort()
		}
	}
}

// Heal ends the fault, and the connections that it may have left without one
// of their directions. It returns how often the fault touched anything.
func (p *Proxy) Heal(t testing.TB) int64 {
	p.mu.Lock()
	was := p.fault
	p.fault = Toxic{}
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	if was.Mute || was.Half {
		for _, l := range links {
			l.abort()
		}
	}
	if was.Down {
		p.listen(t)
	}
	return p.hit.Swap(0)
}

// Lead makes new connections go elsewhere, and ends those that are there.
func (p *Proxy) Lead(target string) {
	p.mu.Lock()
	p.target = target
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		l.abort()
	}
}

func (p *Proxy) close() {
	p.ln.Close()
	p.Lead("")
}

func (l *link) abort() { abort(l.near); abort(l.far) }

// abort ends a connection with RST.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}
