-- name: MerchantByID :one
SELECT * FROM merchants WHERE tenant_id = @tenant_id AND id = @id;

-- name: MerchantByAppID :one
SELECT * FROM merchants WHERE tenant_id = @tenant_id AND appid = @appid;

-- name: MerchantLock :one
SELECT * FROM merchants WHERE tenant_id = @tenant_id AND appid = @appid FOR UPDATE;

-- Newest first. A key bound to merchants sees only those.
-- name: MerchantList :many
SELECT sqlc.embed(m), t.access_expires_at, t.invalid_reason,
    (t.lease_until IS NOT NULL AND t.lease_until >= now())::boolean AS leased,
    (t.access_expires_at IS NOT NULL AND t.access_expires_at > now())::boolean AS live,
    (t.refresh_token_ct IS NOT NULL)::boolean AS has_token
FROM merchants m LEFT JOIN authorizer_tokens t ON t.tenant_id = @tenant_id AND t.merchant_id = m.id
WHERE m.tenant_id = @tenant_id
  AND (sqlc.narg('within')::uuid[] IS NULL OR m.id = ANY(sqlc.narg('within')::uuid[]))
  AND (sqlc.narg('status')::text IS NULL OR CASE WHEN m.disabled_at IS NOT NULL THEN 'disabled' ELSE m.status END = sqlc.narg('status')::text)
  AND (sqlc.narg('appid')::text IS NULL OR m.appid = sqlc.narg('appid')::text)
  AND (sqlc.narg('permission_set')::int IS NULL OR sqlc.narg('permission_set')::int = ANY(m.permission_sets))
  AND (sqlc.narg('client_reference')::text IS NULL OR m.client_reference = sqlc.narg('client_reference')::text)
  AND (sqlc.narg('updated_after')::timestamptz IS NULL OR m.updated_at > sqlc.narg('updated_after')::timestamptz)
  AND (sqlc.narg('before')::uuid IS NULL OR m.id < sqlc.narg('before')::uuid)
ORDER BY m.id DESC LIMIT @n;

-- name: MerchantView :one
SELECT sqlc.embed(m), t.access_expires_at, t.invalid_reason,
    (t.lease_until IS NOT NULL AND t.lease_until >= now())::boolean AS leased,
    (t.access_expires_at IS NOT NULL AND t.access_expires_at > now())::boolean AS live,
    (t.refresh_token_ct IS NOT NULL)::boolean AS has_token
FROM merchants m LEFT JOIN authorizer_tokens t ON t.tenant_id = @tenant_id AND t.merchant_id = m.id
WHERE m.tenant_id = @tenant_id AND m.id = @id;

-- name: AppIDHeldElsewhere :one
SELECT appid_held_elsewhere(@appid::text, @me::uuid)::boolean AS held;

-- An account that authorised: new here, or back. enable ends our own switch,
-- which only a link of the tenant's does.
-- name: MerchantAuthorize :one
INSERT INTO merchants (tenant_id, id, appid, status, permission_sets, client_reference, transition_at)
VALUES (@tenant_id, @id, @appid, 'authorized', @permission_sets,
    CASE WHEN EXISTS (SELECT 1 FROM merchants o WHERE o.tenant_id = @tenant_id AND o.appid <> @appid AND o.client_reference = sqlc.narg('client_reference')::text)
        THEN NULL ELSE sqlc.narg('client_reference')::text END,
    coalesce(sqlc.narg('event_at')::timestamptz, to_timestamp(0)))
ON CONFLICT ON CONSTRAINT merchants_appid_key DO UPDATE SET
    status = 'authorized',
    permission_sets = CASE WHEN sqlc.narg('event_at')::timestamptz < merchants.transition_at THEN merchants.permission_sets ELSE excluded.permission_sets END,
    client_reference = coalesce(excluded.client_reference, merchants.client_reference),
    authorized_at = CASE WHEN merchants.status = 'authorized' THEN merchants.authorized_at ELSE now() END,
    disabled_at = CASE WHEN @enable::boolean THEN NULL ELSE merchants.disabled_at END,
    transition_at = greatest(merchants.transition_at, sqlc.narg('event_at')::timestamptz),
    row_version = merchants.row_version + 1, updated_at = now()
RETURNING *;

-- name: MerchantReference :exec
UPDATE merchants m SET client_reference = @client_reference::text, row_version = m.row_version + 1, updated_at = now()
WHERE m.tenant_id = @tenant_id AND m.id = @id
  AND NOT EXISTS (SELECT 1 FROM merchants o WHERE o.tenant_id = @tenant_id AND o.id <> @id AND o.client_reference = @client_reference::text);

-- name: MerchantDescribe :one
UPDATE merchants SET account_type = @account_type::text, user_name = @user_name::text, nickname = @nickname::text,
    principal_name = @principal_name::text, head_image_url = @head_image_url::text, account_status = @account_status::int,
    verified = sqlc.narg('verified'), permission_sets = @permission_sets,
    info_synced_at = now(), row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status <> 'deauthorized'
RETURNING *;

-- name: MerchantEventAt :exec
UPDATE merchants SET transition_at = greatest(transition_at, @event_at::timestamptz)
WHERE tenant_id = @tenant_id AND id = @id;

-- name: MerchantInventoryDue :exec
UPDATE merchants SET inventory_due_at = now() WHERE tenant_id = @tenant_id AND id = @id;

-- name: MerchantStatus :one
UPDATE merchants SET status = @status::text, inventory_due_at = NULL,
    transition_at = greatest(transition_at, sqlc.narg('event_at')::timestamptz),
    row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status = ANY(@from_status::text[])
RETURNING *;

-- name: MerchantPatch :one
UPDATE merchants SET
    client_reference = CASE WHEN @set_reference::boolean THEN sqlc.narg('client_reference')::text ELSE client_reference END,
    metadata = coalesce(sqlc.narg('metadata')::jsonb, metadata),
    row_version = row_version + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id
  AND (sqlc.narg('if_version')::bigint IS NULL OR row_version = sqlc.narg('if_version')::bigint)
RETURNING *;

-- name: MerchantDisable :one
UPDATE merchants SET disabled_at = coalesce(disabled_at, now()),
    row_version = row_version + CASE WHEN disabled_at IS NULL THEN 1 ELSE 0 END,
    updated_at = CASE WHEN disabled_at IS NULL THEN now() ELSE updated_at END
WHERE tenant_id = @tenant_id AND id = @id
  AND (sqlc.narg('if_version')::bigint IS NULL OR row_version = sqlc.narg('if_version')::bigint)
RETURNING *;

-- name: MerchantsAuthorized :many
SELECT * FROM merchants WHERE tenant_id = @tenant_id AND status = 'authorized' ORDER BY id;
