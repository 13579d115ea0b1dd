-- Let the next event ask for a drain again, if nothing is behind the position.
-- One step, so that no event can come between the look and the flag and wait for the next beat.
--
-- KEYS[1] outbox   KEYS[2] nudged   ARGV[1] position   ARGV[2] ms for which another drain is on its way; 0 for none
-- Reply: 1 if nothing was there, else 0

if #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1) > 0 then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], '1', 'PX', ARGV[2]) end
return 1
