-- Write a trial, unless it has ended: two judges may run, and what one of them has ruled the other must not write over.
-- KEYS: trials hash of the model
-- ARGV: field, the trial as JSON, the ended state that may be written over ('' none)
-- Returns: 1 for a new trial, 2 for one that was there, 0 where it has ended and nothing was written
local stands = redis.call('HGET', KEYS[1], ARGV[1])
-- Not by cjson: it takes no text with half a surrogate pair, and what a person wrote may hold one.
local state = stands and string.match(stands, '"state": "(%a+)"')
if (state == 'promoted' or state == 'aborted' or state == 'replaced') and state ~= ARGV[3] then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) == 1 and 1 or 2
