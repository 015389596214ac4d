-- What is due comes in turns: of each tenant its oldest row, then of each its
-- next one. So whatever takes only some of it takes as much of those who wait
-- with one row as of one with ten thousand (internal/postgres/work.go).
-- +goose Up
CREATE OR REPLACE FUNCTION due_operations(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.tenant_id, o.id FROM operations o
    WHERE o.state IN ('pending', 'executing', 'reconciling') AND o.next_check_at <= now()
    ORDER BY row_number() OVER (PARTITION BY o.tenant_id ORDER BY o.next_check_at), o.next_check_at LIMIT n
$$;
-- One audit for all that are asked for together: a merchant's of one kind.
CREATE OR REPLACE FUNCTION due_audits(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.tenant_id, a.id FROM (
        SELECT DISTINCT ON (x.merchant_id, x.kind) x.tenant_id, x.id, x.next_poll_at FROM audits x
        WHERE x.next_poll_at <= now() ORDER BY x.merchant_id, x.kind, x.next_poll_at
    ) a
    ORDER BY row_number() OVER (PARTITION BY a.tenant_id ORDER BY a.next_poll_at), a.next_poll_at LIMIT n
$$;
CREATE OR REPLACE FUNCTION due_inbox(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT e.tenant_id, e.id FROM event_inbox e WHERE e.next_at <= now()
    ORDER BY row_number() OVER (PARTITION BY e.tenant_id ORDER BY e.next_at), e.next_at LIMIT n
$$;
CREATE OR REPLACE FUNCTION due_inventories(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.tenant_id, m.id FROM merchants m WHERE m.inventory_due_at <= now()
    ORDER BY row_number() OVER (PARTITION BY m.tenant_id ORDER BY m.inventory_due_at), m.inventory_due_at LIMIT n
$$;
CREATE OR REPLACE FUNCTION due_tokens(within interval, used_within interval, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.tenant_id, t.merchant_id FROM authorizer_tokens t
    WHERE t.access_expires_at <= now() + within AND t.invalid_reason IS NULL
      AND t.refresh_token_ct IS NOT NULL AND t.used_at > now() - used_within
      AND (t.lease_until IS NULL OR t.lease_until < now())
    ORDER BY row_number() OVER (PARTITION BY t.tenant_id ORDER BY t.access_expires_at), t.access_expires_at LIMIT n
$$;
CREATE OR REPLACE FUNCTION due_store_migrations(owner text, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.tenant_id, m.id FROM store_migrations m
    WHERE coalesce(m.lease_until, m.next_check_at) <= now() OR m.lease_owner = owner
    ORDER BY row_number() OVER (PARTITION BY m.tenant_id ORDER BY m.next_check_at), m.next_check_at LIMIT n
$$;
