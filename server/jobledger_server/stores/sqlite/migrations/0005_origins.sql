-- A JSON object: what the attempt that was made ready last is made from (`core.ports.Origin`). Where jobs can't write it.
ALTER TABLE jobs ADD COLUMN origin TEXT;
