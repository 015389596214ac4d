-- name: OutboxInsert :exec
INSERT INTO outbox (tenant_id, id, merchant_id, type, payload) VALUES (@tenant_id, @id, @merchant_id, @type, @payload)
ON CONFLICT DO NOTHING;

-- name: OutboxCounterLock :one
INSERT INTO outbox_counters (tenant_id) VALUES (@tenant_id)
ON CONFLICT (tenant_id) DO UPDATE SET last_sequence = outbox_counters.last_sequence
RETURNING last_sequence;

-- name: OutboxNumber :execrows
UPDATE outbox SET sequence = due.n + sqlc.arg('last_sequence')::bigint
FROM (
    SELECT o.id, row_number() OVER (ORDER BY o.created_at, o.id) AS n FROM outbox o
    WHERE o.tenant_id = @tenant_id AND o.sequence IS NULL ORDER BY o.created_at, o.id LIMIT 1000
) due
WHERE outbox.tenant_id = @tenant_id AND outbox.id = due.id;

-- name: OutboxCounterSet :exec
UPDATE outbox_counters SET last_sequence = last_sequence + @n WHERE tenant_id = @tenant_id;

-- name: OutboxList :many
SELECT id, merchant_id, type, payload, created_at, sequence FROM outbox
WHERE tenant_id = @tenant_id AND sequence > sqlc.arg('after')::bigint
  AND (sqlc.narg('merchant_ids')::uuid[] IS NULL OR merchant_id = ANY (sqlc.narg('merchant_ids')::uuid[]))
  AND (sqlc.narg('type')::text IS NULL OR type = sqlc.narg('type'))
ORDER BY sequence LIMIT @n;

-- name: OutboxGet :many
SELECT id, merchant_id, type, payload, created_at, sequence FROM outbox
WHERE tenant_id = @tenant_id AND id = @id AND sequence IS NOT NULL;
