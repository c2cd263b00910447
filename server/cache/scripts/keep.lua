-- Keep an answer, and let go of what is too much: what ends first goes first.
-- KEYS: the answer; all answers, by when they end; their sizes; those of its place, by when they end; its place's index
-- ARGV: what all keys begin with, place, key of the answer, the answer, its size, milliseconds that it is good for,
--   answers at most, bytes at most, answers of a place at most, bytes of a place at most,
--   and where the index is to have the question: its text, its vector, its signature
-- Sizes: a field '<place>:<key>' each; the sum of a place is in ':<place>', of all in ':'.
-- Returns how many answers there are, and their bytes.
local answer, all, sizes, own, index = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local prefix, place, key, body, size, life = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local member = place .. ':' .. key
local time = redis.call('TIME')
-- In microseconds: what is kept within one millisecond has an order, too.
local now = time[1] * 1000000 + time[2]
local ends = now + life * 1000

local function drop(gone, comes_back)
  local of, name = string.match(gone, '^(%x+):(%x+)$')
  local took = tonumber(redis.call('HGET', sizes, gone) or '0')
  redis.call('DEL', prefix .. 'a:' .. of .. ':' .. name)
  redis.call('ZREM', all, gone)
  redis.call('ZREM', prefix .. 'p:' .. of, gone)
  if not comes_back and redis.call('ZCARD', prefix .. 'p:' .. of) == 0 then
    redis.call('DEL', prefix .. 'i:' .. of) -- what was asked there isn't kept longer than what was answered
  end
  redis.call('HDEL', sizes, gone)
  local less = 0 - took -- and not -took: Redis 7.0 writes that of 0 as -0, which it takes for no integer
  redis.call('HINCRBY', sizes, ':', less)
  if redis.call('HINCRBY', sizes, ':' .. of, less) <= 0 then
    redis.call('HDEL', sizes, ':' .. of)
  end
end

local function sum(field)
  return tonumber(redis.call('HGET', sizes, field) or '0')
end

for _, gone in ipairs(redis.call('ZRANGE', all, '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
  drop(gone)
end
if redis.call('ZSCORE', all, member) then
  drop(member, true)
end
-- Redis may have thrown away the one without the other: what sizes then still say takes no room for good.
if redis.call('ZCARD', all) == 0 then
  redis.call('DEL', sizes)
elseif redis.call('ZCARD', own) == 0 then
  redis.call('HDEL', sizes, ':' .. place)
end
redis.call('SET', answer, body, 'PX', life)
redis.call('ZADD', all, ends, member)
redis.call('ZADD', own, ends, member)
redis.call('HSET', sizes, member, size)
redis.call('HINCRBY', sizes, ':', size)
redis.call('HINCRBY', sizes, ':' .. place, size)
while redis.call('ZCARD', own) > tonumber(ARGV[9]) or sum(':' .. place) > tonumber(ARGV[10]) do
  drop(redis.call('ZRANGE', own, 0, 0)[1])
end
while redis.call('ZCARD', all) > tonumber(ARGV[7]) or sum(':') > tonumber(ARGV[8]) do
  drop(redis.call('ZRANGE', all, 0, 0)[1])
end
if ARGV[11] then
  redis.call('XADD', index, 'MAXLEN', ARGV[9], '*', 'k', key, 't', ARGV[11], 'v', ARGV[12], 's', ARGV[13])
  redis.call('PEXPIRE', index, life)
end
-- Nothing may end before the answers that it tells of.
for _, kept in ipairs({ all, sizes, own }) do
  redis.call('PEXPIRE', kept, life + 60000)
end
return { redis.call('ZCARD', all), sum(':') }
