-- Of a token that came of a rotation, the id of the first of its line; of one that was rotated, the id of the next.
ALTER TABLE tokens ADD COLUMN first_id TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN successor_id TEXT NOT NULL DEFAULT '';
