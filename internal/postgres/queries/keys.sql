-- name: APIKeyInsert :one
INSERT INTO api_keys (tenant_id, id, name, scopes, merchant_ids, rate_limit, token_sha256, rotated_from, created_by, expires_at)
VALUES (@tenant_id, @id, @name, @scopes, @merchant_ids, @rate_limit, @token_sha256, @rotated_from, @created_by, @expires_at)
RETURNING *;

-- name: APIKeyByID :one
SELECT * FROM api_keys WHERE tenant_id = @tenant_id AND id = @id;

-- name: APIKeyLock :one
SELECT * FROM api_keys WHERE tenant_id = @tenant_id AND id = @id FOR UPDATE;

-- name: APIKeyIsReplaced :one
SELECT EXISTS (SELECT 1 FROM api_keys WHERE tenant_id = @tenant_id AND rotated_from = @id::uuid) AS yes;

-- A key bound to merchants lists only keys bound to no others.
-- name: APIKeyList :many
SELECT * FROM api_keys
WHERE tenant_id = @tenant_id
  AND (sqlc.narg('within')::uuid[] IS NULL OR merchant_ids <@ sqlc.narg('within')::uuid[])
  AND (sqlc.narg('status')::text IS NULL OR sqlc.narg('status')::text = CASE
        WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END)
  AND (sqlc.narg('before')::uuid IS NULL OR id < sqlc.narg('before')::uuid)
ORDER BY id DESC LIMIT @n;

-- name: APIKeyRevoke :exec
UPDATE api_keys SET revoked_at = now() WHERE tenant_id = @tenant_id AND id = @id AND revoked_at IS NULL;

-- name: APIKeyExpire :exec
UPDATE api_keys SET expires_at = least(expires_at, @expires_at) WHERE tenant_id = @tenant_id AND id = @id;

-- name: APIKeyUsed :exec
UPDATE api_keys k SET last_used_at = u.at
FROM (SELECT unnest(@ids::uuid[]) AS id, unnest(@ats::timestamptz[]) AS at) u
WHERE k.tenant_id = @tenant_id AND k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at);

-- name: APIKeyMerchants :many
SELECT id, appid FROM merchants
WHERE tenant_id = @tenant_id AND (id = ANY(@ids::uuid[]) OR appid = ANY(@appids::text[]));

-- name: AdminKeyInsert :one
INSERT INTO admin_keys (id, name, token_sha256, created_by, expires_at)
VALUES (@id, @name, @token_sha256, @created_by, @expires_at)
RETURNING *;

-- name: AdminKeyByID :one
SELECT * FROM admin_keys WHERE id = @id;

-- name: AdminKeyList :many
SELECT * FROM admin_keys
WHERE (sqlc.narg('before')::uuid IS NULL OR id < sqlc.narg('before')::uuid)
ORDER BY id DESC LIMIT @n;

-- name: AdminKeyRevoke :execrows
UPDATE admin_keys SET revoked_at = now() WHERE id = @id AND revoked_at IS NULL;

-- The key ring. Whoever changes it holds SigningKeyLock until commit, so that
-- two rotations at once do one step each and never lose the next key.
-- name: SigningKeyLock :exec
SELECT pg_advisory_xact_lock(7369646);

-- name: SigningKeyList :many
SELECT * FROM signing_keys ORDER BY created_at DESC, id;

-- name: SigningKeyInsert :exec
INSERT INTO signing_keys (id, public_key, private_key_ct, state) VALUES (@id, @public_key, @private_key_ct, @state);

-- name: SigningKeyMove :execrows
UPDATE signing_keys SET state = @state, state_since = now() WHERE id = @id AND state = @was;

-- A retiring key is of no use once every token that it can have signed is over.
-- name: SigningKeyRetireOld :many
UPDATE signing_keys SET state = 'retired', state_since = now()
WHERE state = 'retiring' AND state_since < now() - make_interval(days => @days::int)
RETURNING id;
