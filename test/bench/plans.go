package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/mendian/mendian/internal/postgres"
	"github.com/mendian/mendian/internal/postgres/dbsqlc"
)

// hot are the queries of a request's path and of what follows from it.
var hot = map[string]string{
	// who asks, and for whom
	"TenantByID": dbsqlc.TenantByID, "TenantIDByPushRef": dbsqlc.TenantIDByPushRef, "CredentialsByTenant": dbsqlc.CredentialsByTenant,
	"APIKeyByID": dbsqlc.APIKeyByID, "APIKeyUsed": dbsqlc.APIKeyUsed, "MerchantByID": dbsqlc.MerchantByID, "MerchantByAppID": dbsqlc.MerchantByAppID,
	// tokens
	"AuthorizerTokenRead": dbsqlc.AuthorizerTokenRead, "AuthorizerTokenLease": dbsqlc.AuthorizerTokenLease, "AuthorizerTokenRenew": dbsqlc.AuthorizerTokenRenew,
	"AuthorizerTokenStore": dbsqlc.AuthorizerTokenStore, "AuthorizerTokenUsed": dbsqlc.AuthorizerTokenUsed, "ComponentTokenRead": dbsqlc.ComponentTokenRead,
	// reads
	"ResourcesByNumber": dbsqlc.ResourcesByNumber, "ResourcesToProject": dbsqlc.ResourcesToProject, "ResourceProject": dbsqlc.ResourceProject,
	"ResourceDiscover": dbsqlc.ResourceDiscover, "ResourceList": dbsqlc.ResourceList, "ResourcePage": dbsqlc.ResourcePage, "ResourceGet": dbsqlc.ResourceGet,
	"ResourceShow": dbsqlc.ResourceShow, "ResourceOperation": dbsqlc.ResourceOperation,
	"QuotaTake": dbsqlc.QuotaTake, "QuotaGiveBack": dbsqlc.QuotaGiveBack,
	// T1
	"IdempotencyKeyClaim": dbsqlc.IdempotencyKeyClaim, "IdempotencyKeyGet": dbsqlc.IdempotencyKeyGet, "OperationInsert": dbsqlc.OperationInsert,
	"ResourceInsert": dbsqlc.ResourceInsert, "ResourceClaimForWrite": dbsqlc.ResourceClaimForWrite,
	"ResourceByReference": dbsqlc.ResourceByReference, "MediaFilesRequired": dbsqlc.MediaFilesRequired, "QuotaRequire": dbsqlc.QuotaRequire,
	// T2
	"OperationGet": dbsqlc.OperationGet, "OperationFinish": dbsqlc.OperationFinish,
	"WechatIDRecord": dbsqlc.WechatIDRecord, "AuditInsert": dbsqlc.AuditInsert, "ResourceSettle": dbsqlc.ResourceSettle, "OutboxInsert": dbsqlc.OutboxInsert,
	// pushes
	"EventInboxInsert": dbsqlc.EventInboxInsert, "EventInboxTake": dbsqlc.EventInboxTake, "EventInboxState": dbsqlc.EventInboxState,
	"AuditByWechatID": dbsqlc.AuditByWechatID, "AuditAdvance": dbsqlc.AuditAdvance, "ResourceDecide": dbsqlc.ResourceDecide,
	"OutboxNumber": dbsqlc.OutboxNumber, "OutboxList": dbsqlc.OutboxList,
}

// due are the questions that every replica asks every second or two.
var due = []struct {
	question string
	args     []any
}{
	{postgres.DueOperations, nil}, {postgres.DueAudits, nil}, {postgres.DueInbox, nil}, {postgres.DueInventories, nil},
	{postgres.DueQuotas, nil}, {postgres.Unnumbered, nil},
}

// smallTable is how many rows are read faster one by one than by an index.
const smallTable = 10_000

// plans asks Postgres how it would run each hot query, as a serving connection
// does it: as mendian_app, under row-level security, with a plan for any
// values. One that reads a whole large table, or that no index could serve, is
// an error.
func (w *world) plans(ctx context.Context) (looked int, _ error) {
	var scans []string // by auto_explain, of what the functions run
	cfg, err := pgx.ParseConfig(w.dsn)
	if err != nil {
		return 0, err
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		scans = append(scans, seqScan.FindAllString(n.Message, -1)...)
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	large := map[string]bool{}
	rows, err := conn.Query(ctx, `SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > $1`, smallTable)
	if err != nil {
		return 0, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		large[name] = true
	}
	for _, sql := range []string{"SET plan_cache_mode = force_generic_plan", "LOAD 'auto_explain'", "SET auto_explain.log_min_duration = 0",
		"SET auto_explain.log_nested_statements = on", "SET client_min_messages = log"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return 0, err
		}
	}
	var errs []error
	for _, q := range due {
		scans = nil
		if _, err := conn.Exec(ctx, q.question, append([]any{100}, q.args...)...); err != nil {
			return looked, fmt.Errorf("%s: %w", q.question, err)
		}
		looked++
		for _, s := range scans {
			if table := strings.Fields(strings.TrimPrefix(s, "Seq Scan on "))[0]; large[table] {
				errs = append(errs, fmt.Errorf("%s reads all of %s", q.question, table))
			}
		}
	}
	for _, sql := range []string{"SET client_min_messages = error", "SET ROLE mendian_app", "SELECT set_config('app.tenant_id', '" + w.tenants[0].id.String() + "', false)"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return looked, err
		}
	}
	for name, sql := range hot {
		for _, seqscan := range []string{"on", "off"} {
			tables, err := explain(ctx, conn, sql, seqscan)
			if err != nil {
				return looked, fmt.Errorf("%s: %w", name, err)
			}
			for _, table := range tables {
				if large[table] || seqscan == "off" {
					errs = append(errs, fmt.Errorf("%s reads all of %s", name, table))
				}
			}
		}
		looked++
	}
	return looked, errors.Join(errs...)
}

var seqScan = regexp.MustCompile(`Seq Scan on \w+`)

// explain are the tables that sql would read whole. With seqscan off Postgres
// does that only where nothing else is possible.
func explain(ctx context.Context, conn *pgx.Conn, sql, seqscan string) ([]string, error) {
	if _, err := conn.Exec(ctx, "SET enable_seqscan = "+seqscan); err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "PREPARE q AS "+sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return nil, err
	}
	defer conn.Exec(ctx, "DEALLOCATE q") //nolint:errcheck // the next PREPARE would say so
	var n int
	if err := conn.QueryRow(ctx, "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'q'").Scan(&n); err != nil {
		return nil, err
	}
	call := "q"
	if n > 0 {
		call += "(" + strings.TrimSuffix(strings.Repeat("NULL,", n), ",") + ")"
	}
	var js []byte
	if err := conn.QueryRow(ctx, "EXPLAIN (FORMAT JSON) EXECUTE "+call, pgx.QueryExecModeSimpleProtocol).Scan(&js); err != nil {
		return nil, err
	}
	var plan any
	if err := json.Unmarshal(js, &plan); err != nil {
		return nil, err
	}
	var tables []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			if table, ok := v["Relation Name"].(string); ok && v["Node Type"] == "Seq Scan" {
				tables = append(tables, table)
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(plan)
	slices.Sort(tables)
	return slices.Compact(tables), nil
}
