-- Return sessions of an owner that have something to do.
-- KEYS: indexes of buckets  ARGV: owner, how many
local found, most = {}, tonumber(ARGV[2])
for _, key in ipairs(KEYS) do
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if #found == most then
      return found
    end
    if all[i + 1] == ARGV[1] then
      found[#found + 1] = all[i]
    end
  end
end
return found
