CREATE OR REPLACE FUNCTION public.audit_is_append_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION 'audit is append-only';
END;
$function$

audit.id text COLLATE C NOT NULL
audit.occurred_at timestamp with time zone NOT NULL
audit.token_id text COLLATE C NOT NULL
audit.actor_name text COLLATE C NOT NULL DEFAULT ''::text
audit.actor_role text COLLATE C NOT NULL
audit.actor_partner text COLLATE C NOT NULL DEFAULT ''::text
audit.action text COLLATE C NOT NULL
audit.object text COLLATE C NOT NULL
audit.partner text COLLATE C NOT NULL DEFAULT ''::text
audit.reason text COLLATE C NOT NULL DEFAULT ''::text
audit.request_id text COLLATE C NOT NULL DEFAULT ''::text
audit.changes text COLLATE C NOT NULL DEFAULT '{}'::text
audit CONSTRAINT audit_pkey PRIMARY KEY (id)
CREATE UNIQUE INDEX audit_pkey ON public.audit USING btree (id)
CREATE INDEX audit_object_id_idx ON public.audit USING btree (object, id)
CREATE INDEX audit_partner_id_idx ON public.audit USING btree (partner, id)
CREATE TRIGGER audit_no_update BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
complaints.id text COLLATE C NOT NULL
complaints.received_at timestamp with time zone NOT NULL
complaints.feedback_type text COLLATE C NOT NULL
complaints.message_id text COLLATE C NOT NULL
complaints.domain text COLLATE C NOT NULL
complaints.partner text COLLATE C NOT NULL
complaints.user_address text COLLATE C NOT NULL DEFAULT ''::text
complaints.client_address text COLLATE C NOT NULL DEFAULT ''::text
complaints.edge text COLLATE C NOT NULL
complaints.sender text COLLATE C NOT NULL DEFAULT ''::text
complaints.reporter text COLLATE C NOT NULL DEFAULT ''::text
complaints.comment text COLLATE C NOT NULL DEFAULT ''::text
complaints.relay_ip text COLLATE C NOT NULL DEFAULT ''::text
complaints.counts boolean NOT NULL DEFAULT true
complaints.disabled text COLLATE C NOT NULL DEFAULT '[]'::text
complaints.created_at timestamp with time zone NOT NULL
complaints CONSTRAINT complaints_pkey PRIMARY KEY (id)
complaints CONSTRAINT complaints_message_id_reporter_key UNIQUE (message_id, reporter)
CREATE UNIQUE INDEX complaints_pkey ON public.complaints USING btree (id)
CREATE INDEX complaints_domain_received_at_idx ON public.complaints USING btree (domain, received_at)
CREATE UNIQUE INDEX complaints_message_id_reporter_key ON public.complaints USING btree (message_id, reporter)
CREATE INDEX complaints_partner_received_at_idx ON public.complaints USING btree (partner, received_at)
decisions.ref text COLLATE C NOT NULL
decisions.occurred_at timestamp with time zone NOT NULL
decisions.edge text COLLATE C NOT NULL
decisions.domain text COLLATE C NOT NULL DEFAULT ''::text
decisions.partner text COLLATE C NOT NULL DEFAULT ''::text
decisions.reason text COLLATE C NOT NULL
decisions.stage text COLLATE C NOT NULL DEFAULT ''::text
decisions.reply text COLLATE C NOT NULL DEFAULT ''::text
decisions.client_address text COLLATE C NOT NULL DEFAULT ''::text
decisions.user_address text COLLATE C NOT NULL DEFAULT ''::text
decisions.sender text COLLATE C NOT NULL DEFAULT ''::text
decisions.recipient text COLLATE C NOT NULL DEFAULT ''::text
decisions.policy_revision bigint NOT NULL DEFAULT 0
decisions.detail text COLLATE C NOT NULL DEFAULT ''::text
decisions CONSTRAINT decisions_pkey PRIMARY KEY (ref)
CREATE UNIQUE INDEX decisions_pkey ON public.decisions USING btree (ref)
CREATE INDEX decisions_occurred_at_idx ON public.decisions USING btree (occurred_at)
destination_limits.destination text COLLATE C NOT NULL
destination_limits.max_connections bigint NOT NULL DEFAULT 0
destination_limits.messages_per_minute bigint NOT NULL DEFAULT 0
destination_limits.reason text COLLATE C NOT NULL DEFAULT ''::text
destination_limits.version bigint NOT NULL DEFAULT 1
destination_limits.created_at timestamp with time zone NOT NULL
destination_limits.updated_at timestamp with time zone NOT NULL
destination_limits CONSTRAINT destination_limits_pkey PRIMARY KEY (destination)
CREATE UNIQUE INDEX destination_limits_pkey ON public.destination_limits USING btree (destination)
documents.key text COLLATE C NOT NULL
documents.partner text COLLATE C NOT NULL DEFAULT ''::text
documents.domain text COLLATE C NOT NULL DEFAULT ''::text
documents.revision bigint NOT NULL
documents.deleted boolean NOT NULL DEFAULT false
documents.body text COLLATE C NOT NULL DEFAULT ''::text
documents.updated_at timestamp with time zone NOT NULL
documents CONSTRAINT documents_pkey PRIMARY KEY (key)
CREATE UNIQUE INDEX documents_pkey ON public.documents USING btree (key)
CREATE INDEX documents_revision_key_idx ON public.documents USING btree (revision, key)
domains.name text COLLATE C NOT NULL
domains.partner text COLLATE C NOT NULL
domains.licensed_users bigint NOT NULL DEFAULT 0
domains.time_zone text COLLATE C
domains.include_subdomains boolean NOT NULL DEFAULT false
domains.users_may_send_as text COLLATE C NOT NULL DEFAULT 'own'::text
domains.contacts text COLLATE C NOT NULL DEFAULT '[]'::text
domains.status text COLLATE C NOT NULL DEFAULT 'active'::text
domains.status_reason text COLLATE C NOT NULL DEFAULT ''::text
domains.status_since timestamp with time zone NOT NULL
domains.relaying_state text COLLATE C NOT NULL DEFAULT 'enabled'::text
domains.relaying_reason text COLLATE C NOT NULL DEFAULT ''::text
domains.relaying_cause text COLLATE C NOT NULL DEFAULT ''::text
domains.relaying_since timestamp with time zone
domains.relaying_cleared_at timestamp with time zone
domains.bulk_mode text COLLATE C NOT NULL DEFAULT ''::text
domains.bulk_reason text COLLATE C NOT NULL DEFAULT ''::text
domains.bulk_expires_at timestamp with time zone
domains.bulk_version bigint NOT NULL DEFAULT 0
domains.override_limit bigint
domains.override_expires_at timestamp with time zone
domains.override_reason text COLLATE C NOT NULL DEFAULT ''::text
domains.override_version bigint NOT NULL DEFAULT 0
domains.version bigint NOT NULL DEFAULT 1
domains.created_at timestamp with time zone NOT NULL
domains.updated_at timestamp with time zone NOT NULL
domains CONSTRAINT domains_pkey PRIMARY KEY (name)
domains CONSTRAINT domains_partner_fkey FOREIGN KEY (partner) REFERENCES partners(slug)
domains CONSTRAINT domains_status_check CHECK ((status = ANY (ARRAY['active'::text, 'suspended'::text])))
domains CONSTRAINT domains_bulk_mode_check CHECK ((bulk_mode = ANY (ARRAY[''::text, 'refuse'::text, 'observe'::text, 'allow'::text])))
domains CONSTRAINT domains_relaying_state_check CHECK ((relaying_state = ANY (ARRAY['enabled'::text, 'disabled'::text])))
domains CONSTRAINT domains_users_may_send_as_check CHECK ((users_may_send_as = ANY (ARRAY['own'::text, 'domain'::text])))
CREATE UNIQUE INDEX domains_pkey ON public.domains USING btree (name)
CREATE INDEX domains_partner_name_idx ON public.domains USING btree (partner, name)
edges.id text COLLATE C NOT NULL
edges.name text COLLATE C NOT NULL
edges.status text COLLATE C NOT NULL DEFAULT 'active'::text
edges.partners text COLLATE C NOT NULL DEFAULT '[]'::text
edges.public_key text COLLATE C NOT NULL
edges.software_version text COLLATE C NOT NULL DEFAULT ''::text
edges.capability_version bigint NOT NULL DEFAULT 1
edges.generation bigint NOT NULL DEFAULT 1
edges.credential_hash bytea
edges.next_credential_hash bytea
edges.boot_nonce text COLLATE C NOT NULL DEFAULT ''::text
edges.previous_boot_nonces text COLLATE C NOT NULL DEFAULT '[]'::text
edges.lease_sequence bigint NOT NULL DEFAULT 0
edges.event_generation bigint NOT NULL DEFAULT 1
edges.event_acknowledged bigint NOT NULL DEFAULT 0
edges.instruction_number bigint NOT NULL DEFAULT 0
edges.instruction_acknowledged bigint NOT NULL DEFAULT 0
edges.reported_epoch text COLLATE C NOT NULL DEFAULT ''::text
edges.enforced_epoch text COLLATE C NOT NULL DEFAULT ''::text
edges.enforced_revision bigint NOT NULL DEFAULT 0
edges.joined_at timestamp with time zone NOT NULL
edges.last_seen_at timestamp with time zone
edges.retired_at timestamp with time zone
edges.event_latest timestamp with time zone
edges.event_repeat_to bigint NOT NULL DEFAULT 0
edges.event_repeat_before timestamp with time zone
edges CONSTRAINT edges_pkey PRIMARY KEY (id)
edges CONSTRAINT edges_status_check CHECK ((status = ANY (ARRAY['active'::text, 'retired'::text])))
CREATE UNIQUE INDEX edges_pkey ON public.edges USING btree (id)
idempotency_keys.principal text COLLATE C NOT NULL
idempotency_keys.key text COLLATE C NOT NULL
idempotency_keys.operation text COLLATE C NOT NULL
idempotency_keys.request_hash bytea NOT NULL
idempotency_keys.status bigint NOT NULL
idempotency_keys.headers text COLLATE C NOT NULL DEFAULT '{}'::text
idempotency_keys.body bytea
idempotency_keys.sealed boolean NOT NULL DEFAULT false
idempotency_keys.created_at timestamp with time zone NOT NULL
idempotency_keys CONSTRAINT idempotency_keys_pkey PRIMARY KEY (principal, key)
CREATE UNIQUE INDEX idempotency_keys_pkey ON public.idempotency_keys USING btree (principal, key)
CREATE INDEX idempotency_keys_created_at_idx ON public.idempotency_keys USING btree (created_at)
instructions.edge text COLLATE C NOT NULL
instructions.number bigint NOT NULL
instructions.kind text COLLATE C NOT NULL
instructions.body text COLLATE C NOT NULL
instructions.created_at timestamp with time zone NOT NULL
instructions CONSTRAINT instructions_pkey PRIMARY KEY (edge, number)
CREATE UNIQUE INDEX instructions_pkey ON public.instructions USING btree (edge, number)
join_tokens.id text COLLATE C NOT NULL
join_tokens.secret_hash bytea NOT NULL
join_tokens.partners text COLLATE C NOT NULL DEFAULT '[]'::text
join_tokens.created_at timestamp with time zone NOT NULL
join_tokens.expires_at timestamp with time zone NOT NULL
join_tokens.used_at timestamp with time zone
join_tokens.used_by text COLLATE C NOT NULL DEFAULT ''::text
join_tokens CONSTRAINT join_tokens_pkey PRIMARY KEY (id)
CREATE UNIQUE INDEX join_tokens_pkey ON public.join_tokens USING btree (id)
meta.key text COLLATE C NOT NULL
meta.value text COLLATE C NOT NULL
meta CONSTRAINT meta_pkey PRIMARY KEY (key)
CREATE UNIQUE INDEX meta_pkey ON public.meta USING btree (key)
notices.id text COLLATE C NOT NULL
notices.domain text COLLATE C NOT NULL
notices.day_start timestamp with time zone NOT NULL
notices.kind text COLLATE C NOT NULL
notices.edge text COLLATE C NOT NULL
notices.created_at timestamp with time zone NOT NULL
notices CONSTRAINT notices_pkey PRIMARY KEY (id)
notices CONSTRAINT notices_domain_day_start_kind_key UNIQUE (domain, day_start, kind)
CREATE UNIQUE INDEX notices_pkey ON public.notices USING btree (id)
CREATE UNIQUE INDEX notices_domain_day_start_kind_key ON public.notices USING btree (domain, day_start, kind)
partners.slug text COLLATE C NOT NULL
partners.name text COLLATE C NOT NULL
partners.support_contact text COLLATE C NOT NULL DEFAULT ''::text
partners.time_zone text COLLATE C NOT NULL DEFAULT ''::text
partners.status text COLLATE C NOT NULL DEFAULT 'active'::text
partners.status_reason text COLLATE C NOT NULL DEFAULT ''::text
partners.status_since timestamp with time zone NOT NULL
partners.relaying_state text COLLATE C NOT NULL DEFAULT 'enabled'::text
partners.relaying_reason text COLLATE C NOT NULL DEFAULT ''::text
partners.relaying_cause text COLLATE C NOT NULL DEFAULT ''::text
partners.relaying_since timestamp with time zone
partners.relaying_cleared_at timestamp with time zone
partners.version bigint NOT NULL DEFAULT 1
partners.created_at timestamp with time zone NOT NULL
partners.updated_at timestamp with time zone NOT NULL
partners CONSTRAINT partners_pkey PRIMARY KEY (slug)
partners CONSTRAINT partners_status_check CHECK ((status = ANY (ARRAY['active'::text, 'suspended'::text])))
partners CONSTRAINT partners_relaying_state_check CHECK ((relaying_state = ANY (ARRAY['enabled'::text, 'disabled'::text])))
CREATE UNIQUE INDEX partners_pkey ON public.partners USING btree (slug)
pending_documents.key text COLLATE C NOT NULL
pending_documents CONSTRAINT pending_documents_pkey PRIMARY KEY (key)
CREATE UNIQUE INDEX pending_documents_pkey ON public.pending_documents USING btree (key)
queue_operation_edges.operation text COLLATE C NOT NULL
queue_operation_edges.edge text COLLATE C NOT NULL
queue_operation_edges.number bigint NOT NULL
queue_operation_edges.messages bigint NOT NULL DEFAULT 0
queue_operation_edges.recipients bigint NOT NULL DEFAULT 0
queue_operation_edges.acknowledged_at timestamp with time zone
queue_operation_edges.done_at timestamp with time zone
queue_operation_edges.unable boolean NOT NULL DEFAULT false
queue_operation_edges CONSTRAINT queue_operation_edges_pkey PRIMARY KEY (operation, edge)
CREATE UNIQUE INDEX queue_operation_edges_pkey ON public.queue_operation_edges USING btree (operation, edge)
CREATE INDEX queue_operation_edges_edge_number_idx ON public.queue_operation_edges USING btree (edge, number)
queue_operations.id text COLLATE C NOT NULL
queue_operations.action text COLLATE C NOT NULL
queue_operations.partner text COLLATE C NOT NULL DEFAULT ''::text
queue_operations.domain text COLLATE C NOT NULL DEFAULT ''::text
queue_operations.destination text COLLATE C NOT NULL DEFAULT ''::text
queue_operations.sender text COLLATE C NOT NULL DEFAULT ''::text
queue_operations.message_ids text COLLATE C NOT NULL DEFAULT '[]'::text
queue_operations.reason text COLLATE C NOT NULL DEFAULT ''::text
queue_operations.matched bigint NOT NULL DEFAULT 0
queue_operations.created_at timestamp with time zone NOT NULL
queue_operations CONSTRAINT queue_operations_pkey PRIMARY KEY (id)
queue_operations CONSTRAINT queue_operations_action_check CHECK ((action = ANY (ARRAY['retry'::text, 'hold'::text, 'release'::text, 'cancel'::text])))
CREATE UNIQUE INDEX queue_operations_pkey ON public.queue_operations USING btree (id)
CREATE INDEX queue_operations_created_at_idx ON public.queue_operations USING btree (created_at)
queued_messages.message_id text COLLATE C NOT NULL
queued_messages.destination text COLLATE C NOT NULL
queued_messages.edge text COLLATE C NOT NULL
queued_messages.partner text COLLATE C NOT NULL
queued_messages.domain text COLLATE C NOT NULL
queued_messages.sender text COLLATE C NOT NULL DEFAULT ''::text
queued_messages.recipients bigint NOT NULL
queued_messages.remaining bigint NOT NULL
queued_messages.state text COLLATE C NOT NULL DEFAULT 'queued'::text
queued_messages.attempts bigint NOT NULL DEFAULT 0
queued_messages.next_attempt_at timestamp with time zone
queued_messages.last_reply text COLLATE C NOT NULL DEFAULT ''::text
queued_messages.remote_host text COLLATE C NOT NULL DEFAULT ''::text
queued_messages.accepted_at timestamp with time zone NOT NULL
queued_messages.changed_at timestamp with time zone NOT NULL
queued_messages.tls text COLLATE C NOT NULL DEFAULT ''::text
queued_messages.delay_reason text COLLATE C NOT NULL DEFAULT ''::text
queued_messages CONSTRAINT queued_messages_pkey PRIMARY KEY (message_id, destination, edge)
queued_messages CONSTRAINT queued_messages_state_check CHECK ((state = ANY (ARRAY['queued'::text, 'held'::text, 'quarantined'::text])))
CREATE UNIQUE INDEX queued_messages_pkey ON public.queued_messages USING btree (message_id, destination, edge)
CREATE INDEX queued_messages_domain_message_id_idx ON public.queued_messages USING btree (domain, message_id)
CREATE INDEX queued_messages_partner_message_id_idx ON public.queued_messages USING btree (partner, message_id)
CREATE INDEX queued_messages_destination_message_id_idx ON public.queued_messages USING btree (destination, message_id)
quota_days.domain text COLLATE C NOT NULL
quota_days.day_start timestamp with time zone NOT NULL
quota_days.day_end timestamp with time zone NOT NULL
quota_days.day text COLLATE C NOT NULL
quota_days.time_zone text COLLATE C NOT NULL
quota_days.partner text COLLATE C NOT NULL
quota_days.unit text COLLATE C NOT NULL
quota_days.quota_limit bigint NOT NULL
quota_days.held bigint NOT NULL DEFAULT 0
quota_days.recovered bigint NOT NULL DEFAULT 0
quota_days.spent bigint NOT NULL DEFAULT 0
quota_days.messages bigint NOT NULL DEFAULT 0
quota_days.recipients bigint NOT NULL DEFAULT 0
quota_days CONSTRAINT quota_days_pkey PRIMARY KEY (domain, day_start)
quota_days CONSTRAINT quota_days_check CHECK ((held <= (quota_limit + recovered)))
quota_days CONSTRAINT quota_days_held_check CHECK ((held >= 0))
quota_days CONSTRAINT quota_days_spent_check CHECK ((spent >= 0))
quota_days CONSTRAINT quota_days_recovered_check CHECK ((recovered >= 0))
quota_days CONSTRAINT quota_days_quota_limit_check CHECK ((quota_limit >= 0))
CREATE UNIQUE INDEX quota_days_pkey ON public.quota_days USING btree (domain, day_start)
CREATE INDEX quota_days_day_domain_idx ON public.quota_days USING btree (day, domain)
CREATE INDEX quota_days_partner_day_idx ON public.quota_days USING btree (partner, day)
quota_leases.domain text COLLATE C NOT NULL
quota_leases.day_start timestamp with time zone NOT NULL
quota_leases.edge text COLLATE C NOT NULL
quota_leases.granted bigint NOT NULL DEFAULT 0
quota_leases.spent bigint NOT NULL DEFAULT 0
quota_leases.returned bigint NOT NULL DEFAULT 0
quota_leases.generation bigint NOT NULL
quota_leases.updated_at timestamp with time zone NOT NULL
quota_leases CONSTRAINT quota_leases_pkey PRIMARY KEY (domain, day_start, edge, generation)
CREATE UNIQUE INDEX quota_leases_pkey ON public.quota_leases USING btree (domain, day_start, edge, generation)
CREATE INDEX quota_leases_edge_day_idx ON public.quota_leases USING btree (edge, day_start)
rejections.document text COLLATE C NOT NULL
rejections.edge text COLLATE C NOT NULL
rejections.revision bigint NOT NULL
rejections.occurred_at timestamp with time zone NOT NULL
rejections.detail text COLLATE C NOT NULL
rejections CONSTRAINT rejections_pkey PRIMARY KEY (document, edge)
rejections CONSTRAINT rejections_document_fkey FOREIGN KEY (document) REFERENCES documents(key) ON DELETE CASCADE
CREATE UNIQUE INDEX rejections_pkey ON public.rejections USING btree (document, edge)
relay_ips.id text COLLATE C NOT NULL
relay_ips.domain text COLLATE C NOT NULL
relay_ips.partner text COLLATE C NOT NULL
relay_ips.address text COLLATE C NOT NULL
relay_ips.first_address text COLLATE C NOT NULL
relay_ips.last_address text COLLATE C NOT NULL
relay_ips.state text COLLATE C NOT NULL
relay_ips.reason text COLLATE C NOT NULL DEFAULT ''::text
relay_ips.cause text COLLATE C NOT NULL DEFAULT ''::text
relay_ips.comment text COLLATE C NOT NULL DEFAULT ''::text
relay_ips.relaying_cleared_at timestamp with time zone
relay_ips.activated_at timestamp with time zone
relay_ips.version bigint NOT NULL DEFAULT 1
relay_ips.created_at timestamp with time zone NOT NULL
relay_ips.updated_at timestamp with time zone NOT NULL
relay_ips CONSTRAINT relay_ips_pkey PRIMARY KEY (id)
relay_ips CONSTRAINT relay_ips_domain_fkey FOREIGN KEY (domain) REFERENCES domains(name) ON DELETE CASCADE
relay_ips CONSTRAINT relay_ips_state_check CHECK ((state = ANY (ARRAY['requested'::text, 'active'::text, 'disabled'::text, 'rejected'::text])))
relay_ips CONSTRAINT relay_ips_domain_address_key UNIQUE (domain, address)
CREATE UNIQUE INDEX relay_ips_pkey ON public.relay_ips USING btree (id)
CREATE INDEX relay_ips_partner_id_idx ON public.relay_ips USING btree (partner, id)
CREATE INDEX relay_ips_first_address_idx ON public.relay_ips USING btree (first_address)
CREATE UNIQUE INDEX relay_ips_domain_address_key ON public.relay_ips USING btree (domain, address)
revision.id integer NOT NULL
revision.value bigint NOT NULL
revision CONSTRAINT revision_pkey PRIMARY KEY (id)
revision CONSTRAINT revision_id_check CHECK ((id = 1))
CREATE UNIQUE INDEX revision_pkey ON public.revision USING btree (id)
routes.id text COLLATE C NOT NULL
routes.partner text COLLATE C
routes.domain text COLLATE C NOT NULL DEFAULT ''::text
routes.recipient_domain text COLLATE C NOT NULL DEFAULT ''::text
routes.host text COLLATE C NOT NULL
routes.port bigint NOT NULL
routes.tls text COLLATE C NOT NULL
routes.username text COLLATE C NOT NULL DEFAULT ''::text
routes.password_sealed bytea
routes.secret_version bigint NOT NULL DEFAULT 0
routes.version bigint NOT NULL DEFAULT 1
routes.created_at timestamp with time zone NOT NULL
routes.updated_at timestamp with time zone NOT NULL
routes CONSTRAINT routes_pkey PRIMARY KEY (id)
routes CONSTRAINT routes_tls_check CHECK ((tls = ANY (ARRAY['opportunistic'::text, 'required'::text, 'implicit'::text, 'none'::text])))
routes CONSTRAINT routes_domain_recipient_domain_key UNIQUE (domain, recipient_domain)
CREATE UNIQUE INDEX routes_pkey ON public.routes USING btree (id)
CREATE INDEX routes_partner_id_idx ON public.routes USING btree (partner, id)
CREATE UNIQUE INDEX routes_domain_recipient_domain_key ON public.routes USING btree (domain, recipient_domain)
sender_refusals.domain text COLLATE C NOT NULL
sender_refusals.day_start timestamp with time zone NOT NULL
sender_refusals.kind text COLLATE C NOT NULL
sender_refusals.key text COLLATE C NOT NULL
sender_refusals.reason text COLLATE C NOT NULL
sender_refusals.messages bigint NOT NULL DEFAULT 0
sender_refusals CONSTRAINT sender_refusals_pkey PRIMARY KEY (domain, day_start, kind, key, reason)
sender_refusals CONSTRAINT sender_refusals_kind_check CHECK ((kind = ANY (ARRAY['client_address'::text, 'user'::text, 'sender_address'::text])))
CREATE UNIQUE INDEX sender_refusals_pkey ON public.sender_refusals USING btree (domain, day_start, kind, key, reason)
sender_usage.domain text COLLATE C NOT NULL
sender_usage.day_start timestamp with time zone NOT NULL
sender_usage.kind text COLLATE C NOT NULL
sender_usage.key text COLLATE C NOT NULL
sender_usage.messages bigint NOT NULL DEFAULT 0
sender_usage.recipients bigint NOT NULL DEFAULT 0
sender_usage CONSTRAINT sender_usage_pkey PRIMARY KEY (domain, day_start, kind, key)
sender_usage CONSTRAINT sender_usage_kind_check CHECK ((kind = ANY (ARRAY['client_address'::text, 'user'::text, 'sender_address'::text])))
CREATE UNIQUE INDEX sender_usage_pkey ON public.sender_usage USING btree (domain, day_start, kind, key)
settings.id integer NOT NULL
settings.quota_floor bigint NOT NULL DEFAULT 1000
settings.quota_per_user bigint NOT NULL DEFAULT 50
settings.quota_unit text COLLATE C NOT NULL DEFAULT 'message'::text
settings.default_time_zone text COLLATE C NOT NULL DEFAULT 'UTC'::text
settings.relay_ip_activation text COLLATE C NOT NULL DEFAULT 'manual'::text
settings.allow_unscanned boolean NOT NULL DEFAULT false
settings.allow_target_networks text COLLATE C NOT NULL DEFAULT '[]'::text
settings.bulk_mode text COLLATE C NOT NULL DEFAULT 'refuse'::text
settings.bulk_refuse_auto_submitted boolean NOT NULL DEFAULT false
settings.bulk_recipient_cap bigint NOT NULL DEFAULT 0
settings.max_recipients bigint NOT NULL DEFAULT 100
settings.max_message_bytes bigint NOT NULL DEFAULT 26214400
settings.max_policy_age_seconds bigint NOT NULL DEFAULT 30
settings.quota_reached_reply_server text COLLATE C NOT NULL DEFAULT 'defer'::text
settings.quota_reached_reply_user text COLLATE C NOT NULL DEFAULT 'refuse'::text
settings.suspended_defer_hours bigint NOT NULL DEFAULT 24
settings.bare_newline text COLLATE C NOT NULL DEFAULT 'refuse'::text
settings.notice_from text COLLATE C NOT NULL DEFAULT 'postmaster@activerelay.invalid'::text
settings.notice_percent bigint NOT NULL DEFAULT 80
settings.complaints_user bigint NOT NULL DEFAULT 3
settings.complaints_relay_ip bigint NOT NULL DEFAULT 5
settings.complaints_domain bigint NOT NULL DEFAULT 10
settings.complaints_partner bigint NOT NULL DEFAULT 0
settings.complaints_window_hours bigint NOT NULL DEFAULT 24
settings.version bigint NOT NULL DEFAULT 1
settings.updated_at timestamp with time zone NOT NULL
settings CONSTRAINT settings_pkey PRIMARY KEY (id)
settings CONSTRAINT settings_id_check CHECK ((id = 1))
CREATE UNIQUE INDEX settings_pkey ON public.settings USING btree (id)
tokens.id text COLLATE C NOT NULL
tokens.name text COLLATE C NOT NULL
tokens.role text COLLATE C NOT NULL
tokens.partner text COLLATE C NOT NULL DEFAULT ''::text
tokens.domain text COLLATE C NOT NULL DEFAULT ''::text
tokens.read_only boolean NOT NULL DEFAULT false
tokens.scopes text COLLATE C NOT NULL DEFAULT '[]'::text
tokens.allowed_addresses text COLLATE C NOT NULL DEFAULT '[]'::text
tokens.secret_hash bytea NOT NULL
tokens.previous_hash bytea
tokens.previous_expires_at timestamp with time zone
tokens.expires_at timestamp with time zone
tokens.last_used_at timestamp with time zone
tokens.revoked_at timestamp with time zone
tokens.version bigint NOT NULL DEFAULT 1
tokens.created_at timestamp with time zone NOT NULL
tokens.updated_at timestamp with time zone NOT NULL
tokens CONSTRAINT tokens_pkey PRIMARY KEY (id)
tokens CONSTRAINT tokens_check CHECK (((role <> 'partner'::text) OR (partner <> ''::text)))
tokens CONSTRAINT tokens_check1 CHECK (((role <> 'customer'::text) OR ((partner <> ''::text) AND (domain <> ''::text))))
tokens CONSTRAINT tokens_role_check CHECK ((role = ANY (ARRAY['operator'::text, 'partner'::text, 'customer'::text])))
CREATE UNIQUE INDEX tokens_pkey ON public.tokens USING btree (id)
CREATE INDEX tokens_partner_id_idx ON public.tokens USING btree (partner, id)
usage_refusals.domain text COLLATE C NOT NULL
usage_refusals.day_start timestamp with time zone NOT NULL
usage_refusals.reason text COLLATE C NOT NULL
usage_refusals.partner text COLLATE C NOT NULL
usage_refusals.messages bigint NOT NULL DEFAULT 0
usage_refusals CONSTRAINT usage_refusals_pkey PRIMARY KEY (domain, day_start, reason)
CREATE UNIQUE INDEX usage_refusals_pkey ON public.usage_refusals USING btree (domain, day_start, reason)
users.address text COLLATE C NOT NULL
users.domain text COLLATE C NOT NULL
users.partner text COLLATE C NOT NULL
users.verifier text COLLATE C NOT NULL
users.aliases text COLLATE C NOT NULL DEFAULT '[]'::text
users.description text COLLATE C NOT NULL DEFAULT ''::text
users.password_changed_at timestamp with time zone NOT NULL
users.status text COLLATE C NOT NULL DEFAULT 'active'::text
users.status_reason text COLLATE C NOT NULL DEFAULT ''::text
users.status_since timestamp with time zone NOT NULL
users.relaying_state text COLLATE C NOT NULL DEFAULT 'enabled'::text
users.relaying_reason text COLLATE C NOT NULL DEFAULT ''::text
users.relaying_cause text COLLATE C NOT NULL DEFAULT ''::text
users.relaying_since timestamp with time zone
users.relaying_cleared_at timestamp with time zone
users.version bigint NOT NULL DEFAULT 1
users.created_at timestamp with time zone NOT NULL
users.updated_at timestamp with time zone NOT NULL
users CONSTRAINT users_pkey PRIMARY KEY (address)
users CONSTRAINT users_domain_fkey FOREIGN KEY (domain) REFERENCES domains(name) ON DELETE CASCADE
users CONSTRAINT users_status_check CHECK ((status = ANY (ARRAY['active'::text, 'suspended'::text])))
users CONSTRAINT users_relaying_state_check CHECK ((relaying_state = ANY (ARRAY['enabled'::text, 'disabled'::text])))
CREATE UNIQUE INDEX users_pkey ON public.users USING btree (address)
CREATE INDEX users_domain_address_idx ON public.users USING btree (domain, address)
CREATE INDEX users_partner_address_idx ON public.users USING btree (partner, address)
