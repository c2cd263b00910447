-- Forget a session altogether.
-- KEYS: meta, log, names, snapshot, busy  ARGV: session, node, token, incarnation
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't')
if not at[1] or at[1] == '' then
  return 1
end
if at[1] ~= ARGV[4] or at[2] ~= ARGV[2] or at[3] ~= ARGV[3] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
redis.call('HDEL', KEYS[5], ARGV[1])
return 1
