-- Renew a node's lease, and agree on the format that is written: the latest that all living nodes agree to.
-- KEYS: nodes, lease, formats
-- ARGV: node, milliseconds of the lease, seconds after which all this is forgotten, what to say of the node,
--   the oldest and the newest format that it reads, the latest in which it has written,
--   the count of agreements that it knows, the count with which it has rewritten everything (or 0),
--   whether this node may agree on a later format (0, 1), and the milliseconds for which nobody may at first
-- A lease says '<process> <oldest>-<latest> <written>' and more: what its node agrees to, what it writes, its state.
-- Return {format, lowest and highest that may be there, count of agreements, whether all write it (0, 1), nodes}.
-- A node that can't read all that may be there isn't taken in.
local at = redis.call('HMGET', KEYS[3], 'w', 'l', 'h', 'e', 's')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest, newest, most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local known = tonumber(ARGV[8])
local w = tonumber(at[1] or oldest)
local l, h, e = tonumber(at[2] or w), tonumber(at[3] or w), tonumber(at[4] or 0)
local since = tonumber(at[5] or now)
if known > e then -- the server has lost what was agreed on
  h, e, since = math.max(h, most), known + 1, now
end
if l < oldest or h > newest then
  return {w, l, h, e, 0, {}}
end
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[2])
local nodes = redis.call('SMEMBERS', KEYS[1])
local before = string.sub(KEYS[2], 1, #KEYS[2] - #ARGV[1])
local from, to, writes = 0, newest, {}
for _, node in ipairs(nodes) do
  local lease = redis.call('GET', before .. node)
  if lease then
    local lo, hi, written = string.match(lease, '^%d+ (%d+)%-(%d+) (%d+)')
    if lo then
      from, to = math.max(from, tonumber(lo)), math.min(to, tonumber(hi))
      writes[#writes + 1] = tonumber(written)
    end
  end
end
local agreed = math.max(from, to)
if agreed < w or w < from or (agreed > w and ARGV[10] == '1' and now - since >= tonumber(ARGV[11])) then
  w, e = agreed, e + 1
end
l, h = math.min(l, w), math.max(h, w)
local all = 1
for _, written in ipairs(writes) do
  if written ~= w then
    all = 0
  end
end
if all == 1 and tonumber(ARGV[9]) == e and e > 0 and (l ~= w or h ~= w) then
  l, h, e = w, w, e + 1
end
redis.call('HSET', KEYS[3], 'w', w, 'l', l, 'h', h, 'e', e, 's', since)
redis.call('EXPIRE', KEYS[3], ARGV[3])
return {w, l, h, e, all, nodes}
