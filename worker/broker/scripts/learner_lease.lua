-- Take, renew or give back the lease of a learner. Its token rises with every new holder, and fences off the old one. It is
-- held of one run of the server: what its holder has read of another may be forgotten here, or stand otherwise.
-- include: run_of_server
-- KEYS: learner hash
-- ARGV: owner, what (take, renew, release), milliseconds, token (renew, release), '1' where it has read all there is
-- Returns: {1, token}, {0, owner that holds it, milliseconds left}, or {-1} where it was taken of another run of the server
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
local held = redis.call('HMGET', KEYS[1], 'owner', 'token', 'until_us', 'boot')
local owner, token, until_us = held[1] or '', tonumber(held[2] or '0'), tonumber(held[3] or '0')
local boot = run_of_server()
-- One that ends in a far future was taken before the clock went back: it would outlive its owner by as much.
local far_us = math.max(60000, 10 * tonumber(ARGV[3])) * 1000
local free = owner == '' or until_us <= now_us or until_us - now_us > far_us
if ARGV[2] == 'take' then
  if not free and owner ~= ARGV[1] then return {0, owner, math.ceil((until_us - now_us) / 1000)} end
  token = token + 1
elseif owner ~= ARGV[1] or token ~= tonumber(ARGV[4]) then
  return {0, owner, math.max(0, math.ceil((until_us - now_us) / 1000))}
elseif held[4] ~= boot then
  return {-1}
end
if ARGV[2] == 'release' then
  redis.call('HDEL', KEYS[1], 'owner', 'until_us', 'boot')
else
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'token', string.format('%.0f', token), 'boot', boot,
    'until_us', string.format('%.0f', now_us + tonumber(ARGV[3]) * 1000))
  if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'caught_up_us', string.format('%.0f', now_us)) end
end
return {1, token}
