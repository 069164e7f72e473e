-- The whole first schema. It runs on an empty database, so it locks nothing that is in use. Version numbers, tables,
-- columns and constraint names are the same as in the SQLite folder; only the types differ. JSON is TEXT. Text
-- sorts by bytes, as in SQLite, whatever the locale of the database is: paging and policy order depend on it.
-- +goose Up

-- One row for each fact about the database itself, e.g. its identity (the root of the policy epoch).
CREATE TABLE meta (
    key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value TEXT COLLATE "C" NOT NULL
);
INSERT INTO meta (key, value) VALUES ('database_id', replace(gen_random_uuid()::text, '-', ''));

-- The single counter whose row lock makes commit order revision order.
CREATE TABLE revision (
    id    INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    value BIGINT  NOT NULL
);
INSERT INTO revision (id, value) VALUES (1, 0);

CREATE TABLE partners (
    slug                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name                TEXT COLLATE "C" NOT NULL,
    support_contact     TEXT COLLATE "C" NOT NULL DEFAULT '',
    time_zone           TEXT COLLATE "C" NOT NULL DEFAULT '',
    status              TEXT COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    status_reason       TEXT COLLATE "C" NOT NULL DEFAULT '',
    status_since        TIMESTAMPTZ NOT NULL,
    relaying_state      TEXT COLLATE "C" NOT NULL DEFAULT 'enabled' CHECK (relaying_state IN ('enabled', 'disabled')),
    relaying_reason     TEXT COLLATE "C" NOT NULL DEFAULT '',
    relaying_cause      TEXT COLLATE "C" NOT NULL DEFAULT '',
    relaying_since      TIMESTAMPTZ,
    relaying_cleared_at TIMESTAMPTZ,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL
);

CREATE TABLE domains (
    name                TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    partner             TEXT COLLATE "C" NOT NULL REFERENCES partners (slug),
    licensed_users      BIGINT    NOT NULL DEFAULT 0,
    time_zone           TEXT COLLATE "C" ,
    include_subdomains  BOOLEAN   NOT NULL DEFAULT FALSE,
    users_may_send_as   TEXT COLLATE "C" NOT NULL DEFAULT 'own' CHECK (users_may_send_as IN ('own', 'domain')),
    contacts            TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    status              TEXT COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    status_reason       TEXT COLLATE "C" NOT NULL DEFAULT '',
    status_since        TIMESTAMPTZ NOT NULL,
    relaying_state      TEXT COLLATE "C" NOT NULL DEFAULT 'enabled' CHECK (relaying_state IN ('enabled', 'disabled')),
    relaying_reason     TEXT COLLATE "C" NOT NULL DEFAULT '',
    relaying_cause      TEXT COLLATE "C" NOT NULL DEFAULT '',
    relaying_since      TIMESTAMPTZ,
    relaying_cleared_at TIMESTAMPTZ,
    bulk_mode           TEXT COLLATE "C" NOT NULL DEFAULT '' CHECK (bulk_mode IN ('', 'refuse', 'observe', 'allow')),
    bulk_reason         TEXT COLLATE "C" NOT NULL DEFAULT '',
    bulk_expires_at     TIMESTAMPTZ,
    bulk_version        BIGINT    NOT NULL DEFAULT 0,
    override_limit      BIGINT,
    override_expires_at TIMESTAMPTZ,
    override_reason     TEXT COLLATE "C" NOT NULL DEFAULT '',
    override_version    BIGINT    NOT NULL DEFAULT 0,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL
);
CREATE INDEX domains_partner_name_idx ON domains (partner, name);

