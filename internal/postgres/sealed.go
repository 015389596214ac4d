package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A SealedTable is a table with columns that hold what package secret sealed.
type SealedTable struct {
	Name    string
	Columns []string // bytea
	Lists   []string // bytea[]: each element is sealed by itself
	// key is the primary key besides tenant_id, each column with its type.
	key [][2]string
	// Row and AppID of each value's secret.Place, as SQL; "" where it has none.
	row, appid string
}

// SealedTables are all of them. A test holds the list against the catalogue,
// so that no column is forgotten when the keyset is rotated.
var SealedTables = []SealedTable{
	{Name: "signing_keys", Columns: []string{"private_key_ct"}, key: [][2]string{{"id", "text"}}, row: "id"},
	{Name: "component_credentials", Columns: []string{"component_secret_ct", "message_token_ct", "previous_message_token_ct", "encoding_aes_key_ct", "previous_encoding_aes_key_ct"}},
	{Name: "component_tickets", Columns: []string{"ticket_ct"}, key: [][2]string{{"ticket_sha256", "bytea"}}, row: "encode(ticket_sha256, 'hex')"},
	{Name: "component_tokens", Columns: []string{"access_ct"}},
	{Name: "authorizer_tokens", Columns: []string{"access_ct", "refresh_token_ct"}, Lists: []string{"refresh_history"}, key: [][2]string{{"merchant_id", "uuid"}},
		row: "merchant_id", appid: "(SELECT m.appid FROM merchants m WHERE m.tenant_id = t.tenant_id AND m.id = t.merchant_id)"},
	{Name: "operations", Columns: []string{"request_ct"}, key: [][2]string{{"id", "uuid"}}, row: "id"},
	{Name: "operation_attempts", Columns: []string{"response_ct"}, key: [][2]string{{"operation_id", "uuid"}, {"n", "int"}}, row: "operation_id"},
	{Name: "event_inbox", Columns: []string{"payload_ct"}, key: [][2]string{{"id", "uuid"}}, row: "id"},
}

// OfNoTenant reports whether the table's rows belong to the installation.
func (t SealedTable) OfNoTenant() bool { return t.Name == "signing_keys" }

// All are its columns, those of one value before the lists.
func (t SealedTable) All() []string { return append(append([]string(nil), t.Columns...), t.Lists...) }

// A SealedRow is a row of a SealedTable. Values are, by column as All has them,
// the values of a column that one of the keys asked for sealed, or nil.
type SealedRow struct {
	Key        []string
	Row, AppID string
	Values     [][][]byte
}

func (t SealedTable) ofTenant() string {
	if t.OfNoTenant() {
		return "$1::uuid = '00000000-0000-0000-0000-000000000000'"
	}
	return "tenant_id = $1"
}

// keyIs compares the key with a text[] parameter, which is empty where a tenant
// has one row.
func (t SealedTable) keyIs(operator, param string) string {
	if len(t.key) == 0 {
		return "0 " + operator + " cardinality(" + param + "::text[])"
	}
	var names, values []string
	for i, k := range t.key {
		names = append(names, k[0])
		values = append(values, fmt.Sprintf("(%s::text[])[%d]::%s", param, i+1, k[1]))
	}
	return "(" + strings.Join(names, ", ") + ") " + operator + " (" + strings.Join(values, ", ") + ")"
}

// SealedRows reads the n rows of a tenant that come after a key, nil for the
// first ones, by way of the primary key: as few or as many as n, whatever they
// hold. Fewer than n are the last ones. tenant is zero where OfNoTenant.
func (db *DB) SealedRows(ctx context.Context, tenant uuid.UUID, t SealedTable, by []uint32, after []string, n int) (rows []SealedRow, err error) {
	keys := make([][]byte, len(by))
	for i, id := range by {
		keys[i] = binary.BigEndian.AppendUint32([]byte{1}, id) // as secret.KeyOf reads it
	}
	var names, texts []string
	for _, k := range t.key {
		names, texts = append(names, k[0]), append(texts, k[0]+"::text")
	}
	text := func(sql string) string {
		if sql == "" {
			return "''"
		}
		return sql + "::text"
	}
	var sql strings.Builder
	fmt.Fprintf(&sql, "SELECT ARRAY[%s]::text[], %s, %s", strings.Join(texts, ", "), text(t.row), text(t.appid))
	for _, c := range t.Columns {
		fmt.Fprintf(&sql, ", CASE WHEN substring(%[1]s FROM 1 FOR 5) = ANY($2::bytea[]) THEN ARRAY[%[1]s] END", c)
	}
	for _, c := range t.Lists {
		fmt.Fprintf(&sql, ", CASE WHEN EXISTS (SELECT FROM unnest(%[1]s) v WHERE substring(v FROM 1 FOR 5) = ANY($2::bytea[])) THEN %[1]s END", c)
	}
	args := []any{tenant, keys, n}
	fmt.Fprintf(&sql, " FROM %s t WHERE %s", t.Name, t.ofTenant())
	if after != nil {
		fmt.Fprintf(&sql, " AND %s", t.keyIs(">", "$4"))
		args = append(args, after)
	}
	if len(names) > 0 {
		fmt.Fprintf(&sql, " ORDER BY %s", strings.Join(names, ", "))
	}
	sql.WriteString(" LIMIT $3")
	err = db.InTenant(ctx, tenant, func(tx DBTX) error {
		found, err := tx.Query(ctx, sql.String(), args...)
		if err != nil {
			return err
		}
		rows, err = pgx.CollectRows(found, func(r pgx.CollectableRow) (row SealedRow, err error) {
			row.Values = make([][][]byte, len(t.Columns)+len(t.Lists))
			into := []any{&row.Key, &row.Row, &row.AppID}
			for i := range row.Values {
				into = append(into, &row.Values[i])
			}
			return row, r.Scan(into...)
		})
		return err
	})
	return rows, err
}

// A Resealed is the same values of one column of one row, sealed anew.
type Resealed struct {
	Key      []string
	Column   int // as All has it
	Was, Now [][]byte
}

// Reseal replaces values in one commit, each unless somebody has changed it
// since it was read.
func (db *DB) Reseal(ctx context.Context, tenant uuid.UUID, t SealedTable, all []Resealed) error {
	b := db.NewBatch(tenant)
	for _, r := range all {
		column, was, now := t.All()[r.Column], "($3::bytea[])[1]", "($4::bytea[])[1]"
		if r.Column >= len(t.Columns) {
			was, now = "$3::bytea[]", "$4::bytea[]"
		}
		b.Queue(fmt.Sprintf("UPDATE %s SET %s = %s WHERE %s AND %s AND %s = %s", t.Name, column, now, t.ofTenant(), t.keyIs("=", "$2"), column, was), struct {
			Tenant   uuid.UUID
			Key      []string
			Was, Now [][]byte
		}{tenant, r.Key, r.Was, r.Now})
	}
	return db.Run(ctx, b)
}

// A SealedCount is how many values of a column one key has sealed.
type SealedCount struct {
	Table  string
	Column string
	KeyID  uint32 // 0: no keyset made them
	N      int64
}

// SealedValues counts all that lies sealed, over all tenants: it reads every
// row, and takes the time that this takes.
func (db *DB) SealedValues(ctx context.Context) (counts []SealedCount, err error) {
	err = db.InSystem(ctx, func(tx DBTX) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT in_table, in_column, key_id, n FROM sealed_values()`)
		if err != nil {
			return err
		}
		counts, err = pgx.CollectRows(rows, pgx.RowToStructByPos[SealedCount])
		return err
	})
	return counts, err
}
