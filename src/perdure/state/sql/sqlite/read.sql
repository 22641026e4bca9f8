-- name: row_columns
r.no, r.id, r.workflow, r.version, r.definition, r.input_hash, r.life, r.seq, r.head, r.asked_n, r.asked_h, r.generation,
r.epoch, r.due, r.busy, r.wait, r.variables, r.outcome, r.tags, r.parent, r.parent_key, r.source, r.created_at, r.updated_at,
r.ended_at, r.crc_start, r.crc
-- name: row_columns_as_bytes
r.no, CAST(r.id AS BLOB), CAST(r.workflow AS BLOB), CAST(r.version AS BLOB), CAST(r.definition AS BLOB),
CAST(r.input_hash AS BLOB), CAST(r.life AS BLOB), r.seq, CAST(r.head AS BLOB), r.asked_n, r.asked_h, r.generation, r.epoch,
r.due, r.busy, CAST(r.wait AS BLOB), CAST(r.variables AS BLOB), CAST(r.outcome AS BLOB), CAST(r.tags AS BLOB),
CAST(r.parent AS BLOB), CAST(r.parent_key AS BLOB), CAST(r.source AS BLOB), r.created_at, r.updated_at, r.ended_at,
r.crc_start, r.crc
-- name: by_id
SELECT r.start_at, {columns} FROM json_each(?) AS j JOIN runs AS r ON r.id = j.value ORDER BY j.key
-- name: by_id_as_bytes
SELECT r.start_at, {columns_as_bytes} FROM json_each(?) AS j JOIN runs AS r ON r.id = j.value ORDER BY j.key
-- name: facts
SELECT seq, body, hash FROM facts WHERE run = ? AND seq >= ? ORDER BY seq
-- name: snapshot
SELECT seq, body, crc FROM snapshots WHERE run = ?
-- name: progress
SELECT key, attempt, value, crc FROM progress WHERE run = ?
-- name: inbox
SELECT no, CAST(body AS BLOB), crc FROM inbox WHERE no > ? ORDER BY no LIMIT ?
-- name: answers
SELECT j.value, q.run, q.answer, q.crc FROM json_each(?) AS j JOIN requests AS q ON q.id = j.value
-- name: blobs
SELECT j.value, CAST(b.body AS BLOB) FROM json_each(?) AS j JOIN blobs AS b ON b.hash = j.value
-- name: epochs
SELECT epoch, node, pid, started_at, clean, note FROM epochs ORDER BY epoch DESC LIMIT 64
-- name: store_id
SELECT value FROM meta WHERE key = 'id'
-- name: pulse
SELECT commits, clock, last_run, total FROM pulse
-- name: schema
SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE tbl_name IN (SELECT value FROM json_each(?)) ORDER BY type, name
-- name: schema_sum
SELECT value FROM meta WHERE key = 'schema'
-- name: tombstones
SELECT j.value, t.input_hash, t.outcome, t.crc FROM json_each(?) AS j JOIN tombstones AS t ON t.id = j.value
-- name: find
SELECT {columns} FROM runs AS r {where} ORDER BY {order} LIMIT ?
-- name: all_runs
SELECT {columns} FROM runs AS r
-- name: all_runs_as_bytes
SELECT {columns_as_bytes} FROM runs AS r
-- name: all_inbox
SELECT no, CASE typeof(run) WHEN 'text' THEN CAST(run AS BLOB) END, CAST(body AS BLOB), crc FROM inbox
-- name: all_requests
SELECT CASE typeof(id) WHEN 'text' THEN CAST(id AS BLOB) END,
CASE typeof(run) WHEN 'text' THEN CAST(run AS BLOB) END, CAST(answer AS BLOB), crc FROM requests WHERE crc IS NOT NULL
-- name: all_progress
SELECT CASE typeof(run) WHEN 'text' THEN CAST(run AS BLOB) END,
CASE typeof(key) WHEN 'text' THEN CAST(key AS BLOB) END, attempt, CAST(value AS BLOB), crc FROM progress WHERE crc IS NOT NULL
-- name: all_tombstones
SELECT CASE typeof(id) WHEN 'text' THEN CAST(id AS BLOB) END,
CAST(input_hash AS BLOB), CAST(outcome AS BLOB), crc FROM tombstones WHERE crc IS NOT NULL
-- name: find_ids
r.id IN (SELECT value FROM json_each(?))
-- name: find_life
r.life IN (SELECT value FROM json_each(?))
-- name: find_open
r.life IN ('queued', 'live', 'attention')
-- name: find_running
(r.life = 'live' AND r.busy = 1)
-- name: find_waiting
(r.life = 'live' AND r.busy <> 1)
-- name: find_busy
(r.life = 'live' AND r.busy > 0)
-- name: find_workflow
r.workflow = ?
-- name: find_parent
r.parent = ? AND r.parent <> ''
-- name: find_roots
r.parent = ''
-- name: find_input
r.input_hash = ?
-- name: find_source
r.source = ?
-- name: find_due_before
r.due <= ?
-- name: find_due_after
r.due > ?
-- name: find_due
r.due IS NOT NULL
-- name: find_ended_before
r.ended_at <= ?
-- name: find_tag
EXISTS (SELECT 1 FROM tags AS t WHERE t.run = r.no AND t.key = ? AND t.value = ?)
-- name: find_after_new
r.no < ?
-- name: find_after_old
r.no > ?
-- name: find_after_due
(r.due, r.no) > (?, ?)
-- name: order_new
r.no DESC
-- name: order_old
r.no
-- name: order_due
r.due, r.no
-- name: sizes
SELECT 'runs', COUNT(*) FROM runs UNION ALL SELECT 'facts', COUNT(*) FROM facts
UNION ALL SELECT 'inbox', COUNT(*) FROM inbox UNION ALL SELECT 'requests', COUNT(*) FROM requests
UNION ALL SELECT 'blobs', COUNT(*) FROM blobs UNION ALL SELECT 'blob_bytes', COALESCE(SUM(LENGTH(body)), 0) FROM blobs
UNION ALL SELECT 'snapshots', COUNT(*) FROM snapshots UNION ALL SELECT 'tombstones', COUNT(*) FROM tombstones
UNION ALL SELECT 'progress', COUNT(*) FROM progress
