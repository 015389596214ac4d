-- EventInboxInsert keeps a push once and makes a job only for a new one, in
-- the one statement that the push waits for. The job is a raw row of River's,
-- as its clients for other languages insert; a test works one.
-- name: EventInboxInsert :exec
WITH e AS (
    INSERT INTO event_inbox (tenant_id, id, appid, from_user, create_time, event, payload_sha256, payload_ct)
    VALUES (@tenant_id, @id, @appid, @from_user, @create_time, @event, @payload_sha256, @payload_ct)
    ON CONFLICT ON CONSTRAINT event_inbox_once DO NOTHING RETURNING id
)
INSERT INTO river_job (kind, args, max_attempts, queue)
SELECT 'inbox.apply', jsonb_build_object('tenant_id', @tenant_id::uuid, 'inbox_id', e.id), 25, 'inbox' FROM e;

-- name: EventInboxGet :one
SELECT * FROM event_inbox WHERE tenant_id = @tenant_id AND id = @id;

-- name: EventInboxByID :many
SELECT * FROM event_inbox WHERE tenant_id = @tenant_id AND id = ANY (@ids::uuid[]);

-- name: EventInboxState :exec
UPDATE event_inbox SET state = @state, audit_id = @audit_id, next_at = @next_at, error = @error,
    applied_at = CASE WHEN @state::text = 'applied' THEN now() END
WHERE tenant_id = @tenant_id AND id = @id;

-- EventInboxWake makes events due that came before we knew their audit.
-- name: EventInboxWake :exec
UPDATE event_inbox SET next_at = now()
WHERE tenant_id = @tenant_id AND appid = @appid AND audit_id = @audit_id AND state = 'unmatched';

-- name: EventInboxTake :one
UPDATE event_inbox SET next_at = now() + interval '30 seconds'
WHERE tenant_id = @tenant_id AND id = @id AND next_at <= now()
RETURNING *;
