-- EventInboxInsert keeps a push, once. It is due at once.
-- name: EventInboxInsert :exec
INSERT INTO event_inbox (tenant_id, id, appid, from_user, create_time, event, payload_sha256, payload_ct)
VALUES (@tenant_id, @id, @appid, @from_user, @create_time, @event, @payload_sha256, @payload_ct)
ON CONFLICT ON CONSTRAINT event_inbox_once DO NOTHING;

-- name: EventInboxByID :many
SELECT * FROM event_inbox WHERE tenant_id = @tenant_id AND id = ANY (@ids::uuid[]);

-- name: EventInboxState :exec
UPDATE event_inbox SET state = @state, audit_id = @audit_id, next_at = @next_at, error = @error,
    applied_at = CASE WHEN @state::text = 'applied' THEN now() END
WHERE tenant_id = @tenant_id AND id = @id;

-- EventInboxTake lets one process apply a push that is due.
-- name: EventInboxTake :one
UPDATE event_inbox SET next_at = now() + @lease::interval, attempts = attempts + 1
WHERE tenant_id = @tenant_id AND id = @id AND next_at <= now()
RETURNING *;

-- EventInboxAgain plans the next try of one that failed.
-- name: EventInboxAgain :exec
UPDATE event_inbox SET next_at = now() + @wait::interval WHERE tenant_id = @tenant_id AND id = @id AND next_at IS NOT NULL;
