-- name: LinkInsert :one
INSERT INTO authorization_links (tenant_id, id, state_sha256, account_type, expected_appid, client_reference, return_url, created_by, expires_at)
VALUES (@tenant_id, @id, @state_sha256, @account_type, @expected_appid, @client_reference, @return_url, @created_by, now() + interval '7 days')
RETURNING *;

-- name: LinkReferenceTaken :one
SELECT EXISTS (SELECT 1 FROM merchants WHERE tenant_id = @tenant_id AND client_reference = @client_reference::text
    AND (sqlc.narg('expected_appid')::text IS NULL OR appid <> sqlc.narg('expected_appid')::text))::boolean AS taken;

-- name: LinkByID :one
SELECT sqlc.embed(l), (l.expires_at <= now())::boolean AS expired
FROM authorization_links l WHERE l.tenant_id = @tenant_id AND l.id = @id;

-- name: LinkUse :one
UPDATE authorization_links SET used_at = now(), merchant_id = @merchant_id, last_error = NULL
WHERE tenant_id = @tenant_id AND id = @id AND used_at IS NULL AND expires_at > now()
RETURNING *;

-- The signed push said that the code of this link was another link's.
-- name: LinkReopen :exec
UPDATE authorization_links SET used_at = NULL, merchant_id = NULL, last_error = @last_error
WHERE tenant_id = @tenant_id AND id = @id AND merchant_id = @merchant_id;

-- name: LinkFailed :exec
UPDATE authorization_links SET last_error = @last_error WHERE tenant_id = @tenant_id AND id = @id AND used_at IS NULL;

-- name: ClickInsert :exec
INSERT INTO authorization_link_clicks (tenant_id, pre_auth_code_sha256, link_id, browser_sha256)
VALUES (@tenant_id, @pre_auth_code_sha256, @link_id, @browser_sha256)
ON CONFLICT DO NOTHING;

-- name: ClickCount :one
SELECT count(*) FROM authorization_link_clicks
WHERE tenant_id = @tenant_id AND link_id = @link_id AND created_at > now() - interval '1 hour';

-- name: ClickedHere :one
SELECT EXISTS (SELECT 1 FROM authorization_link_clicks
    WHERE tenant_id = @tenant_id AND link_id = @link_id AND browser_sha256 = @browser_sha256)::boolean AS clicked;

-- name: ClickLink :one
SELECT link_id FROM authorization_link_clicks WHERE tenant_id = @tenant_id AND pre_auth_code_sha256 = @pre_auth_code_sha256;

-- Whoever inserts the row, or finds the lease of a dead one over, exchanges the
-- code. A push knows the account besides, and so may mend what failed.
-- name: CodeClaim :one
INSERT INTO authorization_codes (tenant_id, code_sha256, state, lease_until)
VALUES (@tenant_id, @code_sha256, 'exchanging', now() + interval '30 seconds')
ON CONFLICT (tenant_id, code_sha256) DO UPDATE SET state = 'exchanging', error = NULL, lease_until = now() + interval '30 seconds'
    WHERE authorization_codes.state = 'exchanging' AND authorization_codes.lease_until < now()
       OR authorization_codes.state = 'failed' AND @mend_failed::boolean
RETURNING *;

-- name: CodeRead :one
SELECT * FROM authorization_codes WHERE tenant_id = @tenant_id AND code_sha256 = @code_sha256;

-- name: CodeLock :one
SELECT * FROM authorization_codes WHERE tenant_id = @tenant_id AND code_sha256 = @code_sha256 FOR UPDATE;

-- name: CodeBind :exec
UPDATE authorization_codes SET merchant_id = @merchant_id, link_id = sqlc.narg('link_id')
WHERE tenant_id = @tenant_id AND code_sha256 = @code_sha256;

-- name: CodeLink :exec
UPDATE authorization_codes SET link_id = @link_id WHERE tenant_id = @tenant_id AND code_sha256 = @code_sha256;

-- name: CodeFinish :exec
UPDATE authorization_codes SET state = @state, error = sqlc.narg('error')
WHERE tenant_id = @tenant_id AND code_sha256 = @code_sha256;

-- A failure that says nothing of the code: the next one may try at once.
-- name: CodeRelease :exec
UPDATE authorization_codes SET lease_until = now() - interval '1 second'
WHERE tenant_id = @tenant_id AND code_sha256 = @code_sha256 AND state = 'exchanging';
