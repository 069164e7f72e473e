-- What tells an event of an edge that was set back, and tells again what it told before, from one that is new. New columns
-- with a constant default: no row is rewritten, and on PostgreSQL the table is locked only for the moment of the change.
-- +goose Up
ALTER TABLE edges ADD COLUMN event_latest TIMESTAMP;
ALTER TABLE edges ADD COLUMN event_repeat_to BIGINT NOT NULL DEFAULT 0;
ALTER TABLE edges ADD COLUMN event_repeat_before TIMESTAMP;
