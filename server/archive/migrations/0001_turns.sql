-- What was said: sessions, and the turns that have ended in them.
CREATE TABLE archive_sessions (
  session_id TEXT PRIMARY KEY,
  principal TEXT NOT NULL,
  tenant TEXT NOT NULL,
  user_name TEXT NOT NULL,
  model TEXT NOT NULL,
  began_at DOUBLE PRECISION NOT NULL,
  active_at DOUBLE PRECISION NOT NULL,
  ended_at DOUBLE PRECISION,
  -- When to look whether it has ended; none: it has.
  check_at DOUBLE PRECISION
);
CREATE INDEX archive_sessions_of ON archive_sessions (principal, active_at, session_id);
CREATE INDEX archive_sessions_of_tenant ON archive_sessions (tenant, active_at, session_id);
CREATE INDEX archive_sessions_unchecked ON archive_sessions (check_at);

CREATE TABLE archive_turns (
  session_id TEXT NOT NULL,
  response_id TEXT NOT NULL,
  principal TEXT NOT NULL,
  plan TEXT NOT NULL,
  place BIGINT NOT NULL,
  ended_at DOUBLE PRECISION NOT NULL,
  -- JSON, with its format's number.
  turn TEXT NOT NULL,
  PRIMARY KEY (session_id, response_id)
);
CREATE INDEX archive_turns_in ON archive_turns (session_id, place, response_id);
CREATE INDEX archive_turns_of ON archive_turns (principal, ended_at);
CREATE INDEX archive_turns_by_age ON archive_turns (plan, ended_at);

-- What must not come back with a turn that is written late: principals and sessions.
CREATE TABLE archive_erased (
  name TEXT PRIMARY KEY,
  at DOUBLE PRECISION NOT NULL
);
CREATE INDEX archive_erased_by_age ON archive_erased (at);
