-- What only the holder of a learner's lease may write. Nothing is written with a token that is not the last one given out, or
-- that was given out by another run of the server.
-- include: run_of_server
-- KEYS: learner hash, features stream, totals hash, drift stream, learned hash
-- ARGV: token, what, ...
--   checkpoint, JSON             the pointer flips
--   drop, digest, ...            chunks that no checkpoint needs any more
--   pass, model, id, size, ...   entries that the checkpoint has passed are deleted
--   order, feedback id before, feedback id after, model, order, ...   feedback enters the log as orders, once
--   say, id, kind, camera, json  an entry of the drift stream; an id that was written before is not written again
-- Returns: {1, ...} where it was done; {0, token that holds}; {-1} of another run; order: {2, feedback id that stands}
for i, wanted in ipairs({'hash', 'stream', 'hash', 'stream', 'hash'}) do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a ' .. wanted)
  end
end
local held = redis.call('HMGET', KEYS[1], 'token', 'owner', 'boot')
local token = held[1] or '0'
if token ~= ARGV[1] or not held[2] then return {0, tonumber(token)} end
if held[3] ~= run_of_server() then return {-1} end
local what = ARGV[2]
if what == 'checkpoint' then
  redis.call('HSET', KEYS[1], 'checkpoint', ARGV[3])
elseif what == 'drop' then
  for i = 3, #ARGV do redis.call('HDEL', KEYS[5], ARGV[i]) end
elseif what == 'pass' then
  local freed, count = 0, 0
  for i = 4, #ARGV, 2 do
    if redis.call('XDEL', KEYS[2], ARGV[i]) == 1 then
      freed = freed + tonumber(ARGV[i + 1])
      count = count + 1
    end
  end
  if count > 0 then redis.call('HINCRBY', KEYS[3], 'features_bytes:' .. ARGV[3], -freed) end
  return {1, count}
elseif what == 'order' then
  local stands = redis.call('HGET', KEYS[1], 'feedback') or '0-0'
  if stands ~= ARGV[3] then return {2, stands} end
  local size = 0
  for i = 6, #ARGV do
    redis.call('XADD', KEYS[2], '*', 'o', ARGV[i])
    size = size + #ARGV[i]
  end
  if size > 0 then redis.call('HINCRBY', KEYS[3], 'features_bytes:' .. ARGV[5], size) end
  redis.call('HSET', KEYS[1], 'feedback', ARGV[4])
elseif what == 'say' then
  local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
  if last then
    local a, b = string.match(last[1], '^(%d+)-(%d+)$')
    local c, d = string.match(ARGV[3], '^(%d+)-(%d+)$')
    if tonumber(c) < tonumber(a) or (tonumber(c) == tonumber(a) and tonumber(d) <= tonumber(b)) then return {1, 0} end
  end
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', ARGV[3], 'kind', ARGV[4], 'camera', ARGV[5], 'json', ARGV[6])
else
  return redis.error_reply('ERR learner_write knows no ' .. what)
end
return {1, 0}
