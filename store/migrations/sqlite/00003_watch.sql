-- +goose Up
-- What was copied of accounts that were being moved, by minutes since 1970. A
-- minute takes the row of one that is sixteen minutes older.
CREATE TABLE pace (
    slot     INTEGER PRIMARY KEY,
    minute   BIGINT NOT NULL,
    messages BIGINT NOT NULL,
    bytes    BIGINT NOT NULL
);
