-- A store's first shape. Times are microseconds since 1970 UTC, but for leases, which are the server's own time;
-- `asked_h` is an unsigned 64-bit sum kept as a signed one. Each row of runs and inbox stands in a shard, by its run's id.
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);
-- A node's row is its epoch, its lease and its fence: (epoch, claim) is never given twice, even by a server that went back.
CREATE TABLE nodes (
    epoch bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    pid integer NOT NULL,
    claim uuid NOT NULL,
    version text NOT NULL DEFAULT '',
    started_at bigint NOT NULL,
    lease_until timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'stopped', 'dead')),
    serves jsonb NOT NULL DEFAULT '[]',
    queues jsonb NOT NULL DEFAULT '[]',
    load jsonb NOT NULL DEFAULT '{}',
    clean boolean NOT NULL DEFAULT false,
    note bytea NOT NULL DEFAULT '',
    clock bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE shards (
    shard smallint PRIMARY KEY, owner bigint, claim uuid, released_by bigint
) WITH (fillfactor = 50);
CREATE SEQUENCE runs_no;
CREATE TABLE runs (
    no bigint PRIMARY KEY,
    id text NOT NULL UNIQUE,
    shard smallint NOT NULL,
    workflow text NOT NULL,
    version text NOT NULL,
    definition text NOT NULL,
    input_hash bytea NOT NULL,
    life text NOT NULL DEFAULT 'queued',
    seq bigint NOT NULL DEFAULT 0,
    head bytea NOT NULL DEFAULT '\x00000000000000000000000000000000',
    asked_n bigint NOT NULL DEFAULT 0,
    asked_h bigint NOT NULL DEFAULT 0,
    generation integer NOT NULL DEFAULT 1,
    epoch bigint NOT NULL DEFAULT 0,
    due bigint,
    busy smallint NOT NULL DEFAULT 2, -- 0: asleep until something comes, 1: steps are open or it settles, 2: waits for nothing
    wait bytea NOT NULL DEFAULT '[]',
    variables bytea NOT NULL DEFAULT '{}',
    outcome bytea,
    tags jsonb NOT NULL DEFAULT '{}',
    parent text NOT NULL DEFAULT '',
    parent_key text NOT NULL DEFAULT '',
    source text NOT NULL DEFAULT '',
    start_at bigint NOT NULL DEFAULT 1,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    ended_at bigint
) WITH (fillfactor = 70);
CREATE INDEX runs_due ON runs (due, no) WHERE due IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent) WHERE parent <> '';
CREATE INDEX runs_workflow ON runs (workflow, no);
CREATE INDEX runs_open ON runs (no) WHERE ended_at IS NULL;
CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX runs_tags ON runs USING gin (tags jsonb_path_ops) WHERE tags <> '{}';
CREATE TABLE facts (
    run bigint NOT NULL, seq bigint NOT NULL, body bytea NOT NULL, hash bytea NOT NULL, PRIMARY KEY (run, seq)
);
CREATE TABLE inbox (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shard smallint NOT NULL, run text NOT NULL, request text, body bytea NOT NULL
);
CREATE UNIQUE INDEX inbox_request ON inbox (request) WHERE request IS NOT NULL;
CREATE TABLE requests (id text PRIMARY KEY, run text NOT NULL, answer bytea NOT NULL);
CREATE INDEX requests_run ON requests (run);
CREATE TABLE blobs (hash text PRIMARY KEY, body bytea NOT NULL);
CREATE TABLE blob_refs (run bigint NOT NULL, hash text NOT NULL, PRIMARY KEY (run, hash));
CREATE INDEX blob_refs_hash ON blob_refs (hash);
CREATE TABLE snapshots (run bigint PRIMARY KEY, seq bigint NOT NULL, body bytea NOT NULL);
CREATE TABLE progress (
    run text NOT NULL, key text NOT NULL, attempt integer NOT NULL, at bigint NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (run, key)
);
CREATE TABLE tombstones (id text PRIMARY KEY, input_hash bytea NOT NULL, outcome bytea);
INSERT INTO shards (shard) SELECT generate_series(0, 63);

