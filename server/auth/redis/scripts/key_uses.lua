-- Notes when API keys were last used; those that are gone are passed over.
-- KEYS: ids, used. ARGV: id, time, id, time...
for i = 1, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
return 1
