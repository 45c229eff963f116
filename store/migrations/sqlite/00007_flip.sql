-- +goose Up
-- How far the flip of an account that is parked at its source has come: closing
-- or held; empty before it begins.
ALTER TABLE accounts ADD COLUMN flipping TEXT NOT NULL DEFAULT '';

-- When the account was taken back to its source; 0 never, or moved anew since.
ALTER TABLE accounts ADD COLUMN rolled_back_at BIGINT NOT NULL DEFAULT 0;

-- The folders whose renaming on the target has begun, and what they are to be
-- called: that of the folder itself, and those below it.
CREATE TABLE folder_renames (
    folder_id BIGINT PRIMARY KEY REFERENCES folders (id),
    source    BYTEA NOT NULL,
    target    BYTEA NOT NULL,
    renamed   BOOLEAN NOT NULL
);

-- Who may migrate. A domain's settings seed it at the first start.
CREATE TABLE wave_patterns (
    domain   TEXT NOT NULL,
    pattern  TEXT NOT NULL,
    excluded BOOLEAN NOT NULL,
    wildcard BOOLEAN NOT NULL, -- it has a *; the others are addresses
    PRIMARY KEY (domain, pattern)
);
CREATE INDEX wave_patterns_wildcard ON wave_patterns (domain) WHERE wildcard;
ALTER TABLE domains ADD COLUMN wave_seeded BOOLEAN NOT NULL DEFAULT FALSE;

-- Why a domain's migration was stopped, if it stopped by itself.
ALTER TABLE domains ADD COLUMN stopped_because TEXT NOT NULL DEFAULT '';

-- The account has failed since its domain was last started, and was not begun
-- anew since.
ALTER TABLE accounts ADD COLUMN failing BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX accounts_failing ON accounts (domain) WHERE failing;

-- How far the taking back of an account that lives on the target has come: wanted
-- or under_way; empty where nobody asked for it.
ALTER TABLE accounts ADD COLUMN rolling_back TEXT NOT NULL DEFAULT '';

-- Batches of messages that are about to be appended to the source, of accounts
-- that are taken back.
CREATE TABLE rollback_intents (
    id                 INTEGER PRIMARY KEY,
    folder_id          BIGINT NOT NULL REFERENCES folders (id),
    source_uidvalidity BIGINT NOT NULL,
    source_uidnext     BIGINT NOT NULL,
    target_uidvalidity BIGINT NOT NULL,
    messages           BYTEA NOT NULL
);
CREATE INDEX rollback_intents_folder ON rollback_intents (folder_id);
