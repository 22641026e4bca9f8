-- name: schema
CREATE SCHEMA IF NOT EXISTS {schema}
-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended($1, 7))
-- name: version
INSERT INTO meta (key, value) VALUES ('version', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value
