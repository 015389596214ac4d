// Package sandbox is a stateful simulator of WeChat's third-party platform, with the HTTP API, the
// consent pages and the encrypted pushes of the real one. It exists because WeChat cannot be reached
// from a laptop or from CI, so it is written from WeChat's documents alone (wechat/000 to 004 and
// platform.md): a mistake of the gateway must be caught here, not mirrored.
//
// It must therefore never import a package of ours but msgcrypt, never accept what the documents
// forbid, and never be reachable by strangers: its control API (README.md) hands out everything.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Config is what a simulator is started with. The zero value serves 127.0.0.1:8081 from memory.
type Config struct {
	// Addr is where the caller listens; it only serves to make BaseURL.
	Addr string
	// BaseURL is what browsers and the gateway call this simulator. Default: http://Addr.
	BaseURL string
	// StateFile keeps the state over a restart, also after kill -9; one process a file. Empty: memory only.
	StateFile string
	// TicketInterval is the time between two ticket pushes (10 minutes at WeChat). Default: 10 s.
	TicketInterval time.Duration
	// AuditDelay is the virtual time a store_create or store_update audit takes. Default: 5 s.
	AuditDelay time.Duration
	// RetryInterval is the time between the attempts to deliver a push. Default: 1 s.
	RetryInterval time.Duration
	// PushTimeout is how long a receiver may take to answer a push. Default: 5 s, as WeChat's.
	PushTimeout time.Duration
	// Seed makes issued ids repeat from run to run; 0 picks a random seed. Tokens are always random.
	Seed int64
	// Logger gets problems of the simulator itself, not the traffic. Default: silence.
	Logger *slog.Logger
}

// Server is one simulator. Its methods are safe for concurrent use.
type Server struct {
	cfg    Config
	log    *slog.Logger
	client *http.Client // pushes; follows no redirect
	mux    *http.ServeMux
	wake   chan struct{} // tells Run that there is work
	closed chan struct{}

	mu       sync.Mutex // guards everything below
	st       *state
	rng      *rand.Rand
	faults   []*fault
	journal  journal
	sending  map[int64]bool // pushes under way
	nextTick time.Time      // wall time of the next ticket
	release  *releaseRun    // the release check under way
	released *releaseReport // what the last one found
	stopped  bool
}

// New loads the state, or makes that of a fresh start. Nothing happens in the background before Run.
func New(cfg Config) (*Server, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:8081"
	}
	if cfg.BaseURL == "" {
		cfg.BaseURL = "http://" + cfg.Addr
	}
	def(&cfg.TicketInterval, 10*time.Second)
	def(&cfg.AuditDelay, 5*time.Second)
	def(&cfg.RetryInterval, time.Second)
	def(&cfg.PushTimeout, 5*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg:     cfg,
		log:     cfg.Logger,
		client:  pushClient(cfg.PushTimeout),
		wake:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
		sending: map[int64]bool{},
	}
	st, err := openState(cfg.StateFile)
	if err != nil {
		return nil, fmt.Errorf("sandbox: state: %w", err)
	}
	s.st = st
	st.Boots++
	st.saveMeta()
	s.reseed()
	if st.fresh() {
		s.seedDefaults()
	}
	if err := st.commit(); err != nil {
		return nil, errors.Join(fmt.Errorf("sandbox: state: %w", err), st.close())
	}
	s.mux = s.routes()
	return s, nil
}

func (s *Server) reseed() {
	seed := uint64(s.cfg.Seed) // #nosec G115 -- any bits will do
	if seed == 0 {
		seed = rand.Uint64() //nolint:gosec // ids, not secrets
	}
	s.rng = rand.New(rand.NewPCG(seed, uint64(s.st.Boots))) //nolint:gosec // ids, not secrets
}

// Handler serves WeChat's API, its consent pages, the control API below /_sandbox/ and a page for
// people at /. It answers without Run too; pushes and automatic audits then wait.
func (s *Server) Handler() http.Handler { return s.mux }

// Run pushes tickets and events and decides audits until ctx ends, then waits for pushes under way.
// It returns nil when stopped by ctx. Call it once.
func (s *Server) Run(ctx context.Context) error {
	var sends sync.WaitGroup
	defer sends.Wait()
	for {
		wait := s.step(ctx, &sends)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-s.closed:
			timer.Stop()
			return nil
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// Close releases the state file; calls after it are answered with HTTP 503.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.stopped = true
	close(s.closed)
	if err := s.st.close(); err != nil {
		s.log.Error("sandbox: state not closed", "err", err)
	}
}

// now is the virtual time: it moves tokens, media, quotas and audits. Pushes carry wall time.
func (s *Server) now() time.Time { return time.Now().Add(s.st.ClockOffset) }

// commit makes what was changed under the lock survive the process, and lets Run look at it.
func (s *Server) commit() error {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.st.commit()
}

// step does what is due and says how long nothing else will be.
func (s *Server) step(ctx context.Context, sends *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return time.Second
	}
	wait := min(time.Second, s.decideDue(), s.ticketDue(), s.dispatch(ctx, sends))
	if err := s.st.commit(); err != nil {
		s.log.Error("sandbox: state not written", "err", err)
	}
	return max(wait, time.Millisecond)
}
