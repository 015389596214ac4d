-- +goose Up

-- Which link a code was bound to, so that the signed push can correct a
-- callback that named another one.
ALTER TABLE authorization_codes ADD COLUMN link_id uuid;
ALTER TABLE authorization_codes ADD FOREIGN KEY (tenant_id, link_id) REFERENCES authorization_links (tenant_id, id);

-- Platforms that WeChat has pushed no ticket to for long, and that were not
-- helped lately: asked for before any tenant is known.
CREATE FUNCTION tenants_without_ticket(silence interval, again interval, n int) RETURNS TABLE (tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.tenant_id FROM component_credentials c
    JOIN tenants t ON t.id = c.tenant_id AND t.status = 'active'
    LEFT JOIN component_tokens k ON k.tenant_id = c.tenant_id
    WHERE coalesce((SELECT max(x.received_at) FROM component_tickets x WHERE x.tenant_id = c.tenant_id), c.set_at) < now() - silence
      AND (k.ticket_restart_at IS NULL OR k.ticket_restart_at < now() - again)
    ORDER BY c.tenant_id LIMIT n
$$;