-- first_address and last_address are the ends of the prefix as 32 hexadecimal digits of IPv6 (IPv4 mapped), so that
-- prefixes that cover or overlap an address are found by comparison.
CREATE TABLE relay_ips (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    domain              TEXT COLLATE "C" NOT NULL REFERENCES domains (name) ON DELETE CASCADE,
    partner             TEXT COLLATE "C" NOT NULL,
    address             TEXT COLLATE "C" NOT NULL,
    first_address       TEXT COLLATE "C" NOT NULL,
    last_address        TEXT COLLATE "C" NOT NULL,
    state               TEXT COLLATE "C" NOT NULL CHECK (state IN ('requested', 'active', 'disabled', 'rejected')),
    reason              TEXT COLLATE "C" NOT NULL DEFAULT '',
    cause               TEXT COLLATE "C" NOT NULL DEFAULT '',
    comment             TEXT COLLATE "C" NOT NULL DEFAULT '',
    relaying_cleared_at TIMESTAMPTZ,
    activated_at        TIMESTAMPTZ,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL,
    UNIQUE (domain, address)
);
CREATE INDEX relay_ips_partner_id_idx ON relay_ips (partner, id);
CREATE INDEX relay_ips_first_address_idx ON relay_ips (first_address);

-- domain '' means any sender domain, recipient_domain '' any recipient.
CREATE TABLE routes (
    id               TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    partner          TEXT COLLATE "C" ,
    domain           TEXT COLLATE "C" NOT NULL DEFAULT '',
    recipient_domain TEXT COLLATE "C" NOT NULL DEFAULT '',
    host             TEXT COLLATE "C" NOT NULL,
    port             BIGINT    NOT NULL,
    tls              TEXT COLLATE "C" NOT NULL CHECK (tls IN ('opportunistic', 'required', 'implicit', 'none')),
    username         TEXT COLLATE "C" NOT NULL DEFAULT '',
    password_sealed  BYTEA,
    secret_version   BIGINT    NOT NULL DEFAULT 0,
    version          BIGINT    NOT NULL DEFAULT 1,
    created_at       TIMESTAMPTZ NOT NULL,
    updated_at       TIMESTAMPTZ NOT NULL,
    UNIQUE (domain, recipient_domain)
);
CREATE INDEX routes_partner_id_idx ON routes (partner, id);

CREATE TABLE users (
    address             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    domain              TEXT COLLATE "C" NOT NULL REFERENCES domains (name) ON DELETE CASCADE,
    partner             TEXT COLLATE "C" NOT NULL,
    verifier            TEXT COLLATE "C" NOT NULL,
    aliases             TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    description         TEXT COLLATE "C" NOT NULL DEFAULT '',
    password_changed_at TIMESTAMPTZ NOT NULL,
    status              TEXT COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    status_reason       TEXT COLLATE "C" NOT NULL DEFAULT '',
    status_since        TIMESTAMPTZ NOT NULL,
    relaying_state      TEXT COLLATE "C" NOT NULL DEFAULT 'enabled' CHECK (relaying_state IN ('enabled', 'disabled')),
    relaying_reason     TEXT COLLATE "C" NOT NULL DEFAULT '',
    relaying_cause      TEXT COLLATE "C" NOT NULL DEFAULT '',
    relaying_since      TIMESTAMPTZ,
    relaying_cleared_at TIMESTAMPTZ,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL
);
CREATE INDEX users_domain_address_idx ON users (domain, address);
CREATE INDEX users_partner_address_idx ON users (partner, address);

