-- name: start_known
INSERT INTO runs (id, workflow, version, definition, input_hash, tags, parent, parent_key, source, created_at, updated_at)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10
WHERE NOT EXISTS (SELECT 1 FROM tombstones WHERE id = ?1)
ON CONFLICT (id) DO NOTHING RETURNING no
-- name: tag
INSERT OR IGNORE INTO tags (run, key, value) VALUES (?, ?, ?)
-- name: fact
INSERT INTO facts (run, seq, body, hash) VALUES (?, ?, ?, ?)
-- name: update
UPDATE runs SET life = ?2, seq = ?3, head = ?4, asked_n = ?5, asked_h = ?6, generation = ?7, epoch = ?8, due = ?9,
    wait = ?10, variables = ?11, outcome = ?12, definition = ?13, updated_at = ?14, ended_at = ?15
WHERE no = ?1
-- name: inbox
INSERT INTO inbox (run, request, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING
-- name: inbox_done
DELETE FROM inbox WHERE no = ?
-- name: answer
INSERT INTO requests (id, run, answer) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING id
-- name: blob
INSERT INTO blobs (hash, body) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING
-- name: blob_ref
INSERT INTO blob_refs (run, hash) VALUES (?, ?) ON CONFLICT DO NOTHING
-- name: snapshot
INSERT INTO snapshots (run, seq, body) VALUES (?, ?, ?)
ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, body = excluded.body
-- name: snapshot_drop
DELETE FROM snapshots WHERE run = ?
-- name: restart
UPDATE runs SET start_at = ?2 WHERE no = ?1
-- name: progress
INSERT INTO progress (run, key, attempt, at, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run, key) DO UPDATE SET attempt = excluded.attempt, at = excluded.at, value = excluded.value
-- name: progress_done
DELETE FROM progress WHERE run = ?
-- name: clock
INSERT INTO meta (key, value) VALUES ('clock', ?) ON CONFLICT (key) DO UPDATE SET value = MAX(value, excluded.value)
-- name: count
INSERT INTO meta (key, value) VALUES ('commits', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1
-- name: note
UPDATE epochs SET note = ?2 WHERE epoch = ?1
-- name: clean
UPDATE epochs SET clean = 1 WHERE epoch = ?
-- name: epoch
INSERT INTO epochs (epoch, node, pid, started_at, note) SELECT COALESCE(MAX(epoch), 0) + 1, ?1, ?2, ?3, ?4 FROM epochs RETURNING epoch
-- name: tombstone
INSERT OR REPLACE INTO tombstones (id, input_hash, outcome) SELECT id, input_hash, outcome FROM runs
WHERE id = ?1 AND life IN ('completed', 'failed', 'cancelled')
-- name: remove_facts
DELETE FROM facts WHERE run = ?
-- name: remove_tags
DELETE FROM tags WHERE run = ?
-- name: remove_requests
DELETE FROM requests WHERE run = ?
-- name: remove_refs
DELETE FROM blob_refs WHERE run = ?
-- name: remove_blobs
DELETE FROM blobs WHERE hash NOT IN (SELECT hash FROM blob_refs)
-- name: remove_run
DELETE FROM runs WHERE no = ?
-- name: store_id
INSERT INTO meta (key, value) VALUES ('id', ?) ON CONFLICT DO NOTHING
