-- What jobs that have ended still leave, by the rule that says for how long (`core.ports.Kept`).
CREATE TABLE kept_of_jobs (
  kept TEXT NOT NULL,
  ended_at INTEGER NOT NULL,
  job_number INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
  PRIMARY KEY (kept, ended_at, job_number)
) STRICT, WITHOUT ROWID;

CREATE INDEX kept_of_jobs_by_job ON kept_of_jobs (job_number, kept);

INSERT INTO kept_of_jobs (kept, ended_at, job_number)
SELECT
  CASE state WHEN 4 THEN 'job_dirs.completed' WHEN 5 THEN 'job_dirs.failed' ELSE 'job_dirs.cancelled' END,
  completed_at, number
FROM jobs WHERE state >= 4;

-- A log of which nothing is known is kept as the worst.
INSERT INTO kept_of_jobs (kept, ended_at, job_number)
SELECT
  CASE
    WHEN coalesce(json_extract(CAST(receipt AS TEXT), '$.summary.errors_count'), 1) > 0 THEN 'logs.error'
    WHEN coalesce(json_extract(CAST(receipt AS TEXT), '$.summary.warnings_count'), 1) > 0 THEN 'logs.warn'
    ELSE 'logs.info'
  END,
  completed_at, number
FROM jobs LEFT JOIN receipts USING (job_id) WHERE state >= 4;

-- The hash beside the message, so that a blob which no artifact needs is found by an index.
ALTER TABLE artifacts ADD COLUMN sha256 TEXT;
UPDATE artifacts SET sha256 = artifact_sha256(artifact);
CREATE INDEX artifacts_by_sha256 ON artifacts (sha256) WHERE sha256 IS NOT NULL;
