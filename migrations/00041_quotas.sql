-- +goose Up

-- The day that WeChat's quotas are counted by.
CREATE FUNCTION quota_day(at timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS $$ SELECT (at AT TIME ZONE 'Asia/Shanghai')::date $$;
CREATE FUNCTION quota_day_ends(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT (quota_day(at) + 1)::timestamp AT TIME ZONE 'Asia/Shanghai'
$$;

-- How many of n calls may be made. Background work gets at most half of a
-- bucket, so that people are never locked out by it.
CREATE FUNCTION quota_grant(n int, most int, used int, used_in_background int, closed boolean, in_background boolean) RETURNS int
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN closed THEN 0 ELSE greatest(0, least(n, most - used, CASE WHEN in_background THEN most / 2 - used_in_background ELSE n END)) END
$$;

-- What a merchant has used of each of WeChat's daily quotas. A call is counted
-- before it is made; used never comes above the limit because of us.
CREATE TABLE quota_buckets (
    tenant_id      uuid NOT NULL,
    merchant_id    uuid NOT NULL,
    bucket         text NOT NULL,
    day            date NOT NULL,             -- of Shanghai
    "limit"        int NOT NULL CHECK ("limit" >= 0),
    used           int NOT NULL CHECK (used >= 0),
    background     int NOT NULL DEFAULT 0 CHECK (background >= 0), -- of used, by background work
    granted        int NOT NULL,              -- what the newest asker got
    closed_at      timestamptz,               -- when WeChat said that nothing is left
    upstream_limit int,                       -- WeChat's own words, when it was asked
    upstream_used  int,
    upstream_at    timestamptz,
    level          smallint NOT NULL GENERATED ALWAYS AS
        (CASE WHEN closed_at IS NOT NULL OR used >= "limit" THEN 100 WHEN used * 5 >= "limit" * 4 THEN 80 ELSE 0 END) STORED,
    told           smallint NOT NULL DEFAULT 0, -- the level that the tenant was told of
    PRIMARY KEY (tenant_id, merchant_id, bucket, day),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('quota_buckets');
CREATE INDEX quota_buckets_due ON quota_buckets (day) WHERE level > told;
CREATE INDEX quota_buckets_old ON quota_buckets (day);

-- Processes that hold calls for reads let go of them when WeChat closes a bucket.
CREATE TRIGGER notify AFTER UPDATE OF closed_at ON quota_buckets
    FOR EACH ROW WHEN (NEW.closed_at IS NOT NULL AND OLD.closed_at IS NULL) EXECUTE FUNCTION notify_changed('merchant_id');

CREATE FUNCTION due_quotas(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT q.tenant_id, q.merchant_id FROM quota_buckets q WHERE q.level > q.told LIMIT n
$$;

CREATE POLICY owner_sweeps ON quota_buckets FOR DELETE TO CURRENT_USER USING (true);
CREATE FUNCTION sweep_quotas(n int) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH gone AS (
        DELETE FROM quota_buckets WHERE ctid = ANY (ARRAY(SELECT ctid FROM quota_buckets WHERE day < quota_day(now()) - 62 LIMIT n)) RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
