-- Totals and pages of any combination of workspace, state and type, at any number of jobs.

DROP TRIGGER jobs_count_created;
DROP TRIGGER jobs_count_deleted;
DROP TRIGGER jobs_count_moved;
DROP TABLE job_counts;

CREATE TABLE job_counts_of_workspace (
  workspace_id TEXT NOT NULL,
  state INTEGER NOT NULL,
  job_type TEXT NOT NULL,
  jobs INTEGER NOT NULL CHECK (jobs >= 0),
  PRIMARY KEY (workspace_id, state, job_type)
) STRICT, WITHOUT ROWID;

-- The same over all workspaces, of which there may be many thousand.
CREATE TABLE job_counts (
  state INTEGER NOT NULL,
  job_type TEXT NOT NULL,
  jobs INTEGER NOT NULL CHECK (jobs >= 0),
  PRIMARY KEY (state, job_type)
) STRICT, WITHOUT ROWID;

INSERT INTO job_counts_of_workspace (workspace_id, state, job_type, jobs)
SELECT workspace_id, state, job_type, count(*) FROM jobs GROUP BY workspace_id, state, job_type;

INSERT INTO job_counts (state, job_type, jobs)
SELECT state, job_type, sum(jobs) FROM job_counts_of_workspace GROUP BY state, job_type;

CREATE TRIGGER jobs_count_created AFTER INSERT ON jobs
BEGIN
  INSERT INTO job_counts_of_workspace (workspace_id, state, job_type, jobs)
  VALUES (NEW.workspace_id, NEW.state, NEW.job_type, 1)
  ON CONFLICT (workspace_id, state, job_type) DO UPDATE SET jobs = jobs + 1;
  INSERT INTO job_counts (state, job_type, jobs) VALUES (NEW.state, NEW.job_type, 1)
  ON CONFLICT (state, job_type) DO UPDATE SET jobs = jobs + 1;
END;

-- A workspace that has no jobs any more leaves nothing behind.
CREATE TRIGGER jobs_count_deleted AFTER DELETE ON jobs
BEGIN
  UPDATE job_counts_of_workspace SET jobs = jobs - 1
  WHERE workspace_id = OLD.workspace_id AND state = OLD.state AND job_type = OLD.job_type;
  DELETE FROM job_counts_of_workspace WHERE workspace_id = OLD.workspace_id AND jobs = 0;
  UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state AND job_type = OLD.job_type;
END;

CREATE TRIGGER jobs_count_moved AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state
BEGIN
  UPDATE job_counts_of_workspace SET jobs = jobs - 1
  WHERE workspace_id = OLD.workspace_id AND state = OLD.state AND job_type = OLD.job_type;
  UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state AND job_type = OLD.job_type;
  INSERT INTO job_counts_of_workspace (workspace_id, state, job_type, jobs)
  VALUES (NEW.workspace_id, NEW.state, NEW.job_type, 1)
  ON CONFLICT (workspace_id, state, job_type) DO UPDATE SET jobs = jobs + 1;
  INSERT INTO job_counts (state, job_type, jobs) VALUES (NEW.state, NEW.job_type, 1)
  ON CONFLICT (state, job_type) DO UPDATE SET jobs = jobs + 1;
END;

-- A page merges the jobs of each tally that it admits, so that these two serve every combination.
DROP INDEX jobs_newest_of_state;
DROP INDEX jobs_newest_of_workspace;
DROP INDEX jobs_newest_of_type;
CREATE INDEX jobs_newest_of_state ON jobs (state, job_type, created_at DESC, job_id DESC);
CREATE INDEX jobs_newest_of_workspace ON jobs (workspace_id, state, job_type, created_at DESC, job_id DESC);

-- Labels with the place of their job, so that pages of a label are read in order.
ALTER TABLE job_labels RENAME TO job_labels_before;
CREATE TABLE job_labels (
  job_number INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  PRIMARY KEY (job_number, key)
) STRICT, WITHOUT ROWID;

INSERT INTO job_labels (job_number, key, value, created_at, job_id)
SELECT job_number, key, value, created_at, job_id FROM job_labels_before JOIN jobs ON number = job_number;

DROP TABLE job_labels_before;
CREATE INDEX job_labels_newest ON job_labels (key, value, created_at DESC, job_id DESC);
