-- One heartbeat: the key that dies with its worker, and what the worker says of itself.
-- KEYS: heartbeat key, workers hash
-- ARGV: time to live in ms, worker, JSON description
--
-- A command that only takes away goes first: it is allowed at a full maxmemory, and makes the writes after it allowed too.
-- Without it full memory would make living workers look dead, and keep out the new ones that could empty it.
redis.call('HDEL', KEYS[2], '')
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
