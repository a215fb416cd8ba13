-- Publish one heat map that was written in pieces, whole or not at all, and hold the ring to its bounds.
-- KEYS: heats zset, totals hash, the hash that was written in pieces (fields 0, 1, … and size)
-- ARGV: key prefix, reference ('' only holds to the bounds), most bytes, most age in us
-- Returns: {1 where it was published, maps dropped for space, maps aged}
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
local kinds = {'zset', 'hash', 'hash'}
for i = 1, 3 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= kinds[i] then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a ' .. kinds[i])
  end
end
local held, published = tonumber(redis.call('HGET', KEYS[2], 'heat_bytes') or '0'), 0
local function size_of(key) return tonumber(redis.call('HGET', key, 'size') or '0') end
local before = held
if ARGV[2] ~= '' then
  local key, size = ARGV[1] .. 'heat:' .. ARGV[2], size_of(KEYS[3])
  if size > 0 then
    held = held - size_of(key) + size
    redis.call('RENAME', KEYS[3], key)
    redis.call('PERSIST', key)
    redis.call('ZADD', KEYS[1], string.format('%.0f', now_us), ARGV[2])
    published = 1
  end
end
local dropped, aged = 0, 0
for _ = 1, 64 do
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if not first[1] then break end
  local over = held > tonumber(ARGV[3])
  if not over and tonumber(first[2]) >= now_us - tonumber(ARGV[4]) then break end
  local old = ARGV[1] .. 'heat:' .. first[1]
  held = held - size_of(old)
  redis.call('UNLINK', old)
  redis.call('ZREM', KEYS[1], first[1])
  if over then dropped = dropped + 1 else aged = aged + 1 end
end
if held ~= before then redis.call('HSET', KEYS[2], 'heat_bytes', string.format('%.0f', held)) end
if dropped > 0 then redis.call('HINCRBY', KEYS[2], 'heat_dropped', dropped) end
if aged > 0 then redis.call('HINCRBY', KEYS[2], 'heat_aged', aged) end
return {published, dropped, aged}
