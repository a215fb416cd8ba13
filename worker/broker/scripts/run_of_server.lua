-- Which run of which server this is: it changes with a restart, and where another server takes this one's place. What somebody
-- read of another run may be forgotten here, or stand otherwise: Redis gives ids by the clock.
return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
