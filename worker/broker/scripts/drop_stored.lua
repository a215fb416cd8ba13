-- Delete a chunk or a manifest of artefacts, if nobody has stored it since the caller looked.
-- KEYS: index, the chunk or manifest
-- ARGV: its name in the index, when it was last stored as the caller saw it, empty where the index had it not
-- Returns: the bytes that it had, 0 where it was stored since
local stands = redis.call('ZSCORE', KEYS[1], ARGV[1])
if (stands and string.format('%.0f', tonumber(stands)) or '') ~= ARGV[2] then return 0 end
local size = redis.call('STRLEN', KEYS[2])
redis.call('UNLINK', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
return size
