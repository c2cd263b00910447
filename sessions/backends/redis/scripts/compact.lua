-- Keep a snapshot, and forget the entries up to a floor. An entry that goes beyond it stays whole.
-- KEYS: meta, log, names, snapshot, busy
-- ARGV: node, token, incarnation, floor, the snapshot's number, nonce and data, lifetime
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'f', 'h')
if at[1] ~= ARGV[3] then
  return 'GONE'
end
if at[2] ~= ARGV[1] or at[3] ~= ARGV[2] then
  return 'FENCED'
end
local kept = redis.call('HGET', KEYS[4], 'q')
if kept and tonumber(kept) > tonumber(ARGV[5]) then
  return 'OK' -- it comes late
end
redis.call('HSET', KEYS[4], 'q', ARGV[5], 'k', ARGV[6], 'd', ARGV[7])
local floor = math.min(tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(at[5]))
if floor > tonumber(at[4]) then
  if floor < tonumber(at[5]) then
    local next = redis.call('XREVRANGE', KEYS[2], string.format('%d-0', floor + 1), '-', 'COUNT', 1)
    if #next == 0 then
      return 'LOST'
    end
    floor = tonumber(string.match(next[1][1], '^%d+')) - 1
  end
  if floor > tonumber(at[4]) then
    local last = redis.call('XREVRANGE', KEYS[2], string.format('%d-0', floor), '-', 'COUNT', 1)
    if #last == 0 then
      return 'LOST'
    end
    redis.call('HSET', KEYS[1], 'f', floor, 'fk', last[1][2][2])
    redis.call('XTRIM', KEYS[2], 'MINID', string.format('%d-0', floor + 1))
  end
end
for i = 1, 5 do
  redis.call('EXPIRE', KEYS[i], ARGV[8])
end
return 'OK'
