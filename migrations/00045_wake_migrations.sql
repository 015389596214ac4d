-- +goose Up

-- A migration that waits for its merchant goes on when that can act again: it
-- was authorised anew, with other permission sets, or enabled. A second later,
-- so that every process has heard of it.
-- +goose StatementBegin
CREATE FUNCTION wake_store_migration_of_merchant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE store_migrations m SET next_check_at = now() + interval '1 second'
    WHERE m.tenant_id = NEW.tenant_id AND m.merchant_id = NEW.id AND m.status IN ('planning', 'running', 'blocked');
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER wake_store_migration AFTER UPDATE OF status, permission_sets, disabled_at ON merchants
    FOR EACH ROW WHEN (NEW.status = 'authorized' AND NEW.disabled_at IS NULL
        AND (NEW.status, NEW.permission_sets, NEW.disabled_at) IS DISTINCT FROM (OLD.status, OLD.permission_sets, OLD.disabled_at))
    EXECUTE FUNCTION wake_store_migration_of_merchant();
