-- Record a new version of a model; its artefact's manifest must be there, whole.
-- KEYS: models hash, versions hash, artefact manifest, events stream
-- ARGV: model, JSON record without its number
-- Returns: the number, or 0 where the artefact is missing
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
-- A version never changes: who may publish one needs no right to write over another (HSETNX), and does not.
local number
repeat
  number = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
until redis.call('HSETNX', KEYS[2], number, string.sub(ARGV[2], 1, -2) .. ',"version":' .. number .. '}') == 1
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '1000', '*', 'kind', 'version', 'name', ARGV[1] .. '/' .. number)
return number
