-- What a relay's database was in version 1, with something in it. Not to be changed.
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE spaces (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
CREATE TABLE authors (
    number INTEGER PRIMARY KEY,
    space INTEGER NOT NULL,
    device BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (space, device, incarnation)
);
CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    author INTEGER,
    sequence INTEGER,
    record BLOB,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX log_by_author ON log (author, sequence) WHERE author IS NOT NULL;
CREATE INDEX log_by_record ON log (record, kind) WHERE record IS NOT NULL;
CREATE TABLE superseded (
    space INTEGER NOT NULL,
    record BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (space, record)
) WITHOUT ROWID;
INSERT INTO meta VALUES ('relay_id', x'00112233445566778899aabbccddeeff');
INSERT INTO spaces VALUES (1, x'01'), (2, x'02');
INSERT INTO log VALUES ((1 << 40) | 1, 3, NULL, NULL, NULL, x'aabbcc');
INSERT INTO log VALUES ((2 << 40) | 1, 3, NULL, NULL, NULL, x'aa');
INSERT INTO log VALUES ((1 << 40) | 2, 1, 1, 1, x'05', x'aabb');
INSERT INTO superseded VALUES (1, x'06', 1, x'aabbccdd');
PRAGMA user_version = 1;
PRAGMA application_id = 0x43525359;
