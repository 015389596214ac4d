-- A token's row as the database's own clock sees it: nothing else may judge
-- expiry or lease (design reliability.md §7).
-- name: AuthorizerTokenRead :one
SELECT access_ct, access_gen, invalid_reason,
    coalesce(extract(epoch FROM access_expires_at - now()), 0)::float8 AS remaining,
    (refresh_token_ct IS NOT NULL)::boolean AS refreshable,
    (lease_until IS NOT NULL AND lease_until >= now())::boolean AS leased
FROM authorizer_tokens WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id;

-- At most one caller is granted the right to refresh: the token must be near
-- its end, or be the very one that WeChat rejected.
-- name: AuthorizerTokenLease :one
UPDATE authorizer_tokens SET lease_gen = lease_gen + 1, lease_owner = @owner::text, lease_until = now() + interval '15 seconds'
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND invalid_reason IS NULL
  AND (access_expires_at IS NULL OR access_expires_at < now() + interval '10 minutes' OR access_gen = @rejected_gen)
  AND (lease_until IS NULL OR lease_until < now())
RETURNING lease_gen, access_gen, refresh_token_ct, refresh_history;

-- name: AuthorizerTokenRenew :one
UPDATE authorizer_tokens SET lease_until = now() + interval '15 seconds'
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND lease_gen = @lease_gen
RETURNING lease_gen;

-- After a failure the lease is kept for a moment, so that no other process
-- tries at once.
-- name: AuthorizerTokenRelease :exec
UPDATE authorizer_tokens SET lease_until = now() + make_interval(secs => @cool::float8), lease_owner = NULL
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND lease_gen = @lease_gen;

-- Fenced by lease_gen: whoever lost the lease changes nothing. It may be
-- repeated, for access_gen is counted from what the lease saw. A refresh token
-- is replaced by a newer one, never by nothing.
-- name: AuthorizerTokenStore :one
UPDATE authorizer_tokens SET access_ct = @access_ct, access_gen = @access_gen,
    access_expires_at = now() + make_interval(secs => @seconds::float8),
    refresh_token_ct = coalesce(sqlc.narg('refresh_token_ct'), refresh_token_ct),
    refresh_history = @refresh_history, lease_until = NULL, lease_owner = NULL
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND lease_gen = @lease_gen
RETURNING access_gen;

-- name: AuthorizerTokenLock :one
SELECT * FROM authorizer_tokens WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id FOR UPDATE;

-- What an exchanged code or the list brought. It ends any lease under way.
-- name: AuthorizerTokenPut :exec
INSERT INTO authorizer_tokens (tenant_id, merchant_id, access_ct, access_gen, access_expires_at, refresh_token_ct, refresh_history, used_at)
VALUES (@tenant_id, @merchant_id, sqlc.narg('access_ct'), 1, now() + make_interval(secs => sqlc.narg('seconds')::float8),
    sqlc.narg('refresh_token_ct'), @refresh_history, now())
ON CONFLICT (tenant_id, merchant_id) DO UPDATE SET
    access_ct = excluded.access_ct, access_gen = authorizer_tokens.access_gen + 1, access_expires_at = excluded.access_expires_at,
    refresh_token_ct = coalesce(excluded.refresh_token_ct, authorizer_tokens.refresh_token_ct),
    refresh_history = excluded.refresh_history, lease_gen = authorizer_tokens.lease_gen + 1,
    lease_until = NULL, lease_owner = NULL, invalid_reason = NULL, used_at = now();

-- Only the refresh token is replaced: the access token, if there is one, works on.
-- name: AuthorizerTokenRestore :exec
INSERT INTO authorizer_tokens (tenant_id, merchant_id, refresh_token_ct, refresh_history, used_at)
VALUES (@tenant_id, @merchant_id, @refresh_token_ct, @refresh_history, now())
ON CONFLICT (tenant_id, merchant_id) DO UPDATE SET
    refresh_token_ct = excluded.refresh_token_ct, refresh_history = excluded.refresh_history,
    lease_gen = authorizer_tokens.lease_gen + 1, lease_until = NULL, lease_owner = NULL, invalid_reason = NULL;

-- name: AuthorizerTokenRemember :exec
UPDATE authorizer_tokens SET refresh_history = @refresh_history WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id;

