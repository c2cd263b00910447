-- Note up to when everything of somebody's was erased.
-- KEYS: erased  ARGV: when, seconds for which that is known
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[1]) or 0) then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
return 1
