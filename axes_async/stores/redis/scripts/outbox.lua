-- Look at the outbox.
--
-- KEYS[1] outbox   KEYS[2] born
-- Reply: {its name ("" for none), the last position it gave away, how many events it has, the position of the first}

local born = redis.call('GET', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return {born or '', '0-0', 0, ''} end
local info, last = redis.call('XINFO', 'STREAM', KEYS[1]), '0-0'
for n = 1, #info, 2 do
  if info[n] == 'last-generated-id' then last = info[n + 1] end
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return {born or '', last, redis.call('XLEN', KEYS[1]), first and first[1] or ''}
