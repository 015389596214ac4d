package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// profile puts one load on the gateway, 64 connections, and keeps what its
// profilers say meanwhile: where its CPU time went, and what was allocated.
func profile(ctx context.Context, root, kind string) (err error) {
	gateway, err := binary(root)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, root, gateway, size{tenants: 10, merchants: 2000, keys: 100})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	s, admin, err := w.gatewaySubject()
	if err != nil {
		return err
	}
	push, err := w.push()
	if err != nil {
		return err
	}
	t, ok := map[string]traffic{"read": s.read, "local": w.localRead(), "write": w.create(), "push": push}[kind]
	if !ok {
		return fmt.Errorf("%q is none of read, local, write, push", kind)
	}
	p, err := s.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	b := &bench{plan: planned(), w: w, admin: admin}
	if err := p.answers(func() error { return first(s) }); err != nil {
		return err
	}
	if err := b.warm(ctx, s); err != nil {
		return err
	}
	const lasts = 10 * time.Second
	asked := make(chan error, 1)
	go func() { asked <- keep(admin, "/debug/pprof/profile?seconds=8", kind+".cpu.pprof") }()
	m := w.begin(p.cmd.Process.Pid)
	r, err := closedLoop(s.addr, t, 64, lasts)
	ph := m.end(r)
	if err := errors.Join(err, <-asked, keep(admin, "/debug/pprof/allocs", kind+".allocs.pprof")); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s: %.0f requests/s, CPU %.0f µs/request and %.0f in Postgres, p50 %.2f ms, p99 %.2f ms, %d errors %s\n",
		kind, ph.RPS, ph.CPU, ph.DB, ph.P50/1e3, ph.P99/1e3, ph.Errors, ph.Error)
	if kind != "push" {
		return nil
	}
	took, left, err := w.drained(ctx)
	fmt.Fprintf(os.Stdout, "applied besides, or not: %d are left after %.1f s\n", left, took)
	return err
}

// keep saves a page of the gateway's private listener.
func keep(admin, path, name string) error {
	body, err := get(admin, path)
	if err != nil {
		return err
	}
	name = filepath.Join(os.TempDir(), "mendian-bench-"+name)
	logf("%s: go tool pprof -top %s", path, name)
	return os.WriteFile(name, []byte(body), 0o644)
}