-- One row: the settings of the whole platform, with the defaults of the contract.
CREATE TABLE settings (
    id                         INTEGER   NOT NULL PRIMARY KEY CHECK (id = 1),
    quota_floor                BIGINT    NOT NULL DEFAULT 1000,
    quota_per_user             BIGINT    NOT NULL DEFAULT 50,
    quota_unit                 TEXT COLLATE "C" NOT NULL DEFAULT 'message',
    default_time_zone          TEXT COLLATE "C" NOT NULL DEFAULT 'UTC',
    relay_ip_activation        TEXT COLLATE "C" NOT NULL DEFAULT 'manual',
    allow_unscanned            BOOLEAN   NOT NULL DEFAULT FALSE,
    allow_target_networks      TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    bulk_mode                  TEXT COLLATE "C" NOT NULL DEFAULT 'refuse',
    bulk_refuse_auto_submitted BOOLEAN   NOT NULL DEFAULT FALSE,
    bulk_recipient_cap         BIGINT    NOT NULL DEFAULT 0,
    max_recipients             BIGINT    NOT NULL DEFAULT 100,
    max_message_bytes          BIGINT    NOT NULL DEFAULT 26214400,
    max_policy_age_seconds     BIGINT    NOT NULL DEFAULT 30,
    quota_reached_reply_server TEXT COLLATE "C" NOT NULL DEFAULT 'defer',
    quota_reached_reply_user   TEXT COLLATE "C" NOT NULL DEFAULT 'refuse',
    suspended_defer_hours      BIGINT    NOT NULL DEFAULT 24,
    bare_newline               TEXT COLLATE "C" NOT NULL DEFAULT 'refuse',
    notice_from                TEXT COLLATE "C" NOT NULL DEFAULT 'postmaster@activerelay.invalid',
    notice_percent             BIGINT    NOT NULL DEFAULT 80,
    complaints_user            BIGINT    NOT NULL DEFAULT 3,
    complaints_relay_ip        BIGINT    NOT NULL DEFAULT 5,
    complaints_domain          BIGINT    NOT NULL DEFAULT 10,
    complaints_partner         BIGINT    NOT NULL DEFAULT 0,
    complaints_window_hours    BIGINT    NOT NULL DEFAULT 24,
    version                    BIGINT    NOT NULL DEFAULT 1,
    updated_at                 TIMESTAMPTZ NOT NULL
);
INSERT INTO settings (id, updated_at) VALUES (1, '1970-01-01 00:00:00+00:00');

-- One row for each domain and day, made when its first unit is asked for. held is what all edges were granted and did
-- not return; recovered is what edges proved to hold after a restore had forgotten the grants. The CHECK is the last
-- fence of the limit.
CREATE TABLE quota_days (
    domain      TEXT COLLATE "C" NOT NULL,
    day_start   TIMESTAMPTZ NOT NULL,
    day_end     TIMESTAMPTZ NOT NULL,
    day         TEXT COLLATE "C" NOT NULL,
    time_zone   TEXT COLLATE "C" NOT NULL,
    partner     TEXT COLLATE "C" NOT NULL,
    unit        TEXT COLLATE "C" NOT NULL,
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

-- One row for each lease. A generation that is over keeps its rows: units that may have been spent stay counted.
CREATE TABLE quota_leases (
    domain     TEXT COLLATE "C" NOT NULL,
    day_start  TIMESTAMPTZ NOT NULL,
    edge       TEXT COLLATE "C" NOT NULL,
    granted    BIGINT    NOT NULL DEFAULT 0,
    spent      BIGINT    NOT NULL DEFAULT 0,
    returned   BIGINT    NOT NULL DEFAULT 0,
    generation BIGINT    NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (domain, day_start, edge, generation)
);
CREATE INDEX quota_leases_edge_day_idx ON quota_leases (edge, day_start);

CREATE TABLE usage_refusals (
    domain    TEXT COLLATE "C" NOT NULL,
    day_start TIMESTAMPTZ NOT NULL,
    reason    TEXT COLLATE "C" NOT NULL,
    partner   TEXT COLLATE "C" NOT NULL,
    messages  BIGINT    NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, day_start, reason)
);

CREATE TABLE sender_usage (
    domain     TEXT COLLATE "C" NOT NULL,
    day_start  TIMESTAMPTZ NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL CHECK (kind IN ('client_address', 'user', 'sender_address')),
    key        TEXT COLLATE "C" NOT NULL,
    messages   BIGINT    NOT NULL DEFAULT 0,
    recipients BIGINT    NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, day_start, kind, key)
);

CREATE TABLE sender_refusals (
    domain    TEXT COLLATE "C" NOT NULL,
    day_start TIMESTAMPTZ NOT NULL,
    kind      TEXT COLLATE "C" NOT NULL CHECK (kind IN ('client_address', 'user', 'sender_address')),
    key       TEXT COLLATE "C" NOT NULL,
    reason    TEXT COLLATE "C" NOT NULL,
    messages  BIGINT    NOT NULL DEFAULT 0,
    PRIMARY KEY (domain, day_start, kind, key, reason)
);

