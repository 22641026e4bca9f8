-- A store's first shape. Times are microseconds since 1970 UTC; `asked_h` is an unsigned 64-bit sum kept as a signed one.
-- `crc` columns are CRC-32 sums over a row's other columns: what no chain of hashes covers.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE pulse (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    commits INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    last_run INTEGER NOT NULL
);
INSERT INTO pulse (one, commits, clock, last_run) VALUES (1, 0, 0, 0);
CREATE TABLE runs (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    definition TEXT NOT NULL,
    input_hash BLOB NOT NULL,
    life TEXT NOT NULL DEFAULT 'queued',
    seq INTEGER NOT NULL DEFAULT 0,
    head BLOB NOT NULL DEFAULT (zeroblob(16)),
    asked_n INTEGER NOT NULL DEFAULT 0,
    asked_h INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 1,
    epoch INTEGER NOT NULL DEFAULT 0,
    due INTEGER,
    busy INTEGER NOT NULL DEFAULT 2, -- 0: asleep until something comes, 1: steps are open or it settles, 2: waits for nothing
    wait BLOB NOT NULL DEFAULT (x'5b5d'),
    variables BLOB NOT NULL DEFAULT (x'7b7d'),
    outcome BLOB,
    tags TEXT NOT NULL DEFAULT '{}',
    parent TEXT NOT NULL DEFAULT '',
    parent_key TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL DEFAULT '',
    start_at INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ended_at INTEGER,
    crc_start INTEGER NOT NULL,
    crc INTEGER
);
CREATE INDEX runs_due ON runs (due) WHERE due IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent) WHERE parent <> '';
CREATE INDEX runs_workflow ON runs (workflow, no);
CREATE INDEX runs_open ON runs (no) WHERE life IN ('queued', 'live', 'attention');
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE facts (run INTEGER NOT NULL CHECK (run > 0), seq INTEGER NOT NULL, body BLOB NOT NULL, hash BLOB NOT NULL);
CREATE UNIQUE INDEX facts_run_seq ON facts (run, seq);
CREATE TABLE inbox (
    no INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, request TEXT, body BLOB NOT NULL, crc INTEGER NOT NULL
);
CREATE UNIQUE INDEX inbox_request ON inbox (request) WHERE request IS NOT NULL;
CREATE TABLE requests (id TEXT PRIMARY KEY, run TEXT NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX requests_run ON requests (run);
CREATE TABLE blobs (hash TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE blob_refs (run INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (run, hash)) WITHOUT ROWID;
CREATE INDEX blob_refs_hash ON blob_refs (hash);
CREATE TABLE snapshots (run INTEGER PRIMARY KEY, seq INTEGER NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE progress (
    run TEXT NOT NULL, key TEXT NOT NULL, attempt INTEGER NOT NULL, at INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;
CREATE TABLE tags (
    run INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, value, run)
) WITHOUT ROWID;
CREATE INDEX tags_run ON tags (run);
CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY, node TEXT NOT NULL, pid INTEGER NOT NULL, started_at INTEGER NOT NULL,
    clean INTEGER NOT NULL DEFAULT 0, note BLOB NOT NULL DEFAULT (x'')
);
CREATE TABLE tombstones (id TEXT PRIMARY KEY, input_hash BLOB NOT NULL, outcome BLOB) WITHOUT ROWID;
