-- ResourceInsert keeps what a creation will make. The one before it under the
-- same client_reference is named, if that came to nothing.
-- name: ResourceInsert :exec
INSERT INTO resources (tenant_id, id, merchant_id, type, map_poi_id, client_reference, previous_id, fields, status, audit_id, operation_id)
VALUES (@tenant_id, @id, @merchant_id, @type, @map_poi_id, @client_reference,
    (SELECT (array_agg(r.id ORDER BY r.id DESC))[1] FROM resources r WHERE r.tenant_id = @tenant_id AND r.merchant_id = @merchant_id AND r.type = @type
        AND r.client_reference = @client_reference AND r.status IN ('failed', 'rejected', 'rejected_by_admin', 'expired')),
    @fields, 'submitting', @audit_id, @operation_id);

-- ResourceSettle moves what a creation made to what came of it. A number that
-- was only concluded is another's, once WeChat's own word is a refusal.
-- name: ResourceSettle :exec
UPDATE resources SET status = @status, wechat_id = CASE WHEN @status::text = 'failed' THEN @wechat_id ELSE coalesce(wechat_id, @wechat_id) END,
    fields = fields || coalesce(sqlc.narg('changed')::jsonb, '{}'), row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status = ANY (@states::text[]) AND status <> @status;

-- ResourceReopen is for one more attempt of a creation that certainly did nothing.
-- name: ResourceReopen :exec
UPDATE resources SET status = 'submitting', row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status = 'failed';

-- ResourceClaimForWrite ties a resource to the write that begins, unless its
-- state or its version forbids it.
-- name: ResourceClaimForWrite :exec
WITH r AS (
    UPDATE resources SET operation_id = @operation_id, updated_at = now()
    WHERE tenant_id = @tenant_id AND id = @id AND status = ANY (@states::text[]) AND wechat_id IS NOT NULL
      AND (sqlc.narg('row_version')::bigint IS NULL OR row_version = sqlc.narg('row_version'))
    RETURNING 1
)
SELECT require(EXISTS (SELECT 1 FROM r), 'MD003');

-- ResourceChanged is what a write that was executed changed.
-- name: ResourceChanged :exec
UPDATE resources SET fields = fields || coalesce(sqlc.narg('changed')::jsonb, '{}'), status = coalesce(sqlc.narg('status'), status), audit_id = coalesce(@audit_id, audit_id),
    row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id;

-- ResourceShown is what WeChat showed of a resource as it was seen: one that has
-- changed since knows better.
-- name: ResourceShown :exec
UPDATE resources SET fields = fields || @changed, row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND updated_at = @seen;

-- name: ResourceDeleted :one
UPDATE resources SET status = 'deleted', missing_n = 0, row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status <> 'deleted'
RETURNING *;

-- ResourceDecide is what the decision of an audit does. No row comes out the
-- second time.
-- name: ResourceDecide :one
UPDATE resources SET status = @status, upstream_status = coalesce(@upstream_status, upstream_status), wechat_id = coalesce(@wechat_id, wechat_id),
    map_poi_id = coalesce(@map_poi_id, map_poi_id), fields = fields || coalesce(sqlc.narg('changed')::jsonb, '{}'), row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status = ANY (@states::text[])
RETURNING *;

-- ResourceReleaseNumber frees a number that a comparison had given to a
-- resource of its own before the approval told whose it is, or to an earlier
-- attempt: a store that is migrated keeps its number over all of them.
-- name: ResourceReleaseNumber :exec
UPDATE resources SET wechat_id = NULL, status = CASE WHEN origin = 'discovered' THEN 'deleted' ELSE status END, row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND type = @type AND wechat_id = @wechat_id AND id <> @id
  AND (origin = 'discovered' OR status IN ('rejected', 'failed'));

-- name: ResourceGet :one
SELECT * FROM resources WHERE tenant_id = @tenant_id AND id = @id AND type = @type;

-- name: ResourceByNumber :one
SELECT * FROM resources WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND type = @type AND wechat_id = @wechat_id;

-- ResourceByNatural is the newest of ours that waits for its number and has
-- this natural value.
-- name: ResourceByNatural :one
SELECT * FROM resources WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND type = @type AND wechat_id IS NULL
  AND fields ->> @natural_field::text = @value::text AND status NOT IN ('failed', 'deleted')
ORDER BY id DESC LIMIT 1;