CREATE TABLE decisions (
    ref             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    occurred_at     TIMESTAMPTZ NOT NULL,
    edge            TEXT COLLATE "C" NOT NULL,
    domain          TEXT COLLATE "C" NOT NULL DEFAULT '',
    partner         TEXT COLLATE "C" NOT NULL DEFAULT '',
    reason          TEXT COLLATE "C" NOT NULL,
    stage           TEXT COLLATE "C" NOT NULL DEFAULT '',
    reply           TEXT COLLATE "C" NOT NULL DEFAULT '',
    client_address  TEXT COLLATE "C" NOT NULL DEFAULT '',
    user_address    TEXT COLLATE "C" NOT NULL DEFAULT '',
    sender          TEXT COLLATE "C" NOT NULL DEFAULT '',
    recipient       TEXT COLLATE "C" NOT NULL DEFAULT '',
    policy_revision BIGINT    NOT NULL DEFAULT 0,
    detail          TEXT COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX decisions_occurred_at_idx ON decisions (occurred_at);

-- relay_ip is the row that the client address was found in, at the time. counts is false for what is no complaint about
-- abuse, and for mail whose user or relay IP was already disabled: the guilty one is stopped, the domain is not.
CREATE TABLE complaints (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    received_at    TIMESTAMPTZ NOT NULL,
    feedback_type  TEXT COLLATE "C" NOT NULL,
    message_id     TEXT COLLATE "C" NOT NULL,
    domain         TEXT COLLATE "C" NOT NULL,
    partner        TEXT COLLATE "C" NOT NULL,
    user_address   TEXT COLLATE "C" NOT NULL DEFAULT '',
    client_address TEXT COLLATE "C" NOT NULL DEFAULT '',
    edge           TEXT COLLATE "C" NOT NULL,
    sender         TEXT COLLATE "C" NOT NULL DEFAULT '',
    reporter       TEXT COLLATE "C" NOT NULL DEFAULT '',
    comment        TEXT COLLATE "C" NOT NULL DEFAULT '',
    relay_ip       TEXT COLLATE "C" NOT NULL DEFAULT '',
    counts         BOOLEAN NOT NULL DEFAULT TRUE,
    disabled       TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    created_at     TIMESTAMPTZ NOT NULL,
    UNIQUE (message_id, reporter)
);
CREATE INDEX complaints_domain_received_at_idx ON complaints (domain, received_at);
CREATE INDEX complaints_partner_received_at_idx ON complaints (partner, received_at);

CREATE TABLE edges (
    id                       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name                     TEXT COLLATE "C" NOT NULL,
    status                   TEXT COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'retired')),
    partners                 TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    public_key               TEXT COLLATE "C" NOT NULL,
    software_version         TEXT COLLATE "C" NOT NULL DEFAULT '',
    capability_version       BIGINT    NOT NULL DEFAULT 1,
    generation               BIGINT    NOT NULL DEFAULT 1,
    credential_hash          BYTEA,
    next_credential_hash     BYTEA,
    boot_nonce               TEXT COLLATE "C" NOT NULL DEFAULT '',
    previous_boot_nonces     TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    lease_sequence           BIGINT    NOT NULL DEFAULT 0,
    event_generation         BIGINT    NOT NULL DEFAULT 1,
    event_acknowledged       BIGINT    NOT NULL DEFAULT 0,
    instruction_number       BIGINT    NOT NULL DEFAULT 0,
    instruction_acknowledged BIGINT    NOT NULL DEFAULT 0,
    reported_epoch           TEXT COLLATE "C" NOT NULL DEFAULT '',
    enforced_epoch           TEXT COLLATE "C" NOT NULL DEFAULT '',
    enforced_revision        BIGINT    NOT NULL DEFAULT 0,
    joined_at                TIMESTAMPTZ NOT NULL,
    last_seen_at             TIMESTAMPTZ,
    retired_at               TIMESTAMPTZ
);

