package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// A load is one way of asking: a number of connections, each busy all the time,
// or a rate. Delay is the upstream's.
type load struct {
	kind  string // read, local, write, push
	conns int
	rate  int
	delay time.Duration
}

func (l load) String() string {
	s := fmt.Sprintf("%s, %d connections", l.kind, l.conns)
	if l.rate > 0 {
		s = fmt.Sprintf("%s, %d/s", l.kind, l.rate)
	}
	if l.delay > 0 {
		s += fmt.Sprintf(", upstream %d ms", l.delay.Milliseconds())
	}
	return s
}

const far = 20 * time.Millisecond // how long a call to a far-away upstream takes

func connections(kind string, n int) load { return load{kind: kind, conns: n} }
func perSecond(kind string, n int) load   { return load{kind: kind, rate: n} }
func (l load) from(d time.Duration) load  { l.delay = d; return l }

// loads of a kind, in the order in which they are put on.
func (p plan) loads(kind string) []load {
	out := []load{connections(kind, 64), perSecond(kind, 1000)}
	switch kind {
	case "read":
		out = append(out, connections(kind, 64).from(far), perSecond(kind, 1000).from(far), perSecond(kind, 500).from(far))
	case "write":
		out = append(out, connections(kind, 64).from(far), perSecond(kind, 1000).from(far))
	case "push":
		out = []load{perSecond(kind, 500), perSecond(kind, 1000), connections(kind, 64)} // the last leaves work behind
	}
	if p.Full {
		out = append(out, connections(kind, 1), connections(kind, 16), connections(kind, 256), perSecond(kind, 200))
		if kind != "push" {
			out = append(out, perSecond(kind, 500))
		}
	}
	return out
}

// A phase is a load that was put on a subject, and what that cost.
type phase struct {
	result
	CPU   float64 `json:"cpu_us"` // of the subject, a request
	DB    float64 `json:"db_us"`  // of Postgres, a request
	Noise float64 `json:"noise"`  // share of the machine that others used
	Steal float64 `json:"steal"`
}

// An outcome is all that was measured of a subject in one round.
type outcome struct {
	Phases  map[string]phase `json:"phases"`
	StartMS float64          `json:"start_ms,omitempty"`
	LoadMB  float64          `json:"load_mb,omitempty"`    // after the reads
	Drain   float64          `json:"drain_s,omitempty"`    // until what was pushed was applied
	Left    int              `json:"drain_left,omitempty"` // pushes that were not, after a minute
}

type bench struct {
	plan     plan
	w        *world
	subjects []subject // the upstream first, the gateway last
	missing  []string
	admin    string // of the gateway
	pgbench  string
	rounds   []map[string]*outcome
}

const (
	upstreamName = "upstream alone"
	gatewayName  = "gateway"
	floorName    = "Postgres (pgbench)"
)

func newBench(ctx context.Context, w *world, p plan) (*bench, error) {
	peers, missing, err := w.peers(ctx)
	if err != nil {
		return nil, err
	}
	gateway, admin, err := w.gatewaySubject()
	if err != nil {
		return nil, err
	}
	b := &bench{plan: p, w: w, missing: missing, admin: admin}
	b.subjects = append([]subject{{name: upstreamName, addr: w.stubAddr, running: w.upstream, read: w.passRead(nil)}}, peers...)
	b.subjects = append(b.subjects, gateway)
	if b.pgbench, err = findPgbench(); err != nil {
		b.missing = append(b.missing, err.Error())
	} else if err := w.floorTables(ctx); err != nil {
		return nil, err
	}
	for _, m := range b.missing {
		logf("left out: %s", m)
	}
	return b, nil
}

