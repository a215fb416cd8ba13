-- Hold a model at its stable version, if that still stands where the caller saw it.
-- KEYS: pointers hash, pins hash
-- ARGV: field of the stable pointer (model/stable), revision seen, model, pin as JSON
-- Returns: {1, revision}, or {0, revision that stands}
local stands = redis.call('HGET', KEYS[1], ARGV[1])
local revision = stands and tonumber(string.match(stands, '"revision": ?(%d+)') or '0') or 0
if revision ~= tonumber(ARGV[2]) then return {0, revision} end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
return {1, revision}
