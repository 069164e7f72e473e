-- Policy documents that edges told that they do not understand. One that is no longer known, deleted long ago, takes its rows along.
-- +goose Up
CREATE TABLE rejections (
    document    TEXT COLLATE "C" NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    edge        TEXT COLLATE "C" NOT NULL,
    revision    BIGINT           NOT NULL,
    occurred_at TIMESTAMPTZ      NOT NULL,
    detail      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (document, edge)
);
