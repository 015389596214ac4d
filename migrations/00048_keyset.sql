-- Rotation of the keyset that seals what lies at rest (internal/rotation).
-- +goose Up

-- Which keys each process holds, and which of them its spool still needs: a key
-- seals once all can open it, and goes once nothing needs it. A row stays when
-- its process ends, because the spool does. No tenant, no secret.
CREATE TABLE keyset_holders (
    instance      text PRIMARY KEY, -- the spool directory's
    key_ids       bigint[] NOT NULL,
    seals_with    bigint NOT NULL,
    seals_since   timestamptz NOT NULL DEFAULT now(),
    spool_key_ids bigint[] NOT NULL,
    seen_at       timestamptz NOT NULL DEFAULT now()
);

-- sealed_values counts what lies sealed, by column and by key: every bytea whose
-- name ends in _ct and every bytea[], so that a new column is counted the day it
-- is added (internal/postgres holds its list of sealed columns to that rule). Key
-- 0 is what no keyset made.
-- +goose StatementBegin
CREATE FUNCTION sealed_values() RETURNS TABLE (in_table text, in_column text, key_id bigint, n bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    c record;
BEGIN
    FOR c IN SELECT t.relname, a.attname, a.atttypid = 'bytea[]'::regtype AS many FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid
        WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
          AND (a.atttypid = 'bytea[]'::regtype OR a.atttypid = 'bytea'::regtype AND a.attname LIKE '%\_ct')
        ORDER BY 1, 2
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %L, %L, CASE WHEN length(v) > 5 AND get_byte(v, 0) = 1 THEN (''x'' || encode(substring(v FROM 2 FOR 4), ''hex''))::bit(32)::bigint ELSE 0 END AS k, count(*)
             FROM %I x, %s WHERE v IS NOT NULL GROUP BY k ORDER BY k',
            c.relname, c.attname, c.relname, format(CASE WHEN c.many THEN 'unnest(x.%I) v' ELSE 'LATERAL (SELECT substring(x.%I FROM 1 FOR 6)) s (v)' END, c.attname));
    END LOOP;
END
$$;
-- +goose StatementEnd
