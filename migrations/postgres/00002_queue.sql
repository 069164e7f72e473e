-- What waits in the queues of the edges, as their events tell, and what operators did to it. Only new tables, so it locks
-- nothing that is in use.
-- +goose Up

-- One row for each message and domain of recipients that are not settled yet.
CREATE TABLE queued_messages (
    message_id      TEXT COLLATE "C" NOT NULL,
    destination     TEXT COLLATE "C" NOT NULL,
    edge            TEXT COLLATE "C" NOT NULL,
    partner         TEXT COLLATE "C" NOT NULL,
    domain          TEXT COLLATE "C" NOT NULL,
    sender          TEXT COLLATE "C" NOT NULL DEFAULT '',
    recipients      BIGINT           NOT NULL,
    remaining       BIGINT           NOT NULL,
    state           TEXT COLLATE "C" NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'held', 'quarantined')),
    attempts        BIGINT           NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ,
    last_reply      TEXT COLLATE "C" NOT NULL DEFAULT '',
    remote_host     TEXT COLLATE "C" NOT NULL DEFAULT '',
    accepted_at     TIMESTAMPTZ      NOT NULL,
    changed_at      TIMESTAMPTZ      NOT NULL,
    PRIMARY KEY (message_id, destination, edge)
);
CREATE INDEX queued_messages_partner_message_id_idx ON queued_messages (partner, message_id);
CREATE INDEX queued_messages_domain_message_id_idx ON queued_messages (domain, message_id);
CREATE INDEX queued_messages_destination_message_id_idx ON queued_messages (destination, message_id);

CREATE TABLE queue_operations (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    action      TEXT COLLATE "C" NOT NULL CHECK (action IN ('retry', 'hold', 'release', 'cancel')),
    partner     TEXT COLLATE "C" NOT NULL DEFAULT '',
    domain      TEXT COLLATE "C" NOT NULL DEFAULT '',
    destination TEXT COLLATE "C" NOT NULL DEFAULT '',
    sender      TEXT COLLATE "C" NOT NULL DEFAULT '',
    message_ids TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    reason      TEXT COLLATE "C" NOT NULL DEFAULT '',
    matched     BIGINT           NOT NULL DEFAULT 0,
    created_at  TIMESTAMPTZ      NOT NULL
);
CREATE INDEX queue_operations_created_at_idx ON queue_operations (created_at);

-- What one edge was told by an operation, and what it made of it.
CREATE TABLE queue_operation_edges (
    operation       TEXT COLLATE "C" NOT NULL,
    edge            TEXT COLLATE "C" NOT NULL,
    number          BIGINT           NOT NULL,
    messages        BIGINT           NOT NULL DEFAULT 0,
    recipients      BIGINT           NOT NULL DEFAULT 0,
    acknowledged_at TIMESTAMPTZ,
    done_at         TIMESTAMPTZ,
    PRIMARY KEY (operation, edge)
);
CREATE INDEX queue_operation_edges_edge_number_idx ON queue_operation_edges (edge, number);