-- One batch, in one call: whether the node may write, then starts, facts, rows, answers and messages.
-- Of a start that is refused (its id is in use, or its request has an answer) nothing is written. Facts and rows of a run
-- that starts here name it by the place of its start, negated. SQLSTATE PE001: the node was fenced; PE002: refused.
CREATE FUNCTION perdure_commit(
    p_epoch bigint, p_claim uuid, p_clock bigint, p_note bytea, p_clean boolean,
    s_id text[], s_shard smallint[], s_workflow text[], s_version text[], s_definition text[], s_input bytea[], s_tags text[],
    s_parent text[], s_parent_key text[], s_source text[], s_request text[], s_created bigint[], s_drawn boolean[],
    f_run bigint[], f_seq bigint[], f_body bytea[], f_hash bytea[],
    u_run bigint[], u_life text[], u_seq bigint[], u_head bytea[], u_asked_n bigint[], u_asked_h bigint[],
    u_generation integer[], u_epoch bigint[], u_due bigint[], u_busy smallint[], u_wait bytea[], u_variables bytea[],
    u_outcome bytea[], u_definition text[], u_updated bigint[], u_ended bigint[],
    a_id text[], a_run text[], a_answer bytea[], d_no bigint[],
    i_run text[], i_shard smallint[], i_request text[], i_body bytea[], i_starts boolean[],
    OUT nos bigint[], OUT repeated text[]
) LANGUAGE plpgsql AS $$
DECLARE
    n integer := cardinality(s_id);
    refused text[] := '{}';
    started text[] := '{}';
    late bigint[] := '{}';
    said text[];
    written bigint;
