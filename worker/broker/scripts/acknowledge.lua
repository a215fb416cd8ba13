-- Move a subscriber's cursor forward; it never moves back by accident.
-- KEYS: subscribers hash, this subscriber's cursor, the stream
-- ARGV: subscriber, entry id
-- Returns: 1 moved, 0 it stood there or further, or this server never had the entry, -1 no such subscriber
--
-- An entry that is neither here nor older than what is here was read of a server that was the master before. Ids come from
-- the clock, so what this one has and that one had not may lie before it: it says nothing about them. One that is here
-- came with everything before it.
--
-- The cursor is a key of its own, so that access control can give a subscriber that one key. GETSET and not SET: it refuses
-- a key of another type, where access control knows no more than a list of keys and commands (Redis 6.2).
-- Such a write is allowed at a full maxmemory, and makes the next one allowed too: what is acknowledged can be trimmed.
redis.call('PERSIST', KEYS[2])
local registered = redis.call('HGET', KEYS[1], ARGV[1])
if not registered then return -1 end
local function parts(id)
  local ms, n = string.match(#id <= 41 and id or '', '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(n)
end
local am, an = parts(ARGV[2])
if not am then return redis.error_reply('ERR ' .. ARGV[2] .. ' is no entry id') end
for _, stands in ipairs({registered, redis.call('GET', KEYS[2]) or '0-0'}) do
  local bm, bn = parts(stands)
  -- What is no entry id was written past this script, and says nothing.
  if bm and (am < bm or (am == bm and an <= bn)) then return 0 end
end
if #redis.call('XRANGE', KEYS[3], ARGV[2], ARGV[2]) == 0 then
  local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  if not first then return 0 end
  local fm, fn = parts(first[1])
  if am > fm or (am == fm and an > fn) then return 0 end
end
redis.call('GETSET', KEYS[2], ARGV[2])
return 1
