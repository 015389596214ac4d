-- +goose Up

-- What a process was executing or looking at when it died is its successor's on
-- the same spool directory at once. A look leaves its lease with the operation
-- only as long as it runs.
CREATE OR REPLACE FUNCTION operations_of_owner(owner text, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.tenant_id, o.id FROM operations o
    WHERE o.state IN ('executing', 'reconciling') AND o.lease_owner = owner LIMIT n
$$;
CREATE INDEX operations_left ON operations (lease_owner) WHERE state IN ('executing', 'reconciling') AND lease_owner IS NOT NULL;
DROP INDEX operations_owner;
