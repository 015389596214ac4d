-- TenantHealth counts what is open. A time that isn't known is the epoch.
-- name: TenantHealth :one
SELECT
    coalesce((SELECT max(x.received_at) FROM component_tickets x WHERE x.tenant_id = @tenant_id AND x.rejected_at IS NULL), 'epoch')::timestamptz AS ticket_received_at,
    (SELECT count(*) FROM component_tickets x WHERE x.tenant_id = @tenant_id) AS tickets,
    (SELECT x.access_expires_at FROM component_tokens x WHERE x.tenant_id = @tenant_id) AS component_expires_at,
    (SELECT count(*) FROM component_tokens x WHERE x.tenant_id = @tenant_id AND x.lease_until > now()) AS component_refreshing,
    (SELECT x.invalid_reason FROM component_tokens x WHERE x.tenant_id = @tenant_id) AS component_invalid_reason,
    (SELECT count(*) FROM merchants x WHERE x.tenant_id = @tenant_id AND x.status = 'authorized' AND x.disabled_at IS NULL) AS merchants_authorized,
    (SELECT count(*) FROM merchants x WHERE x.tenant_id = @tenant_id AND x.status = 'needs_reauthorization' AND x.disabled_at IS NULL) AS merchants_needing,
    (SELECT count(*) FROM merchants x WHERE x.tenant_id = @tenant_id AND x.status = 'deauthorized' AND x.disabled_at IS NULL) AS merchants_deauthorized,
    (SELECT count(*) FROM merchants x WHERE x.tenant_id = @tenant_id AND x.disabled_at IS NOT NULL) AS merchants_disabled,
    (SELECT count(*) FROM authorizer_tokens x WHERE x.tenant_id = @tenant_id AND x.invalid_reason IS NULL AND x.access_expires_at > now()) AS tokens_fresh,
    (SELECT count(*) FROM authorizer_tokens x WHERE x.tenant_id = @tenant_id AND x.lease_until > now()) AS tokens_refreshing,
    (SELECT count(*) FROM authorizer_tokens x WHERE x.tenant_id = @tenant_id AND x.invalid_reason IS NULL AND (x.access_expires_at IS NULL OR x.access_expires_at <= now())) AS tokens_expired,
    (SELECT count(*) FROM authorizer_tokens x WHERE x.tenant_id = @tenant_id AND x.invalid_reason IS NOT NULL) AS tokens_invalid,
    (SELECT count(*) FROM event_inbox x WHERE x.tenant_id = @tenant_id AND x.state IN ('new', 'unmatched')) AS inbox_waiting,
    (SELECT count(*) FROM event_inbox x WHERE x.tenant_id = @tenant_id AND x.state = 'needs_attention') AS inbox_failed,
    coalesce((SELECT min(x.received_at) FROM event_inbox x WHERE x.tenant_id = @tenant_id AND x.state IN ('new', 'unmatched')), 'epoch')::timestamptz AS inbox_oldest_at,
    (SELECT count(*) FROM operations x WHERE x.tenant_id = @tenant_id AND x.state = 'executing') AS operations_executing,
    (SELECT count(*) FROM operations x WHERE x.tenant_id = @tenant_id AND x.state = 'reconciling') AS operations_reconciling,
    (SELECT count(*) FROM operations x WHERE x.tenant_id = @tenant_id AND x.finished_at IS NULL AND x.state = 'needs_attention') AS operations_attention;
