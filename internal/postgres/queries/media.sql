-- MediaFileInsert keeps what an upload gave.
-- name: MediaFileInsert :exec
INSERT INTO media_files (tenant_id, operation_id, merchant_id, purpose, sha256, wechat_id, created_at, expires_at)
VALUES (@tenant_id, @operation_id, @merchant_id, @purpose, @sha256, @wechat_id, @created_at, @expires_at)
ON CONFLICT DO NOTHING;

-- name: MediaFileGet :one
SELECT * FROM media_files WHERE tenant_id = @tenant_id AND operation_id = @operation_id;

-- MediaFileSame is the same file, uploaded before, that WeChat keeps for some
-- time yet.
-- name: MediaFileSame :one
SELECT * FROM media_files
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND purpose = @purpose AND sha256 = @sha256
  AND (expires_at IS NULL OR expires_at > now() + @spare::interval)
ORDER BY created_at DESC LIMIT 1;

-- MediaFilesRequired refuses the batch where one of these is known to have
-- expired. Those that were uploaded elsewhere only WeChat knows.
-- name: MediaFilesRequired :exec
SELECT require(NOT EXISTS (SELECT 1 FROM media_files
    WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND wechat_id = ANY (@media_ids::text[]) AND expires_at <= now()), 'MD005');

-- name: MediaFilesExpired :many
SELECT * FROM media_files
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND wechat_id = ANY (@media_ids::text[]) AND expires_at <= now();
