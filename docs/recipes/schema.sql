-- The tables of dovecot-sqlite.py and dovecot-postgresql.py. Addresses are in lower case.
CREATE TABLE users (
    address  TEXT PRIMARY KEY,
    password TEXT NOT NULL          -- with its scheme: {PBKDF2}...
);
CREATE TABLE aliases (
    alias   TEXT PRIMARY KEY,
    address TEXT NOT NULL REFERENCES users (address)
);
