-- Take failures back from counters: from the life that is named by its epoch, and to a total that is set, not added, so
-- that doing it twice changes nothing. Reservations stay: their passwords are being looked at.
--
-- KEYS  counters   ARGV  two for each: epoch, failures lifted in all; at the end: lease of a reservation in ms
-- Reply: how many counters were changed

local changed = 0
for n, key in ipairs(KEYS) do
  local epoch, lifted = tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n])
  local e, f, g = unpack(redis.call('HMGET', key, 'e', 'f', 'g'))
  if e and tonumber(e) == epoch and lifted > tonumber(g or 0) then
    if lifted >= tonumber(f) then
      redis.call('HDEL', key, 'e', 'f', 'g', 'u', 'b', 't')
      redis.call('PEXPIRE', key, ARGV[#ARGV])
    else
      redis.call('HSET', key, 'g', lifted)
      redis.call('HDEL', key, 'b')
    end
    changed = changed + 1
  end
end
return changed
