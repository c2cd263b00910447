-- Return sessions of an owner that have something to do.
-- KEYS: busy  ARGV: owner, how many
local all, found = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  if all[i + 1] == ARGV[1] and #found < tonumber(ARGV[2]) then
    found[#found + 1] = all[i]
  end
end
return found
