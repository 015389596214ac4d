package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// number is a whole number of the environment.
func number(name string, usual int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return usual
}

// scale is `make bench-scale`.
func scale(ctx context.Context, root string) (err error) {
	gateway, err := binary(root)
	if err != nil {
		return err
	}
	n := size{tenants: number("TENANTS", 10_000), merchants: number("MERCHANTS", 1_000_000)}
	n.keys = n.tenants
	begun := time.Now()
	w, err := newWorld(ctx, root, gateway, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	logf("%d tenants with a key each and %d merchants seeded in %s", n.tenants, n.merchants, time.Since(begun).Round(time.Second))
	s, admin, err := w.gatewaySubject()
	if err != nil {
		return err
	}
	b := &bench{plan: planned(), w: w, admin: admin}
	if err := b.seedStores(ctx, s); err != nil {
		return fmt.Errorf("stores: %w", err)
	}
	logf("two stores for each, %s since the start", time.Since(begun).Round(time.Second))
	out := &strings.Builder{}
	fmt.Fprintf(out, "%s. %s.\n\n", w.machine().When, w.machine().describe())
	if err := b.growth(ctx, s, out); err != nil {
		return err
	}
	if err := b.storm(ctx, s, out); err != nil {
		return err
	}
	if err := w.sizes(ctx, out); err != nil {
		return err
	}
	looked, perr := w.plans(ctx)
	if perr == nil {
		fmt.Fprintf(out, "\nPlans: %d hot queries looked at as mendian_app with plans for any values; none reads a large table whole.\n", looked)
	} else {
		fmt.Fprintf(out, "\nPlans: %d hot queries looked at, and these read whole tables:\n%v\n", looked, perr)
	}
	fmt.Fprintln(os.Stdout, out.String())
	if n.tenants < 10_000 || n.merchants < 1_000_000 {
		return perr
	}
	return errors.Join(perr, os.WriteFile(filepath.Join(root, "docs", "bench", "scale.md"), []byte("# make bench-scale\n\n"+out.String()), 0o600))
}

// seedStores gives each merchant the two stores that the upstream shows, as
// the gateway wrote them down for the first one.
func (b *bench) seedStores(ctx context.Context, s subject) error {
	err := b.serving(s, func(*proc) error {
		one := s
		one.read = b.w.gatewayGet("/v1/stores?source=live", 0, 1, b.w.checkPage)
		if err := first(one); err != nil {
			return err
		}
		one.read = b.w.gatewayGet("/v1/stores?source=local", 0, 1, b.w.checkPage)
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			if err := first(one); err == nil || time.Now().After(end) {
				return err // the records follow after the answer
			}
		}
	})
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, b.w.dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{
		"SET session_replication_role = replica",
		copyForAll("resources", map[string]string{"id": "gen_random_uuid()"}),
		copyForAll("wechat_id_ledger", nil),
		"VACUUM ANALYZE",
	} {
		if strings.HasPrefix(sql, "DO ") {
			sql = strings.ReplaceAll(sql, "FIRST", b.w.merchants[0].id.String())
		}
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// copyForAll is SQL that copies the first merchant's rows of a table for all
// the others.
func copyForAll(table string, instead map[string]string) string {
	cases := "WHEN 'tenant_id' THEN 'm.tenant_id' WHEN 'merchant_id' THEN 'm.id'"
	for column, value := range instead {
		cases += " WHEN '" + column + "' THEN '" + value + "'"
	}
	return `DO $do$ BEGIN EXECUTE (SELECT format('INSERT INTO ` + table + ` (%s) SELECT %s FROM ` + table + ` r, merchants m WHERE r.merchant_id = ''FIRST'' AND m.id <> r.merchant_id',
		string_agg(quote_ident(attname), ', ' ORDER BY attnum),
		string_agg(CASE attname ` + cases + ` ELSE 'r.' || quote_ident(attname) END, ', ' ORDER BY attnum))
		FROM pg_attribute WHERE attrelid = '` + table + `'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''); END $do$`
}

// serving runs a gateway for as long as do takes.
func (b *bench) serving(s subject, do func(*proc) error) (err error) {
	p, err := s.start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	ready := func() error { _, err := get(s.addr, "/readyz"); return err }
	if err := p.answers(ready); err != nil {
		return err
	}
	if err := do(p); err != nil {
		return fmt.Errorf("%w\n%s", err, p.tail())
	}
	return nil
}

// growth compares asking for few with asking for any: half of the merchants are
// read, half are written.
func (b *bench) growth(ctx context.Context, s subject, out *strings.Builder) error {
	w := b.w
	_, half := w.reads()
	from, to := w.writes()
	few, known := min(1000, to-from), min(10_000, half)
	one, all := "1 merchant", fmt.Sprintf("%d merchants of %d tenants", half, len(w.tenants))
	kinds := []struct {
		name      string
		few, many traffic
		of        [2]string
		warm      time.Duration // before many
	}{
		{"warm read, 64 connections", w.gatewayGet("/v1/stores?source=live", 0, 1, w.checkPage), w.gatewayGet("/v1/stores?source=live", 0, known, w.checkPage),
			[2]string{one, fmt.Sprintf("%d of %s, all remembered", known, all)}, 25 * time.Second},
		{"read, mostly of merchants that are not remembered, 64 connections", w.gatewayGet("/v1/stores?source=live", 0, 1, w.checkPage), w.liveRead(), [2]string{one, all}, time.Second},
		{"read of our records, 64 connections", w.gatewayGet("/v1/stores?source=local", 0, 1, w.checkPage), w.localRead(), [2]string{one, all}, time.Second},
		// One merchant may have eight writes under way.
		{"write, 64 connections", w.createAmong(from, from+few), w.create(), [2]string{strconv.Itoa(few) + " merchants", all}, time.Second},
	}
	fmt.Fprintf(out, "%d interleaved rounds of %s a load, medians; must: 1.25 times the CPU.\n\n| | of | CPU µs/request | and in Postgres | requests/s | p99 ms | memory MB after it |\n|---|---|---|---|---|---|---|\n", b.plan.Rounds, b.plan.Phase)
	names := []string{"few", "many"}
	memories := map[string][]float64{}
	for range b.plan.Rounds {
		round := map[string]*outcome{}
		for i, name := range names {
			o := &outcome{Phases: map[string]phase{}}
			round[name] = o
			b.quiet(ctx)
			err := b.serving(s, func(p *proc) error {
				for _, k := range kinds {
					t, warm := []traffic{k.few, k.many}[i], []time.Duration{time.Second, k.warm}[i]
					if _, err := closedLoop(s.addr, t, 64, warm); err != nil {
						return err
					}
					m := w.begin(p.cmd.Process.Pid)
					r, err := closedLoop(s.addr, t, 64, b.plan.Phase)
					if err != nil {
						return err
					}
					if r.Errors > 0 {
						return fmt.Errorf("%s: %d errors: %s", k.name, r.Errors, r.Error)
					}
					o.Phases[k.name] = m.end(r)
					memories[name+k.name] = append(memories[name+k.name], memory(p.cmd.Process.Pid))
				}
				return ctx.Err()
			})
			if err != nil {
				return fmt.Errorf("growth: %w", err)
			}
		}
		b.rounds = append(b.rounds, round)
	}
	for _, k := range kinds {
		for i, name := range names {
			l := text(k.name)
			fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %.1f | %.0f |\n", k.name, k.of[i], spread(b.of(name, l, cpuOf), 0), spread(b.of(name, l, dbOf), 0), spread(b.of(name, l, rpsOf), 0),
				median(b.of(name, l, p99Of))/1e3, median(memories[name+k.name]))
		}
		fmt.Fprintf(out, "| | growth | %.2f | %.2f | | | |\n", b.ratio(b.figure("many", text(k.name), cpuOf), b.figure("few", text(k.name), cpuOf)),
			b.ratio(b.figure("many", text(k.name), dbOf), b.figure("few", text(k.name), dbOf)))
	}
	return nil
}

// storm lets the tokens of many merchants end at once and asks for them all:
// each must be refreshed, once.
func (b *bench) storm(ctx context.Context, s subject, out *strings.Builder) error {
	w := b.w
	_, half := w.reads()
	expired := min(10_000, half)
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	ids := make([]string, expired)
	for i := range ids {
		ids[i] = w.merchants[i].id.String()
	}
	if _, err := conn.Exec(ctx, "UPDATE authorizer_tokens SET access_expires_at = now() - interval '1 second' WHERE merchant_id = ANY ($1::uuid[])", ids); err != nil {
		return err
	}
	before, err := w.refreshes()
	if err != nil {
		return err
	}
	return b.serving(s, func(p *proc) error {
		begun := time.Now()
		m := w.begin(p.cmd.Process.Pid)
		total := result{}
		left := expired
		for left > 0 && time.Since(begun) < 2*time.Minute && ctx.Err() == nil {
			r, err := closedLoop(s.addr, w.gatewayGet("/v1/stores?source=live", 0, expired, w.checkPage), 64, time.Second)
			if err != nil {
				return err
			}
			total.N += r.N
			total.P99 = max(total.P99, r.P99)
			if total.Errors += r.Errors; r.Error != "" {
				total.Error = r.Error
			}
			if err := conn.QueryRow(ctx, "SELECT count(*) FROM authorizer_tokens WHERE access_expires_at <= now()").Scan(&left); err != nil {
				return err
			}
		}
		took := time.Since(begun)
		ph := m.end(total)
		after, err := w.refreshes()
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\nRefresh storm: the tokens of %d merchants had ended. %d reads at 64 connections refreshed all but %d in %s (p99 of the worst second %.0f ms, CPU %.0f µs/read and %.0f in Postgres); WeChat was asked %d times; %d reads failed. %s\n",
			expired, total.N, left, took.Round(100*time.Millisecond), total.P99/1e3, ph.CPU, ph.DB, after-before, total.Errors, total.Error)
		if after-before != expired-left || total.Errors > 0 {
			return fmt.Errorf("the storm: %d refreshes for %d merchants, %d failed reads %s", after-before, expired-left, total.Errors, total.Error)
		}
		return nil
	})
}

func (w *world) refreshes() (int, error) {
	body, err := get(w.stubAddr, "/_refreshes")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(body)
}

// sizes shows what all of it takes on disk.
func (w *world) sizes(ctx context.Context, out *strings.Builder) error {
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT relname, pg_total_relation_size(oid), pg_indexes_size(oid), reltuples::bigint FROM pg_class
		WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_total_relation_size(oid) > 1 << 20 ORDER BY 2 DESC LIMIT 12`)
	if err != nil {
		return err
	}
	var name string
	var whole, index, n int64
	fmt.Fprintf(out, "\n| table | rows | MB | of them indexes |\n|---|---|---|---|\n")
	_, err = pgx.ForEachRow(rows, []any{&name, &whole, &index, &n}, func() error {
		fmt.Fprintf(out, "| %s | %d | %d | %d |\n", name, n, whole>>20, index>>20)
		return nil
	})
	if err != nil {
		return err
	}
	var database int64
	if err := conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&database); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nThe database is %d MB.\n", database>>20)
	return nil
}
