package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// A verdict holds one target of design performance.md against what was measured.
type verdict struct {
	Metric string  `json:"metric"`
	Unit   string  `json:"unit,omitempty"` // "": a ratio
	Value  float64 `json:"value"`          // NaN is written as null
	Must   float64 `json:"must"`
	Aim    float64 `json:"aim"`
	AtMost bool    `json:"at_most"` // else at least
	Why    string  `json:"why,omitempty"`
}

func (v verdict) says() string {
	reached := func(limit float64) bool { return v.AtMost && v.Value <= limit || !v.AtMost && v.Value >= limit }
	switch {
	case math.IsNaN(v.Value):
		return "not measured: " + v.Why
	case reached(v.Aim):
		return "aim"
	case reached(v.Must):
		return "must"
	}
	return "**missed**"
}

// quietEnough is how much of the machine others may use in a phase that counts.
const quietEnough = .2

// values are what get finds in each round, without the rounds in which a phase
// that it looks at was disturbed.
func (b *bench) values(get func(round map[string]*outcome) (float64, bool)) []float64 {
	var out []float64
	for _, r := range b.rounds {
		if v, ok := get(r); ok {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// counts tells whether a phase was undisturbed.
func (p plan) counts(ph phase) bool { return ph.Noise <= p.Noise && ph.Steal <= p.Noise }

// at is a phase that counts.
func (b *bench) at(r map[string]*outcome, subject, load string) (phase, bool) {
	o := r[subject]
	if o == nil {
		return phase{}, false
	}
	p, ok := o.Phases[load]
	return p, ok && b.plan.counts(p)
}

// of is the median of one figure of a phase.
func (b *bench) of(subject string, l fmt.Stringer, field func(phase) float64) []float64 {
	return b.values(func(r map[string]*outcome) (float64, bool) {
		p, ok := b.at(r, subject, l.String())
		return field(p), ok
	})
}

func cpuOf(p phase) float64 { return p.CPU }
func dbOf(p phase) float64  { return p.DB }
func rpsOf(p phase) float64 { return p.RPS }
func p50Of(p phase) float64 { return p.P50 }
func p99Of(p phase) float64 { return p.P99 }

// added is how much later a subject answers than the upstream alone does.
func (b *bench) addedIn(r map[string]*outcome, subject string, l load, field func(phase) float64) (float64, bool) {
	p, ok := b.at(r, subject, l.String())
	alone, also := b.at(r, upstreamName, l.String())
	return field(p) - field(alone), ok && also
}

func (b *bench) added(subject string, l load, field func(phase) float64) []float64 {
	return b.values(func(r map[string]*outcome) (float64, bool) { return b.addedIn(r, subject, l, field) })
}

// ratio pairs the two of each round.
func (b *bench) ratio(one, other func(map[string]*outcome) (float64, bool)) float64 {
	return median(b.values(func(r map[string]*outcome) (float64, bool) {
		x, ok := one(r)
		y, also := other(r)
		return x / y, ok && also && y > 0
	}))
}

func (b *bench) figure(subject string, l fmt.Stringer, field func(phase) float64) func(map[string]*outcome) (float64, bool) {
	return func(r map[string]*outcome) (float64, bool) {
		p, ok := b.at(r, subject, l.String())
		return field(p), ok
	}
}

func (b *bench) addedFigure(subject string, l load, field func(phase) float64) func(map[string]*outcome) (float64, bool) {
	return func(r map[string]*outcome) (float64, bool) { return b.addedIn(r, subject, l, field) }
}

func whole(subject string, field func(*outcome) float64) func(map[string]*outcome) (float64, bool) {
	return func(r map[string]*outcome) (float64, bool) {
		o := r[subject]
		if o == nil {
			return 0, false
		}
		return field(o), true
	}
}

func (b *bench) has(name string) bool {
	return slices.ContainsFunc(b.subjects, func(s subject) bool { return s.name == name })
}

type text string

func (t text) String() string { return string(t) }

// verdicts are the targets that this command can judge.
func (b *bench) verdicts() []verdict {
	read, local := connections("read", 64), connections("local", 64)
	start, mem := func(o *outcome) float64 { return o.StartMS }, func(o *outcome) float64 { return o.LoadMB }
	to := func(peer string, v verdict) verdict {
		if math.IsNaN(v.Value) {
			v.Why = "every round was disturbed"
			if !b.has(peer) {
				v.Why = peer + " is not installed"
			}
		}
		return v
	}
	floor := func(v verdict) verdict {
		if math.IsNaN(v.Value) {
			v.Why = "pgbench is not installed, or every round was disturbed"
		}
		return v
	}
	ms := func(v []float64) float64 { return median(v) / 1e3 }
	return []verdict{
		to("Caddy", verdict{Metric: "warm read, CPU a request, of Caddy's", Must: .5, Aim: .35, AtMost: true, Value: b.ratio(b.figure(gatewayName, read, cpuOf), b.figure("Caddy", read, cpuOf))}),
		to("HAProxy with JWT", verdict{Metric: "warm read, CPU a request, of HAProxy's with JWT", Must: 2.5, Aim: 1.8, AtMost: true,
			Value: b.ratio(b.figure(gatewayName, read, cpuOf), b.figure("HAProxy with JWT", read, cpuOf))}),
		{Metric: "warm read, CPU a request, of KrakenD's engine", Must: .25, Aim: .17, AtMost: true, Value: math.NaN(), Why: "outside the repository"},
		to("Caddy", verdict{Metric: "warm read, added p99 at 1000/s, of Caddy's", Must: .35, Aim: .25, AtMost: true,
			Value: b.ratio(b.addedFigure(gatewayName, perSecond("read", 1000), p99Of), b.addedFigure("Caddy", perSecond("read", 1000), p99Of))}),
		to("Caddy", verdict{Metric: "warm read, added p99 at 500/s and an upstream of 20 ms, of Caddy's", Must: .6, Aim: .45, AtMost: true,
			Value: b.ratio(b.addedFigure(gatewayName, perSecond("read", 500).from(far), p99Of), b.addedFigure("Caddy", perSecond("read", 500).from(far), p99Of))}),
		to("Caddy", verdict{Metric: "read of our own records, CPU a request, of Caddy's read", Must: .9, Aim: .6, AtMost: true,
			Value: b.ratio(b.figure(gatewayName, local, cpuOf), b.figure("Caddy", read, cpuOf))}),
		floor(verdict{Metric: "writes a second at 64 connections, of pgbench's with two commits", Must: .5, Aim: .7,
			Value: b.ratio(b.figure(gatewayName, connections("write", 64), rpsOf), b.figure(floorName, text("two commits"), rpsOf))}),
		to("", verdict{Metric: "write, added p99 at 1000/s", Unit: "ms", Must: 10, Aim: 4, AtMost: true, Value: ms(b.added(gatewayName, perSecond("write", 1000), p99Of))}),
		floor(verdict{Metric: "pushes answered a second at 64 connections, of pgbench's with one insert", Must: .5, Aim: .75,
			Value: b.ratio(b.figure(gatewayName, connections("push", 64), rpsOf), b.figure(floorName, text("one insert"), rpsOf))}),
		to("", verdict{Metric: "push, p99 at 500/s", Unit: "ms", Must: 20, Aim: 8, AtMost: true, Value: ms(b.of(gatewayName, perSecond("push", 500), p99Of))}),
		to("Caddy", verdict{Metric: "memory after the reads, of Caddy's", Must: .6, Aim: .4, AtMost: true, Value: b.ratio(whole(gatewayName, mem), whole("Caddy", mem))}),
		to("", verdict{Metric: "start of a migrated `gateway serve` to the first 200", Unit: "ms", Must: 300, Aim: 120, AtMost: true, Value: median(b.values(whole(gatewayName, start)))}),
	}
}

// spread shows a median and what it lies between.
func spread(v []float64, decimals int) string {
	if len(v) == 0 {
		return "–"
	}
	if len(v) == 1 {
		return fmt.Sprintf("%.*f", decimals, v[0])
	}
	return fmt.Sprintf("%.*f (%.*f–%.*f)", decimals, median(v), decimals, v[0], decimals, v[len(v)-1])
}

// table prints what was measured, in Markdown.
func (b *bench) table(out io.Writer, m machine, took time.Duration) {
	p := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	phases, dropped, errors, checked, worst := 0, 0, 0, 0, ""
	for _, r := range b.rounds {
		for name, o := range r {
			for load, ph := range o.Phases {
				phases++
				errors += ph.Errors
				checked += ph.Checked
				if !b.plan.counts(ph) {
					dropped++
				}
				if ph.Error != "" {
					worst = fmt.Sprintf("%s, %s: %s", name, load, ph.Error)
				}
			}
		}
	}
	p("%s. %s.", m.When, m.describe())
	p("")
	p("%d interleaved rounds, %s a load, %s in all; medians, with the least and the most in brackets. %d of %d loads don't count because other processes used more than %.0f %% of the machine. %d of the timed answers were looked at (status of all, body of one in %d); %d requests failed.",
		b.plan.Rounds, b.plan.Phase, took.Round(time.Second), dropped, phases, b.plan.Noise*100, checked, sampleEvery, errors)
	if worst != "" {
		p("\nFailures: %s", worst)
	}
	p("\nLoad is spread over %d merchants and %d keys of %d tenants, at random. Settings of the gateway that are not the default: `%s`; its log, at the default level, goes to a file in memory.",
		len(b.w.merchants), len(b.w.keys), len(b.w.tenants), strings.Join(settings, "`, `"))
	for _, left := range b.missing {
		p("\nLeft out: %s.", left)
	}

	p("\n### Reads\n")
	p("| | does | CPU µs/request, 64 connections | at 1000/s | requests/s, 64 connections | added p50 / p99 µs at 1000/s | added p99 µs at 500/s, upstream 20 ms | memory MB | start ms |")
	p("|---|---|---|---|---|---|---|---|---|")
	for _, s := range b.subjects {
		c64, r1000 := connections("read", 64), perSecond("read", 1000)
		added50, added99, slow := "", "", ""
		if s.name != upstreamName {
			added50, added99 = spread(b.added(s.name, r1000, p50Of), 0), spread(b.added(s.name, r1000, p99Of), 0)
			slow = spread(b.added(s.name, perSecond("read", 500).from(far), p99Of), 0)
		}
		mem, start := "", ""
		if s.start != nil {
			mem = spread(b.values(whole(s.name, func(o *outcome) float64 { return o.LoadMB })), 0)
			start = spread(b.values(whole(s.name, func(o *outcome) float64 { return o.StartMS })), 0)
		}
		p("| %s | %s | %s | %s | %s | %s / %s | %s | %s | %s |", s.name, s.does, spread(b.of(s.name, c64, cpuOf), 0), spread(b.of(s.name, r1000, cpuOf), 0),
			spread(b.of(s.name, c64, rpsOf), 0), added50, added99, slow, mem, start)
	}

	p("\n### All loads of the gateway, and Postgres' floors\n")
	p("| | requests/s | CPU µs/request | and in Postgres | p50 ms | p99 ms | added p99 ms |")
	p("|---|---|---|---|---|---|---|")
	row := func(name string, l fmt.Stringer, add []float64) {
		thousandth := func(v []float64) []float64 {
			out := slices.Clone(v)
			for i := range out {
				out[i] /= 1e3
			}
			return out
		}
		p("| %s: %s | %s | %s | %s | %s | %s | %s |", name, l, spread(b.of(name, l, rpsOf), 0), spread(b.of(name, l, cpuOf), 0), spread(b.of(name, l, dbOf), 0),
			spread(thousandth(b.of(name, l, p50Of)), 2), spread(thousandth(b.of(name, l, p99Of)), 2), spread(thousandth(add), 2))
	}
	for _, kind := range []string{"read", "local", "write", "push"} {
		for _, l := range b.plan.loads(kind) {
			row(gatewayName, l, b.added(gatewayName, l, p99Of))
		}
	}
	if b.pgbench != "" {
		row(floorName, text("two commits"), nil)
		row(floorName, text("one insert"), nil)
	}

	p("\n### Targets\n")
	p("| | measured | must | aim | reached |")
	p("|---|---|---|---|---|")
	for _, v := range b.verdicts() {
		value, sign := fmt.Sprintf("%.2f", v.Value), "≥"
		if math.IsNaN(v.Value) {
			value = "–"
		}
		if v.AtMost {
			sign = "≤"
		}
		p("| %s | %s %s | %s %g | %s %g | %s |", v.Metric, value, v.Unit, sign, v.Must, sign, v.Aim, v.says())
	}
}

// A machine is where and on what it was measured.
type machine struct {
	When     string `json:"when"`
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Memory   string `json:"memory"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Commit   string `json:"commit"`
	Postgres string `json:"postgres"`
}

func (m machine) describe() string {
	return fmt.Sprintf("%d cores of %s, %s memory, Linux %s, %s, %s, commit %s", m.Cores, m.CPU, m.Memory, m.Kernel, m.Go, m.Postgres, m.Commit)
}

func (w *world) machine() machine {
	said := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(out))
	}
	proc := func(file, field string) string {
		b, err := os.ReadFile(file)
		if err != nil {
			return "unknown"
		}
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == field {
				return strings.TrimSpace(value)
			}
		}
		return "unknown"
	}
	version := runtime.Version()
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.GoVersion
	}
	postgres, _, _ := strings.Cut(w.pg.Describe(), ",")
	return machine{When: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPU: proc("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: proc("/proc/meminfo", "MemTotal"),
		Kernel: said("uname", "-r"), Go: version, Commit: said("git", "-C", w.root, "describe", "--always", "--dirty"), Postgres: postgres + ", fsync on"}
}

// report prints the table, and keeps it with the figures and the chart in
// docs/bench; those of a short run stay out of the repository.
func (b *bench) report(took time.Duration) error {
	m := b.w.machine()
	var md strings.Builder
	b.table(&md, m, took)
	fmt.Fprintln(os.Stdout, md.String())
	dir := filepath.Join(b.w.root, "docs", "bench")
	if b.plan.Short {
		dir = filepath.Join(os.TempDir(), "mendian-bench-short")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	verdicts := b.verdicts()
	type shown struct {
		verdict
		Value *float64 `json:"value"`
		Says  string   `json:"says"`
	}
	targets := make([]shown, len(verdicts))
	for i, v := range verdicts {
		targets[i] = shown{verdict: v, Says: v.says()}
		if !math.IsNaN(v.Value) {
			targets[i].Value = &v.Value
		}
	}
	js, err := json.MarshalIndent(map[string]any{"machine": m, "plan": b.plan, "seconds": took.Seconds(), "left_out": b.missing, "settings": settings,
		"rounds": b.rounds, "targets": targets}, "", " ")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"bench.json": js, "bench.md": []byte(md.String()), "bench.svg": b.chart()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	logf("written to %s", dir)
	return nil
}

// chart draws the CPU time of a read beside the peers'.
func (b *bench) chart() []byte {
	type bar struct {
		name  string
		value float64
	}
	var bars []bar
	for _, s := range b.subjects {
		bars = append(bars, bar{s.name, median(b.of(s.name, connections("read", 64), cpuOf))})
	}
	bars = append(bars, bar{gatewayName + ", own records", median(b.of(gatewayName, connections("local", 64), cpuOf))})
	most := 1.0
	for _, x := range bars {
		if x.value > most {
			most = x.value
		}
	}
	var out strings.Builder
	height := 40 + 24*len(bars)
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 %d" width="640" height="%d" font-family="sans-serif" font-size="13" role="img">`+"\n", height, height)
	out.WriteString(`<rect width="100%" height="100%" fill="#fff"/><text x="10" y="20" font-weight="bold">CPU time of a read, µs, 64 connections (less is better)</text>` + "\n")
	for i, x := range bars {
		y, color := 34+24*i, "#8a94a6"
		if strings.HasPrefix(x.name, gatewayName) {
			color = "#07c160"
		}
		if math.IsNaN(x.value) {
			fmt.Fprintf(&out, `<text x="160" y="%d" text-anchor="end">%s</text><text x="170" y="%d">not measured</text>`+"\n", y+13, x.name, y+13)
			continue
		}
		width := 400 * x.value / most
		fmt.Fprintf(&out, `<text x="160" y="%d" text-anchor="end">%s</text><rect x="170" y="%d" width="%.1f" height="17" fill="%s"/><text x="%.1f" y="%d">%.0f</text>`+"\n",
			y+13, x.name, y, width, color, 176+width, y+13, x.value)
	}
	out.WriteString("</svg>\n")
	return []byte(out.String())
}
