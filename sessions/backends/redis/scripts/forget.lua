-- Take a session that has expired, or was deleted, out of the index of its bucket.
-- KEYS: meta, busy  ARGV: session
local incarnation = redis.call('HGET', KEYS[1], 'i')
if not incarnation or incarnation == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return 1
