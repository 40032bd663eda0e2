-- Instants are microseconds since the epoch (UTC). States are the numbers of JobState: 1 queued, 2 running,
-- 3 cancelling; 4 and above are terminal.

CREATE TABLE counters (
  name TEXT PRIMARY KEY,
  last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, last) VALUES ('event', 0), ('artifact', 0);

-- AUTOINCREMENT: the number of a deleted job is not given again, since ids of log entries are built on it.
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id TEXT NOT NULL UNIQUE,
  state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 6),
  attempt INTEGER NOT NULL,
  job_type TEXT NOT NULL,
  workspace_id TEXT NOT NULL,
  priority INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 3),
  created_at INTEGER NOT NULL,
  queued_at INTEGER,
  started_at INTEGER,
  completed_at INTEGER,
  eligible_at INTEGER NOT NULL,
  last_activity_at INTEGER NOT NULL,
  cancel_requested_at INTEGER,
  cancel_requested_by TEXT,
  cancel_reason TEXT,
  cancel_grace_seconds REAL,
  job BLOB NOT NULL
) STRICT;

CREATE INDEX jobs_newest ON jobs (created_at DESC, job_id DESC);
CREATE INDEX jobs_newest_of_state ON jobs (state, created_at DESC, job_id DESC);
CREATE INDEX jobs_newest_of_workspace ON jobs (workspace_id, created_at DESC, job_id DESC);
CREATE INDEX jobs_newest_of_type ON jobs (job_type, created_at DESC, job_id DESC);
-- With the state, so that places in the queue are counted in the index alone.
CREATE INDEX jobs_queue ON jobs (priority DESC, queued_at, job_id, state) WHERE state = 1;
CREATE INDEX jobs_live ON jobs (state = 1, CASE state WHEN 1 THEN queued_at ELSE started_at END, job_id) WHERE state < 4;

CREATE TABLE job_counts (
  state INTEGER PRIMARY KEY,
  jobs INTEGER NOT NULL CHECK (jobs >= 0)
) STRICT;

INSERT INTO job_counts (state, jobs) VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0);

CREATE TRIGGER jobs_count_created AFTER INSERT ON jobs
BEGIN
  UPDATE job_counts SET jobs = jobs + 1 WHERE state = NEW.state;
END;

CREATE TRIGGER jobs_count_deleted AFTER DELETE ON jobs
BEGIN
  UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state;
END;

CREATE TRIGGER jobs_count_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state
BEGIN
  UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state;
  UPDATE job_counts SET jobs = jobs + 1 WHERE state = NEW.state;
END;

CREATE TABLE job_labels (
  job_number INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (job_number, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX job_labels_by_value ON job_labels (key, value);

-- No reference to the job: a key holds for its time, also when the job was deleted.
CREATE TABLE idempotency_keys (
  principal TEXT NOT NULL,
  key TEXT NOT NULL,
  request_hash BLOB NOT NULL,
  expires_at INTEGER NOT NULL,
  job_number INTEGER NOT NULL,
  PRIMARY KEY (principal, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);

CREATE TABLE artifacts (
  id INTEGER PRIMARY KEY,
  job_number INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  path TEXT NOT NULL,
  artifact BLOB NOT NULL,
  UNIQUE (job_number, path)
) STRICT;

CREATE TABLE events (
  sequence_number INTEGER PRIMARY KEY,
  event BLOB NOT NULL
) STRICT;

-- No reference to the job: a receipt outlives it.
CREATE TABLE receipts (
  leaf_index INTEGER PRIMARY KEY,
  job_id TEXT NOT NULL UNIQUE,
  workspace_id TEXT NOT NULL,
  receipt BLOB NOT NULL,
  envelope BLOB NOT NULL,
  leaf BLOB NOT NULL CHECK (length(leaf) = 32)
) STRICT;

CREATE TRIGGER receipts_never_change BEFORE UPDATE ON receipts
BEGIN
  SELECT RAISE(ABORT, 'a receipt never changes');
END;

CREATE TRIGGER receipts_are_never_deleted BEFORE DELETE ON receipts
BEGIN
  SELECT RAISE(ABORT, 'a receipt is never deleted');
END;

CREATE TABLE tokens (
  token_id TEXT PRIMARY KEY,
  digest BLOB NOT NULL,
  name TEXT NOT NULL,
  scopes TEXT NOT NULL,
  workspaces TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  revoked_at INTEGER NOT NULL,
  last_used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
