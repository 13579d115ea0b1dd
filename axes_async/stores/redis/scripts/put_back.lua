-- Put an entry that was set aside at the end of the outbox; if it is not there any more, do nothing.
--
-- KEYS[1] outbox   KEYS[2] born   KEYS[3] dead letters   ARGV[1] its position there   ARGV[2] body   ARGV[3] outcome
-- Reply: 1 if it was put back, else 0

if redis.call('XDEL', KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], redis.sha1hex(ARGV[2]), 'NX')
redis.call('XADD', KEYS[1], '*', 'v1', ARGV[2], 'c', ARGV[3])
return 1
