-- Write one turn of the part judge: its cursor, what is open, what is decided, what came late. All of it, or nothing where
-- somebody else has written since it was read, where it was read of another run of the server (one that was the master before
-- may have had other verdicts), or where the judge is no subscriber any more: a Redis that lost data may have forgotten it, and
-- would then not keep verdicts for it.
-- include: run_of_server
-- KEYS: part-state hash, the judge's own cursor, parts-open hash, parts stream, parts-done zset, parts-late stream,
--       subscribers hash
-- ARGV: revision seen, cursor, when in ms, forget parts decided before that ms, msgpack of the turn: open (part,
--       JSON), closed (part), decided (id, part, decision, json), late (part, id, camera, decision), without_part;
--       the judge's name among the subscribers, the server's run that all was read of
-- Returns: the new revision, or -1
local kinds = {'hash', 'string', 'hash', 'stream', 'zset', 'stream', 'hash'}
for i = 1, 7 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= kinds[i] then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a ' .. kinds[i])
  end
end
local stands = redis.call('HGET', KEYS[1], 'revision') or '0'
if stands ~= ARGV[1] or not redis.call('HGET', KEYS[7], ARGV[6]) or run_of_server() ~= ARGV[7] then
  return -1
end
local turn = cmsgpack.unpack(ARGV[5])
-- Taking away is allowed at a full maxmemory, and makes the writes after it allowed too.
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', '(' .. ARGV[4])
redis.call('HSET', KEYS[1], 'revision', string.format('%.0f', tonumber(stands) + 1), 'cursor', ARGV[2])
redis.call('GETSET', KEYS[2], ARGV[2])
for _, part in ipairs(turn.closed) do redis.call('HDEL', KEYS[3], part) end
for _, one in ipairs(turn.open) do redis.call('HSET', KEYS[3], one[1], one[2]) end
for _, one in ipairs(turn.decided) do
  redis.call('XADD', KEYS[4], '*', 'id', one[1], 'part', one[2], 'decision', one[3], 'json', one[4])
  redis.call('ZADD', KEYS[5], ARGV[3], one[2])
  redis.call('HINCRBY', KEYS[1], one[3], 1)
  redis.call('HINCRBY', KEYS[1], 'verdict_bytes', #one[4] + 100)
end
for _, one in ipairs(turn.late) do
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', '10000', '*', 'part', one[1], 'id', one[2], 'camera', one[3],
    'decision', one[4])
  redis.call('HINCRBY', KEYS[1], 'late', 1)
end
if turn.without_part > 0 then redis.call('HINCRBY', KEYS[1], 'without_part', turn.without_part) end
local over = redis.call('ZCARD', KEYS[5]) - 100000
if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[5], 0, over - 1) end
return tonumber(stands) + 1
