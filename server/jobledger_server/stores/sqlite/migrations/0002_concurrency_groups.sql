-- A JSON array of texts: the concurrency groups in which the job counts. Few differ: the queue is read through them.
ALTER TABLE jobs ADD COLUMN concurrency_groups TEXT NOT NULL DEFAULT '[]';

-- With all that finding the next job takes, so that jobs which wait out a backoff are passed over in the index alone.
CREATE INDEX jobs_queue_of_groups ON jobs (
  concurrency_groups, priority DESC, queued_at, job_id, eligible_at, state
) WHERE state = 1;
