-- Write an artefact's manifest, if all of its chunks are there; from now on they were stored anew.
-- KEYS: artefact manifest, index
-- ARGV: the line's prefix, the manifest, its name in the index, then the names of its chunks there
-- Returns: the names whose chunks are not there; the manifest was written where there are none
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'none' and kind ~= 'zset' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is a ' .. kind .. ', not a zset')
end
local missing = {}
for i = 4, #ARGV do
  if redis.call('EXISTS', ARGV[1] .. ARGV[i]) == 0 then missing[#missing + 1] = ARGV[i] end
end
if #missing > 0 then return missing end
redis.call('SET', KEYS[1], ARGV[2])
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
for i = 3, #ARGV do
  -- Whoever saw it before must see that it was stored since, whatever the clock does.
  local before = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[i]) or '0')
  redis.call('ZADD', KEYS[2], string.format('%.0f', math.max(now_us, before + 1)), ARGV[i])
end
return missing
