-- Keep a snapshot of what the log holds, and forget the entries up to a floor. An entry that goes beyond it
-- stays whole.
-- KEYS: meta, log, names, snapshot, busy
-- ARGV: node, token, incarnation, floor, the snapshot's number, nonce and data, lifetime
local at = redis.call('HMGET', KEYS[1], 'i', 'o', 't', 'f', 'h', 'k', 'fk')
if at[1] == '' then
  return 'DELETED'
end
if at[1] ~= ARGV[3] then
  return 'GONE'
end
if at[2] ~= ARGV[1] or at[3] ~= ARGV[2] then
  return 'FENCED'
end

-- Whether the log holds an entry with that nonce at that place.
local function holds(seq, nonce)
  if seq == tonumber(at[5]) then
    return at[6] == nonce
  end
  if seq > tonumber(at[5]) or seq < tonumber(at[4]) then
    return false
  end
  if seq == tonumber(at[4]) then
    return at[7] == nonce
  end
  local found = redis.call('XREVRANGE', KEYS[2], string.format('%d-0', seq), '-', 'COUNT', 1)
  return #found == 1 and found[1][2][2] == nonce
end

local kept = redis.call('HMGET', KEYS[4], 'q', 'k')
if kept[1] and tonumber(kept[1]) > tonumber(ARGV[5]) and holds(tonumber(kept[1]), kept[2]) then
  return 'OK' -- it comes late
end
if not holds(tonumber(ARGV[5]), ARGV[6]) then
  return 'LOST'
end
redis.call('HSET', KEYS[4], 'q', ARGV[5], 'k', ARGV[6], 'd', ARGV[7])
local floor = math.min(tonumber(ARGV[4]), tonumber(ARGV[5]))
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
