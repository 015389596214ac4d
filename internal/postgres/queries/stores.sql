-- name: StoreInsert :exec
INSERT INTO stores (tenant_id, id, merchant_id, map_poi_id, client_reference, previous_id, fields, status, audit_id, operation_id)
VALUES (@tenant_id, @id, @merchant_id, @map_poi_id, @client_reference,
    (SELECT s.id FROM stores s WHERE s.tenant_id = @tenant_id AND s.merchant_id = @merchant_id
        AND s.client_reference = @client_reference AND s.status IN ('failed', 'rejected') ORDER BY s.id DESC LIMIT 1),
    @fields, 'submitting', @audit_id, @operation_id);

-- StoreSettle moves a store whose creation was open to what came of it.
-- name: StoreSettle :exec
UPDATE stores SET status = @status, poi_id = coalesce(poi_id, @poi_id), row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status IN ('submitting', 'outcome_unknown', 'failed') AND status <> @status;

-- StoreReopen is for one more attempt of a creation that certainly did nothing.
-- name: StoreReopen :exec
UPDATE stores SET status = 'submitting', row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status = 'failed';

-- StoreClaimForWrite ties a store to the write that begins, unless its state
-- or its version forbids it.
-- name: StoreClaimForWrite :exec
WITH s AS (
    UPDATE stores SET operation_id = @operation_id, updated_at = now()
    WHERE tenant_id = @tenant_id AND id = @id AND status = 'active' AND poi_id IS NOT NULL
      AND (sqlc.narg('row_version')::bigint IS NULL OR row_version = sqlc.narg('row_version'))
    RETURNING 1
)
SELECT require(EXISTS (SELECT 1 FROM s), 'MD003');

-- name: StoreUpdated :exec
UPDATE stores SET fields = fields || @changed, audit_id = coalesce(@audit_id, audit_id), row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id;

-- name: StoreDeleted :one
UPDATE stores SET status = 'deleted', row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status <> 'deleted'
RETURNING *;

-- StoreActivate is what an approval does. No row comes out the second time.
-- name: StoreActivate :one
UPDATE stores SET status = 'active', upstream_status = 1, poi_id = coalesce(@poi_id, poi_id), fields = fields || @changed,
    row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status NOT IN ('active', 'deleted')
RETURNING *;

-- name: StoreReject :one
UPDATE stores SET status = 'rejected', upstream_status = 3, row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status IN ('submitting', 'in_review', 'outcome_unknown')
RETURNING *;

-- StoreReleasePoi frees a poi_id that a comparison had given to a store of its
-- own before the approval told whose it is.
-- name: StoreReleasePoi :exec
UPDATE stores SET poi_id = NULL, status = 'deleted', row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND poi_id = @poi_id AND id <> @id AND origin = 'discovered';

-- name: StoreGet :one
SELECT * FROM stores WHERE tenant_id = @tenant_id AND id = @id;

-- name: StoreByPoi :one
SELECT * FROM stores WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND poi_id = @poi_id;

-- name: StoreByReference :one
SELECT * FROM stores WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND client_reference = @client_reference
  AND status NOT IN ('failed', 'rejected', 'deleted');

-- name: StoreList :many
SELECT * FROM stores
WHERE tenant_id = @tenant_id
  AND (sqlc.narg('merchant_ids')::uuid[] IS NULL OR merchant_id = ANY (sqlc.narg('merchant_ids')::uuid[]))
  AND CASE WHEN sqlc.narg('status')::text IS NULL THEN status NOT IN ('failed', 'deleted') ELSE status = sqlc.narg('status') END
  AND (sqlc.narg('client_reference')::text IS NULL OR client_reference = sqlc.narg('client_reference'))
  AND (sqlc.narg('poi_id')::text IS NULL OR poi_id = sqlc.narg('poi_id'))
  AND (sqlc.narg('map_poi_id')::text IS NULL OR map_poi_id = sqlc.narg('map_poi_id'))
  AND (sqlc.narg('updated_after')::timestamptz IS NULL OR updated_at > sqlc.narg('updated_after'))
  AND (sqlc.narg('before')::uuid IS NULL OR id < sqlc.narg('before'))
ORDER BY id DESC LIMIT @n;

-- name: StoresByPoi :many
SELECT id, poi_id, content_sha256 FROM stores
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND poi_id = ANY (@poi_ids::text[]);

