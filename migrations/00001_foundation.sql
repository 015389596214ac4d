-- +goose Up

-- require makes one statement of a batch refuse the whole batch: a pipeline
-- up to Sync is one transaction, so a raised error rolls everything back and
-- leaves the connection clean.
-- +goose StatementBegin
CREATE FUNCTION require(ok boolean, code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF ok IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = code, MESSAGE = 'refused';
    END IF;
END
$$;
-- +goose StatementEnd

-- The tenant of this transaction. NULLIF: on a pooled connection the setting
-- is '' and no longer NULL after its first transaction.
-- +goose StatementBegin
CREATE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT NULLIF(current_setting('app.tenant_id', true), '')::uuid
$$;
-- +goose StatementEnd

-- make_tenant_scoped puts a table under row-level security. The second policy
-- lets the migrating role read all rows, which is what the SECURITY DEFINER
-- functions below run as; the serving role mendian_app is no member of it.
-- +goose StatementBegin
CREATE PROCEDURE make_tenant_scoped(t regclass) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %s USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant())', t);
    EXECUTE format('CREATE POLICY owner_reads ON %s FOR SELECT TO %I USING (true)', t, current_user);
END
$$;
-- +goose StatementEnd

-- Every process listens on the channel mendian: a row of these tables changed,
-- drop it from the caches. Payload: topic, tenant, row id.
-- +goose StatementBegin
CREATE FUNCTION notify_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    row jsonb := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
BEGIN
    PERFORM pg_notify('mendian', concat_ws(' ', TG_TABLE_NAME,
        coalesce(row ->> 'tenant_id', row ->> 'id', '-'),
        coalesce(row ->> TG_ARGV[0], '-')));
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- Tenants -------------------------------------------------------------------

CREATE TABLE tenants (
    id                    uuid PRIMARY KEY,
    name                  text NOT NULL,
    push_ref              text NOT NULL CONSTRAINT tenants_push_ref_key UNIQUE,
    component_appid       text NOT NULL,
    status                text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'deleted')),
    return_url_allow_list text[] NOT NULL DEFAULT '{}',
    cors_origins          text[] NOT NULL DEFAULT '{}',
    release_check         boolean NOT NULL DEFAULT false,
    limits                jsonb NOT NULL DEFAULT '{}',
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX tenants_name_key ON tenants (name) WHERE status <> 'deleted';
CREATE UNIQUE INDEX tenants_component_appid_key ON tenants (component_appid) WHERE status <> 'deleted';
CREATE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION notify_changed('id');

CREATE TABLE component_credentials (
    tenant_id                     uuid PRIMARY KEY REFERENCES tenants (id),
    component_secret_ct           bytea NOT NULL,
    message_token_ct              bytea NOT NULL,
    previous_message_token_ct     bytea,
    encoding_aes_key_ct           bytea NOT NULL,
    previous_encoding_aes_key_ct  bytea,
    fingerprints                  jsonb NOT NULL DEFAULT '{}', -- sha256[:8] of each, for people to compare
    set_at                        timestamptz NOT NULL DEFAULT now()
);
CALL make_tenant_scoped('component_credentials');
CREATE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON component_credentials
    FOR EACH ROW EXECUTE FUNCTION notify_changed('tenant_id');

