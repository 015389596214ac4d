package postgres_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/mendian/mendian/internal/postgres"
)

// Columns of bytes that hold nothing sealed, each with its reason.
var notSealed = map[string]string{
	"admin_keys.token_sha256":                        "a hash",
	"api_keys.token_sha256":                          "a hash",
	"authorization_codes.code_sha256":                "a hash",
	"authorization_link_clicks.browser_sha256":       "a hash",
	"authorization_link_clicks.pre_auth_code_sha256": "a hash",
	"authorization_links.state_sha256":               "a hash",
	"component_tickets.ticket_sha256":                "a hash",
	"event_inbox.payload_sha256":                     "a hash",
	"idempotency_keys.fingerprint":                   "a hash",
	"media_files.sha256":                             "a hash",
	"signing_keys.public_key":                        "public",
	"store_migrations.fingerprint":                   "a hash",
	"resources.content_sha256":                       "a hash",
}

// Each column of bytes is known to be sealed, and then named or typed as
// sealed_values counts it, or stands above: a new one fails here until rotation
// of the keyset knows it. So does a text or jsonb whose name says that it is sealed.
func TestEverySealedColumnIsListed(t *testing.T) {
	t.Parallel()
	rows, err := owner(t).Query(t.Context(), `SELECT t.relname || '.' || a.attname, a.atttypid::regtype::text, a.attname LIKE '%\_ct'
		FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
		WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
		  AND (a.atttypid IN ('bytea'::regtype, 'bytea[]'::regtype) OR a.attname LIKE '%\_ct') ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	type column struct {
		Name, Type string
		CT         bool
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	plain := map[string]bool{}
	for _, c := range list {
		if notSealed[c.Name] != "" {
			plain[c.Name] = true
			continue
		}
		want = append(want, c.Name+" "+c.Type)
		if c.CT != (c.Type == "bytea") {
			t.Errorf("%s is a %s, which sealed_values doesn't count: a bytea that ends in _ct, or a bytea[], is", c.Name, c.Type)
		}
	}
	for _, x := range postgres.SealedTables {
		for i, c := range x.All() {
			typ := "bytea"
			if i >= len(x.Columns) {
				typ = "bytea[]"
			}
			got = append(got, x.Name+"."+c+" "+typ)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 13 {
		t.Errorf("SealedTables (-catalogue +list):\n%s", diff)
	}
	for name := range notSealed {
		if !plain[name] {
			t.Errorf("%s is listed as not sealed and doesn't exist", name)
		}
	}
}
