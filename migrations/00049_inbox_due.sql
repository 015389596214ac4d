-- A push is due as soon as it is kept, and what applies it finds it by that:
-- there is no job beside it (docs/decisions/0010-pushes.md). A process of an
-- older version, beside which this may run, makes one still; its pushes are due
-- by the default.
-- +goose Up
ALTER TABLE event_inbox ALTER next_at SET DEFAULT now(), ADD attempts int NOT NULL DEFAULT 0;
UPDATE event_inbox SET next_at = now() WHERE state = 'new' AND next_at IS NULL;
DROP INDEX event_inbox_due;
CREATE INDEX event_inbox_due ON event_inbox (tenant_id, next_at) WHERE next_at IS NOT NULL;
-- In turns, like 00047's, but without sorting all that waits, as there is no
-- bound to what is pushed: from tenant to tenant by the index, some of each.
CREATE OR REPLACE FUNCTION due_inbox(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH RECURSIVE t (id) AS (
        (SELECT e.tenant_id FROM event_inbox e WHERE e.next_at IS NOT NULL ORDER BY e.tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT e.tenant_id FROM event_inbox e WHERE e.next_at IS NOT NULL AND e.tenant_id > t.id ORDER BY e.tenant_id LIMIT 1)
        FROM t WHERE t.id IS NOT NULL
    )
    SELECT d.tenant_id, d.id FROM t, LATERAL (
        SELECT e.tenant_id, e.id, e.next_at, row_number() OVER (ORDER BY e.next_at) AS turn
        FROM event_inbox e WHERE e.tenant_id = t.id AND e.next_at <= now() ORDER BY e.next_at LIMIT n
    ) d
    ORDER BY d.turn, d.next_at LIMIT n
$$;