-- The JWT key ring. At most one key signs; retiring ones still verify.
CREATE TABLE signing_keys (
    id             text PRIMARY KEY, -- kid
    public_key     bytea NOT NULL,
    private_key_ct bytea NOT NULL,
    state          text NOT NULL CHECK (state IN ('next', 'active', 'retiring', 'retired')),
    created_at     timestamptz NOT NULL DEFAULT now(),
    state_since    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys ((true)) WHERE state = 'active';
CREATE TRIGGER notify AFTER INSERT OR UPDATE OR DELETE ON signing_keys
    FOR EACH ROW EXECUTE FUNCTION notify_changed('id');

CREATE TABLE api_keys (
    tenant_id    uuid NOT NULL REFERENCES tenants (id),
    id           uuid NOT NULL,
    name         text NOT NULL DEFAULT '',
    scopes       text[] NOT NULL,
    merchant_ids uuid[],          -- NULL: every merchant of the tenant
    rate_limit   jsonb,
    token_sha256 bytea NOT NULL,
    rotated_from uuid,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CALL make_tenant_scoped('api_keys');
-- last_used_at changes all the time and is nobody's cache key.
CREATE TRIGGER notify AFTER INSERT OR DELETE OR UPDATE OF name, scopes, merchant_ids, rate_limit, expires_at, revoked_at ON api_keys
    FOR EACH ROW EXECUTE FUNCTION notify_changed('id');

CREATE TABLE admin_keys (
    id           uuid PRIMARY KEY,
    name         text NOT NULL DEFAULT '',
    token_sha256 bytea NOT NULL,
    created_by   text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz
);
CREATE TRIGGER notify AFTER UPDATE OR DELETE ON admin_keys
    FOR EACH ROW EXECUTE FUNCTION notify_changed('id');

CREATE TABLE change_log (
    id         uuid PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    tenant_id  uuid,              -- NULL: a change of the installation itself
    actor      text NOT NULL,     -- key_…, cli, gateway
    action     text NOT NULL,     -- tenant.create, key.revoke, …
    subject    text NOT NULL,
    before     jsonb,
    after      jsonb
);
CREATE INDEX change_log_tenant ON change_log (tenant_id, id);

-- Tokens of the platform ----------------------------------------------------

CREATE TABLE component_tickets (
    tenant_id     uuid NOT NULL REFERENCES tenants (id),
    ticket_sha256 bytea NOT NULL,
    ticket_ct     bytea NOT NULL,
    issued_at     timestamptz NOT NULL, -- the smaller of CreateTime and arrival
    received_at   timestamptz NOT NULL DEFAULT now(),
    rejected_at   timestamptz,
    PRIMARY KEY (tenant_id, ticket_sha256)
);
CALL make_tenant_scoped('component_tickets');

-- One row a tenant. The lease and its generation fence refreshes over
-- processes (design reliability.md §7).
CREATE TABLE component_tokens (
    tenant_id         uuid PRIMARY KEY REFERENCES tenants (id),
    access_ct         bytea,
    access_gen        int NOT NULL DEFAULT 0,
    access_expires_at timestamptz,
    lease_gen         int NOT NULL DEFAULT 0,
    lease_owner       text,
    lease_until       timestamptz,
    invalid_reason    text,
    ticket_restart_at timestamptz -- when api_start_push_ticket was last asked for
);
CALL make_tenant_scoped('component_tokens');
CREATE TRIGGER notify AFTER UPDATE OF access_gen ON component_tokens
    FOR EACH ROW EXECUTE FUNCTION notify_changed('tenant_id');

-- Merchants -----------------------------------------------------------------

CREATE TABLE merchants (
    tenant_id           uuid NOT NULL REFERENCES tenants (id),
    id                  uuid NOT NULL,
    appid               text NOT NULL,
    status              text NOT NULL CHECK (status IN ('authorized', 'needs_reauthorization', 'deauthorized')),
    disabled_at         timestamptz,          -- DELETE /merchants/{id}: our own switch
    permission_sets     int[] NOT NULL DEFAULT '{}',
    account_type        text,                 -- official_account, mini_program; NULL until WeChat said
    user_name           text,                 -- gh_…
    nickname            text,
    principal_name      text,
    head_image_url      text,
    account_status      int,
    verified            boolean,
    store_program       text,                 -- status of the Store Mini Program as last seen
    client_reference    text,
    metadata            jsonb NOT NULL DEFAULT '{}',
    authorized_at       timestamptz NOT NULL DEFAULT now(),
    transition_at       timestamptz NOT NULL DEFAULT now(), -- CreateTime of the newest authorisation event applied
    info_synced_at      timestamptz,
    stores_synced_at    timestamptz,          -- the last complete comparison of stores with WeChat
    inventory_due_at    timestamptz,
    row_version         bigint NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT merchants_appid_key UNIQUE (tenant_id, appid)
);
CALL make_tenant_scoped('merchants');
-- An account acts through one tenant at a time: never moved, refused with 409.
CREATE UNIQUE INDEX merchants_one_tenant ON merchants (appid) WHERE status <> 'deauthorized';
CREATE UNIQUE INDEX merchants_client_reference_key ON merchants (tenant_id, client_reference);
CREATE INDEX merchants_inventory_due ON merchants (inventory_due_at) WHERE inventory_due_at IS NOT NULL;
CREATE TRIGGER notify AFTER INSERT OR DELETE OR UPDATE OF status, disabled_at, permission_sets, account_type, user_name, appid, stores_synced_at, row_version ON merchants
    FOR EACH ROW EXECUTE FUNCTION notify_changed('id');

CREATE TABLE authorizer_tokens (
    tenant_id         uuid NOT NULL,
    merchant_id       uuid NOT NULL,
    access_ct         bytea,
    access_gen        int NOT NULL DEFAULT 0,
    access_expires_at timestamptz,
    refresh_token_ct  bytea,
    refresh_history   bytea[] NOT NULL DEFAULT '{}', -- the last three before it, newest first
    lease_gen         int NOT NULL DEFAULT 0,
    lease_owner       text,
    lease_until       timestamptz,
    invalid_reason    text,
    used_at           timestamptz,                   -- coarse; a merchant in use is refreshed ahead of expiry
    PRIMARY KEY (tenant_id, merchant_id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('authorizer_tokens');
CREATE INDEX authorizer_tokens_expiry ON authorizer_tokens (access_expires_at) WHERE invalid_reason IS NULL;
CREATE TRIGGER notify AFTER INSERT OR DELETE OR UPDATE OF access_gen, invalid_reason ON authorizer_tokens
    FOR EACH ROW EXECUTE FUNCTION notify_changed('merchant_id');

CREATE TABLE authorization_links (
    tenant_id        uuid NOT NULL REFERENCES tenants (id),
    id               uuid NOT NULL,
    state_sha256     bytea NOT NULL CONSTRAINT authorization_links_state_key UNIQUE,
    account_type     text NOT NULL CHECK (account_type IN ('official_account', 'mini_program', 'any')),
    expected_appid   text,
    client_reference text,
    return_url       text,
    created_by       text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    used_at          timestamptz,
    merchant_id      uuid,
    last_error       text,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('authorization_links');

-- One row a click: the pre_auth_code that it fetched and the browser that clicked.
CREATE TABLE authorization_link_clicks (
    tenant_id            uuid NOT NULL,
    pre_auth_code_sha256 bytea NOT NULL,
    link_id              uuid NOT NULL,
    browser_sha256       bytea NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, pre_auth_code_sha256),
    FOREIGN KEY (tenant_id, link_id) REFERENCES authorization_links (tenant_id, id)
);
CALL make_tenant_scoped('authorization_link_clicks');
CREATE INDEX authorization_link_clicks_link ON authorization_link_clicks (tenant_id, link_id);

-- An authorization_code is good for one exchange, and arrives by redirect and
-- by push: whoever inserts the row exchanges it, the other waits for the result.
CREATE TABLE authorization_codes (
    tenant_id   uuid NOT NULL REFERENCES tenants (id),
    code_sha256 bytea NOT NULL,
    state       text NOT NULL CHECK (state IN ('exchanging', 'done', 'failed')),
    lease_until timestamptz NOT NULL,
    merchant_id uuid,
    error       text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, code_sha256),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('authorization_codes');

-- The ledger ----------------------------------------------------------------

CREATE TABLE operations (
    tenant_id       uuid NOT NULL REFERENCES tenants (id),
    id              uuid NOT NULL,
    merchant_id     uuid,                    -- NULL: merchants.sync
    kind            text NOT NULL,
    subject_type    text,
    subject_id      uuid,
    audit_id        uuid,                    -- ours, minted at T1 so that T2 may run twice
    requested_by    text NOT NULL,
    idempotency_key text,
    request_ct      bytea NOT NULL,
    match_key       jsonb NOT NULL,          -- natural key and hashes; what the reconciler compares
    baseline        jsonb,                   -- what we knew at T1
    state           text NOT NULL CHECK (state IN ('pending', 'executing', 'succeeded', 'failed', 'reconciling', 'needs_attention', 'cancelled')),
    attempt         int NOT NULL DEFAULT 0,
    lease_owner     text,
    lease_until     timestamptz,
    sent_at         timestamptz,             -- of the newest attempt; the proof schedule counts from it
    check_n         int NOT NULL DEFAULT 0,
    next_check_at   timestamptz,
    absent_since    timestamptz,             -- the first read that found no effect and was late enough to count
    result          jsonb,
    error           jsonb,
    candidates      jsonb,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('operations');
-- At most one write of the same natural key is open: the unknown candidate is
-- then always one (design reliability.md §4).
CREATE UNIQUE INDEX operations_one_active ON operations (tenant_id, coalesce(merchant_id, tenant_id), kind, (match_key ->> 'natural'))
    WHERE state IN ('pending', 'executing', 'reconciling', 'needs_attention');
CREATE INDEX operations_due ON operations (next_check_at)
    WHERE state IN ('pending', 'executing', 'reconciling') AND next_check_at IS NOT NULL;
CREATE INDEX operations_owner ON operations (lease_owner) WHERE state = 'executing';
CREATE INDEX operations_list ON operations (tenant_id, merchant_id, id);
CREATE INDEX operations_attention ON operations (created_at) WHERE state = 'needs_attention';

CREATE TABLE operation_attempts (
    tenant_id    uuid NOT NULL,
    operation_id uuid NOT NULL,
    n            int NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    outcome      text,
    errcode      bigint,
    rid          text,
    response_ct  bytea,
    PRIMARY KEY (tenant_id, operation_id, n),
    FOREIGN KEY (tenant_id, operation_id) REFERENCES operations (tenant_id, id)
);
CALL make_tenant_scoped('operation_attempts');

CREATE TABLE idempotency_keys (
    tenant_id    uuid NOT NULL,
    merchant_id  uuid NOT NULL,   -- the tenant's id where no merchant acts
    key          text NOT NULL,
    fingerprint  bytea NOT NULL,
    operation_id uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, merchant_id, key),
    -- Deferred: the key is claimed before its operation is inserted, so that a
    -- repeated request meets the key and not the operation's natural key.
    FOREIGN KEY (tenant_id, operation_id) REFERENCES operations (tenant_id, id) DEFERRABLE INITIALLY DEFERRED
);
CALL make_tenant_scoped('idempotency_keys');
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- Append-only: the serving role has no UPDATE or DELETE here.
CREATE TABLE wechat_id_ledger (
    tenant_id    uuid NOT NULL,
    merchant_id  uuid NOT NULL,
    id_type      text NOT NULL,
    wechat_id    text NOT NULL,
    source       text NOT NULL CHECK (source IN ('response', 'event', 'poll', 'reconciler', 'spool', 'import')),
    operation_id uuid,
    seen_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, merchant_id, id_type, wechat_id, source),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('wechat_id_ledger');

CREATE TABLE audits (
    tenant_id       uuid NOT NULL,
    id              uuid NOT NULL,
    merchant_id     uuid NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('store_program', 'map_poi', 'store_create', 'store_update', 'goods', 'legacy_store', 'legacy_store_update')),
    subject_type    text NOT NULL,
    subject_id      uuid NOT NULL,
    operation_id    uuid,
    wechat_audit_id text,
    status          text NOT NULL,
    status_rank     int NOT NULL,
    reason          text,
    source          text NOT NULL,
    attempt         int NOT NULL DEFAULT 1,
    submitted_at    timestamptz NOT NULL DEFAULT now(),
    decided_at      timestamptz,
    deadline_at     timestamptz,
    next_poll_at    timestamptz,
    poll_n          int NOT NULL DEFAULT 0,
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT audits_wechat_id_key UNIQUE (tenant_id, merchant_id, kind, wechat_audit_id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('audits');
CREATE INDEX audits_due ON audits (next_poll_at) WHERE next_poll_at IS NOT NULL;
CREATE INDEX audits_subject ON audits (tenant_id, subject_id, submitted_at);
CREATE INDEX audits_list ON audits (tenant_id, merchant_id, id);

CREATE TABLE audit_history (
    tenant_id uuid NOT NULL,
    audit_id  uuid NOT NULL,
    status    text NOT NULL,
    source    text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    inbox_id  uuid,
    PRIMARY KEY (tenant_id, audit_id, status),
    FOREIGN KEY (tenant_id, audit_id) REFERENCES audits (tenant_id, id)
);
CALL make_tenant_scoped('audit_history');

-- Stores --------------------------------------------------------------------

CREATE TABLE stores (
    tenant_id        uuid NOT NULL,
    id               uuid NOT NULL,
    merchant_id      uuid NOT NULL,
    poi_id           text,
    map_poi_id       text,
    client_reference text,
    previous_id      uuid,
    fields           jsonb NOT NULL,
    status           text NOT NULL CHECK (status IN ('submitting', 'in_review', 'active', 'rejected', 'failed', 'deleted', 'outcome_unknown')),
    upstream_status  int,
    origin           text NOT NULL DEFAULT 'api' CHECK (origin IN ('api', 'discovered')),
    audit_id         uuid,                  -- the newest audit
    operation_id     uuid,                  -- the newest write
    content_sha256   bytea,                 -- of what WeChat last showed
    missing_n        int NOT NULL DEFAULT 0,
    row_version      bigint NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    synced_at        timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT stores_poi_id_key UNIQUE (tenant_id, merchant_id, poi_id),
    FOREIGN KEY (tenant_id, merchant_id) REFERENCES merchants (tenant_id, id)
);
CALL make_tenant_scoped('stores');
-- A reference is free again once its store failed, was rejected or deleted.
CREATE UNIQUE INDEX stores_client_reference_key ON stores (tenant_id, merchant_id, client_reference)
    WHERE status NOT IN ('failed', 'rejected', 'deleted');
CREATE INDEX stores_list ON stores (tenant_id, merchant_id, id);
CREATE INDEX stores_updated ON stores (tenant_id, updated_at, id);

-- Pushes and events ---------------------------------------------------------

-- The unique key is finer than WeChat's FromUserName and CreateTime: audits
-- of fifty stores may end in one second.
CREATE TABLE event_inbox (
    tenant_id      uuid NOT NULL REFERENCES tenants (id),
    id             uuid NOT NULL,
    appid          text NOT NULL,   -- the merchant's, or the component's
    from_user      text NOT NULL,
    create_time    bigint NOT NULL,
    event          text NOT NULL,   -- Event, InfoType, or "message:" and the MsgType
    payload_sha256 bytea NOT NULL,
    payload_ct     bytea NOT NULL,
    state          text NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'applied', 'unmatched', 'unprocessed', 'needs_attention')),
    audit_id       text,            -- WeChat's, once unmatched
    next_at        timestamptz,
    error          text,
    received_at    timestamptz NOT NULL DEFAULT now(),
    applied_at     timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT event_inbox_once UNIQUE (tenant_id, appid, from_user, create_time, event, payload_sha256)
);
CALL make_tenant_scoped('event_inbox');
CREATE INDEX event_inbox_due ON event_inbox (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX event_inbox_unmatched ON event_inbox (tenant_id, appid, audit_id) WHERE state = 'unmatched';
CREATE INDEX event_inbox_age ON event_inbox (received_at);

CREATE TABLE outbox (
    tenant_id   uuid NOT NULL REFERENCES tenants (id),
    id          uuid NOT NULL,
    merchant_id uuid,
    type        text NOT NULL,
    payload     jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    sequence    bigint,
    PRIMARY KEY (tenant_id, id)
);
CALL make_tenant_scoped('outbox');
CREATE UNIQUE INDEX outbox_sequence ON outbox (tenant_id, sequence) WHERE sequence IS NOT NULL;
CREATE INDEX outbox_unnumbered ON outbox (tenant_id, created_at) WHERE sequence IS NULL;
CREATE INDEX outbox_age ON outbox (created_at);

CREATE TABLE outbox_counters (
    tenant_id     uuid PRIMARY KEY REFERENCES tenants (id),
    last_sequence bigint NOT NULL DEFAULT 0
);
CALL make_tenant_scoped('outbox_counters');

-- Doors for what is looked up before a tenant is known. They return ids only.

CREATE FUNCTION link_by_state(state_hash bytea) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.tenant_id, l.id FROM authorization_links l WHERE l.state_sha256 = state_hash
$$;
CREATE FUNCTION due_operations(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.tenant_id, o.id FROM operations o
    WHERE o.state IN ('pending', 'executing', 'reconciling') AND o.next_check_at <= now()
    ORDER BY o.next_check_at LIMIT n
$$;
CREATE FUNCTION operations_of_owner(owner text, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.tenant_id, o.id FROM operations o
    WHERE o.state = 'executing' AND o.lease_owner = owner LIMIT n
$$;
CREATE FUNCTION due_audits(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.tenant_id, a.id FROM audits a WHERE a.next_poll_at <= now() ORDER BY a.next_poll_at LIMIT n
$$;
CREATE FUNCTION due_inbox(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT e.tenant_id, e.id FROM event_inbox e WHERE e.next_at <= now() ORDER BY e.next_at LIMIT n
$$;
CREATE FUNCTION due_inventories(n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.tenant_id, m.id FROM merchants m WHERE m.inventory_due_at <= now() ORDER BY m.inventory_due_at LIMIT n
$$;
CREATE FUNCTION due_tokens(within interval, used_within interval, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.tenant_id, t.merchant_id FROM authorizer_tokens t
    WHERE t.access_expires_at <= now() + within AND t.invalid_reason IS NULL
      AND t.refresh_token_ct IS NOT NULL AND t.used_at > now() - used_within
      AND (t.lease_until IS NULL OR t.lease_until < now())
    ORDER BY t.access_expires_at LIMIT n
$$;
CREATE FUNCTION tenants_with_unnumbered(n int) RETURNS TABLE (tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT DISTINCT o.tenant_id FROM outbox o WHERE o.sequence IS NULL LIMIT n
$$;
-- Whether another tenant holds this account: a yes or no, never whose it is.
CREATE FUNCTION appid_held_elsewhere(account text, me uuid) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT 1 FROM merchants m WHERE m.appid = account AND m.tenant_id <> me AND m.status <> 'deauthorized')
$$;
-- Operations that wait for a person, over all tenants, for the admin routes.
CREATE FUNCTION admin_operations(wanted_state text, wanted_kind text, wanted_tenant uuid, before uuid, n int) RETURNS TABLE (tenant_id uuid, id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.tenant_id, o.id FROM operations o
    WHERE (wanted_state IS NULL OR o.state = wanted_state) AND (wanted_kind IS NULL OR o.kind = wanted_kind)
      AND (wanted_tenant IS NULL OR o.tenant_id = wanted_tenant) AND (before IS NULL OR o.id < before)
    ORDER BY o.id DESC LIMIT n
$$;
-- How old each active tenant's newest ticket is, for the metrics.
CREATE FUNCTION newest_tickets() RETURNS TABLE (tenant_id uuid, issued_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, max(c.issued_at) FROM tenants t JOIN component_tickets c ON c.tenant_id = t.id
    WHERE t.status = 'active' GROUP BY t.id
$$;

-- sweep_expired removes what is kept for a time only: pushes that were none of
-- ours and events after 30 days, applied pushes after 90, idempotency keys
-- after 30. Operations and ids are kept for ever.
CREATE POLICY owner_sweeps ON event_inbox FOR DELETE TO CURRENT_USER USING (true);
CREATE POLICY owner_sweeps ON outbox FOR DELETE TO CURRENT_USER USING (true);
CREATE POLICY owner_sweeps ON idempotency_keys FOR DELETE TO CURRENT_USER USING (true);
-- +goose StatementBegin
CREATE FUNCTION sweep_expired(n int) RETURNS int
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    swept int := 0;
    k int;
BEGIN
    DELETE FROM event_inbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM event_inbox
        WHERE received_at < now() - CASE WHEN state = 'unprocessed' THEN interval '30 days' ELSE interval '90 days' END
          AND received_at < now() - interval '30 days' AND state <> 'needs_attention' LIMIT n));
    GET DIAGNOSTICS k = ROW_COUNT; swept := swept + k;
    DELETE FROM outbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM outbox WHERE created_at < now() - interval '30 days' AND sequence IS NOT NULL LIMIT n));
    GET DIAGNOSTICS k = ROW_COUNT; swept := swept + k;
    DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '30 days' LIMIT n));
    GET DIAGNOSTICS k = ROW_COUNT;
    RETURN swept + k;
END
$$;
-- +goose StatementEnd
