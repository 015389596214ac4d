-- name: ChangeInsert :exec
INSERT INTO change_log (id, tenant_id, actor, action, subject, before, after)
VALUES (@id, @of_tenant, @actor, @action, @subject, sqlc.narg('before'), sqlc.narg('after'));

-- Admin's view over all tenants: change_log is outside row-level security.
-- name: ChangeList :many
SELECT * FROM change_log
WHERE (sqlc.narg('of_tenant')::uuid IS NULL OR sqlc.narg('of_tenant')::uuid = tenant_id)
  AND (sqlc.narg('actor')::text IS NULL OR actor = sqlc.narg('actor')::text)
  AND (sqlc.narg('action')::text IS NULL OR action = sqlc.narg('action')::text)
  AND (sqlc.narg('earlier_than')::uuid IS NULL OR id < sqlc.narg('earlier_than')::uuid)
ORDER BY id DESC LIMIT @n;
