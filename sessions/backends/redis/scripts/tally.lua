-- Set how many everybody has on a node, and say how many more each may have.
-- KEYS: for each claim its holder's hash, of '<kind>:<node>' to number
-- ARGV: node, seconds after which the hashes are forgotten, number of nodes known to be dead, these,
--   then for each claim: kind, held, wanted, most
-- Returns what is given for each claim, and the other nodes that were counted.
local node, dead = ARGV[1], tonumber(ARGV[3])
local at = 3 + dead
local given, others, seen = {}, {}, {}
for i, key in ipairs(KEYS) do
  local kind, held, wanted, most = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  at = at + 4
  local granted = 0
  if wanted > 0 then
    for j = 4, 3 + dead do
      redis.call('HDEL', key, kind .. ':' .. ARGV[j])
    end
    local all, sum = redis.call('HGETALL', key), held
    for j = 1, #all, 2 do
      local of, other = string.match(all[j], '^([%a_]+):(.+)$')
      if of == kind and other ~= node then
        sum = sum + tonumber(all[j + 1])
        if not seen[other] then
          seen[other] = true
          others[#others + 1] = other
        end
      end
    end
    granted = math.max(0, math.min(wanted, most - sum))
  end
  if held + granted > 0 then
    redis.call('HSET', key, kind .. ':' .. node, held + granted)
    redis.call('EXPIRE', key, ARGV[2])
  else
    redis.call('HDEL', key, kind .. ':' .. node)
  end
  given[i] = granted
end
return {given, others}
