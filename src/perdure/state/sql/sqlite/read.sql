-- name: row_columns
r.no, r.id, r.workflow, r.version, r.definition, r.input_hash, r.life, r.seq, r.head, r.asked_n, r.asked_h, r.generation,
r.epoch, r.wait, r.variables, r.outcome, r.tags, r.parent, r.parent_key, r.source, r.created_at, r.updated_at, r.ended_at
-- name: by_id
SELECT {columns} FROM json_each(?) AS j JOIN runs AS r ON r.id = j.value ORDER BY j.key
-- name: facts_recent
SELECT f.run, f.seq, f.body, f.hash FROM json_each(?) AS j JOIN runs AS r ON r.no = j.value
JOIN facts AS f ON f.run = r.no AND f.seq >= r.start_at ORDER BY f.run, f.seq
-- name: facts_whole
SELECT f.run, f.seq, f.body, f.hash FROM json_each(?) AS j JOIN facts AS f ON f.run = j.value ORDER BY f.run, f.seq
-- name: facts_after
SELECT f.run, f.seq, f.body, f.hash FROM json_each(?) AS j
JOIN facts AS f ON f.run = json_extract(j.value, '$[0]') AND f.seq > json_extract(j.value, '$[1]') ORDER BY f.run, f.seq
-- name: snapshots
SELECT s.run, s.seq, s.body FROM json_each(?) AS j JOIN snapshots AS s ON s.run = j.value
-- name: progress
SELECT p.run, p.key, p.value FROM json_each(?) AS j JOIN progress AS p ON p.run = j.value
-- name: inbox
SELECT no, body FROM inbox WHERE no > ? ORDER BY no LIMIT ?
-- name: answers
SELECT q.id, q.run, q.answer FROM json_each(?) AS j JOIN requests AS q ON q.id = j.value
-- name: blobs
SELECT b.hash, b.body FROM json_each(?) AS j JOIN blobs AS b ON b.hash = j.value
-- name: no_of
SELECT no, life FROM runs WHERE id = ?
-- name: epochs
SELECT epoch, node, pid, started_at, clean, note FROM epochs ORDER BY epoch DESC LIMIT 64
-- name: meta
SELECT value FROM meta WHERE key = ?
-- name: tombstones
SELECT t.id, t.input_hash, t.outcome FROM json_each(?) AS j JOIN tombstones AS t ON t.id = j.value
-- name: find
SELECT {columns} FROM runs AS r {where} ORDER BY {order} LIMIT ?
-- name: find_ids
r.id IN (SELECT value FROM json_each(?))
-- name: find_life
r.life IN (SELECT value FROM json_each(?))
-- name: find_running
(r.life = 'live' AND (json_extract(r.wait, '$[3]') > 0 OR json_extract(r.wait, '$[5]')))
-- name: find_waiting
(r.life = 'live' AND NOT (COALESCE(json_extract(r.wait, '$[3]'), 0) > 0 OR COALESCE(json_extract(r.wait, '$[5]'), 0)))
-- name: find_busy
(r.life = 'live' AND (json_extract(r.wait, '$[3]') > 0 OR json_extract(r.wait, '$[5]')
 OR (r.due IS NULL AND json_array_length(r.wait, '$[1]') = 0 AND json_array_length(r.wait, '$[2]') = 0)))
-- name: find_workflow
r.workflow = ?
-- name: find_parent
r.parent = ?
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
-- name: find_before_no
r.no < ?
-- name: find_after_no
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
SELECT 'runs', COUNT(*) FROM runs UNION ALL SELECT 'facts', COUNT(*) FROM facts UNION ALL SELECT 'inbox', COUNT(*) FROM inbox
UNION ALL SELECT 'requests', COUNT(*) FROM requests UNION ALL SELECT 'blobs', COUNT(*) FROM blobs
UNION ALL SELECT 'blob_bytes', COALESCE(SUM(LENGTH(body)), 0) FROM blobs
UNION ALL SELECT 'snapshots', COUNT(*) FROM snapshots UNION ALL SELECT 'tombstones', COUNT(*) FROM tombstones
