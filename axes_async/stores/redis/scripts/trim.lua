-- Drop the events up to a position, of the outbox that they were read from and of no other: in one that is new since a
-- flush, the same positions may be those of events that nobody has read.
--
-- KEYS[1] outbox   KEYS[2] born   ARGV[1] the outbox's name   ARGV[2] the first position to keep
-- Reply: how many were dropped

if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', ARGV[2])
