-- What sqlc needs to know of River's own table; River's migrations make it.
CREATE TABLE river_job (
    id           bigserial PRIMARY KEY,
    args         jsonb NOT NULL DEFAULT '{}',
    kind         text NOT NULL,
    max_attempts smallint NOT NULL,
    queue        text NOT NULL DEFAULT 'default'
);
