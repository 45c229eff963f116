-- +goose Up
-- What was copied of accounts that were being moved, by minutes since 1970. A
-- minute takes the row of one that is sixteen minutes older.
CREATE TABLE pace (
    slot     INTEGER PRIMARY KEY,
    minute   BIGINT NOT NULL,
    messages BIGINT NOT NULL,
    bytes    BIGINT NOT NULL
);

-- When the migration was last started; 0 where it is not active, or not known.
ALTER TABLE domains ADD COLUMN active_since BIGINT NOT NULL DEFAULT 0;
-- When the bulk under way began; 0 where none is.
ALTER TABLE domains ADD COLUMN bulk_since BIGINT NOT NULL DEFAULT 0;
-- When the log last said that the migration is active for long, or stands still.
ALTER TABLE domains ADD COLUMN left_active_told_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE domains ADD COLUMN standstill_told_at BIGINT NOT NULL DEFAULT 0;

-- Runs of the command after an account that have not ended. state is what the
-- account became.
CREATE TABLE after_runs (
    id         INTEGER PRIMARY KEY,
    account_id BIGINT NOT NULL REFERENCES accounts (id),
    state      TEXT NOT NULL,
    tries      BIGINT NOT NULL DEFAULT 0
);
