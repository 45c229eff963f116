CREATE TABLE accounts (
    id               INTEGER PRIMARY KEY,
    address          TEXT NOT NULL UNIQUE,
    login            TEXT NOT NULL,
    local            TEXT NOT NULL,
    domain           TEXT NOT NULL,
    state            TEXT NOT NULL,
    origin           TEXT NOT NULL DEFAULT '',
    mode             TEXT NOT NULL DEFAULT '',
    reason           TEXT NOT NULL DEFAULT '',
    messages         BIGINT NOT NULL DEFAULT 0,
    bytes            BIGINT NOT NULL DEFAULT 0,
    expected         BIGINT NOT NULL DEFAULT 0,
    set_aside        BIGINT NOT NULL DEFAULT 0,
    attempts         BIGINT NOT NULL DEFAULT 0,
    password_version BIGINT NOT NULL DEFAULT 0,
    due              BIGINT NOT NULL DEFAULT 0,
    woken            BOOLEAN NOT NULL DEFAULT FALSE,
    owner            TEXT NOT NULL DEFAULT '',
    lease_until      BIGINT NOT NULL DEFAULT 0,
    fence            BIGINT NOT NULL DEFAULT 0,
    created_at       BIGINT NOT NULL,
    updated_at       BIGINT NOT NULL,
    began_at         BIGINT NOT NULL DEFAULT 0,
    progress_at      BIGINT NOT NULL DEFAULT 0,
    flipped_at       BIGINT NOT NULL DEFAULT 0
, needs_password BOOLEAN NOT NULL DEFAULT FALSE, finishing TEXT NOT NULL DEFAULT '', caught_up_at BIGINT NOT NULL DEFAULT 0, flipping TEXT NOT NULL DEFAULT '', rolled_back_at BIGINT NOT NULL DEFAULT 0, failing BOOLEAN NOT NULL DEFAULT FALSE, rolling_back TEXT NOT NULL DEFAULT '');

CREATE INDEX accounts_due ON accounts (due) WHERE due > 0;

CREATE INDEX accounts_failing ON accounts (domain) WHERE failing;

CREATE INDEX accounts_state ON accounts (state);

CREATE TABLE after_runs (
    id         INTEGER PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    state      TEXT NOT NULL,
    tries      BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE aliases (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    address    TEXT NOT NULL,
    origin     TEXT NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    evidence   TEXT NOT NULL,
    updated_at BIGINT NOT NULL, there BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (account_id, address)
);

CREATE INDEX aliases_address ON aliases (address);

CREATE TABLE altered (
    folder_id          BIGINT NOT NULL REFERENCES folders (id),
    source_uidvalidity BIGINT NOT NULL,
    source_uid         BIGINT NOT NULL,
    target_uid         BIGINT NOT NULL,
    source_sha256      BYTEA NOT NULL,
    target_sha256      BYTEA NOT NULL,
    source_octets      BIGINT NOT NULL,
    target_octets      BIGINT NOT NULL,
    PRIMARY KEY (folder_id, source_uidvalidity, source_uid)
);

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);

CREATE TABLE "credentials" (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    side       TEXT NOT NULL,
    sealed_key BYTEA NOT NULL,
    sealed     BYTEA NOT NULL,
    used_at    BIGINT NOT NULL,
    refused    BOOLEAN NOT NULL,
    PRIMARY KEY (account_id, side)
);

CREATE TABLE domains (
    name   TEXT PRIMARY KEY,
    active BOOLEAN NOT NULL
, finished BOOLEAN NOT NULL DEFAULT FALSE, completing TEXT NOT NULL DEFAULT '', active_since BIGINT NOT NULL DEFAULT 0, bulk_since BIGINT NOT NULL DEFAULT 0, left_active_told_at BIGINT NOT NULL DEFAULT 0, standstill_told_at BIGINT NOT NULL DEFAULT 0, wave_seeded BOOLEAN NOT NULL DEFAULT FALSE, stopped_because TEXT NOT NULL DEFAULT '');

CREATE TABLE events (
    id      INTEGER PRIMARY KEY,
    at      BIGINT NOT NULL,
    address TEXT NOT NULL,
    text    TEXT NOT NULL
);

CREATE INDEX events_address ON events (address, id);

CREATE TABLE folder_renames (
    folder_id BIGINT PRIMARY KEY REFERENCES folders (id),
    source    BYTEA NOT NULL,
    target    BYTEA NOT NULL,
    renamed   BOOLEAN NOT NULL
);

CREATE TABLE folders (
    id                 INTEGER PRIMARY KEY,
    account_id         BIGINT NOT NULL REFERENCES accounts (id),
    source             BYTEA NOT NULL,
    target             BYTEA NOT NULL,
    selectable         BOOLEAN NOT NULL,
    subscribed         BOOLEAN NOT NULL,
    special_use        TEXT NOT NULL,
    source_uidvalidity BIGINT NOT NULL,
    target_uidvalidity BIGINT NOT NULL,
    matched            BOOLEAN NOT NULL, source_uidnext BIGINT NOT NULL DEFAULT 0,
    UNIQUE (account_id, source),
    UNIQUE (account_id, target)
);

