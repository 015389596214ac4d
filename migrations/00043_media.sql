-- +goose Up

-- What WeChat gave for the files that merchants uploaded: the URL of an image,
-- which stays, or the id of a temporary file, which dies after three days. The
-- files themselves are not kept.
CREATE TABLE media_files (
    tenant_id    uuid NOT NULL,
    operation_id uuid NOT NULL,        -- that uploaded it
    merchant_id  uuid NOT NULL,
    purpose      text NOT NULL CHECK (purpose IN ('image', 'head_image', 'goods_cover', 'certificate')),
    sha256       bytea NOT NULL,       -- of the file
    wechat_id    text NOT NULL,        -- URL or media_id
    created_at   timestamptz NOT NULL, -- by WeChat's clock, where it tells
    expires_at   timestamptz,          -- NULL: never
    PRIMARY KEY (tenant_id, operation_id),
    FOREIGN KEY (tenant_id, operation_id) REFERENCES operations (tenant_id, id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('media_files');
CREATE INDEX media_files_same ON media_files (tenant_id, merchant_id, purpose, sha256);
CREATE INDEX media_files_expiring ON media_files (tenant_id, merchant_id, wechat_id) WHERE expires_at IS NOT NULL;
