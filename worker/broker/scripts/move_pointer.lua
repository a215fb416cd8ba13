-- Move, or remove, a pointer of a model, if it still stands where the caller saw it.
-- KEYS: pointers hash, history stream, versions hash, events stream, pins hash, manifest of the artefact pointed at
-- ARGV: field (model/channel), revision seen (0: none), new JSON without its revision ('' removes), version ('' where removed),
--       record of the move as JSON, model whose pin forbids the move ('' where none can)
-- Returns: {1, new revision}, or {0, revision that stands}; {-1, 0} where there is no such version, {-2, 0} where it is
--          pinned, {-3, 0} where its artefact is gone
local stands = redis.call('HGET', KEYS[1], ARGV[1])
local revision = 0
-- Not by cjson: it takes no text with half a surrogate pair, and what a person is called may hold one.
if stands then revision = tonumber(string.match(stands, '"revision": ?(%d+)') or '0') end
if revision ~= tonumber(ARGV[2]) then return {0, revision} end
if ARGV[6] ~= '' and redis.call('HEXISTS', KEYS[5], ARGV[6]) == 1 then return {-2, 0} end
if ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[3], ARGV[4]) == 0 then return {-1, 0} end
if ARGV[4] ~= '' and redis.call('EXISTS', KEYS[6]) == 0 then return {-3, 0} end
-- The revision goes on counting after a removal, so that an old sight of the pointer never fits again.
local counter = 'revision:' .. ARGV[1]
revision = redis.call('HINCRBY', KEYS[3], counter, 1)
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.sub(ARGV[3], 1, -2) .. ',"revision":' .. revision .. '}')
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', '10000', '*', 'move', ARGV[5])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '1000', '*', 'kind', 'pointer', 'name', ARGV[1])
return {1, revision}