// round measures every subject once, one after the other.
func (b *bench) round(ctx context.Context) error {
	round := map[string]*outcome{}
	b.rounds = append(b.rounds, round)
	for _, s := range b.subjects {
		o := &outcome{Phases: map[string]phase{}}
		round[s.name] = o
		if err := b.measure(ctx, s, o); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if b.pgbench == "" {
		return nil
	}
	o := &outcome{Phases: map[string]phase{}}
	round[floorName] = o
	return b.floors(ctx, o)
}

func (b *bench) measure(ctx context.Context, s subject, o *outcome) (err error) {
	b.quiet(ctx)
	p := s.running
	if s.start != nil {
		begun := time.Now()
		if p, err = s.start(); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, p.tail())
			}
			err = errors.Join(err, p.stop())
		}()
		if err := p.answers(func() error { return first(s) }); err != nil {
			return err
		}
		o.StartMS = float64(time.Since(begun).Microseconds()) / 1e3
	}
	if err := b.warm(ctx, s); err != nil {
		return err
	}
	put := func(l load, t traffic) error { return b.phase(ctx, p, s.addr, l, t, o) }
	for _, l := range b.plan.loads("read") {
		if err := put(l, s.read); err != nil {
			return err
		}
	}
	if s.start != nil {
		o.LoadMB = memory(p.cmd.Process.Pid)
	}
	switch s.name {
	case upstreamName:
		for _, l := range b.plan.loads("write") {
			if err := put(l, b.w.passWrite()); err != nil {
				return err
			}
		}
	case gatewayName:
		push, err := b.w.push()
		if err != nil {
			return err
		}
		for _, part := range []struct {
			kind string
			t    traffic
		}{{"local", b.w.localRead()}, {"write", b.w.create()}, {"push", push}} {
			for _, l := range b.plan.loads(part.kind) {
				if err := put(l, part.t); err != nil {
					return err
				}
			}
			if o.Drain, o.Left, err = b.w.drained(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// first asks once, as the subject is asked under load.
func first(s subject) error {
	c, err := newClients(s.addr, s.read, 1)
	if err != nil {
		return err
	}
	tag, err := c[0].send()
	if err == nil {
		err = c[0].receive(tag, time.Now())
	}
	return errors.Join(err, c[0].err, finish(c))
}

// warm is over when a second of reads made no round trip to Postgres: the
// caches are full, and our records agree with what the upstream shows.
func (b *bench) warm(ctx context.Context, s subject) error {
	for range 20 {
		before, err := b.trips(s)
		if err != nil {
			return err
		}
		if _, err := closedLoop(s.addr, s.read, 16, time.Second); err != nil {
			return err
		}
		after, err := b.trips(s)
		if err != nil {
			return err
		}
		if after == before || ctx.Err() != nil {
			break
		}
	}
	return ctx.Err()
}

var tripsLine = regexp.MustCompile(`(?m)^mendian_database_round_trips_total (\S+)$`)

// trips is how often requests have asked Postgres; 0 for a peer.
func (b *bench) trips(s subject) (float64, error) {
	if s.name != gatewayName {
		return 0, nil
	}
	page, err := get(b.admin, "/metrics")
	if err != nil {
		return 0, err
	}
	m := tripsLine.FindStringSubmatch(page)
	if m == nil {
		return 0, errors.New("the metrics lack mendian_database_round_trips_total")
	}
	return strconv.ParseFloat(m[1], 64)
}

// phase puts a load on a subject and reads the clocks of all processes around it.
func (b *bench) phase(ctx context.Context, p *proc, addr string, l load, t traffic, o *outcome) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.w.setDelay(l.delay); err != nil {
		return err
	}
	m := b.w.begin(p.cmd.Process.Pid)
	var r result
	var err error
	if l.rate > 0 {
		r, err = openLoop(addr, t, l.rate, b.plan.Phase)
	} else {
		r, err = closedLoop(addr, t, l.conns, b.plan.Phase)
	}
	ph := m.end(r)
	if err != nil {
		return fmt.Errorf("%s: %w", l, err)
	}
	if r.N == 0 {
		return fmt.Errorf("%s: no good answer: %s", l, r.Error)
	}
	o.Phases[l.String()] = ph
	return b.w.setDelay(0)
}

// A meter is the state of all clocks at the beginning of a phase.
type meter struct {
	w       *world
	subject int // a process; 0: none but Postgres
	at      time.Time
	cpu     time.Duration
	pg      time.Duration
	stub    time.Duration
	self    time.Duration
	busy    time.Duration
	steal   time.Duration
}

func (w *world) begin(pid int) meter {
	m := meter{w: w, subject: pid, at: time.Now(), pg: cpu(w.pgPID), stub: cpu(w.upstream.cmd.Process.Pid), self: own()}
	if pid != 0 && pid != w.upstream.cmd.Process.Pid {
		m.cpu = cpu(pid)
	}
	m.busy, m.steal = busy()
	return m
}

func (m meter) end(r result) phase {
	now := m.w.begin(m.subject)
	took := now.at.Sub(m.at).Seconds() * float64(runtime.NumCPU())
	used, pg, stub := now.cpu-m.cpu, now.pg-m.pg, now.stub-m.stub
	others := now.busy - m.busy - used - pg - stub - (now.self - m.self)
	ph := phase{result: r, Noise: max(0, others.Seconds()) / took, Steal: (now.steal - m.steal).Seconds() / took}
	if m.subject == m.w.upstream.cmd.Process.Pid {
		used = stub
	}
	if n := float64(max(1, r.N)); m.subject != 0 {
		ph.CPU, ph.DB = used.Seconds()*1e6/n, pg.Seconds()*1e6/n
	} else {
		ph.DB = pg.Seconds() * 1e6 / n
	}
	return ph
}

// own is what this process has used, and the children that have ended: pgbench.
func own() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// quiet waits, within reason, until others leave the machine alone.
func (b *bench) quiet(ctx context.Context) {
	for end := time.Now().Add(b.plan.Patience); time.Now().Before(end) && ctx.Err() == nil; {
		before, _ := busy()
		time.Sleep(300 * time.Millisecond)
		after, _ := busy()
		if (after-before).Seconds()/.3/float64(runtime.NumCPU()) < .12 {
			return
		}
	}
}

// drained waits until all pushes are applied, and says for how long. Those that
// are left after a minute are dropped: they would be a part of what is measured
// next.
func (w *world) drained(ctx context.Context) (seconds float64, left int, _ error) {
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	begun := time.Now()
	for left = 1; left > 0 && time.Since(begun) < time.Minute; {
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM event_inbox WHERE state = 'new'").Scan(&left); err != nil {
			return 0, 0, err
		}
		time.Sleep(50 * time.Millisecond)
	}
	seconds = time.Since(begun).Seconds()
	_, err = conn.Exec(ctx, "UPDATE event_inbox SET next_at = NULL WHERE next_at IS NOT NULL")
	return seconds, left, err
}

// The floors: what a write and a push must at least ask of Postgres.
const (
	twoCommits = `INSERT INTO bench_floor (merchant, op, request, state) VALUES (1, 'add_store', '{"map_poi_id":"100000000000000000"}', 'sent') RETURNING id \gset
UPDATE bench_floor SET state = 'done', response = '{"audit_id":1}', done = now() WHERE id = :id;
`
	oneInsert = `INSERT INTO bench_floor (merchant, op, request, state) VALUES (1, 'push', '{"map_poi_id":"100000000000000000"}', 'new');
`
)

func (w *world) floorTables(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, `CREATE TABLE bench_floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, merchant bigint NOT NULL, op text NOT NULL,
		request jsonb NOT NULL, state text NOT NULL, response jsonb, created timestamptz NOT NULL DEFAULT now(), done timestamptz)`)
	return err
}

