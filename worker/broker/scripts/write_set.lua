-- Declare, change or remove a set of workers, if its record still stands as the caller saw it.
-- KEYS: sets hash, state hash of the set, copies stream of the set, results stream of the set, cameras hash, set history
--       stream, events stream
-- ARGV: key prefix, set, record seen ('' none), new record ('' removes), bound of its copies in bytes, record of the change
-- Returns: {1, ''}; {0, ''} where the record is another by now; {-1, camera} where it settles or is copied that camera
local stands = redis.call('HGET', KEYS[1], ARGV[2]) or ''
if stands ~= ARGV[3] then return {0, ''} end
if ARGV[4] == '' then
  for _, camera in ipairs(redis.call('HKEYS', KEYS[5])) do
    local state = redis.call('HMGET', ARGV[1] .. 'camera:' .. camera, 'set', 'copy')
    if state[1] == ARGV[2] or state[2] == ARGV[2] then return {-1, camera} end
  end
  redis.call('HDEL', KEYS[1], ARGV[2])
  for _, entry in ipairs(redis.call('XRANGE', KEYS[3], '-', '+')) do
    redis.call('UNLINK', ARGV[1] .. 'copy:' .. ARGV[2] .. ':' .. entry[1])
  end
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
else
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
  redis.call('HSET', KEYS[2], 'max_bytes', ARGV[5])
end
redis.call('XADD', KEYS[6], 'MAXLEN', '~', '10000', '*', 'move', ARGV[6])
redis.call('XADD', KEYS[7], 'MAXLEN', '~', '1000', '*', 'kind', 'set', 'name', ARGV[2])
return {1, ''}
