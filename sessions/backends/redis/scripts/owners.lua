-- Return whose sessions have something to do, each owner once.
-- KEYS: indexes of buckets
local found, seen = {}, {}
for _, key in ipairs(KEYS) do
  local all = redis.call('HGETALL', key)
  for i = 2, #all, 2 do
    if not seen[all[i]] then
      seen[all[i]] = true
      found[#found + 1] = all[i]
    end
  end
end
return found
