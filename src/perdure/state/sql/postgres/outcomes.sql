-- name: there
SELECT to_regclass($1) IS NOT NULL
-- name: making
SELECT pg_advisory_xact_lock(hashtext('perdure_outcomes'))
-- name: table
CREATE TABLE IF NOT EXISTS {table} (
    run text NOT NULL,
    seed bigint NOT NULL,
    generation integer NOT NULL,
    step text NOT NULL,
    attempt integer NOT NULL,
    result bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run, seed, generation, step)
)
-- name: lock
SELECT pg_try_advisory_xact_lock($1), set_config('perdure.step', $2, true), set_config(
    'synchronous_commit',
    CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
    true
)
-- name: end_other
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((classid::bigint << 32) | objid::bigint) = $1
-- name: look
SELECT result FROM {table} WHERE run = $1 AND seed = $2 AND generation = $3 AND step = $4
-- name: keep
INSERT INTO {table} (run, seed, generation, step, attempt, result)
SELECT $1, $2, $3, $4, $5, $6 WHERE current_setting('perdure.step', true) = $7
