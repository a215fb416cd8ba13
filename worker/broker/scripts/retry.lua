-- Admit the frames of a dead letter again, as a new message, and remove the letter: both, or neither.
-- include: admit
-- KEYS: those of admit, then the dead letters' stream, dead-stats hash
-- ARGV: those of admit, then the letter's entry id, its reason
-- Returns: what admit answers, or {'gone', ''} where the letter is not there (any more)
local kinds = {'stream', 'hash'}
for i = 10, 11 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= kinds[i - 9] then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind .. ', not a ' .. kinds[i - 9])
  end
end
local letter = redis.call('XRANGE', KEYS[10], ARGV[11], ARGV[11])[1]
if not letter then
  redis.call('UNLINK', KEYS[9])
  return {'gone', ''}
end
local answer = admit({unpack(KEYS, 1, 9)}, {unpack(ARGV, 1, 10)})
if answer.err or answer[1] ~= 'admitted' then return answer end
local size = 200
for i = 1, #letter[2], 2 do if letter[2][i] == 'data' then size = size + #letter[2][i + 1] end end
redis.call('XDEL', KEYS[10], ARGV[11])
redis.call('HINCRBY', KEYS[11], ARGV[12] .. ':bytes', -size)
redis.call('HINCRBY', KEYS[11], ARGV[12] .. ':retried', 1)
return answer
