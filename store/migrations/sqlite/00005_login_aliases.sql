-- +goose Up
-- Further names under which the owner of an account logs in. No name has an
-- account of its own as well.
CREATE TABLE login_aliases (
    name       TEXT PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    origin     TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX login_aliases_account ON login_aliases (account_id);

-- What an account's mailbox showed before anything of it was copied, so that two
-- names of one mailbox that log in at the same time are recognised as well.
CREATE TABLE source_marks (
    account_id BIGINT PRIMARY KEY REFERENCES accounts (id),
    mark       BYTEA NOT NULL
);
CREATE INDEX source_marks_mark ON source_marks (mark);

CREATE INDEX folders_source_uidvalidity ON folders (source_uidvalidity);
CREATE INDEX uidls_name ON uidls (uidl, occurrence);
