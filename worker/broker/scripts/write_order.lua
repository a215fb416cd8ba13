-- Append an order to a model's feature log.
-- KEYS: features stream, totals hash
-- ARGV: model, order
-- Returns: its entry id
local id = redis.call('XADD', KEYS[1], '*', 'o', ARGV[2])
redis.call('HINCRBY', KEYS[2], 'features_bytes:' .. ARGV[1], #ARGV[2])
return id
