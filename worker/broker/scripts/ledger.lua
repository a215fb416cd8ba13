-- The balance of every camera, in one atomic read. In flight is counted from the index of entries, never computed from
-- the other columns.
-- KEYS: cameras hash
-- ARGV: key prefix
local prefix, out = ARGV[1], {}
local names = redis.call('HKEYS', KEYS[1])
table.sort(names)
for _, camera in ipairs(names) do
  local frames, bytes, oldest = 0, 0, 0
  for _, meta in ipairs(redis.call('HVALS', prefix .. 'index:' .. camera)) do
    local n, size, at = string.match(meta, '^(%d+):%d+:%d+:(%d+):(%d+)')
    frames, bytes = frames + tonumber(n), bytes + tonumber(size)
    if oldest == 0 or tonumber(at) < oldest then oldest = tonumber(at) end
  end
  local stream = prefix .. 'frames:' .. camera
  local columns = redis.call('HMGET', prefix .. 'camera:' .. camera, 'admitted', 'pass', 'fail', 'not_judged', 'bytes',
    'duplicates', 'busy', 'fenced', 'dropped', 'unadmitted', 'epoch', 'last_us')
  out[#out + 1] = {camera, columns, frames, bytes, string.format('%.0f', oldest),
    redis.call('HLEN', prefix .. 'index:' .. camera), redis.call('XLEN', stream)}
end
local now = redis.call('TIME')
return {out, now}
