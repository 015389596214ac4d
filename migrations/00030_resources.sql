-- +goose Up

-- Stores, map POIs, goods and legacy stores have the same life here: an id of
-- ours first, WeChat's number once it is told, an audit, a newest write. One
-- table keeps them, so that what must never be lost is written in one place.
ALTER TABLE stores RENAME TO resources;
ALTER INDEX stores_pkey RENAME TO resources_pkey;
ALTER TABLE resources RENAME CONSTRAINT stores_tenant_id_merchant_id_fkey TO resources_merchant_fkey;
ALTER TABLE resources RENAME CONSTRAINT stores_origin_check TO resources_origin_check;
-- The number by which WeChat manages it: poi_id, goodsId, base_id.
ALTER TABLE resources RENAME COLUMN poi_id TO wechat_id;
ALTER TABLE resources ADD COLUMN type text NOT NULL DEFAULT 'store'
    CHECK (type IN ('store', 'map_poi', 'goods', 'legacy_store', 'store_program'));
ALTER TABLE resources ALTER COLUMN type DROP DEFAULT;
ALTER TABLE resources DROP CONSTRAINT stores_status_check;
ALTER TABLE resources ADD CONSTRAINT resources_status_check CHECK (status IN ('submitting', 'outcome_unknown', 'failed',
    'awaiting_admin_confirmation', 'in_review', 'unreviewed', 'active', 'approved', 'rejected', 'rejected_by_admin', 'expired', 'error', 'deleted'));
ALTER TABLE resources DROP CONSTRAINT stores_poi_id_key;
ALTER TABLE resources ADD CONSTRAINT resources_wechat_id_key UNIQUE (tenant_id, merchant_id, type, wechat_id);
DROP INDEX stores_client_reference_key;
-- A reference is free again once its resource failed, was rejected or deleted.
CREATE UNIQUE INDEX resources_client_reference_key ON resources (tenant_id, merchant_id, type, client_reference)
    WHERE status NOT IN ('failed', 'rejected', 'rejected_by_admin', 'expired', 'deleted');
DROP INDEX stores_list;
DROP INDEX stores_updated;
CREATE INDEX resources_list ON resources (tenant_id, merchant_id, type, id);
CREATE INDEX resources_updated ON resources (tenant_id, type, updated_at, id);

-- When each sort of resource was last compared with WeChat whole. The type is
-- changed in place, because a rewrite takes all rows and an UPDATE only those
-- of one tenant.
DROP TRIGGER notify ON merchants;
ALTER TABLE merchants ALTER COLUMN stores_synced_at TYPE jsonb
    USING CASE WHEN stores_synced_at IS NULL THEN '{}' ELSE jsonb_build_object('store', stores_synced_at) END;
ALTER TABLE merchants RENAME COLUMN stores_synced_at TO synced;
ALTER TABLE merchants ALTER COLUMN synced SET DEFAULT '{}';
ALTER TABLE merchants ALTER COLUMN synced SET NOT NULL;
CREATE TRIGGER notify AFTER INSERT OR DELETE OR UPDATE OF status, disabled_at, permission_sets, account_type, user_name, appid, synced, row_version ON merchants
    FOR EACH ROW EXECUTE FUNCTION notify_changed('id');
