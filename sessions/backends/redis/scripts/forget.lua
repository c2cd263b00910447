-- Take a session that has expired out of the index of its bucket.
-- KEYS: meta, busy  ARGV: session
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return 1
