-- QuotaTake counts up to n calls against today's bucket, and tells how many of
-- them may be made. "limit" is what the documents say, unless WeChat told
-- otherwise when it was asked.
-- name: QuotaTake :one
INSERT INTO quota_buckets AS q (tenant_id, merchant_id, bucket, day, "limit", upstream_limit, used, background, granted)
SELECT @tenant_id, @merchant_id, @bucket, quota_day(now()), l.most, l.told, g.n, CASE WHEN @in_background::bool THEN g.n ELSE 0 END, g.n
FROM (SELECT coalesce(p.told, @most::int) AS most, p.told FROM (SELECT (
        SELECT o.upstream_limit FROM quota_buckets o
        WHERE o.tenant_id = @tenant_id AND o.merchant_id = @merchant_id AND o.bucket = @bucket ORDER BY o.day DESC LIMIT 1) AS told) p) l,
    LATERAL (SELECT quota_grant(@n::int, l.most, 0, 0, false, @in_background::bool) AS n) g
ON CONFLICT (tenant_id, merchant_id, bucket, day) DO UPDATE SET
    granted = quota_grant(@n::int, q."limit", q.used, q.background, q.closed_at IS NOT NULL, @in_background::bool),
    used = q.used + quota_grant(@n::int, q."limit", q.used, q.background, q.closed_at IS NOT NULL, @in_background::bool),
    background = q.background + CASE WHEN @in_background::bool
        THEN quota_grant(@n::int, q."limit", q.used, q.background, q.closed_at IS NOT NULL, true) ELSE 0 END
RETURNING q.day, q."limit", q.used, q.granted, (q.closed_at IS NOT NULL)::bool AS closed,
    extract(epoch FROM quota_day_ends(now()) - now())::float8 AS day_ends_in;

-- QuotaRequire refuses the batch in which QuotaTake got nothing. The row is
-- locked since then, so what it says is this batch's own.
-- name: QuotaRequire :exec
SELECT require(EXISTS (SELECT 1 FROM quota_buckets q
    WHERE q.tenant_id = @tenant_id AND q.merchant_id = @merchant_id AND q.bucket = @bucket AND q.day = quota_day(now()) AND q.granted > 0), 'MD002');

-- QuotaGiveBack is for calls that were counted on that day and not made.
-- name: QuotaGiveBack :exec
UPDATE quota_buckets SET used = greatest(0, used - @n::int), background = greatest(0, background - CASE WHEN @in_background::bool THEN @n::int ELSE 0 END)
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND bucket = @bucket AND day = @day;

-- QuotaClose heeds WeChat's own word that nothing is left of that day.
-- name: QuotaClose :exec
UPDATE quota_buckets SET closed_at = now()
WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND bucket = @bucket AND day = @day AND closed_at IS NULL;

-- QuotaGiveBackAttempt is QuotaGiveBack of an operation's newest attempt.
-- name: QuotaGiveBackAttempt :exec
UPDATE quota_buckets q SET used = greatest(0, q.used - 1) FROM operations o
WHERE o.tenant_id = @tenant_id AND o.id = @operation_id
  AND q.tenant_id = @tenant_id AND q.merchant_id = o.merchant_id AND q.bucket = @bucket AND q.day = quota_day(o.sent_at);

-- QuotaCloseAttempt is QuotaClose of the day of an operation's newest attempt.
-- name: QuotaCloseAttempt :exec
UPDATE quota_buckets q SET closed_at = now() FROM operations o
WHERE o.tenant_id = @tenant_id AND o.id = @operation_id
  AND q.tenant_id = @tenant_id AND q.merchant_id = o.merchant_id AND q.bucket = @bucket AND q.day = quota_day(o.sent_at) AND q.closed_at IS NULL;

-- name: QuotasToday :many
SELECT * FROM quota_buckets WHERE tenant_id = @tenant_id AND merchant_id = @merchant_id AND day = quota_day(now());

-- QuotaSync keeps what WeChat says today. Its count may lag and ours may miss
-- calls of others: the larger one counts.
-- name: QuotaSync :exec
INSERT INTO quota_buckets AS q (tenant_id, merchant_id, bucket, day, "limit", used, granted, upstream_limit, upstream_used, upstream_at)
VALUES (@tenant_id, @merchant_id, @bucket, quota_day(now()), @most, @used, 0, @most, @used, now())
ON CONFLICT (tenant_id, merchant_id, bucket, day) DO UPDATE SET "limit" = @most, used = greatest(q.used, @used),
    upstream_limit = @most, upstream_used = @used, upstream_at = now();

-- QuotaTold marks a merchant's buckets whose level the tenant has not been told of.
-- name: QuotaTold :many
UPDATE quota_buckets q SET told = q.level
FROM (SELECT * FROM quota_buckets o WHERE o.tenant_id = @tenant_id AND o.merchant_id = @merchant_id AND o.level > o.told FOR UPDATE) was
WHERE q.tenant_id = @tenant_id AND q.merchant_id = @merchant_id AND q.bucket = was.bucket AND q.day = was.day
RETURNING q.bucket, q.day, q."limit", q.used, was.told AS told_before, q.level;

-- ProgramChanges counts a merchant's changes of its Store Mini Program in this
-- month of Shanghai. refused: WeChat said of the newest that there were too many.
-- name: ProgramChanges :one
SELECT count(*) FILTER (WHERE o.state = 'succeeded') AS used,
    coalesce((array_agg(o.error ->> 'code' ORDER BY o.created_at DESC) FILTER (WHERE o.state IN ('succeeded', 'failed')))[1] = 'monthly_modification_limit', false)::bool AS refused,
    ((m.starts + interval '1 month') AT TIME ZONE 'Asia/Shanghai')::timestamptz AS ends
FROM (SELECT date_trunc('month', now() AT TIME ZONE 'Asia/Shanghai') AS starts) m
LEFT JOIN operations o ON o.tenant_id = @tenant_id AND o.merchant_id = @merchant_id AND o.kind = 'store_program.modify'
    AND o.created_at >= m.starts AT TIME ZONE 'Asia/Shanghai'
GROUP BY m.starts;
