-- Who called what. Rows are added, and go when they are old; none is ever changed.
CREATE TABLE audit (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  token_id TEXT NOT NULL,
  subject TEXT NOT NULL,
  method TEXT NOT NULL,
  object TEXT NOT NULL,
  decision INTEGER NOT NULL,
  reason TEXT NOT NULL,
  peer TEXT NOT NULL,
  request_id TEXT NOT NULL,
  count INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_by_object ON audit (object, number) WHERE object <> '';
CREATE INDEX audit_by_token ON audit (token_id, number) WHERE token_id <> '';

-- The highest number that retention has let go. These triggers keep mistakes from the log, not one who may write the file.
CREATE TABLE audit_expired (
  through INTEGER NOT NULL
) STRICT;

INSERT INTO audit_expired (through) VALUES (0);

CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'an audit entry never changes');
END;

CREATE TRIGGER audit_goes_when_it_is_old BEFORE DELETE ON audit
WHEN OLD.number > (SELECT through FROM audit_expired)
BEGIN
  SELECT RAISE(ABORT, 'an audit entry is deleted by retention alone');
END;

CREATE TRIGGER audit_expires_forward BEFORE UPDATE ON audit_expired
WHEN NEW.through < OLD.through
BEGIN
  SELECT RAISE(ABORT, 'what retention has let go of the audit log stays gone');
END;
