-- Give the attempt's reservations back and count nothing.
--
-- KEYS  counters   ARGV[1] token   Reply: how many were given back

local given_back = 0
for _, key in ipairs(KEYS) do
  given_back = given_back + redis.call('HDEL', key, 'r' .. ARGV[1])
end
return given_back
