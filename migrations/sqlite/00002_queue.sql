-- What waits in the queues of the edges, as their events tell, and what operators did to it. Only new tables, so it locks
-- nothing that is in use.
-- +goose Up

-- One row for each message and domain of recipients that are not settled yet.
CREATE TABLE queued_messages (
    message_id      TEXT      NOT NULL,
    destination     TEXT      NOT NULL,
    edge            TEXT      NOT NULL,
    partner         TEXT      NOT NULL,
    domain          TEXT      NOT NULL,
    sender          TEXT      NOT NULL DEFAULT '',
    recipients      BIGINT    NOT NULL,
    remaining       BIGINT    NOT NULL,
    state           TEXT      NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'held', 'quarantined')),
    attempts        BIGINT    NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMP,
    last_reply      TEXT      NOT NULL DEFAULT '',
    remote_host     TEXT      NOT NULL DEFAULT '',
    accepted_at     TIMESTAMP NOT NULL,
    changed_at      TIMESTAMP NOT NULL,
    PRIMARY KEY (message_id, destination, edge)
);
CREATE INDEX queued_messages_partner_message_id_idx ON queued_messages (partner, message_id);
CREATE INDEX queued_messages_domain_message_id_idx ON queued_messages (domain, message_id);
CREATE INDEX queued_messages_destination_message_id_idx ON queued_messages (destination, message_id);

CREATE TABLE queue_operations (
    id          TEXT      NOT NULL PRIMARY KEY,
    action      TEXT      NOT NULL CHECK (action IN ('retry', 'hold', 'release', 'cancel')),
    partner     TEXT      NOT NULL DEFAULT '',
    domain      TEXT      NOT NULL DEFAULT '',
    destination TEXT      NOT NULL DEFAULT '',
    sender      TEXT      NOT NULL DEFAULT '',
    message_ids TEXT      NOT NULL DEFAULT '[]',
    reason      TEXT      NOT NULL DEFAULT '',
    matched     BIGINT    NOT NULL DEFAULT 0,
    created_at  TIMESTAMP NOT NULL
);
CREATE INDEX queue_operations_created_at_idx ON queue_operations (created_at);

-- What one edge was told by an operation, and what it made of it.
CREATE TABLE queue_operation_edges (
    operation       TEXT      NOT NULL,
    edge            TEXT      NOT NULL,
    number          BIGINT    NOT NULL,
    messages        BIGINT    NOT NULL DEFAULT 0,
    recipients      BIGINT    NOT NULL DEFAULT 0,
    acknowledged_at TIMESTAMP,
    done_at         TIMESTAMP,
    PRIMARY KEY (operation, edge)
);
CREATE INDEX queue_operation_edges_edge_number_idx ON queue_operation_edges (edge, number);