-- name: ResourceByReference :one
SELECT * FROM resources WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND type = @type AND client_reference = @client_reference
  AND status NOT IN ('failed', 'rejected', 'rejected_by_admin', 'expired', 'deleted');

-- ResourceList is a page of resources, each with what it shows of its audit.
-- name: ResourceList :many
SELECT r.*, a.kind AS audit_kind, a.status AS audit_status, a.reason AS audit_reason, a.wechat_audit_id AS audit_number,
    a.submitted_at AS audit_submitted_at, a.decided_at AS audit_decided_at, a.deadline_at AS audit_deadline_at, a.operation_id AS audit_operation_id
FROM resources r LEFT JOIN audits a ON a.tenant_id = @tenant_id AND a.id = r.audit_id
WHERE r.tenant_id = @tenant_id AND r.type = @type
  AND (sqlc.narg('merchant_ids')::uuid[] IS NULL OR r.merchant_id = ANY (sqlc.narg('merchant_ids')::uuid[]))
  AND CASE WHEN sqlc.narg('status')::text IS NULL THEN r.status NOT IN ('failed', 'deleted') ELSE r.status = sqlc.narg('status') END
  AND (sqlc.narg('client_reference')::text IS NULL OR r.client_reference = sqlc.narg('client_reference'))
  AND (sqlc.narg('numbers')::text[] IS NULL OR r.wechat_id = ANY (sqlc.narg('numbers')::text[]))
  AND (sqlc.narg('map_poi_id')::text IS NULL OR r.map_poi_id = sqlc.narg('map_poi_id'))
  AND (sqlc.narg('updated_after')::timestamptz IS NULL OR r.updated_at > sqlc.narg('updated_after'))
  AND (sqlc.narg('before')::uuid IS NULL OR r.id < sqlc.narg('before'))
ORDER BY r.id DESC LIMIT @n;

-- ResourcePage is ResourceList of one merchant, as it is mostly asked for. It has
-- nothing that may be NULL, so a connection plans it once: planning ResourceList
-- takes longer than all the rest of it. OFFSET 0 has each audit looked up by all
-- of an index.
-- name: ResourcePage :many
SELECT r.*, a.kind AS audit_kind, a.status AS audit_status, a.reason AS audit_reason, a.wechat_audit_id AS audit_number,
    a.submitted_at AS audit_submitted_at, a.decided_at AS audit_decided_at, a.deadline_at AS audit_deadline_at, a.operation_id AS audit_operation_id
FROM resources r LEFT JOIN LATERAL (
    SELECT * FROM audits o WHERE o.tenant_id = @tenant_id AND o.merchant_id = @merchant_id AND o.id = r.audit_id OFFSET 0) a ON true
WHERE r.tenant_id = @tenant_id AND r.merchant_id = @merchant_id AND r.type = @type AND r.status NOT IN ('failed', 'deleted') AND r.id < @before
ORDER BY r.id DESC LIMIT @n;

-- name: ResourcesByNumber :many
SELECT id, wechat_id, content_sha256 FROM resources
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND type = @type AND wechat_id = ANY (@numbers::text[]);

-- ResourcesToProject are those that WeChat shows, and ours that it may show
-- before it told us their number. unchanged_for is by the database's own clock.
-- name: ResourcesToProject :many
SELECT r.id, r.wechat_id, r.status, r.origin, r.upstream_status, r.missing_n, r.content_sha256, r.updated_at,
    coalesce(r.fields ->> @natural_field::text, '')::text AS natural, extract(epoch FROM now() - r.updated_at)::float8 AS unchanged_for,
    EXISTS (SELECT 1 FROM audits a WHERE a.tenant_id = @tenant_id AND a.id = r.audit_id AND a.status_rank < 90) AS audit_open
FROM resources r
WHERE r.tenant_id = @tenant_id AND r.merchant_id = @merchant_id AND r.type = @type
  AND (r.wechat_id = ANY (@numbers::text[]) OR r.wechat_id IS NULL AND r.status IN ('submitting', 'awaiting_admin_confirmation', 'in_review', 'outcome_unknown', 'expired'));

-- ResourceNumbersOlderThan tells which of these numbers can't be the effect of a
-- write: we knew them before it began, or they were given to other writes.
-- name: ResourceNumbersOlderThan :many
SELECT wechat_id FROM resources
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND type = @type AND wechat_id = ANY (@numbers::text[])
  AND (created_at < @before OR origin = 'api') AND id <> @id;

