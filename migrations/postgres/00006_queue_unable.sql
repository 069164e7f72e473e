-- Which edges could not carry out an operation on the queue. A new column with a constant default: no row is rewritten, and on
-- PostgreSQL the table is locked only for the moment of the change.
-- +goose Up
ALTER TABLE queue_operation_edges ADD COLUMN unable BOOLEAN NOT NULL DEFAULT FALSE;
