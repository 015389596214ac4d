-- Which process holds which keys of the keyset. No tenant is concerned.

-- Whoever is new has sealed with nothing else, and so since any other has.
-- name: HolderKeep :exec
INSERT INTO keyset_holders (instance, key_ids, seals_with, spool_key_ids, seals_since)
SELECT @instance, @key_ids, @seals_with, @spool_key_ids, coalesce(min(o.seals_since), now()) FROM keyset_holders o WHERE o.seals_with = @seals_with
ON CONFLICT (instance) DO UPDATE SET key_ids = EXCLUDED.key_ids, seals_with = EXCLUDED.seals_with, spool_key_ids = EXCLUDED.spool_key_ids, seen_at = now(),
    seals_since = CASE WHEN keyset_holders.seals_with = EXCLUDED.seals_with THEN keyset_holders.seals_since ELSE now() END;

-- Newest first. Whoever was seen within half a minute is taken to be serving.
-- name: HolderList :many
SELECT instance, key_ids, seals_with, seals_since, spool_key_ids, seen_at, (seen_at > now() - interval '30 seconds')::boolean AS serving,
    (now() - seals_since)::interval AS sealing_for
FROM keyset_holders ORDER BY seen_at DESC, instance;

-- name: HolderForget :execrows
DELETE FROM keyset_holders WHERE instance = @instance AND seen_at <= now() - interval '30 seconds';

-- name: TenantIDs :many
SELECT id FROM tenants ORDER BY id;
