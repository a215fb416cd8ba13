-- Take, renew or give back a bridge's place: of several processes with one name one delivers, so that the order is kept.
-- KEYS: bridge hash
-- ARGV: owner, what (take, renew, release), milliseconds
-- Returns: {1, now in us} or {0, owner that holds it, milliseconds left}
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too: what is delivered can be trimmed.
redis.call('HDEL', KEYS[1], '')
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
local held = redis.call('HMGET', KEYS[1], 'owner', 'until_us')
local owner, until_us = held[1] or '', tonumber(held[2] or '0')
-- One that ends in a far future was taken before the clock went back: it would outlive its owner by as much.
local far_us = math.max(60000, 10 * tonumber(ARGV[3])) * 1000
local free = owner == '' or until_us <= now_us or until_us - now_us > far_us
if owner ~= ARGV[1] and not (free and ARGV[2] == 'take') then
  if ARGV[2] == 'release' then return {1, now_us} end
  return {0, owner, math.max(0, math.ceil((until_us - now_us) / 1000))}
end
if ARGV[2] == 'release' then
  redis.call('HDEL', KEYS[1], 'owner', 'until_us')
else
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'until_us', string.format('%.0f', now_us + tonumber(ARGV[3]) * 1000))
end
return {1, now_us}