BEGIN
    nos := '{}';
    repeated := '{}';
    IF p_epoch > 0 THEN
        UPDATE nodes SET clock = greatest(clock, p_clock), note = coalesce(p_note, note), clean = clean OR p_clean
        WHERE epoch = p_epoch AND claim = p_claim AND state = 'live';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'epoch % was taken over', p_epoch USING ERRCODE = 'PE001';
        END IF;
    END IF;
    IF n > 0 THEN
        -- The requests first: a second start with the same one waits for the first, whatever ids they have.
        WITH asked AS (
            SELECT DISTINCT ON (request) request, id, at
            FROM unnest(s_request, s_id) WITH ORDINALITY AS s (request, id, at) WHERE request <> '' ORDER BY request, at
        ), given AS (
            INSERT INTO requests (id, run, answer) SELECT request, id, convert_to('{"seq":1}', 'UTF8') FROM asked ORDER BY request
            ON CONFLICT DO NOTHING RETURNING id
        ), first AS (
            SELECT a.at FROM asked AS a JOIN given AS g ON g.id = a.request
        )
        SELECT coalesce(array_agg(s.request), '{}'), coalesce(array_agg(s.at), '{}') INTO repeated, late
        FROM unnest(s_request) WITH ORDINALITY AS s (request, at)
        WHERE s.request <> '' AND s.at NOT IN (SELECT at FROM first);
        WITH wanted AS (
            SELECT s.*, row_number() OVER (PARTITION BY s.id ORDER BY s.at) AS turn FROM unnest(
                s_id, s_shard, s_workflow, s_version, s_definition, s_input, s_tags, s_parent, s_parent_key, s_source,
                s_request, s_created, s_drawn
            ) WITH ORDINALITY AS s (
                id, shard, workflow, version, definition, input, tags, parent, parent_key, source, request, created, drawn, at
            )
            WHERE s.at <> ALL (late)
        ), new AS (
            INSERT INTO runs (
                no, id, shard, workflow, version, definition, input_hash, tags, parent, parent_key, source, created_at, updated_at
            )
            SELECT nextval('runs_no'), id, shard, workflow, version, definition, input, tags, parent, parent_key, source,
                created, created
            FROM (
                SELECT w.id, w.shard, w.workflow, w.version, w.definition, w.input, w.tags::jsonb AS tags, w.parent,
                    w.parent_key, w.source, w.created
                FROM wanted AS w
                WHERE w.turn = 1 AND (w.drawn OR NOT EXISTS (
                    SELECT 1 FROM runs AS x WHERE x.id = w.id UNION ALL SELECT 1 FROM tombstones AS t WHERE t.id = w.id
                ))
                ORDER BY w.at
            ) AS fresh
            ON CONFLICT (id) DO NOTHING RETURNING no, id
        )
        SELECT array_agg(CASE WHEN w.turn = 1 THEN coalesce(new.no, 0) ELSE 0 END ORDER BY s.at),
            coalesce(array_agg(s.id) FILTER (WHERE w.turn = 1 AND new.no IS NOT NULL), '{}')
        INTO nos, started
        FROM unnest(s_id) WITH ORDINALITY AS s (id, at) LEFT JOIN wanted AS w ON w.at = s.at LEFT JOIN new ON new.id = w.id;
        nos := array_replace(nos, NULL, 0);
        SELECT coalesce(array_agg(DISTINCT s.id), '{}') INTO refused FROM unnest(s_id, nos) AS s (id, no) WHERE s.no = 0;
        DELETE FROM requests AS q USING unnest(s_request, nos) WITH ORDINALITY AS s (request, no, at)
        WHERE s.no = 0 AND s.request <> '' AND s.at <> ALL (late) AND q.id = s.request;
    END IF;
    IF cardinality(f_run) > 0 THEN
        INSERT INTO facts (run, seq, body, hash)
        SELECT CASE WHEN f.run < 0 THEN nos[-f.run] ELSE f.run END, f.seq, f.body, f.hash
        FROM unnest(f_run, f_seq, f_body, f_hash) AS f (run, seq, body, hash)
        WHERE f.run > 0 OR nos[-f.run] > 0;
    END IF;
    IF cardinality(u_run) > 0 THEN
        UPDATE runs AS r SET life = u.life, seq = u.seq, head = u.head, asked_n = u.asked_n, asked_h = u.asked_h,
            generation = u.generation, epoch = u.epoch, due = u.due, busy = u.busy, wait = u.wait, variables = u.variables,
            outcome = u.outcome, definition = u.definition, updated_at = u.updated, ended_at = u.ended
        FROM unnest(
            u_run, u_life, u_seq, u_head, u_asked_n, u_asked_h, u_generation, u_epoch, u_due, u_busy, u_wait, u_variables,
            u_outcome, u_definition, u_updated, u_ended
        ) AS u (
            run, life, seq, head, asked_n, asked_h, generation, epoch, due, busy, wait, variables, outcome, definition,
            updated, ended
        )
        WHERE r.no = CASE WHEN u.run < 0 THEN nos[-u.run] ELSE u.run END;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written <> (SELECT count(*) FROM unnest(u_run) AS u (run) WHERE u.run > 0 OR nos[-u.run] > 0) THEN
            RAISE EXCEPTION 'a run that the batch updates is not in the store' USING ERRCODE = 'PE002';
        END IF;
    END IF;
    IF cardinality(a_id) > 0 THEN
        WITH wanted AS (
            SELECT a.*, row_number() OVER (PARTITION BY a.id ORDER BY a.at) AS turn
            FROM unnest(a_id, a_run, a_answer) WITH ORDINALITY AS a (id, run, answer, at)
            WHERE a.run <> ALL (refused) OR a.run = ANY (started)
        ), given AS (
            INSERT INTO requests (id, run, answer) SELECT id, run, answer FROM wanted WHERE turn = 1 ORDER BY id
            ON CONFLICT DO NOTHING RETURNING id
        )
        SELECT coalesce(array_agg(w.id), '{}') INTO said FROM wanted AS w
        WHERE w.turn > 1 OR NOT EXISTS (SELECT 1 FROM given AS g WHERE g.id = w.id);
        repeated := repeated || said;
    END IF;
    IF cardinality(d_no) > 0 THEN
        DELETE FROM inbox WHERE no = ANY (d_no);
    END IF;
    IF cardinality(i_run) > 0 THEN
        WITH wanted AS (
            SELECT i.*, i.starts AND i.run = ANY (started) AS own
            FROM unnest(i_run, i_shard, i_request, i_body, i_starts) WITH ORDINALITY AS i (run, shard, request, body, starts, at)
            WHERE NOT i.starts OR i.run <> ALL (refused) OR i.run = ANY (started)
        ), heard AS (
            SELECT w.at FROM wanted AS w
            WHERE w.request <> '' AND NOT w.own AND EXISTS (SELECT 1 FROM requests AS q WHERE q.id = w.request)
        ), sent AS (
            INSERT INTO inbox (shard, run, request, body)
            SELECT shard, run, nullif(request, ''), body FROM wanted AS w
            WHERE w.at NOT IN (SELECT at FROM heard) AND NOT EXISTS (SELECT 1 FROM inbox AS x WHERE x.request = w.request)
                AND (w.request = '' OR NOT EXISTS (SELECT 1 FROM wanted AS e WHERE e.request = w.request AND e.at < w.at))
            ORDER BY w.at
            ON CONFLICT DO NOTHING RETURNING request
        )
        SELECT coalesce(array_agg(w.request), '{}') INTO said FROM wanted AS w
        WHERE w.request <> '' AND (
            NOT EXISTS (SELECT 1 FROM sent AS s WHERE s.request = w.request)
            OR EXISTS (SELECT 1 FROM wanted AS e WHERE e.request = w.request AND e.at < w.at)
        );
        repeated := repeated || said;
    END IF;
END $$;
