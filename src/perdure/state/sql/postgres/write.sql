-- name: commit
SELECT nos, repeated FROM perdure_commit(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
    $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47
)
-- name: blob
INSERT INTO blobs (hash, body) SELECT DISTINCT ON (hash) hash, body FROM unnest($1::text[], $2::bytea[]) AS b (hash, body)
ORDER BY hash ON CONFLICT (hash) DO NOTHING
-- name: blob_ref
INSERT INTO blob_refs (run, hash) SELECT DISTINCT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT DO NOTHING
-- name: snapshot
INSERT INTO snapshots (run, seq, body)
SELECT DISTINCT ON (run) run, seq, body FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) WITH ORDINALITY AS s (run, seq, body, at)
ORDER BY run, at DESC
ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, body = excluded.body
-- name: snapshot_empty
DELETE FROM snapshots WHERE run = ANY ($1::bigint[]) AND body = ''
-- name: restart
UPDATE runs AS r SET start_at = s.seq FROM unnest($1::bigint[], $2::bigint[]) AS s (run, seq)
WHERE r.no = s.run AND s.seq = (SELECT max(o.seq) FROM unnest($1::bigint[], $2::bigint[]) AS o (run, seq) WHERE o.run = s.run)
-- name: snapshot_outdated
DELETE FROM snapshots AS s USING unnest($1::bigint[], $2::bigint[]) AS r (run, seq) WHERE s.run = r.run AND s.seq < r.seq
-- name: progress
INSERT INTO progress (run, key, attempt, at, value)
SELECT DISTINCT ON (p.run, p.key) p.run, p.key, p.attempt, p.told, p.value
FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::bytea[]) WITH ORDINALITY AS p (run, key, attempt, told, value, at)
WHERE EXISTS (SELECT 1 FROM runs AS r WHERE r.id = p.run AND r.ended_at IS NULL) ORDER BY p.run, p.key, p.at DESC
ON CONFLICT (run, key) DO UPDATE SET attempt = excluded.attempt, at = excluded.at, value = excluded.value
-- name: progress_done
DELETE FROM progress WHERE run = ANY ($1::text[])
-- name: tree
WITH RECURSIVE tree (id) AS (
    SELECT r.id FROM runs AS r WHERE r.id = $1 AND NOT EXISTS (SELECT 1 FROM runs AS p WHERE p.id = r.parent)
    UNION SELECT c.id FROM tree JOIN runs AS c ON c.parent = tree.id AND c.parent <> ''
)
SELECT r.no, r.id, r.life IN ('completed', 'failed', 'cancelled') AS ended FROM tree JOIN runs AS r ON r.id = tree.id
-- name: tombstone
INSERT INTO tombstones (id, input_hash, outcome) SELECT id, input_hash, outcome FROM runs WHERE no = ANY ($1::bigint[])
ON CONFLICT (id) DO UPDATE SET input_hash = excluded.input_hash, outcome = excluded.outcome
-- name: remove_facts
DELETE FROM facts WHERE run = ANY ($1::bigint[])
-- name: remove_snapshots
DELETE FROM snapshots WHERE run = ANY ($1::bigint[])
-- name: remove_refs
WITH gone AS (DELETE FROM blob_refs WHERE run = ANY ($1::bigint[]) RETURNING hash)
DELETE FROM blobs AS b USING gone WHERE b.hash = gone.hash
    AND NOT EXISTS (SELECT 1 FROM blob_refs AS o WHERE o.hash = b.hash AND o.run <> ALL ($1::bigint[]))
-- name: remove_run
DELETE FROM runs WHERE no = ANY ($1::bigint[])
-- name: remove_requests
DELETE FROM requests WHERE run = ANY ($1::text[])
-- name: claim
INSERT INTO nodes (name, pid, claim, version, started_at, note, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp() + make_interval(secs => $7)) RETURNING epoch
-- name: notify
SELECT pg_notify($1, $2)
