-- What every write pays for and nothing needs (docs/decisions/0011-writes.md).
-- +goose Up

-- Whether an operation is open is told by finished_at; before, four indexes
-- asked for its state, each with a condition that Postgres makes ready anew for
-- every statement.
DROP INDEX operations_one_active;
DROP INDEX operations_due;
DROP INDEX operations_left;
DROP INDEX operations_attention;
CREATE UNIQUE INDEX operations_one_active ON operations (tenant_id, coalesce(merchant_id, tenant_id), kind, (match_key ->> 'natural'))
    WHERE finished_at IS NULL;
CREATE INDEX operations_open ON operations (next_check_at) WHERE finished_at IS NULL;

CREATE OR REPLACE FUNCTION due_operations(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.tenant_id, o.id FROM operations o
    WHERE o.finished_at IS NULL AND o.state IN ('pending', 'executing', 'reconciling') AND o.next_check_at <= now()
    ORDER BY row_number() OVER (PARTITION BY o.tenant_id ORDER BY o.next_check_at), o.next_check_at LIMIT n
$$;
CREATE OR REPLACE FUNCTION operations_of_owner(owner text, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.tenant_id, o.id FROM operations o
    WHERE o.finished_at IS NULL AND o.state IN ('executing', 'reconciling') AND o.lease_owner = owner LIMIT n
$$;

-- A resource without a reference is in neither index.
DROP INDEX resources_client_reference_key;
CREATE UNIQUE INDEX resources_client_reference_key ON resources (tenant_id, merchant_id, type, client_reference)
    WHERE client_reference IS NOT NULL AND status NOT IN ('failed', 'rejected', 'rejected_by_admin', 'expired', 'deleted');
CREATE INDEX resources_client_reference ON resources (tenant_id, merchant_id, type, client_reference) WHERE client_reference IS NOT NULL;

-- That the tenant is there, its merchant and its key tell. A key is claimed in
-- the transaction that inserts its operation. And an id that WeChat gave is
-- kept, whatever else is amiss.
ALTER TABLE operations DROP CONSTRAINT operations_tenant_id_fkey;
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_tenant_id_operation_id_fkey;
ALTER TABLE wechat_id_ledger DROP CONSTRAINT wechat_id_ledger_tenant_id_merchant_id_fkey;
