-- Return how a session stands; have a node follow it, if one is named.
-- KEYS: meta, snapshot  ARGV: node or ''
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'h', 'c', 'f', 'fk', 'w')
if not at[1] then
  return false
end
if ARGV[1] ~= '' and not string.find(at[8] .. ' ', ARGV[1] .. ' ', 1, true) then
  redis.call('HSET', KEYS[1], 'w', at[8] == '' and ARGV[1] or at[8] .. ' ' .. ARGV[1])
end
local snapshot = redis.call('HMGET', KEYS[2], 'q', 'k', 'd')
return {at[1], at[2], at[3], at[4], at[5], at[6], at[7], snapshot[1], snapshot[2], snapshot[3]}
