-- +goose Up
-- How many messages of an account showed an address in exactly these headers.
-- A row weighs if it could lead to a claim on the address, or forbid one.
CREATE TABLE sightings (
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    address    TEXT NOT NULL,
    headers    TEXT NOT NULL,
    weighs     BOOLEAN NOT NULL,
    messages   BIGINT NOT NULL,
    PRIMARY KEY (account_id, address, headers)
);
CREATE INDEX sightings_address ON sightings (address) WHERE weighs;

-- How many addresses of an account had to be forgotten, and by which rules its
-- aliases were decided; empty where something was seen since.
CREATE TABLE tallies (
    account_id BIGINT PRIMARY KEY REFERENCES accounts (id),
    forgotten  BIGINT NOT NULL,
    decided    TEXT NOT NULL
);

-- Whether the target may have the alias: set before it is created there.
ALTER TABLE aliases ADD COLUMN there BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE aliases SET there = TRUE WHERE state IN ('created', 'failed');