CREATE TABLE join_tokens (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret_hash BYTEA      NOT NULL,
    partners    TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    created_at  TIMESTAMPTZ NOT NULL,
    expires_at  TIMESTAMPTZ NOT NULL,
    used_at     TIMESTAMPTZ,
    used_by     TEXT COLLATE "C" NOT NULL DEFAULT ''
);

CREATE TABLE instructions (
    edge       TEXT COLLATE "C" NOT NULL,
    number     BIGINT    NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    body       TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (edge, number)
);

CREATE TABLE notices (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    domain     TEXT COLLATE "C" NOT NULL,
    day_start  TIMESTAMPTZ NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    edge       TEXT COLLATE "C" NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    UNIQUE (domain, day_start, kind)
);

CREATE TABLE tokens (
    id                  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name                TEXT COLLATE "C" NOT NULL,
    role                TEXT COLLATE "C" NOT NULL CHECK (role IN ('operator', 'partner', 'customer')),
    partner             TEXT COLLATE "C" NOT NULL DEFAULT '',
    domain              TEXT COLLATE "C" NOT NULL DEFAULT '',
    read_only           BOOLEAN   NOT NULL DEFAULT FALSE,
    scopes              TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    allowed_addresses   TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    secret_hash         BYTEA      NOT NULL,
    previous_hash       BYTEA,
    previous_expires_at TIMESTAMPTZ,
    expires_at          TIMESTAMPTZ,
    last_used_at        TIMESTAMPTZ,
    revoked_at          TIMESTAMPTZ,
    version             BIGINT    NOT NULL DEFAULT 1,
    created_at          TIMESTAMPTZ NOT NULL,
    updated_at          TIMESTAMPTZ NOT NULL,
    CHECK (role <> 'partner' OR partner <> ''),
    CHECK (role <> 'customer' OR (partner <> '' AND domain <> ''))
);
CREATE INDEX tokens_partner_id_idx ON tokens (partner, id);

CREATE TABLE idempotency_keys (
    principal    TEXT COLLATE "C" NOT NULL,
    key          TEXT COLLATE "C" NOT NULL,
    operation    TEXT COLLATE "C" NOT NULL,
    request_hash BYTEA      NOT NULL,
    status       BIGINT    NOT NULL,
    headers      TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    body         BYTEA,
    sealed       BOOLEAN   NOT NULL DEFAULT FALSE,
    created_at   TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);

CREATE TABLE audit (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    occurred_at   TIMESTAMPTZ NOT NULL,
    token_id      TEXT COLLATE "C" NOT NULL,
    actor_name    TEXT COLLATE "C" NOT NULL DEFAULT '',
    actor_role    TEXT COLLATE "C" NOT NULL,
    actor_partner TEXT COLLATE "C" NOT NULL DEFAULT '',
    action        TEXT COLLATE "C" NOT NULL,
    object        TEXT COLLATE "C" NOT NULL,
    partner       TEXT COLLATE "C" NOT NULL DEFAULT '',
    reason        TEXT COLLATE "C" NOT NULL DEFAULT '',
    request_id    TEXT COLLATE "C" NOT NULL DEFAULT '',
    changes       TEXT COLLATE "C" NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_partner_id_idx ON audit (partner, id);
CREATE INDEX audit_object_id_idx ON audit (object, id);

-- Entries are written once: nobody who can only speak SQL through this program may rewrite history.
-- +goose StatementBegin
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit is append-only';
END;
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_no_update BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- Policy documents, materialised in the transaction of the change that they show.
CREATE TABLE documents (
    key        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    partner    TEXT COLLATE "C" NOT NULL DEFAULT '',
    domain     TEXT COLLATE "C" NOT NULL DEFAULT '',
    revision   BIGINT    NOT NULL,
    deleted    BOOLEAN   NOT NULL DEFAULT FALSE,
    body       TEXT COLLATE "C" NOT NULL DEFAULT '',
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX documents_revision_key_idx ON documents (revision, key);

-- Documents that a change elsewhere touched, in numbers that its own transaction must not write.
CREATE TABLE pending_documents (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY
);
