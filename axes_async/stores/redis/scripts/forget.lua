-- Have counters start over that no row speaks of, if their life began before a reset did. Reservations stay.
--
-- KEYS  counters   ARGV[1] when the reset was made, in epoch ms   ARGV[2] lease of a reservation in ms
-- Reply: how many there were

local gone = 0
for _, key in ipairs(KEYS) do
  local epoch = tonumber(redis.call('HGET', key, 'e'))
  if epoch and epoch < tonumber(ARGV[1]) then
    redis.call('HDEL', key, 'e', 'f', 'g', 'u', 'l', 'w', 'b', 't')
    redis.call('PEXPIRE', key, ARGV[2])
    gone = gone + 1
  end
end
return gone