-- ResourceProject writes what WeChat shows of a resource that we know. It is a
-- new version only where something is new: what we changed ourselves we know. A
-- row that has changed since it was seen knows better.
-- name: ResourceProject :exec
UPDATE resources SET fields = fields || @changed, upstream_status = @upstream_status, content_sha256 = @content_sha256, missing_n = 0,
    wechat_id = coalesce(wechat_id, @wechat_id), status = @status,
    row_version = row_version + CASE WHEN wechat_id IS NULL OR status <> @status OR upstream_status IS DISTINCT FROM @upstream_status OR fields <> fields || @changed THEN 1 ELSE 0 END,
    updated_at = CASE WHEN wechat_id IS NULL OR status <> @status OR upstream_status IS DISTINCT FROM @upstream_status OR fields <> fields || @changed THEN now() ELSE updated_at END,
    synced_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND updated_at = @seen;

-- ResourceDiscover keeps what WeChat has and we don't, unless a creation of
-- ours is open that it may be the effect of.
-- name: ResourceDiscover :one
INSERT INTO resources (tenant_id, id, merchant_id, type, wechat_id, fields, status, upstream_status, origin, content_sha256, synced_at)
SELECT @tenant_id, @id, @merchant_id, @type, @wechat_id, @fields, @status, @upstream_status, 'discovered', @content_sha256, now()
WHERE NOT EXISTS (SELECT 1 FROM operations o WHERE o.tenant_id = @tenant_id AND o.merchant_id = @merchant_id
    AND o.kind = @creation AND o.finished_at IS NULL AND o.state IN ('executing', 'reconciling', 'needs_attention'))
ON CONFLICT (tenant_id, merchant_id, type, wechat_id) DO NOTHING
RETURNING id;

-- ResourcesMissing counts, at the end of a complete comparison, what WeChat
-- showed no more; twice is gone.
-- name: ResourcesMissing :many
UPDATE resources SET missing_n = missing_n + 1,
    status = CASE WHEN missing_n >= 1 THEN 'deleted' ELSE status END,
    row_version = row_version + CASE WHEN missing_n >= 1 THEN 1 ELSE 0 END,
    updated_at = CASE WHEN missing_n >= 1 THEN now() ELSE updated_at END
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND type = @type AND status = ANY (@states::text[]) AND wechat_id IS NOT NULL
  AND wechat_id <> ALL (@seen::text[]) AND created_at < @started_at
RETURNING id, status;

-- MerchantSynced notes that all of a merchant's resources of one type were
-- compared with WeChat.
-- name: MerchantSynced :exec
UPDATE merchants SET synced = synced || jsonb_build_object(@type::text, now()), updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id;

-- name: MerchantStoreProgram :exec
UPDATE merchants SET store_program = @store_program, row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND store_program IS DISTINCT FROM @store_program;

-- InventoryTake lets one process compare a merchant's resources.
-- name: InventoryTake :one
UPDATE merchants SET inventory_due_at = now() + @lease::interval
WHERE tenant_id = @tenant_id AND id = @id AND inventory_due_at <= now() AND status = 'authorized'
RETURNING inventory_due_at;

-- InventoryNext plans the next comparison, unless one has been asked for since.
-- name: InventoryNext :exec
UPDATE merchants SET inventory_due_at = @next_due WHERE tenant_id = @tenant_id AND id = @id AND inventory_due_at = @lease;

-- name: InventoryGiveUp :exec
UPDATE merchants SET inventory_due_at = NULL WHERE tenant_id = @tenant_id AND id = @id AND status <> 'authorized';

-- ResourceShow is one of ResourceList.
-- name: ResourceShow :many
SELECT r.*, a.kind AS audit_kind, a.status AS audit_status, a.reason AS audit_reason, a.wechat_audit_id AS audit_number,
    a.submitted_at AS audit_submitted_at, a.decided_at AS audit_decided_at, a.deadline_at AS audit_deadline_at, a.operation_id AS audit_operation_id
FROM resources r LEFT JOIN audits a ON a.tenant_id = @tenant_id AND a.id = r.audit_id
WHERE r.tenant_id = @tenant_id AND r.id = @id AND r.type = @type;

-- ResourceOperation is the newest write of a resource. Written as a join it was
-- planned, while the tables were small, as a look at all writes of the tenant,
-- and a connection keeps such a plan.
-- name: ResourceOperation :many
SELECT o.* FROM operations o
WHERE o.tenant_id = @tenant_id AND o.id = (SELECT r.operation_id FROM resources r WHERE r.tenant_id = @tenant_id AND r.id = @id);
