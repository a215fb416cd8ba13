-- Begin or end copying a camera's frames to a set of workers that does not settle them.
-- KEYS: cameras hash, camera hash, sets hash, set history stream, events stream
-- ARGV: camera, set ('' ends copying), record of it as JSON
-- Returns: 1; -1 where there is no such camera, -2 no such set, -3 where that set settles the camera, 0 where nothing changes
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
local state = redis.call('HMGET', KEYS[2], 'set', 'copy')
if (state[2] or '') == ARGV[2] then return 0 end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[2], 'copy')
else
  if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 0 then return -2 end
  if state[1] == ARGV[2] then return -3 end
  redis.call('HSET', KEYS[2], 'copy', ARGV[2])
end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'move', ARGV[3])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', '1000', '*', 'kind', 'set', 'name', ARGV[1])
return 1
