-- Take over reservations that were made elsewhere: in rows while the store was away, or here before it was flushed.
-- One step, so that no key is left without an end.
--
-- KEYS  a counter for each reservation   ARGV[1] now   ARGV[2…] for each its token, and when its lease ends
-- Reply: how many there were

for i, key in ipairs(KEYS) do
  local token, lease_ends = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  local lasts = redis.call('PTTL', key)  -- -1: for ever, -2: the key is new
  redis.call('HSET', key, 'r' .. token, ARGV[2 * i + 1])
  if lasts ~= -1 and lasts < lease_ends - ARGV[1] then redis.call('PEXPIRE', key, lease_ends - ARGV[1]) end
end
return #KEYS
