-- name: columns
r.no, r.id, r.workflow, r.version, r.definition, r.input_hash, r.life, r.seq, r.head, r.asked_n, r.asked_h, r.generation,
r.epoch, r.wait, r.variables, r.outcome, r.tags, r.parent, r.parent_key, r.source, r.created_at, r.updated_at, r.ended_at
-- name: by_id
SELECT r.start_at, {columns} FROM unnest($1::text[]) WITH ORDINALITY AS j (id, at) JOIN runs AS r ON r.id = j.id ORDER BY j.at
-- name: facts
SELECT f.run, f.seq, f.body, f.hash FROM unnest($1::bigint[], $2::bigint[]) AS w (run, first)
JOIN facts AS f ON f.run = w.run AND f.seq >= w.first ORDER BY f.run, f.seq
-- name: snapshots
SELECT run, seq, body FROM snapshots WHERE run = ANY ($1::bigint[])
-- name: progress
SELECT run, key, value FROM progress WHERE run = ANY ($1::text[])
-- name: inbox
SELECT no, run, body FROM inbox WHERE no > $1 AND ($3::smallint[] IS NULL OR shard = ANY ($3)) ORDER BY no LIMIT $2
-- name: answers
SELECT id, run, answer FROM requests WHERE id = ANY ($1::text[])
-- name: blobs
SELECT hash, body FROM blobs WHERE hash = ANY ($1::text[])
-- name: tombstones
SELECT id, input_hash, outcome FROM tombstones WHERE id = ANY ($1::text[])
-- name: epochs
SELECT epoch, name, pid, started_at, clean, note FROM nodes WHERE epoch < $1 ORDER BY epoch DESC LIMIT 64
-- name: newest_epochs
SELECT epoch, name, pid, started_at, clean, note, clock, state = 'live' AND NOT clean AND lease_until > clock_timestamp() AS live
FROM nodes ORDER BY epoch DESC LIMIT 64
-- name: clock
SELECT coalesce(max(clock), 0) FROM nodes
-- name: find
SELECT {columns} FROM runs AS r {where} ORDER BY {order} LIMIT {limit}
-- name: find_ids
r.id = ANY (%::text[])
-- name: find_life
r.life = ANY (%::text[])
-- name: find_open
r.ended_at IS NULL
-- name: find_running
(r.life = 'live' AND r.busy = 1)
-- name: find_waiting
(r.life = 'live' AND r.busy <> 1)
-- name: find_busy
(r.life = 'live' AND r.busy > 0)
-- name: find_workflow
r.workflow = %
-- name: find_parent
r.parent = % AND r.parent <> ''
-- name: find_roots
r.parent = ''
-- name: find_input
r.input_hash = %
-- name: find_source
r.source = %
-- name: find_shards
r.shard = ANY (%::smallint[])
-- name: find_due_before
r.due <= %
-- name: find_due_after
r.due > %
-- name: find_due
r.due IS NOT NULL
-- name: find_ended_before
r.ended_at <= %
-- name: find_tags
r.tags <> '{}' AND r.tags @> %::text::jsonb
-- name: find_after_new
r.no < %
-- name: find_after_old
r.no > %
-- name: find_after_due
(r.due, r.no) > (%, %)
-- name: order_new
r.no DESC
-- name: order_old
r.no
-- name: order_due
r.due, r.no
-- name: sizes
SELECT 'runs' AS name, count(*) AS rows FROM runs UNION ALL SELECT 'facts', count(*) FROM facts
UNION ALL SELECT 'inbox', count(*) FROM inbox UNION ALL SELECT 'requests', count(*) FROM requests
UNION ALL SELECT 'blobs', count(*) FROM blobs UNION ALL SELECT 'blob_bytes', coalesce(sum(length(body)), 0) FROM blobs
UNION ALL SELECT 'snapshots', count(*) FROM snapshots UNION ALL SELECT 'tombstones', count(*) FROM tombstones
UNION ALL SELECT 'progress', count(*) FROM progress
-- name: settings
SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'server_version_num')
-- name: schema_there
SELECT to_regclass('meta') IS NOT NULL
-- name: schema_version
SELECT value::integer FROM meta WHERE key = 'version'
-- name: unheld
SELECT format('run %s: fact %s is the last of its row, %s of its facts', r.id, r.seq, coalesce(f.last, 0)) AS wrong
FROM runs AS r LEFT JOIN LATERAL (SELECT max(seq) AS last FROM facts WHERE run = r.no) AS f ON true
WHERE r.seq <> coalesce(f.last, 0)