-- name: AuthorizerTokenInvalidate :execrows
UPDATE authorizer_tokens SET invalid_reason = @reason::text, access_gen = access_gen + 1, access_ct = NULL, access_expires_at = NULL,
    lease_gen = lease_gen + 1, lease_until = NULL, lease_owner = NULL
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND invalid_reason IS NULL
  AND (sqlc.narg('lease_gen')::int IS NULL OR lease_gen = sqlc.narg('lease_gen')::int)
  AND (sqlc.narg('access_gen')::int IS NULL OR access_gen = sqlc.narg('access_gen')::int);

-- After a withdrawal the tokens are worth nothing: they are not kept.
-- name: AuthorizerTokenErase :exec
UPDATE authorizer_tokens SET invalid_reason = 'deauthorized', access_gen = access_gen + 1, access_ct = NULL, access_expires_at = NULL,
    refresh_token_ct = NULL, refresh_history = '{}', lease_gen = lease_gen + 1, lease_until = NULL, lease_owner = NULL
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id;

-- name: AuthorizerTokenUsed :exec
UPDATE authorizer_tokens SET used_at = now()
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND (used_at IS NULL OR used_at < now() - interval '9 minutes');

-- The platform's own token, under the same rules.
-- name: ComponentTokenEnsure :exec
INSERT INTO component_tokens (tenant_id) VALUES (@tenant_id) ON CONFLICT DO NOTHING;

-- name: ComponentTokenRead :one
SELECT access_ct, access_gen, invalid_reason,
    coalesce(extract(epoch FROM access_expires_at - now()), 0)::float8 AS remaining,
    (lease_until IS NOT NULL AND lease_until >= now())::boolean AS leased
FROM component_tokens WHERE tenant_id = @tenant_id;

-- name: ComponentTokenLease :one
UPDATE component_tokens SET lease_gen = lease_gen + 1, lease_owner = @owner::text, lease_until = now() + interval '15 seconds'
WHERE tenant_id = @tenant_id
  AND (access_expires_at IS NULL OR access_expires_at < now() + interval '10 minutes' OR access_gen = @rejected_gen)
  AND (lease_until IS NULL OR lease_until < now())
RETURNING lease_gen, access_gen;

-- name: ComponentTokenRenew :one
UPDATE component_tokens SET lease_until = now() + interval '15 seconds'
WHERE tenant_id = @tenant_id AND lease_gen = @lease_gen
RETURNING lease_gen;

-- name: ComponentTokenRelease :exec
UPDATE component_tokens SET lease_until = now() + make_interval(secs => @cool::float8), lease_owner = NULL, invalid_reason = @invalid_reason
WHERE tenant_id = @tenant_id AND lease_gen = @lease_gen;

-- name: ComponentTokenStore :one
UPDATE component_tokens SET access_ct = @access_ct, access_gen = @access_gen,
    access_expires_at = now() + make_interval(secs => @seconds::float8),
    lease_until = NULL, lease_owner = NULL, invalid_reason = NULL
WHERE tenant_id = @tenant_id AND lease_gen = @lease_gen
RETURNING access_gen;

-- name: TicketInsert :exec
INSERT INTO component_tickets (tenant_id, ticket_sha256, ticket_ct, issued_at)
VALUES (@tenant_id, @ticket_sha256, @ticket_ct, least(@issued_at::timestamptz, now()))
ON CONFLICT DO NOTHING;

-- name: TicketPrune :exec
DELETE FROM component_tickets t
WHERE t.tenant_id = @tenant_id AND t.ticket_sha256 NOT IN (
    SELECT k.ticket_sha256 FROM component_tickets k WHERE k.tenant_id = @tenant_id
    ORDER BY k.issued_at DESC, k.received_at DESC LIMIT 3);

-- name: TicketsUsable :many
SELECT ticket_sha256, ticket_ct FROM component_tickets
WHERE tenant_id = @tenant_id AND rejected_at IS NULL
ORDER BY issued_at DESC, received_at DESC LIMIT 3;

-- name: TicketReject :exec
UPDATE component_tickets SET rejected_at = now() WHERE tenant_id = @tenant_id AND ticket_sha256 = @ticket_sha256;

-- One process asks WeChat; the others see that it was asked.
-- name: TicketRestartClaim :one
UPDATE component_tokens SET ticket_restart_at = now()
WHERE tenant_id = @tenant_id AND (ticket_restart_at IS NULL OR ticket_restart_at < now() - make_interval(secs => @seconds::float8))
RETURNING tenant_id;
