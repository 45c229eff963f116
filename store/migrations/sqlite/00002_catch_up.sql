-- +goose Up
-- After the flip the two servers' passwords have nothing to do with each
-- other, so each side keeps its own.
CREATE TABLE credentials_by_side (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    side       TEXT NOT NULL,
    sealed_key BYTEA NOT NULL,
    sealed     BYTEA NOT NULL,
    used_at    BIGINT NOT NULL,
    refused    BOOLEAN NOT NULL,
    PRIMARY KEY (account_id, side)
);
INSERT INTO credentials_by_side (account_id, side, sealed_key, sealed, used_at, refused)
    SELECT account_id, 'source', sealed_key, sealed, used_at, FALSE FROM credentials;
DROP TABLE credentials;
ALTER TABLE credentials_by_side RENAME TO credentials;

ALTER TABLE accounts ADD COLUMN needs_password BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE accounts ADD COLUMN finishing TEXT NOT NULL DEFAULT '';
ALTER TABLE accounts ADD COLUMN caught_up_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE domains ADD COLUMN finished BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE domains ADD COLUMN completing TEXT NOT NULL DEFAULT '';
ALTER TABLE quarantine ADD COLUMN again BOOLEAN NOT NULL DEFAULT FALSE;

-- The source's UIDNEXT at the last pass that left nothing of the folder over;
-- 0 is not known.
ALTER TABLE folders ADD COLUMN source_uidnext BIGINT NOT NULL DEFAULT 0;

-- How POP3 names the messages of INBOX. A server may give several the same
-- UIDL: occurrence counts them from 0.
CREATE TABLE uidls (
    account_id         BIGINT NOT NULL REFERENCES accounts (id),
    uidl               BYTEA NOT NULL,
    occurrence         BIGINT NOT NULL,
    source_uidvalidity BIGINT NOT NULL,
    source_uid         BIGINT NOT NULL,
    PRIMARY KEY (account_id, uidl, occurrence)
);
CREATE INDEX uidls_uid ON uidls (account_id, source_uidvalidity, source_uid);
