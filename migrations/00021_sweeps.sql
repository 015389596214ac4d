-- +goose Up

-- What authorising and keys of minutes leave behind goes 30 days after it was
-- of any use. A revoked key is kept until it would have expired anyway, and 30
-- days more: the row is what refuses it. change_log keeps who made it for ever.
CREATE INDEX api_keys_expires ON api_keys (expires_at);
CREATE POLICY owner_sweeps ON api_keys FOR DELETE TO CURRENT_USER USING (true);
CREATE POLICY owner_sweeps ON authorization_codes FOR DELETE TO CURRENT_USER USING (true);
CREATE POLICY owner_sweeps ON authorization_link_clicks FOR DELETE TO CURRENT_USER USING (true);
-- +goose StatementBegin
CREATE FUNCTION sweep_spent(n int) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    swept int := 0;
    k int;
BEGIN
    DELETE FROM api_keys WHERE ctid = ANY (ARRAY(SELECT ctid FROM api_keys WHERE expires_at < now() - interval '30 days' LIMIT n));
    GET DIAGNOSTICS k = ROW_COUNT; swept := swept + k;
    DELETE FROM authorization_codes WHERE ctid = ANY (ARRAY(SELECT ctid FROM authorization_codes WHERE created_at < now() - interval '30 days' LIMIT n));
    GET DIAGNOSTICS k = ROW_COUNT; swept := swept + k;
    DELETE FROM authorization_link_clicks WHERE ctid = ANY (ARRAY(SELECT ctid FROM authorization_link_clicks WHERE created_at < now() - interval '30 days' LIMIT n));
    GET DIAGNOSTICS k = ROW_COUNT;
    RETURN swept + k;
END
$$;
-- +goose StatementEnd
