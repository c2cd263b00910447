-- Be none of the nodes any more, and say so for a while; or take a dead one out of them.
-- KEYS: nodes, lease  ARGV: node, milliseconds to say it for (0: it is dead, and says nothing)
redis.call('SREM', KEYS[1], ARGV[1])
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[2])
else
  redis.call('SET', KEYS[2], 'left', 'PX', ARGV[2])
end
return 1
