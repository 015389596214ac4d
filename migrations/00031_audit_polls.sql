-- +goose Up

-- When an audit that WeChat has said nothing of for long was shown to the
-- tenant as such (event audit.overdue).
ALTER TABLE audits ADD COLUMN overdue_at timestamptz;
