-- Tell what the store's counters are worth, if that is still what it was.
-- One step, so that a rebuild which began before the store was flushed cannot call it complete.
--
-- KEYS[1] warmth   ARGV[1] what it must be now ("" for not there)   ARGV[2] what it is to be
-- Reply: 1 if it was changed, else 0

if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
