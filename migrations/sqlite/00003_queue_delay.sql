-- Why mail waits, and how its last attempt was protected. New columns with a constant default: no row is rewritten, and on
-- PostgreSQL the table is locked only for the moment of the change.
-- +goose Up
ALTER TABLE queued_messages ADD COLUMN tls TEXT NOT NULL DEFAULT '';
ALTER TABLE queued_messages ADD COLUMN delay_reason TEXT NOT NULL DEFAULT '';
