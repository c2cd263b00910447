-- Take a session that nobody owns, or from the owner that was seen. Its owner follows it no more.
-- KEYS: meta, snapshot, busy  ARGV: session, node, owner seen, token seen, incarnation seen, lifetime
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'h', 'c', 'f', 'fk', 'w', 'b', 'n')
if not at[1] then
  return 'GONE'
end
local former, followers = '', at[8]
if at[2] ~= ARGV[2] then
  if at[2] ~= '' and not (at[2] == ARGV[3] and at[3] == ARGV[4] and at[1] == ARGV[5]) then
    return 'FENCED'
  end
  former = at[2]
  local kept = {}
  for node in string.gmatch(at[8], '%S+') do
    if node ~= ARGV[2] then
      kept[#kept + 1] = node
    end
  end
  followers = table.concat(kept, ' ')
  at[3] = redis.call('HINCRBY', KEYS[1], 't', 1)
  redis.call('HSET', KEYS[1], 'o', ARGV[2], 'w', followers)
  if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
  end
  for i = 1, 2 do
    redis.call('EXPIRE', KEYS[i], ARGV[6])
  end
end
local snapshot = redis.call('HMGET', KEYS[2], 'q', 'k', 'd')
return {at[1], ARGV[2], at[3], at[4], at[5], at[6], at[7], snapshot[1], snapshot[2], snapshot[3],
  former, followers}
