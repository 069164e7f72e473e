CREATE TABLE audit (
    id            TEXT      NOT NULL PRIMARY KEY,
    occurred_at   TIMESTAMP NOT NULL,
    token_id      TEXT      NOT NULL,
    actor_name    TEXT      NOT NULL DEFAULT '',
    actor_role    TEXT      NOT NULL,
    actor_partner TEXT      NOT NULL DEFAULT '',
    action        TEXT      NOT NULL,
    object        TEXT      NOT NULL,
    partner       TEXT      NOT NULL DEFAULT '',
    reason        TEXT      NOT NULL DEFAULT '',
    request_id    TEXT      NOT NULL DEFAULT '',
    changes       TEXT      NOT NULL DEFAULT '{}'
);
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit is append-only');
END;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit is append-only');
END;
CREATE INDEX audit_object_id_idx ON audit (object, id);
CREATE INDEX audit_partner_id_idx ON audit (partner, id);
CREATE TABLE complaints (
    id             TEXT      NOT NULL PRIMARY KEY,
    received_at    TIMESTAMP NOT NULL,
    feedback_type  TEXT      NOT NULL,
    message_id     TEXT      NOT NULL,
    domain         TEXT      NOT NULL,
    partner        TEXT      NOT NULL,
    user_address   TEXT      NOT NULL DEFAULT '',
    client_address TEXT      NOT NULL DEFAULT '',
    edge           TEXT      NOT NULL,
    sender         TEXT      NOT NULL DEFAULT '',
    reporter       TEXT      NOT NULL DEFAULT '',
    comment        TEXT      NOT NULL DEFAULT '',
    relay_ip       TEXT      NOT NULL DEFAULT '',
    counts         BOOLEAN   NOT NULL DEFAULT TRUE,
    disabled       TEXT      NOT NULL DEFAULT '[]',
    created_at     TIMESTAMP NOT NULL,
    UNIQUE (message_id, reporter)
);
CREATE INDEX complaints_domain_received_at_idx ON complaints (domain, received_at);
CREATE INDEX complaints_partner_received_at_idx ON complaints (partner, received_at);
CREATE TABLE decisions (
    ref             TEXT      NOT NULL PRIMARY KEY,
    occurred_at     TIMESTAMP NOT NULL,
    edge            TEXT      NOT NULL,
    domain          TEXT      NOT NULL DEFAULT '',
    partner         TEXT      NOT NULL DEFAULT '',
    reason          TEXT      NOT NULL,
    stage           TEXT      NOT NULL DEFAULT '',
    reply           TEXT      NOT NULL DEFAULT '',
    client_address  TEXT      NOT NULL DEFAULT '',
    user_address    TEXT      NOT NULL DEFAULT '',
    sender          TEXT      NOT NULL DEFAULT '',
    recipient       TEXT      NOT NULL DEFAULT '',
    policy_revision BIGINT    NOT NULL DEFAULT 0,
    detail          TEXT      NOT NULL DEFAULT ''
);
CREATE INDEX decisions_occurred_at_idx ON decisions (occurred_at);
CREATE TABLE destination_limits (
    destination         TEXT NOT NULL PRIMARY KEY,
    max_connections     BIGINT NOT NULL DEFAULT 0,
    messages_per_minute BIGINT NOT NULL DEFAULT 0,
    reason              TEXT NOT NULL DEFAULT '',
    version             BIGINT NOT NULL DEFAULT 1,
    created_at          TIMESTAMP NOT NULL,
    updated_at          TIMESTAMP NOT NULL
);
CREATE TABLE documents (
    key        TEXT      NOT NULL PRIMARY KEY,
    partner    TEXT      NOT NULL DEFAULT '',
    domain     TEXT      NOT NULL DEFAULT '',
    revision   BIGINT    NOT NULL,
    deleted    BOOLEAN   NOT NULL DEFAULT FALSE,
    body       TEXT      NOT NULL DEFAULT '',
    updated_at TIMESTAMP NOT NULL
);
CREATE INDEX documents_revision_key_idx ON documents (revision, key);
CREATE TABLE domains (
    name                TEXT      NOT NULL PRIMARY KEY,
    partner             TEXT      NOT NULL REFERENCES partners (slug),
    licensed_users      BIGINT    NOT NULL DEFAULT 0,
    time_zone           TEXT,
    include_subdomains  BOOLEAN   NOT NULL DEFAULT FALSE,
    users_may_send_as   TEXT      NOT NULL DEFAULT 'own' CHECK (users_may_send_as IN ('own', 'domain')),
    contacts            TEXT      NOT NULL DEFAULT '[]',
    status              TEXT      NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    status_reason       TEXT      NOT NULL DEFAULT '',
    status_since        TIMESTAMP NOT NULL,
    relaying_state      TEXT      NOT NULL DEFAULT 'enabled' CHECK (relaying_state IN ('enabled', 'disabled')),
    relaying_reason     TEXT      NOT NULL DEFAULT '',
    relaying_cause      TEXT      NOT NULL DEFAULT '',
    relaying_since      TIMESTAMP,
    relaying_cleared_at TIMESTAMP,
    bulk_mode           TEXT      NOT NULL DEFAULT '' CHECK (bulk_mode IN ('', 'refuse', 'observe', 'allow')),
    bulk_reason         TEXT      NOT NULL DEFAULT '',
    bulk_expires_at     TIMESTAMP,
    bulk_version        BIGINT    NOT NULL DEFAULT 0,
    override_limit      BIGINT,
    override_expires_at TIMESTAMP,
    override_reason     TEXT      NOT NULL DEFAULT '',
    override_version    BIGINT    NOT NULL DEFAULT 0,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMP NOT NULL,
    updated_at          TIMESTAMP NOT NULL
);
CREATE INDEX domains_partner_name_idx ON domains (partner, name);
CREATE TABLE edges (
    id                       TEXT      NOT NULL PRIMARY KEY,
    name                     TEXT      NOT NULL,
    status                   TEXT      NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'retired')),
    partners                 TEXT      NOT NULL DEFAULT '[]',
    public_key               TEXT      NOT NULL,
    software_version         TEXT      NOT NULL DEFAULT '',
    capability_version       BIGINT    NOT NULL DEFAULT 1,
    generation               BIGINT    NOT NULL DEFAULT 1,
    credential_hash          BLOB,
    next_credential_hash     BLOB,
    boot_nonce               TEXT      NOT NULL DEFAULT '',
    previous_boot_nonces     TEXT      NOT NULL DEFAULT '[]',
    lease_sequence           BIGINT    NOT NULL DEFAULT 0,
    event_generation         BIGINT    NOT NULL DEFAULT 1,
    event_acknowledged       BIGINT    NOT NULL DEFAULT 0,
    instruction_number       BIGINT    NOT NULL DEFAULT 0,
    instruction_acknowledged BIGINT    NOT NULL DEFAULT 0,
    reported_epoch           TEXT      NOT NULL DEFAULT '',
    enforced_epoch           TEXT      NOT NULL DEFAULT '',
    enforced_revision        BIGINT    NOT NULL DEFAULT 0,
    joined_at                TIMESTAMP NOT NULL,
    last_seen_at             TIMESTAMP,
    retired_at               TIMESTAMP
