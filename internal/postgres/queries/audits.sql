-- AuditInsert makes the audit of an accepted submission, with the first line of
-- its history. The id is the operation's, so that it may run twice. An event
-- that came first has left the WeChat id on no row: it waits in the inbox, and
-- is due now.
-- name: AuditInsert :exec
WITH a AS (
    INSERT INTO audits (tenant_id, id, merchant_id, kind, subject_type, subject_id, operation_id, wechat_audit_id, status, status_rank, source, deadline_at, next_poll_at, attempt)
    VALUES (@tenant_id, @id, @merchant_id, @kind, @subject_type, @subject_id, @operation_id, @wechat_audit_id, @status, @status_rank, @source, @deadline_at, @next_poll_at,
        (SELECT count(*) + 1 FROM audits a WHERE a.tenant_id = @tenant_id AND a.subject_id = @subject_id AND a.kind = @kind AND a.id <> @id))
    ON CONFLICT (tenant_id, id) DO UPDATE SET
        wechat_audit_id = coalesce(audits.wechat_audit_id, excluded.wechat_audit_id),
        status = CASE WHEN audits.status_rank < excluded.status_rank THEN excluded.status ELSE audits.status END,
        status_rank = greatest(audits.status_rank, excluded.status_rank),
        updated_at = now()
), h AS (
    INSERT INTO audit_history (tenant_id, audit_id, status, source) VALUES (@tenant_id, @id, @status, @source) ON CONFLICT DO NOTHING
)
UPDATE event_inbox e SET next_at = now()
WHERE e.tenant_id = @tenant_id AND e.appid = @appid AND e.audit_id = @wechat_audit_id AND e.state = 'unmatched';

-- name: AuditHistoryInsert :exec
INSERT INTO audit_history (tenant_id, audit_id, status, source, inbox_id)
VALUES (@tenant_id, @audit_id, @status, @source, @inbox_id)
ON CONFLICT DO NOTHING;

-- AuditAdvance moves an audit forward, never back: no row comes out when it
-- already was as far.
-- name: AuditAdvance :one
UPDATE audits SET status = @status, status_rank = @status_rank, reason = @reason, source = @source,
    wechat_audit_id = coalesce(wechat_audit_id, @wechat_audit_id), decided_at = @decided_at,
    next_poll_at = CASE WHEN @status_rank >= 90 THEN NULL ELSE next_poll_at END, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status_rank < @status_rank
RETURNING *;

-- AuditReason keeps why an audit was decided, where that was told after the
-- decision was seen.
-- name: AuditReason :exec
UPDATE audits SET reason = @reason, updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status = @status AND reason IS NULL;

-- AuditRetract ends an audit that was only inferred, from a submission that
-- WeChat turned out to have refused. One that WeChat has numbered stays.
-- name: AuditRetract :exec
WITH a AS (
    UPDATE audits u SET status = @status, status_rank = @status_rank, source = @source, updated_at = now()
    WHERE u.tenant_id = @tenant_id AND u.id = @id AND u.wechat_audit_id IS NULL AND u.status_rank < @status_rank
    RETURNING u.tenant_id, u.id, u.status, u.source
)
INSERT INTO audit_history (tenant_id, audit_id, status, source) SELECT a.tenant_id, a.id, a.status, a.source FROM a
ON CONFLICT DO NOTHING;

-- name: AuditByWechatID :one
SELECT * FROM audits
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND kind = @kind AND wechat_audit_id = @wechat_audit_id;

-- AuditsWithoutWechatID finds audits that are open and whose id WeChat gave in
-- an answer that never arrived.
-- name: AuditsWithoutWechatID :many
SELECT * FROM audits
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND kind = @kind AND wechat_audit_id IS NULL AND status_rank < 100
  AND status <> 'submit_failed'
ORDER BY id LIMIT 3;

-- name: AuditGet :one
SELECT * FROM audits WHERE tenant_id = @tenant_id AND id = @id;

-- name: AuditHistoryOf :many
SELECT * FROM audit_history WHERE tenant_id = @tenant_id AND audit_id = ANY (@audit_ids::uuid[]) ORDER BY audit_id, at, status;

-- name: AuditList :many
SELECT * FROM audits
WHERE tenant_id = @tenant_id
  AND (sqlc.narg('merchant_ids')::uuid[] IS NULL OR merchant_id = ANY (sqlc.narg('merchant_ids')::uuid[]))
  AND (sqlc.narg('kind')::text IS NULL OR kind = sqlc.narg('kind'))
  AND (sqlc.narg('status')::text IS NULL OR status = sqlc.narg('status'))
  AND (sqlc.narg('subject_id')::uuid IS NULL OR subject_id = sqlc.narg('subject_id'))
  AND (sqlc.narg('wechat_audit_id')::text IS NULL OR wechat_audit_id = sqlc.narg('wechat_audit_id'))
  AND (sqlc.narg('submitted_after')::timestamptz IS NULL OR submitted_at > sqlc.narg('submitted_after'))
  AND (sqlc.narg('before')::uuid IS NULL OR id < sqlc.narg('before'))
ORDER BY id DESC LIMIT @n;

-- AuditsTake leases for one poll what is due of the merchant and the kind of one
-- audit.
-- name: AuditsTake :many
UPDATE audits a SET next_poll_at = now() + @lease::interval
FROM audits x
WHERE x.tenant_id = @tenant_id AND x.id = @id AND a.tenant_id = @tenant_id AND a.merchant_id = x.merchant_id AND a.kind = x.kind
  AND a.next_poll_at <= now() AND a.status_rank < 90
RETURNING a.*;

-- name: AuditPolled :exec
UPDATE audits SET poll_n = poll_n + 1, next_poll_at = @next_poll_at
WHERE tenant_id = @tenant_id AND id = @id AND status_rank < 90;

-- AuditOverdue marks an audit that WeChat has said nothing of for long; no row
-- comes out the second time.
-- name: AuditOverdue :one
UPDATE audits SET overdue_at = now(), updated_at = now()
WHERE tenant_id = @tenant_id AND id = @id AND status_rank < 90 AND overdue_at IS NULL AND submitted_at < now() - @usual::interval
RETURNING *;

-- name: AuditNewestOf :one
SELECT * FROM audits WHERE tenant_id = @tenant_id AND subject_id = @subject_id AND kind = @kind ORDER BY id DESC LIMIT 1;

-- AuditEnd ends an audit by a write of ours, with its history and its event.
-- Nothing happens where it had ended before.
-- name: AuditEnd :exec
WITH a AS (
    UPDATE audits e SET status = @status, status_rank = @status_rank, source = @source, decided_at = now(), next_poll_at = NULL, updated_at = now()
    WHERE e.tenant_id = @tenant_id AND e.id = @id AND e.status_rank < @status_rank
    RETURNING e.id
), h AS (
    INSERT INTO audit_history (tenant_id, audit_id, status, source) SELECT @tenant_id, a.id, @status, @source FROM a
    ON CONFLICT DO NOTHING
)
INSERT INTO outbox (tenant_id, id, merchant_id, type, payload)
SELECT @tenant_id, @event_id, @merchant_id, @event_type, @payload FROM a;
