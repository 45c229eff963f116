-- +goose Up
-- Further addresses of an account. The same address may be proposed for
-- several; at most one of them gets it.
CREATE TABLE aliases (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    address    TEXT NOT NULL,
    origin     TEXT NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    evidence   TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, address)
);
CREATE INDEX aliases_address ON aliases (address);
