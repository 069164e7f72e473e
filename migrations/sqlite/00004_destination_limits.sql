-- How much the edges send to a destination. Only a new table, so it locks nothing that is in use.
-- +goose Up

-- max_connections 0 is the edges' own figure, messages_per_minute 0 no limit.
CREATE TABLE destination_limits (
    destination         TEXT NOT NULL PRIMARY KEY,
    max_connections     BIGINT NOT NULL DEFAULT 0,
    messages_per_minute BIGINT NOT NULL DEFAULT 0,
    reason              TEXT NOT NULL DEFAULT '',
    version             BIGINT NOT NULL DEFAULT 1,
    created_at          TIMESTAMP NOT NULL,
    updated_at          TIMESTAMP NOT NULL
);
