-- Have sessions last as long as if something had just been written to them.
-- KEYS: for each session meta, log, names, snapshot, busy  ARGV: lifetime
-- All of them, as ever: a log that went before the rest would look like an empty one.
for first = 1, #KEYS, 5 do
  if redis.call('HGET', KEYS[first], 'i') ~= '' then -- else it was deleted, and that is known for as long as it is
    for i = first, first + 4 do
      redis.call('EXPIRE', KEYS[i], ARGV[1])
    end
  end
end
return 1
