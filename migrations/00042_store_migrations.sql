-- +goose Up

-- Moves of a merchant's stores from Store Management to the Store Mini Program
-- (document 000 §4.13). All that a process has to know to go on with one is here
-- and in the operations of its items.
CREATE TABLE store_migrations (
    tenant_id       uuid NOT NULL,
    id              uuid NOT NULL,
    merchant_id     uuid NOT NULL,
    desired         text NOT NULL CHECK (desired IN ('planned', 'running', 'paused', 'cancelled')),
    status          text NOT NULL CHECK (status IN ('planning', 'planned', 'running', 'blocked', 'paused', 'completed', 'incomplete', 'cancelled')),
    on_not_allowed  text NOT NULL CHECK (on_not_allowed IN ('block', 'delete')),
    concurrency     int NOT NULL CHECK (concurrency BETWEEN 1 AND 5),
    defaults        jsonb NOT NULL,
    given           jsonb NOT NULL,                  -- what the caller said of single stores, by poi_id
    requested_by    text NOT NULL,
    idempotency_key text,
    fingerprint     bytea,
    error           jsonb,                           -- what holds all of it up
    listed_at       timestamptz,                     -- the newest complete list
    list_at         timestamptz NOT NULL DEFAULT now(),
    list_n          int NOT NULL DEFAULT 0,          -- lists in a row that told nothing new
    next_check_at   timestamptz,
    lease_owner     text,
    lease_until     timestamptz,
    row_version     bigint NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT store_migrations_key UNIQUE (tenant_id, merchant_id, idempotency_key),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('store_migrations');
CREATE UNIQUE INDEX store_migrations_one_active ON store_migrations (tenant_id, merchant_id)
    WHERE status NOT IN ('completed', 'incomplete', 'cancelled');
CREATE INDEX store_migrations_due ON store_migrations (coalesce(lease_until, next_check_at));
CREATE INDEX store_migrations_owner ON store_migrations (lease_owner) WHERE lease_owner IS NOT NULL;

CREATE TABLE store_migration_items (
    tenant_id       uuid NOT NULL,
    migration_id    uuid NOT NULL,
    poi_id          text NOT NULL,
    legacy_store_id uuid,
    name            text,
    status          text NOT NULL CHECK (status IN ('pending', 'blocked', 'submitting', 'in_review', 'migrated', 'failed', 'deleting', 'deleted', 'skipped')),
    blocked_by      text[] NOT NULL DEFAULT '{}',
    action          text CHECK (action IN ('migrate', 'skip', 'delete')),
    given           jsonb NOT NULL DEFAULT '{}',     -- for this store
    shown           jsonb NOT NULL DEFAULT '{}',     -- by WeChat's newest list
    attempt         int NOT NULL DEFAULT 0,
    deletes         boolean NOT NULL DEFAULT false,  -- what the newest attempt does
    store_id        uuid,
    operation_id    uuid,
    audit_id        uuid,
    error           jsonb,
    submitted_at    timestamptz,
    row_version     bigint NOT NULL DEFAULT 1,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, migration_id, poi_id),
    FOREIGN KEY (tenant_id, migration_id) REFERENCES store_migrations (tenant_id, id),
    FOREIGN KEY (tenant_id, operation_id) REFERENCES operations (tenant_id, id)
);
CALL make_tenant_scoped('store_migration_items');

-- Due, or left by an earlier life of the process that asks.
CREATE FUNCTION due_store_migrations(owner text, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.tenant_id, m.id FROM store_migrations m
    WHERE coalesce(m.lease_until, m.next_check_at) <= now() OR m.lease_owner = owner LIMIT n
$$;

-- A migration is looked after as soon as one of its writes or audits has ended,
-- or a place on the map was approved that one of its stores may wait for.
-- +goose StatementBegin
CREATE FUNCTION wake_store_migration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE store_migrations m SET next_check_at = now(),
        list_at = CASE WHEN TG_ARGV[0] = 'place' THEN now() ELSE m.list_at END
    WHERE m.tenant_id = NEW.tenant_id AND m.merchant_id = NEW.merchant_id AND m.status IN ('running', 'blocked');
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER wake_store_migration AFTER UPDATE OF state ON operations
    FOR EACH ROW WHEN (NEW.kind IN ('store.create', 'legacy_store.delete') AND NEW.state IN ('succeeded', 'failed', 'needs_attention')
        AND NEW.state <> OLD.state AND OLD.state <> 'executing')
    EXECUTE FUNCTION wake_store_migration('write');
CREATE TRIGGER wake_store_migration AFTER UPDATE OF status ON audits
    FOR EACH ROW WHEN (NEW.kind = 'store_create' AND NEW.status <> OLD.status AND NEW.status_rank >= 90)
    EXECUTE FUNCTION wake_store_migration('audit');
CREATE TRIGGER wake_store_migration_place AFTER UPDATE OF status ON audits
    FOR EACH ROW WHEN (NEW.kind = 'map_poi' AND NEW.status = 'approved' AND OLD.status <> 'approved')
    EXECUTE FUNCTION wake_store_migration('place');