CREATE INDEX folders_source_uidvalidity ON folders (source_uidvalidity);

CREATE TABLE intents (
    id                 INTEGER PRIMARY KEY,
    folder_id          BIGINT NOT NULL REFERENCES folders (id),
    source_uidvalidity BIGINT NOT NULL,
    target_uidvalidity BIGINT NOT NULL,
    target_uidnext     BIGINT NOT NULL,
    messages           BYTEA NOT NULL
);

CREATE INDEX intents_folder ON intents (folder_id);

CREATE TABLE login_aliases (
    name       TEXT PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    origin     TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX login_aliases_account ON login_aliases (account_id);

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE pace (
    slot     INTEGER PRIMARY KEY,
    minute   BIGINT NOT NULL,
    messages BIGINT NOT NULL,
    bytes    BIGINT NOT NULL
);

CREATE TABLE quarantine (
    id                 INTEGER PRIMARY KEY,
    folder_id          BIGINT NOT NULL REFERENCES folders (id),
    source_uidvalidity BIGINT NOT NULL,
    source_uid         BIGINT NOT NULL,
    complete           BOOLEAN NOT NULL,
    digest             BYTEA NOT NULL,
    octets             BIGINT NOT NULL,
    flags              BYTEA NOT NULL,
    date_seconds       BIGINT NOT NULL,
    date_zone          BIGINT NOT NULL,
    reason             TEXT NOT NULL,
    at                 BIGINT NOT NULL, again BOOLEAN NOT NULL DEFAULT FALSE,
    UNIQUE (folder_id, source_uidvalidity, source_uid)
);

CREATE TABLE quarantine_chunks (
    quarantine_id BIGINT NOT NULL REFERENCES quarantine (id) ON DELETE CASCADE,
    position      BIGINT NOT NULL,
    octets        BYTEA NOT NULL,
    PRIMARY KEY (quarantine_id, position)
);

CREATE TABLE refusals (
    folder_id          BIGINT NOT NULL REFERENCES folders (id),
    source_uidvalidity BIGINT NOT NULL,
    source_uid         BIGINT NOT NULL,
    alone              BOOLEAN NOT NULL,
    outlived           BOOLEAN NOT NULL,
    reason             TEXT NOT NULL,
    PRIMARY KEY (folder_id, source_uidvalidity, source_uid)
);

CREATE TABLE rollback_intents (
    id                 INTEGER PRIMARY KEY,
    folder_id          BIGINT NOT NULL REFERENCES folders (id),
    source_uidvalidity BIGINT NOT NULL,
    source_uidnext     BIGINT NOT NULL,
    target_uidvalidity BIGINT NOT NULL,
    messages           BYTEA NOT NULL
);

CREATE INDEX rollback_intents_folder ON rollback_intents (folder_id);

CREATE TABLE runs (
    folder_id          BIGINT NOT NULL REFERENCES folders (id),
    source_uidvalidity BIGINT NOT NULL,
    source_first       BIGINT NOT NULL,
    target_uidvalidity BIGINT NOT NULL,
    target_first       BIGINT NOT NULL,
    messages           BIGINT NOT NULL,
    octets             BIGINT NOT NULL,
    appended           BOOLEAN NOT NULL,
    digests            BYTEA NOT NULL,
    PRIMARY KEY (folder_id, source_uidvalidity, source_first)
);

CREATE TABLE sightings (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    address    TEXT NOT NULL,
    headers    TEXT NOT NULL,
    weighs     BOOLEAN NOT NULL,
    messages   BIGINT NOT NULL,
    PRIMARY KEY (account_id, address, headers)
);

CREATE INDEX sightings_address ON sightings (address) WHERE weighs;

CREATE TABLE source_marks (
    account_id BIGINT PRIMARY KEY REFERENCES accounts (id),
    mark       BYTEA NOT NULL
);

CREATE INDEX source_marks_mark ON source_marks (mark);

CREATE TABLE tallies (
    account_id BIGINT PRIMARY KEY REFERENCES accounts (id),
    forgotten  BIGINT NOT NULL,
    decided    TEXT NOT NULL
);

CREATE TABLE uidls (
    account_id         BIGINT NOT NULL REFERENCES accounts (id),
    uidl               BYTEA NOT NULL,
    occurrence         BIGINT NOT NULL,
    source_uidvalidity BIGINT NOT NULL,
    source_uid         BIGINT NOT NULL,
    PRIMARY KEY (account_id, uidl, occurrence)
);

CREATE INDEX uidls_name ON uidls (uidl, occurrence);

CREATE INDEX uidls_uid ON uidls (account_id, source_uidvalidity, source_uid);

CREATE TABLE wave_patterns (
    domain   TEXT NOT NULL,
    pattern  TEXT NOT NULL,
    excluded BOOLEAN NOT NULL,
    wildcard BOOLEAN NOT NULL, -- it has a *; the others are addresses
    PRIMARY KEY (domain, pattern)
);

CREATE INDEX wave_patterns_wildcard ON wave_patterns (domain) WHERE wildcard;
