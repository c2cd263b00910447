-- Be none of the nodes any more; or note that another is none.
-- KEYS: nodes, lease  ARGV: node
redis.call('SREM', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
