-- name: table
CREATE TABLE IF NOT EXISTS perdure_outcomes (
    run TEXT NOT NULL,
    seed INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    step TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    result BLOB NOT NULL,
    at INTEGER NOT NULL, -- microseconds since 1970 UTC
    PRIMARY KEY (run, seed, generation, step)
) WITHOUT ROWID
-- name: look
SELECT result FROM perdure_outcomes WHERE run = ? AND seed = ? AND generation = ? AND step = ?
-- name: keep
INSERT INTO perdure_outcomes (run, seed, generation, step, attempt, result, at) VALUES (?, ?, ?, ?, ?, ?, ?)
