-- Make the order of service agree with the streams again: whatever has unread messages is put in line, groups are made.
-- Covers entries that came without admission, a lost doorbell, a destroyed group and a flush.
-- KEYS: cameras hash, ready zset, totals hash, bell list
-- ARGV: key prefix
-- Returns: {cameras put in line, groups made}
local prefix = ARGV[1]
local woken, made = 0, 0
local vtime = tonumber(redis.call('HGET', KEYS[3], 'vtime') or '0')
for _, camera in ipairs(redis.call('HKEYS', KEYS[1])) do
  local stream = prefix .. 'frames:' .. camera
  local length = redis.call('EXISTS', stream) == 1 and redis.call('XLEN', stream) or 0
  if length > 0 then
    local pending = redis.pcall('XPENDING', stream, 'workers')
    if type(pending) == 'table' and pending.err then
      redis.call('XGROUP', 'CREATE', stream, 'workers', '0')
      redis.call('HSET', prefix .. 'camera:' .. camera, 'group', '1')
      pending = {0}
      made = made + 1
    end
    if length > pending[1] and not redis.call('ZSCORE', KEYS[2], camera) then
      redis.call('ZADD', KEYS[2], vtime, camera)
      woken = woken + 1
    end
  end
end
if woken > 0 and redis.call('LLEN', KEYS[4]) < 16 then redis.call('LPUSH', KEYS[4], '1') end
return {woken, made}
