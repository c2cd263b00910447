-- Take a session that nobody owns, or from the owner that was seen. Its owner follows it no more.
-- KEYS: meta, log, names, snapshot, busy
-- ARGV: session, node, owner seen, token seen, incarnation seen, lifetime
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'h', 'c', 'f', 'fk', 'w', 'b', 'n')
if not at[1] then
  return 'GONE'
end
if at[1] == '' then
  return 'DELETED'
end
local is_free = at[2] == '' or at[2] == ARGV[2]
if not is_free and not (at[2] == ARGV[3] and at[3] == ARGV[4] and at[1] == ARGV[5]) then
  return 'FENCED'
end
local former, kept = '', {}
for node in string.gmatch(at[8], '%S+') do
  if node ~= ARGV[2] then
    kept[#kept + 1] = node
  end
end
local followers = table.concat(kept, ' ')
if followers ~= at[8] then
  redis.call('HSET', KEYS[1], 'w', followers)
end
if at[2] ~= ARGV[2] then
  former = at[2]
  at[3] = redis.call('HINCRBY', KEYS[1], 't', 1)
  redis.call('HSET', KEYS[1], 'o', ARGV[2])
  if redis.call('HEXISTS', KEYS[5], ARGV[1]) == 1 then
    redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
  end
end
-- All of them, as ever: a log that went before the rest would look like an empty one.
for i = 1, 5 do
  redis.call('EXPIRE', KEYS[i], ARGV[6])
end
local snapshot = redis.call('HMGET', KEYS[4], 'q', 'k', 'd')
return {at[1], ARGV[2], at[3], at[4], at[5], at[6], at[7], snapshot[1], snapshot[2], snapshot[3],
  former, followers}
