-- The table tenants is read before a tenant is known, so it stands outside
-- row-level security and its queries name the row by id.

-- name: TenantInsert :one
INSERT INTO tenants (id, name, push_ref, component_appid, return_url_allow_list, cors_origins, release_check, limits)
VALUES (@id, @name, @push_ref, @component_appid, @return_url_allow_list, @cors_origins, @release_check, @limits)
RETURNING *;

-- name: TenantByID :one
SELECT * FROM tenants WHERE id = @id;

-- name: TenantLock :one
SELECT * FROM tenants WHERE id = @id FOR UPDATE;

-- name: TenantHasMerchants :one
SELECT EXISTS (SELECT 1 FROM merchants WHERE tenant_id = @tenant_id) AS yes;

-- name: TenantIDByPushRef :one
SELECT id FROM tenants WHERE push_ref = @push_ref;

-- name: TenantList :many
SELECT * FROM tenants
WHERE (sqlc.narg('status')::text IS NULL OR status = sqlc.narg('status')::text)
  AND (sqlc.narg('component_appid')::text IS NULL OR component_appid = sqlc.narg('component_appid')::text)
  AND (sqlc.narg('before')::uuid IS NULL OR id < sqlc.narg('before')::uuid)
ORDER BY id DESC LIMIT @n;

-- name: TenantUpdate :one
UPDATE tenants SET name = @name, component_appid = @component_appid, status = @status, return_url_allow_list = @return_url_allow_list,
    cors_origins = @cors_origins, release_check = @release_check, limits = @limits, updated_at = now()
WHERE id = @id
RETURNING *;

-- name: TenantOrigins :many
SELECT DISTINCT unnest(cors_origins)::text AS origin FROM tenants WHERE status = 'active';

-- name: CredentialsInsert :one
INSERT INTO component_credentials (tenant_id, component_secret_ct, message_token_ct, encoding_aes_key_ct, fingerprints)
VALUES (@tenant_id, @component_secret_ct, @message_token_ct, @encoding_aes_key_ct, @fingerprints)
RETURNING *;

-- name: CredentialsByTenant :one
SELECT * FROM component_credentials WHERE tenant_id = @tenant_id;

-- name: CredentialsLock :one
SELECT * FROM component_credentials WHERE tenant_id = @tenant_id FOR UPDATE;

-- name: CredentialsUpdate :one
UPDATE component_credentials SET component_secret_ct = @component_secret_ct,
    message_token_ct = @message_token_ct, previous_message_token_ct = @previous_message_token_ct,
    encoding_aes_key_ct = @encoding_aes_key_ct, previous_encoding_aes_key_ct = @previous_encoding_aes_key_ct,
    fingerprints = @fingerprints, set_at = now()
WHERE tenant_id = @tenant_id
RETURNING *;
