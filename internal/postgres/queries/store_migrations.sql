-- name: StoreMigrationInsert :one
INSERT INTO store_migrations (tenant_id, id, merchant_id, desired, status, on_not_allowed, concurrency, defaults, given, requested_by,
    idempotency_key, fingerprint, next_check_at)
VALUES (@tenant_id, @id, @merchant_id, @desired, 'planning', @on_not_allowed, @concurrency, @defaults, @given, @requested_by,
    @idempotency_key, @fingerprint, now())
RETURNING *;

-- name: StoreMigrationActive :many
SELECT id FROM store_migrations WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND status NOT IN ('completed', 'incomplete', 'cancelled');

-- StoreMigrationLock is for whoever is to change it by what it reads.
-- name: StoreMigrationLock :one
SELECT * FROM store_migrations WHERE tenant_id = @tenant_id AND id = @id FOR UPDATE;

-- StoreMigrations are those that the filters leave, the newest first, each with
-- how its items stand at the same moment.
-- name: StoreMigrations :many
SELECT sqlc.embed(m), coalesce(i.counts, '{}')::jsonb AS counts, coalesce(i.submitted_at, 'epoch')::timestamptz AS submitted_at
FROM store_migrations m
LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(s.status, s.n) AS counts, max(s.submitted_at) FILTER (WHERE s.status = 'in_review') AS submitted_at
    FROM (
        SELECT status, count(*) AS n, max(submitted_at) AS submitted_at FROM store_migration_items
        WHERE tenant_id = m.tenant_id AND migration_id = m.id GROUP BY status
    ) s
) i ON true
WHERE m.tenant_id = @tenant_id
  AND (sqlc.narg('id')::uuid IS NULL OR m.id = sqlc.narg('id'))
  AND (sqlc.narg('idempotency_key')::text IS NULL OR m.idempotency_key = sqlc.narg('idempotency_key'))
  AND (sqlc.narg('merchant_ids')::uuid[] IS NULL OR m.merchant_id = ANY (sqlc.narg('merchant_ids')::uuid[]))
  AND (sqlc.narg('status')::text IS NULL OR m.status = sqlc.narg('status'))
  AND (sqlc.narg('before')::uuid IS NULL OR m.id < sqlc.narg('before'))
ORDER BY m.id DESC LIMIT @n;

-- StoreMigrationTake lets one process look after it. What wakes it meanwhile is
-- seen in next_check_at, which is empty as long as nothing does.
-- name: StoreMigrationTake :many
UPDATE store_migrations SET lease_owner = @lease_owner, lease_until = now() + @lease::interval, next_check_at = NULL
WHERE tenant_id = @tenant_id AND id = @id AND (coalesce(lease_until, next_check_at) <= now() OR lease_owner = @lease_owner)
RETURNING *;

-- StoreMigrationRelease ends a turn: what the turn found is kept, and when the
-- next one is due.
-- name: StoreMigrationRelease :exec
UPDATE store_migrations SET lease_owner = NULL, lease_until = NULL, next_check_at = least(next_check_at, @next_check_at),
    error = @error, listed_at = @listed_at, list_at = CASE WHEN list_at = @listed_for::timestamptz THEN @list_at ELSE list_at END, list_n = @list_n
WHERE tenant_id = @tenant_id AND id = @id AND lease_owner = @lease_owner;

-- StoreMigrationStand keeps where it stands, by what was wanted of it and with
-- the list that says so; a
-- finished one is never looked after again.
-- name: StoreMigrationStand :one
UPDATE store_migrations SET status = @status, listed_at = @listed_at, row_version = row_version + 1, updated_at = now(),
    finished_at = CASE WHEN @status::text IN ('completed', 'incomplete', 'cancelled') THEN now() END,
    next_check_at = CASE WHEN @status::text IN ('completed', 'incomplete', 'cancelled', 'planned', 'paused') THEN NULL ELSE next_check_at END
WHERE tenant_id = @tenant_id AND id = @id AND status <> @status AND desired = @desired
RETURNING *;

