-- name: TenantByID :one
SELECT * FROM tenants WHERE id = @id;