-- StoresToProject are those that WeChat shows, and ours that it may show before
-- it told us their poi_id. unchanged_for is by the database's own clock.
-- name: StoresToProject :many
SELECT id, poi_id, content_sha256, updated_at, coalesce(fields ->> 'credential_number', '')::text AS credential_number,
    extract(epoch FROM now() - updated_at)::float8 AS unchanged_for
FROM stores
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id
  AND (poi_id = ANY (@poi_ids::text[]) OR poi_id IS NULL AND status IN ('submitting', 'in_review', 'outcome_unknown'));

-- StorePoiOlderThan tells which of these poi_ids we knew before a write began.
-- name: StorePoiOlderThan :many
SELECT poi_id FROM stores
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND poi_id = ANY (@poi_ids::text[]) AND created_at < @before AND id <> @id;

-- StoreProject writes what WeChat shows of a store that we know. A creation of
-- ours that is in review is left to its audit, which tells more. It is a new
-- version only where something is new: what we changed ourselves we know. A row
-- that has changed since it was seen knows better.
-- name: StoreProject :exec
UPDATE stores SET fields = fields || @changed, upstream_status = @upstream_status, content_sha256 = @content_sha256, missing_n = 0,
    poi_id = coalesce(poi_id, @poi_id),
    status = CASE WHEN status IN ('deleted', 'outcome_unknown', 'submitting') THEN status
                  WHEN @upstream_status::int = 1 AND (status IN ('rejected', 'active') OR origin = 'discovered') THEN 'active'
                  ELSE status END,
    row_version = row_version + CASE WHEN poi_id IS NULL OR upstream_status IS DISTINCT FROM @upstream_status OR fields <> fields || @changed THEN 1 ELSE 0 END,
    updated_at = CASE WHEN poi_id IS NULL OR upstream_status IS DISTINCT FROM @upstream_status OR fields <> fields || @changed THEN now() ELSE updated_at END,
    synced_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND updated_at = @seen;

-- StoreDiscover keeps a store that WeChat has and we don't, unless a creation
-- of ours is open that it may be the effect of.
-- name: StoreDiscover :one
INSERT INTO stores (tenant_id, id, merchant_id, poi_id, fields, status, upstream_status, origin, content_sha256, synced_at)
SELECT @tenant_id, @id, @merchant_id, @poi_id, @fields, @status, @upstream_status, 'discovered', @content_sha256, now()
WHERE NOT EXISTS (SELECT 1 FROM operations o WHERE o.tenant_id = @tenant_id AND o.merchant_id = @merchant_id
    AND o.kind = 'store.create' AND o.state IN ('executing', 'reconciling', 'needs_attention'))
ON CONFLICT (tenant_id, merchant_id, poi_id) DO NOTHING
RETURNING id;

-- StoresMissing counts, at the end of a complete comparison, what WeChat
-- showed no more; twice is gone.
-- name: StoresMissing :many
UPDATE stores SET missing_n = missing_n + 1,
    status = CASE WHEN missing_n >= 1 THEN 'deleted' ELSE status END,
    row_version = row_version + CASE WHEN missing_n >= 1 THEN 1 ELSE 0 END,
    updated_at = CASE WHEN missing_n >= 1 THEN now() ELSE updated_at END
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND status = 'active' AND poi_id IS NOT NULL
  AND poi_id <> ALL (@seen::text[]) AND created_at < @started_at
RETURNING id, status;

-- name: MerchantStoresSynced :exec
UPDATE merchants SET stores_synced_at = now(), inventory_due_at = @next_due, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id;

-- name: MerchantStoreProgram :exec
UPDATE merchants SET store_program = @store_program, row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND store_program IS DISTINCT FROM @store_program;

-- InventoryTake lets one process compare a merchant's stores.
-- name: InventoryTake :one
UPDATE merchants SET inventory_due_at = now() + @lease::interval
WHERE tenant_id = @tenant_id AND id = @id AND inventory_due_at <= now() AND status = 'authorized'
RETURNING id;

-- name: InventoryGiveUp :exec
UPDATE merchants SET inventory_due_at = NULL WHERE tenant_id = @tenant_id AND id = @id AND status <> 'authorized';

-- name: StoreAudit :many
SELECT a.* FROM audits a JOIN stores s ON s.audit_id = a.id
WHERE a.tenant_id = @tenant_id AND s.tenant_id = @tenant_id AND s.id = @id;

-- name: StoreOperation :many
SELECT o.* FROM operations o JOIN stores s ON s.operation_id = o.id
WHERE o.tenant_id = @tenant_id AND s.tenant_id = @tenant_id AND s.id = @id;
