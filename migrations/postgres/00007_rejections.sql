-- Policy documents that edges reported that they do not understand. The rows go with a document that was deleted long ago.
-- +goose Up
CREATE TABLE rejections (
    document    TEXT COLLATE "C" NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    edge        TEXT COLLATE "C" NOT NULL,
    revision    BIGINT           NOT NULL,
    occurred_at TIMESTAMPTZ      NOT NULL,
    detail      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (document, edge)
);
