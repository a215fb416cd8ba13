-- Let kept frames go that are over their age, where no newer ones come to push them out.
-- KEYS: kept zset, totals hash
-- ARGV: key prefix, oldest time that stays in us, most frames
-- Returns: frames that went
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too.
redis.call('HDEL', KEYS[2], '')
local prefix, bytes = ARGV[1], 0
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))
for _, id in ipairs(old) do
  local blob, said = prefix .. 'kept:' .. id, prefix .. 'kept-verdict:' .. id
  bytes = bytes + redis.call('STRLEN', blob) + redis.call('STRLEN', said)
  redis.call('UNLINK', blob, said)
  redis.call('ZREM', KEYS[1], id)
end
if #old > 0 then
  redis.call('HINCRBY', KEYS[2], 'kept_bytes', -bytes)
  redis.call('HINCRBY', KEYS[2], 'kept_aged', #old)
end
return #old
