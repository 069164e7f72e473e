-- Policy documents that edges reported that they do not understand. The rows go with a document that was deleted long ago.
-- +goose Up
CREATE TABLE rejections (
    document    TEXT      NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    edge        TEXT      NOT NULL,
    revision    BIGINT    NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    detail      TEXT      NOT NULL,
    PRIMARY KEY (document, edge)
);
