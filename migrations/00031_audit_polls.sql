-- +goose Up

-- When an audit that WeChat has said nothing of for long was shown to the
-- tenant as such (event audit.overdue).
ALTER TABLE audits ADD COLUMN overdue_at timestamptz;

-- A person may tell the ids of an operation that nothing else could settle.
ALTER TABLE wechat_id_ledger DROP CONSTRAINT wechat_id_ledger_source_check;
ALTER TABLE wechat_id_ledger ADD CONSTRAINT wechat_id_ledger_source_check
    CHECK (source IN ('response', 'event', 'poll', 'reconciler', 'spool', 'import', 'person'));
