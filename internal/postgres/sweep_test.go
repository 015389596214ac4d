package postgres_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/mendian/mendian/internal/pgtest"
	"github.com/mendian/mendian/internal/postgres"
)

// What is of no use for 30 days goes, in every tenant; what may still refuse or
// explain something stays.
func TestSweep(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tenants := []uuid.UUID{uuid.New(), uuid.New()}
	for _, tenant := range tenants {
		err := db.InTenant(t.Context(), tenant, func(tx postgres.DBTX) error {
			for _, sql := range []string{
				`INSERT INTO tenants (id, name, push_ref, component_appid) VALUES ($1::uuid, left($1::uuid::text, 8), $1::uuid::text, 'wx' || left(replace($1::uuid::text, '-', ''), 16))`,
				`INSERT INTO api_keys (tenant_id, id, name, scopes, token_sha256, created_by, expires_at, revoked_at)
					SELECT $1::uuid, gen_random_uuid(), name, '{}', sha256(name::bytea), 'test', now() + expires, now() - interval '90 days'
					FROM (VALUES ('forgotten', interval '-31 days'), ('expired', interval '-29 days'), ('revoked', interval '1 day')) k (name, expires)`,
				`INSERT INTO authorization_links (tenant_id, id, state_sha256, account_type, created_by, expires_at)
					VALUES ($1::uuid, $1::uuid, sha256($1::uuid::text::bytea), 'any', 'test', now())`,
				`INSERT INTO authorization_link_clicks (tenant_id, pre_auth_code_sha256, link_id, browser_sha256, created_at)
					SELECT $1::uuid, sha256(d::text::bytea), $1::uuid, sha256(''), now() - d * interval '1 day' FROM unnest('{29,31}'::int[]) d`,
				`INSERT INTO authorization_codes (tenant_id, code_sha256, state, lease_until, created_at)
					SELECT $1::uuid, sha256(d::text::bytea), 'done', now(), now() - d * interval '1 day' FROM unnest('{29,31}'::int[]) d`,
			} {
				if _, err := tx.Exec(t.Context(), sql, tenant); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	swept := 0
	for {
		n, err := db.SweepExpired(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		swept += n
	}
	if swept != 6 {
		t.Errorf("%d rows went, want 6", swept)
	}
	for _, tenant := range tenants {
		var left string
		err := db.InTenant(t.Context(), tenant, func(tx postgres.DBTX) error {
			return tx.QueryRow(t.Context(), `SELECT (SELECT string_agg(name, ' ' ORDER BY name) FROM api_keys WHERE tenant_id = $1) || ' ' ||
				(SELECT count(*) FROM authorization_link_clicks WHERE tenant_id = $1) || ' ' ||
				(SELECT count(*) FROM authorization_codes WHERE tenant_id = $1)`, tenant).Scan(&left)
		})
		if err != nil || left != "expired revoked 1 1" {
			t.Errorf("left: %q, %v", left, err)
		}
	}
}
