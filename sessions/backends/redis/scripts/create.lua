-- Begin an empty log. May be repeated by whoever did.
-- KEYS: meta, log, names, snapshot, busy  ARGV: session, node, incarnation, lifetime
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't')
if at[1] == '' then
  return 'DELETED'
end
if at[1] then
  if at[1] == ARGV[3] and at[2] == ARGV[2] and at[3] == '1' then
    return 1
  end
  return 0
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('HDEL', KEYS[5], ARGV[1])
redis.call('HSET', KEYS[1], 'i', ARGV[3], 'o', ARGV[2], 't', 1, 'h', 0, 'k', 0, 'c', 0, 'n', 0,
  'f', 0, 'fk', 0, 'b', 0, 'w', '', 'u', 0, 'x', 0)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