func findPgbench() (string, error) {
	if path, err := exec.LookPath("pgbench"); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if len(found) == 0 {
		return "", errors.New("pgbench: not installed (apt-get install postgresql-contrib)")
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

var (
	pgbenchN   = regexp.MustCompile(`actually processed: (\d+)`)
	pgbenchTPS = regexp.MustCompile(`tps = ([\d.]+)`)
	pgbenchAvg = regexp.MustCompile(`latency average = ([\d.]+)`)
)

func (b *bench) floors(ctx context.Context, o *outcome) error {
	b.quiet(ctx)
	for name, script := range map[string]string{"two commits": twoCommits, "one insert": oneInsert} {
		file := filepath.Join(b.w.dir, "pgbench.sql")
		if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
			return err
		}
		m := b.w.begin(0)
		cmd := exec.CommandContext(ctx, b.pgbench, "-n", "-M", "prepared", "-c", "64", "-j", "2", "-T", strconv.Itoa(max(1, int(b.plan.Phase.Seconds()))), "-f", file, b.w.dsn)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("pgbench: %w: %s", err, out)
		}
		number := func(re *regexp.Regexp) float64 {
			f := 0.0
			if m := re.FindStringSubmatch(string(out)); m != nil {
				f, _ = strconv.ParseFloat(strings.TrimSpace(m[1]), 64)
			}
			return f
		}
		r := result{N: int(number(pgbenchN)), RPS: number(pgbenchTPS), P50: number(pgbenchAvg) * 1e3}
		if r.N == 0 {
			return fmt.Errorf("pgbench said: %s", out)
		}
		o.Phases[name] = m.end(r)
	}
	return nil
}
