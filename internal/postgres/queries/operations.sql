-- name: IdempotencyKeyClaim :exec
WITH k AS (
    INSERT INTO idempotency_keys (tenant_id, merchant_id, key, fingerprint, operation_id)
    VALUES (@tenant_id, @merchant_id, @key, @fingerprint, @operation_id)
    ON CONFLICT (tenant_id, merchant_id, key) DO NOTHING RETURNING 1
)
SELECT require(EXISTS (SELECT 1 FROM k), 'MD001');

-- name: IdempotencyKeyGet :one
SELECT fingerprint, operation_id, created_at FROM idempotency_keys
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND key = @key;

-- name: IdempotencyKeyForget :exec
DELETE FROM idempotency_keys
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND key = @key AND created_at < now() - interval '30 days';

-- OperationInsert begins an operation and its first attempt.
-- name: OperationInsert :exec
WITH o AS (
    INSERT INTO operations (tenant_id, id, merchant_id, kind, subject_type, subject_id, audit_id, requested_by, idempotency_key,
        request_ct, match_key, baseline, state, attempt, lease_owner, lease_until, sent_at, next_check_at)
    VALUES (@tenant_id, @id, @merchant_id, @kind, @subject_type, @subject_id, @audit_id, @requested_by, @idempotency_key,
        @request_ct, @match_key, @baseline, 'executing', 1, @lease_owner, now() + @lease::interval, now(), now() + @lease::interval)
)
INSERT INTO operation_attempts (tenant_id, operation_id, n) VALUES (@tenant_id, @id, 1);

-- OperationRestart opens a failed operation again for one more attempt: the
-- one before certainly executed nothing.
-- name: OperationRestart :exec
WITH o AS (
    UPDATE operations p SET state = 'executing', attempt = p.attempt + 1, lease_owner = @lease_owner, lease_until = now() + @lease::interval,
        sent_at = now(), next_check_at = now() + @lease::interval, check_n = 0, absent_since = NULL, error = NULL, finished_at = NULL, updated_at = now()
    WHERE p.tenant_id = @tenant_id AND p.id = @id AND p.attempt = @attempt AND p.state = ANY (@states::text[])
    RETURNING p.attempt
), a AS (
    INSERT INTO operation_attempts (tenant_id, operation_id, n) SELECT @tenant_id, @id, o.attempt FROM o
)
SELECT require(EXISTS (SELECT 1 FROM o), 'MD003');

-- OperationFinish closes an operation, or leaves it to the reconciler, unless
-- it has left the states that the outcome may still change. What WeChat itself
-- answered to the attempt stays, and is kept with it.
-- name: OperationFinish :exec
WITH o AS (
    UPDATE operations p SET state = @state, result = @result, error = @error,
        lease_owner = NULL, lease_until = NULL, next_check_at = @next_check_at, absent_since = @absent_since,
        candidates = NULL,
        finished_at = CASE WHEN @state::text IN ('succeeded', 'failed', 'cancelled') THEN now() END, updated_at = now()
    WHERE p.tenant_id = @tenant_id AND p.id = @id AND p.attempt = @attempt AND p.state = ANY (@states::text[])
      AND (p.finished_at IS NULL OR NOT EXISTS (SELECT 1 FROM operation_attempts a WHERE a.tenant_id = @tenant_id
          AND a.operation_id = @id AND a.n = @attempt AND a.outcome <> 'ambiguous'))
    RETURNING 1
), a AS (
    UPDATE operation_attempts e SET ended_at = now(), outcome = @outcome, errcode = @errcode, rid = @rid, response_ct = @response_ct
    WHERE @answered::boolean AND e.tenant_id = @tenant_id AND e.operation_id = @id AND e.n = @attempt
)
SELECT require(EXISTS (SELECT 1 FROM o), 'MD003');

-- OperationTake lets one process look at what is left open: what is due, or
-- what its predecessor held, as it was left.
-- name: OperationTake :one
UPDATE operations SET state = 'reconciling', lease_owner = @lease_owner, lease_until = now() + @lease::interval,
    next_check_at = now() + @lease::interval, check_n = check_n + 1, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND state IN ('executing', 'reconciling')
  AND (next_check_at <= now() OR (lease_owner = @lease_owner AND updated_at = sqlc.narg('as_left')))
RETURNING *;

-- OperationsLeft tells when these were last written to.
-- name: OperationsLeft :many
SELECT id, updated_at FROM operations WHERE tenant_id = @tenant_id AND id = ANY (@ids::uuid[]);

-- OperationProgress tells how far a long operation is, and renews its lease.
-- name: OperationProgress :exec
UPDATE operations SET result = @result, lease_until = now() + @lease::interval, next_check_at = now() + @lease::interval, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND state IN ('executing', 'reconciling') AND lease_owner = @lease_owner;

-- OperationAttention leaves an operation to a person.
-- name: OperationAttention :one
UPDATE operations SET state = 'needs_attention', candidates = @candidates, lease_owner = NULL, lease_until = NULL, next_check_at = NULL, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND attempt = @attempt AND state = 'reconciling'
RETURNING *;

-- name: OperationGet :one
SELECT * FROM operations WHERE tenant_id = @tenant_id AND id = @id;

-- name: OperationList :many
SELECT * FROM operations
WHERE tenant_id = @tenant_id
  AND (sqlc.narg('merchant_ids')::uuid[] IS NULL OR merchant_id = ANY (sqlc.narg('merchant_ids')::uuid[]))
  AND (sqlc.narg('state')::text IS NULL OR state = sqlc.narg('state'))
  AND (sqlc.narg('kind')::text IS NULL OR kind = sqlc.narg('kind'))
  AND (sqlc.narg('updated_after')::timestamptz IS NULL OR updated_at > sqlc.narg('updated_after'))
  AND (sqlc.narg('before')::uuid IS NULL OR id < sqlc.narg('before'))
ORDER BY id DESC LIMIT @n;

-- name: OperationAttempts :many
SELECT * FROM operation_attempts WHERE tenant_id = @tenant_id AND operation_id = ANY (@operation_ids::uuid[]) ORDER BY operation_id, n;

-- OperationOpenOf finds open operations of a kind, for events whose audit id
-- nobody knows yet.
-- name: OperationOpenOf :many
SELECT * FROM operations
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND kind = @kind AND finished_at IS NULL AND state IN ('executing', 'reconciling', 'needs_attention')
ORDER BY id LIMIT 100;

-- name: WechatIDRecord :exec
INSERT INTO wechat_id_ledger (tenant_id, merchant_id, id_type, wechat_id, source, operation_id)
VALUES (@tenant_id, @merchant_id, @id_type, @wechat_id, @source, @operation_id)
ON CONFLICT DO NOTHING;

-- OperationValidated undoes a T1 that was only to be validated: what came
-- before it in the batch found nothing to refuse.
-- name: OperationValidated :exec
SELECT require(false, 'MD004');
