-- One heartbeat: the key that dies with its worker, and what the worker says of itself.
-- KEYS: heartbeat key, workers hash, totals hash
-- ARGV: time to live in ms, worker, JSON description
-- Returns: 1; 0 where no heartbeat was ever noted here
--
-- A command that only takes away goes first: it is allowed at a full maxmemory, and makes the writes after it allowed too.
-- Without it full memory would make living workers look dead, and keep out the new ones that could empty it.
redis.call('HDEL', KEYS[2], '')
-- Where no worker at all was heard of for as long as a heartbeat lives, it was Redis that was away, or its clock that jumped,
-- and not they: until each had time to say that it lives, none counts as dead.
local now = redis.call('TIME')
local now_us, ttl_us = tonumber(now[1]) * 1000000 + tonumber(now[2]), tonumber(ARGV[1]) * 1000
local last_us = tonumber(redis.call('HGET', KEYS[3], 'beat_us') or '0')
if last_us > 0 and math.abs(now_us - last_us) > ttl_us then
  redis.call('HSET', KEYS[3], 'amnesty_us', string.format('%.0f', now_us + ttl_us))
end
redis.call('HSET', KEYS[3], 'beat_us', string.format('%.0f', now_us))
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return last_us > 0 and 1 or 0