, event_latest TIMESTAMP, event_repeat_to BIGINT NOT NULL DEFAULT 0, event_repeat_before TIMESTAMP);
CREATE TABLE idempotency_keys (
    principal    TEXT      NOT NULL,
    key          TEXT      NOT NULL,
    operation    TEXT      NOT NULL,
    request_hash BLOB      NOT NULL,
    status       BIGINT    NOT NULL,
    headers      TEXT      NOT NULL DEFAULT '{}',
    body         BLOB,
    sealed       BOOLEAN   NOT NULL DEFAULT FALSE,
    created_at   TIMESTAMP NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
CREATE TABLE instructions (
    edge       TEXT      NOT NULL,
    number     BIGINT    NOT NULL,
    kind       TEXT      NOT NULL,
    body       TEXT      NOT NULL,
    created_at TIMESTAMP NOT NULL,
    PRIMARY KEY (edge, number)
);
CREATE TABLE join_tokens (
    id          TEXT      NOT NULL PRIMARY KEY,
    secret_hash BLOB      NOT NULL,
    partners    TEXT      NOT NULL DEFAULT '[]',
    created_at  TIMESTAMP NOT NULL,
    expires_at  TIMESTAMP NOT NULL,
    used_at     TIMESTAMP,
    used_by     TEXT      NOT NULL DEFAULT ''
);
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
CREATE TABLE notices (
    id         TEXT      NOT NULL PRIMARY KEY,
    domain     TEXT      NOT NULL,
    day_start  TIMESTAMP NOT NULL,
    kind       TEXT      NOT NULL,
    edge       TEXT      NOT NULL,
    created_at TIMESTAMP NOT NULL,
    UNIQUE (domain, day_start, kind)
);
CREATE TABLE partners (
    slug                TEXT      NOT NULL PRIMARY KEY,
    name                TEXT      NOT NULL,
    support_contact     TEXT      NOT NULL DEFAULT '',
    time_zone           TEXT      NOT NULL DEFAULT '',
    status              TEXT      NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    status_reason       TEXT      NOT NULL DEFAULT '',
    status_since        TIMESTAMP NOT NULL,
    relaying_state      TEXT      NOT NULL DEFAULT 'enabled' CHECK (relaying_state IN ('enabled', 'disabled')),
    relaying_reason     TEXT      NOT NULL DEFAULT '',
    relaying_cause      TEXT      NOT NULL DEFAULT '',
    relaying_since      TIMESTAMP,
    relaying_cleared_at TIMESTAMP,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMP NOT NULL,
    updated_at          TIMESTAMP NOT NULL
);
CREATE TABLE pending_documents (
    key TEXT NOT NULL PRIMARY KEY
);
CREATE TABLE queue_operation_edges (
    operation       TEXT      NOT NULL,
    edge            TEXT      NOT NULL,
    number          BIGINT    NOT NULL,
    messages        BIGINT    NOT NULL DEFAULT 0,
    recipients      BIGINT    NOT NULL DEFAULT 0,
    acknowledged_at TIMESTAMP,
    done_at         TIMESTAMP, unable BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (operation, edge)
);
CREATE INDEX queue_operation_edges_edge_number_idx ON queue_operation_edges (edge, number);
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
    changed_at      TIMESTAMP NOT NULL, tls TEXT NOT NULL DEFAULT '', delay_reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (message_id, destination, edge)
);
CREATE INDEX queued_messages_destination_message_id_idx ON queued_messages (destination, message_id);
CREATE INDEX queued_messages_domain_message_id_idx ON queued_messages (domain, message_id);
CREATE INDEX queued_messages_partner_message_id_idx ON queued_messages (partner, message_id);
CREATE TABLE quota_days (
    domain      TEXT      NOT NULL,
    day_start   TIMESTAMP NOT NULL,
    day_end     TIMESTAMP NOT NULL,
    day         TEXT      NOT NULL,
    time_zone   TEXT      NOT NULL,
    partner     TEXT      NOT NULL,
    unit        TEXT      NOT NULL,
    quota_limit BIGINT    NOT NULL CHECK (quota_limit >= 0),
    held        BIGINT    NOT NULL DEFAULT 0 CHECK (held >= 0),
    recovered   BIGINT    NOT NULL DEFAULT 0 CHECK (recovered >= 0),
    spent       BIGINT    NOT NULL DEFAULT 0 CHECK (spent >= 0),
    messages    BIGINT    NOT NULL DEFAULT 0,
    recipients  BIGINT    NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, day_start),
    CHECK (held <= quota_limit + recovered)
);
CREATE INDEX quota_days_day_domain_idx ON quota_days (day, domain);
CREATE INDEX quota_days_partner_day_idx ON quota_days (partner, day);
CREATE TABLE quota_leases (
    domain     TEXT      NOT NULL,
    day_start  TIMESTAMP NOT NULL,
    edge       TEXT      NOT NULL,
    granted    BIGINT    NOT NULL DEFAULT 0,
    spent      BIGINT    NOT NULL DEFAULT 0,
    returned   BIGINT    NOT NULL DEFAULT 0,
    generation BIGINT    NOT NULL,
    updated_at TIMESTAMP NOT NULL,
    PRIMARY KEY (domain, day_start, edge, generation)
);
CREATE INDEX quota_leases_edge_day_idx ON quota_leases (edge, day_start);
CREATE TABLE rejections (
    document    TEXT      NOT NULL REFERENCES documents (key) ON DELETE CASCADE,
    edge        TEXT      NOT NULL,
    revision    BIGINT    NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    detail      TEXT      NOT NULL,
    PRIMARY KEY (document, edge)
);
CREATE TABLE relay_ips (
    id                  TEXT      NOT NULL PRIMARY KEY,
    domain              TEXT      NOT NULL REFERENCES domains (name) ON DELETE CASCADE,
    partner             TEXT      NOT NULL,
    address             TEXT      NOT NULL,
    first_address       TEXT      NOT NULL,
    last_address        TEXT      NOT NULL,
    state               TEXT      NOT NULL CHECK (state IN ('requested', 'active', 'disabled', 'rejected')),
    reason              TEXT      NOT NULL DEFAULT '',
    cause               TEXT      NOT NULL DEFAULT '',
    comment             TEXT      NOT NULL DEFAULT '',
    relaying_cleared_at TIMESTAMP,
    activated_at        TIMESTAMP,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMP NOT NULL,
    updated_at          TIMESTAMP NOT NULL,
    UNIQUE (domain, address)
);
CREATE INDEX relay_ips_first_address_idx ON relay_ips (first_address);
CREATE INDEX relay_ips_partner_id_idx ON relay_ips (partner, id);
CREATE TABLE revision (
    id    INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT  NOT NULL
);
CREATE TABLE routes (
    id               TEXT      NOT NULL PRIMARY KEY,
    partner          TEXT,
    domain           TEXT      NOT NULL DEFAULT '',
    recipient_domain TEXT      NOT NULL DEFAULT '',
    host             TEXT      NOT NULL,
    port             BIGINT    NOT NULL,
    tls              TEXT      NOT NULL CHECK (tls IN ('opportunistic', 'required', 'implicit', 'none')),
    username         TEXT      NOT NULL DEFAULT '',
    password_sealed  BLOB,
    secret_version   BIGINT    NOT NULL DEFAULT 0,
    version          BIGINT    NOT NULL DEFAULT 1,
    created_at       TIMESTAMP NOT NULL,
    updated_at       TIMESTAMP NOT NULL,
    UNIQUE (domain, recipient_domain)
);
CREATE INDEX routes_partner_id_idx ON routes (partner, id);
CREATE TABLE sender_refusals (
    domain    TEXT      NOT NULL,
    day_start TIMESTAMP NOT NULL,
    kind      TEXT      NOT NULL CHECK (kind IN ('client_address', 'user', 'sender_address')),
    key       TEXT      NOT NULL,
    reason    TEXT      NOT NULL,
    messages  BIGINT    NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, day_start, kind, key, reason)
);
CREATE TABLE sender_usage (
    domain     TEXT      NOT NULL,
    day_start  TIMESTAMP NOT NULL,
    kind       TEXT      NOT NULL CHECK (kind IN ('client_address', 'user', 'sender_address')),
    key        TEXT      NOT NULL,
    messages   BIGINT    NOT NULL DEFAULT 0,
    recipients BIGINT    NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, day_start, kind, key)
);
CREATE TABLE settings (
    id                         INTEGER   NOT NULL PRIMARY KEY CHECK (id = 1),
    quota_floor                BIGINT    NOT NULL DEFAULT 1000,
    quota_per_user             BIGINT    NOT NULL DEFAULT 50,
    quota_unit                 TEXT      NOT NULL DEFAULT 'message',
    default_time_zone          TEXT      NOT NULL DEFAULT 'UTC',
    relay_ip_activation        TEXT      NOT NULL DEFAULT 'manual',
    allow_unscanned            BOOLEAN   NOT NULL DEFAULT FALSE,
    allow_target_networks      TEXT      NOT NULL DEFAULT '[]',
    bulk_mode                  TEXT      NOT NULL DEFAULT 'refuse',
    bulk_refuse_auto_submitted BOOLEAN   NOT NULL DEFAULT FALSE,
    bulk_recipient_cap         BIGINT    NOT NULL DEFAULT 0,
    max_recipients             BIGINT    NOT NULL DEFAULT 100,
    max_message_bytes          BIGINT    NOT NULL DEFAULT 26214400,
    max_policy_age_seconds     BIGINT    NOT NULL DEFAULT 30,
    quota_reached_reply_server TEXT      NOT NULL DEFAULT 'defer',
    quota_reached_reply_user   TEXT      NOT NULL DEFAULT 'refuse',
    suspended_defer_hours      BIGINT    NOT NULL DEFAULT 24,
    bare_newline               TEXT      NOT NULL DEFAULT 'refuse',
    notice_from                TEXT      NOT NULL DEFAULT 'postmaster@activerelay.invalid',
    notice_percent             BIGINT    NOT NULL DEFAULT 80,
    complaints_user            BIGINT    NOT NULL DEFAULT 3,
    complaints_relay_ip        BIGINT    NOT NULL DEFAULT 5,
    complaints_domain          BIGINT    NOT NULL DEFAULT 10,
    complaints_partner         BIGINT    NOT NULL DEFAULT 0,
    complaints_window_hours    BIGINT    NOT NULL DEFAULT 24,
    version                    BIGINT    NOT NULL DEFAULT 1,
    updated_at                 TIMESTAMP NOT NULL
);
CREATE TABLE tokens (
    id                  TEXT      NOT NULL PRIMARY KEY,
    name                TEXT      NOT NULL,
    role                TEXT      NOT NULL CHECK (role IN ('operator', 'partner', 'customer')),
    partner             TEXT      NOT NULL DEFAULT '',
    domain              TEXT      NOT NULL DEFAULT '',
    read_only           BOOLEAN   NOT NULL DEFAULT FALSE,
    scopes              TEXT      NOT NULL DEFAULT '[]',
    allowed_addresses   TEXT      NOT NULL DEFAULT '[]',
    secret_hash         BLOB      NOT NULL,
    previous_hash       BLOB,
    previous_expires_at TIMESTAMP,
    expires_at          TIMESTAMP,
    last_used_at        TIMESTAMP,
    revoked_at          TIMESTAMP,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMP NOT NULL,
    updated_at          TIMESTAMP NOT NULL,
    CHECK (role <> 'partner' OR partner <> ''),
    CHECK (role <> 'customer' OR (partner <> '' AND domain <> ''))
);
CREATE INDEX tokens_partner_id_idx ON tokens (partner, id);
CREATE TABLE usage_refusals (
    domain    TEXT      NOT NULL,
    day_start TIMESTAMP NOT NULL,
    reason    TEXT      NOT NULL,
    partner   TEXT      NOT NULL,
    messages  BIGINT    NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, day_start, reason)
);
CREATE TABLE users (
    address             TEXT      NOT NULL PRIMARY KEY,
    domain              TEXT      NOT NULL REFERENCES domains (name) ON DELETE CASCADE,
    partner             TEXT      NOT NULL,
    verifier            TEXT      NOT NULL,
    aliases             TEXT      NOT NULL DEFAULT '[]',
    description         TEXT      NOT NULL DEFAULT '',
    password_changed_at TIMESTAMP NOT NULL,
    status              TEXT      NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    status_reason       TEXT      NOT NULL DEFAULT '',
    status_since        TIMESTAMP NOT NULL,
    relaying_state      TEXT      NOT NULL DEFAULT 'enabled' CHECK (relaying_state IN ('enabled', 'disabled')),
    relaying_reason     TEXT      NOT NULL DEFAULT '',
    relaying_cause      TEXT      NOT NULL DEFAULT '',
    relaying_since      TIMESTAMP,
    relaying_cleared_at TIMESTAMP,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMP NOT NULL,
    updated_at          TIMESTAMP NOT NULL
);
CREATE INDEX users_domain_address_idx ON users (domain, address);
CREATE INDEX users_partner_address_idx ON users (partner, address);
