-- name: last_run
SELECT last_run FROM pulse
-- name: start
INSERT INTO runs (no, id, workflow, version, definition, input_hash, tags, parent, parent_key, source, created_at, updated_at, crc_start)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12)
-- name: id_used
SELECT 1 FROM runs WHERE id = ?1 UNION ALL SELECT 1 FROM tombstones WHERE id = ?1
-- name: tag
INSERT OR IGNORE INTO tags (run, key, value) VALUES (?, ?, ?)
-- name: fact
INSERT INTO facts (run, seq, body, hash) VALUES (?, ?, ?, ?)
-- name: update
UPDATE runs SET seq = ?2, head = ?3, asked_n = ?4, asked_h = ?5, generation = ?6, epoch = ?7, due = ?8, wait = ?9,
    variables = ?10, definition = ?11, updated_at = ?12, busy = ?13, crc = ?14, life = ?15, outcome = ?16, ended_at = ?17
WHERE no = ?1
-- name: update_live
UPDATE runs SET seq = ?2, head = ?3, asked_n = ?4, asked_h = ?5, generation = ?6, epoch = ?7, due = ?8, wait = ?9,
    variables = ?10, definition = ?11, updated_at = ?12, busy = ?13, crc = ?14
WHERE no = ?1
-- name: answered
SELECT q.id FROM json_each(?) AS j JOIN requests AS q ON q.id = j.value
-- name: waiting
SELECT i.request FROM json_each(?) AS j JOIN inbox AS i ON i.request = j.value WHERE i.request IS NOT NULL
-- name: answer
INSERT INTO requests (id, run, answer, crc) VALUES (?, ?, ?, ?)
-- name: inbox
INSERT INTO inbox (run, request, body, crc) VALUES (?, ?, ?, ?)
-- name: inbox_done
DELETE FROM inbox WHERE no = ?
-- name: blob
INSERT INTO blobs (hash, body) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING
-- name: blob_ref
INSERT INTO blob_refs (run, hash) VALUES (?, ?) ON CONFLICT DO NOTHING
-- name: snapshot
INSERT INTO snapshots (run, seq, body, crc) VALUES (?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET seq = excluded.seq, body = excluded.body, crc = excluded.crc
-- name: restart
UPDATE runs SET start_at = ?2 WHERE no = ?1
-- name: snapshot_outdated
DELETE FROM snapshots WHERE run = ?1 AND seq < ?2
-- name: progress
INSERT INTO progress (run, key, attempt, at, value, crc)
SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM runs WHERE id = ?1 AND ended_at IS NULL)
ON CONFLICT (run, key) DO UPDATE SET attempt = excluded.attempt, at = excluded.at, value = excluded.value,
    crc = excluded.crc
-- name: progress_done
DELETE FROM progress WHERE run = ?
-- name: pulse
UPDATE pulse SET commits = commits + 1, clock = MAX(clock, ?1), last_run = MAX(last_run, ?2),
    total = commits + 1 + MAX(clock, ?1) + MAX(last_run, ?2)
RETURNING commits
-- name: note
UPDATE epochs SET note = ?2 WHERE epoch = ?1
-- name: clean
UPDATE epochs SET clean = 1 WHERE epoch = ?
-- name: epoch
INSERT INTO epochs (epoch, node, pid, started_at, note) SELECT COALESCE(MAX(epoch), 0) + 1, ?1, ?2, ?3, ?4 FROM epochs RETURNING epoch
-- name: tree
WITH RECURSIVE tree (id) AS (
    SELECT r.id FROM runs AS r WHERE r.id = ?1 AND NOT EXISTS (SELECT 1 FROM runs AS p WHERE p.id = r.parent)
    UNION SELECT c.id FROM tree JOIN runs AS c ON c.parent = tree.id AND c.parent <> ''
)
SELECT r.no, r.id, r.life IN ('completed', 'failed', 'cancelled'), r.input_hash, r.outcome FROM tree JOIN runs AS r ON r.id = tree.id
-- name: tombstone
INSERT OR REPLACE INTO tombstones (id, input_hash, outcome, crc) VALUES (?, ?, ?, ?)
-- name: remove_facts
DELETE FROM facts WHERE run = ?
-- name: remove_tags
DELETE FROM tags WHERE run = ?
-- name: remove_snapshots
DELETE FROM snapshots WHERE run = ?
-- name: remove_requests
DELETE FROM requests WHERE run = ?
-- name: remove_refs
DELETE FROM blob_refs WHERE run = ? RETURNING hash
-- name: remove_blob
DELETE FROM blobs WHERE hash = ?1 AND NOT EXISTS (SELECT 1 FROM blob_refs WHERE hash = ?1)
-- name: remove_run
DELETE FROM runs WHERE no = ?
-- name: store_id
INSERT INTO meta (key, value) VALUES ('id', ?) ON CONFLICT DO NOTHING
-- name: schema_sum
INSERT INTO meta (key, value) VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value
