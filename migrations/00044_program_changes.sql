-- +goose Up

-- What GET /v1/quotas counts by the month.
CREATE INDEX operations_program_changes ON operations (tenant_id, merchant_id, created_at) WHERE kind = 'store_program.modify';
