-- Move a subscriber's cursor forward; it never moves back by accident.
-- KEYS: subscribers hash
-- ARGV: subscriber, entry id
-- Returns: 1 moved, 0 it stood there or further, -1 no such subscriber
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: what is acknowledged can be trimmed.
redis.call('HDEL', KEYS[1], '')
local stands = redis.call('HGET', KEYS[1], ARGV[1])
if not stands then return -1 end
local am, an = string.match(ARGV[2], '^(%d+)%-(%d+)$')
local bm, bn = string.match(stands, '^(%d+)%-(%d+)$')
am, an, bm, bn = tonumber(am), tonumber(an), tonumber(bm), tonumber(bn)
if not am then return redis.error_reply('ERR ' .. ARGV[2] .. ' is no entry id') end
if am < bm or (am == bm and an <= bn) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