-- StoreMigrationSteer is what a person wants of it from now on.
-- name: StoreMigrationSteer :exec
UPDATE store_migrations SET desired = @desired, status = @status, row_version = row_version + 1, updated_at = now(),
    list_at = CASE WHEN @desired::text = 'running' THEN now() ELSE list_at END, list_n = 0,
    finished_at = CASE WHEN @status::text = 'cancelled' THEN now() END,
    next_check_at = CASE WHEN @status::text IN ('planning', 'running', 'blocked') THEN now() END
WHERE tenant_id = @tenant_id AND id = @id;

-- StoreMigrationWake lets it go on at once.
-- name: StoreMigrationWake :exec
UPDATE store_migrations SET next_check_at = now(), row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status IN ('running', 'blocked');

-- StoreMigrationItemsWithOutcomes are all items, each with what became of its
-- newest write and the audit that followed.
-- name: StoreMigrationItemsWithOutcomes :many
SELECT sqlc.embed(i), o.state AS operation_state, o.error AS operation_error, coalesce(a.status, '')::text AS audit_status,
    coalesce(a.reason, '')::text AS audit_reason
FROM store_migration_items i
LEFT JOIN operations o ON o.tenant_id = @tenant_id AND o.id = i.operation_id
LEFT JOIN audits a ON a.tenant_id = @tenant_id AND a.id = i.audit_id
WHERE i.tenant_id = @tenant_id AND i.migration_id = @migration_id
ORDER BY i.poi_id;

-- name: StoreMigrationItemPage :many
SELECT * FROM store_migration_items
WHERE tenant_id = @tenant_id AND migration_id = @migration_id
  AND (sqlc.narg('status')::text IS NULL OR status = sqlc.narg('status'))
  AND (sqlc.narg('after')::text IS NULL OR poi_id > sqlc.narg('after'))
ORDER BY poi_id LIMIT @n;

-- name: StoreMigrationItemLock :one
SELECT * FROM store_migration_items WHERE tenant_id = @tenant_id AND migration_id = @migration_id AND poi_id = @poi_id FOR UPDATE;

-- name: StoreMigrationItemInsert :exec
INSERT INTO store_migration_items (tenant_id, migration_id, poi_id, legacy_store_id, name, status, blocked_by, action, given, shown)
VALUES (@tenant_id, @migration_id, @poi_id, @legacy_store_id, @name, @status, @blocked_by, @action, @given, @shown)
ON CONFLICT DO NOTHING;

-- StoreMigrationItemSave writes an item as it was moved on from the version that
-- was read; somebody else's newer one stays.
-- name: StoreMigrationItemSave :one
UPDATE store_migration_items SET legacy_store_id = coalesce(@legacy_store_id, legacy_store_id), name = coalesce(@name, name), status = @status,
    blocked_by = @blocked_by, action = @action, given = @given, shown = @shown, store_id = coalesce(@store_id, store_id), operation_id = @operation_id,
    audit_id = @audit_id, error = @error, row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND migration_id = @migration_id AND poi_id = @poi_id AND row_version = @row_version
RETURNING *;

-- StoreMigrationItemClaim begins an attempt, before anything is sent, as long as
-- the migration is to run and is this process's. It holds it a while longer.
-- name: StoreMigrationItemClaim :many
WITH m AS (
    UPDATE store_migrations SET lease_until = now() + @lease::interval
    WHERE tenant_id = @tenant_id AND id = @migration_id AND lease_owner = @lease_owner AND desired = 'running'
      AND status IN ('running', 'blocked')
    RETURNING 1
)
UPDATE store_migration_items i SET status = @status, deletes = @deletes, attempt = i.attempt + 1, operation_id = NULL, audit_id = NULL, error = NULL,
    submitted_at = now(), row_version = i.row_version + 1, updated_at = now()
WHERE i.tenant_id = @tenant_id AND i.migration_id = @migration_id AND i.poi_id = @poi_id AND i.row_version = @row_version AND i.status = 'pending'
  AND EXISTS (SELECT 1 FROM m)
RETURNING i.*;
