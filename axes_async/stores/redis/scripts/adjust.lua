-- Take over what the rows say of counters: the total of failures that resets took back (less those that were counted
-- while the store was away), for the life of the counter that the rows mean. A total is set, not added, so that doing it
-- twice changes nothing. Reservations stay: their passwords are being looked at.
--
-- Keys and arguments: common.lua, with what the rows say of every counter. ARGV[7]: 'rebuild' to leave counters alone
-- that are of this generation already; the generation to rebuild follows it after a space.
-- Reply: how many counters were looked at, none if all are to be taken from the rows in a moment; -1 if the generation is
-- another one by now, and below that, how many ms after the first it cannot be rebuilt yet

local rebuild = ARGV[7]:match('^rebuild (%w+)$')
local gen, left = generation()
if rebuild and rebuild ~= gen then return -1 end
if left then return rebuild and -1 - left or 0 end

for i = FIRST, #KEYS do
  local c = load_counter(i)
  if gen and c.k ~= gen then join(c, gen)
  elseif not rebuild then
    local e, _, g = c.seed:match('^(%d+):(%d+):(-?%d+):')
    if e and c.e > 0 and (c.e == tonumber(e) or tonumber(e) == 0) then
      c.g = tonumber(g)
      settle(c)
      if standing(c) > 0 then
        redis.call('HSET', c.key, 'g', int(c.g))
        redis.call('HDEL', c.key, 'b')
        if c.l > 0 and not locked(c) then redis.call('HDEL', c.key, 'l') end
      end
    end
  end
  if c.e > 0 and standing(c) == 0 then
    start_over(c)
    if gen or c.open > 0 or c.x > 0 then
      forget(c, c.stale)
      redis.call('PEXPIRE', c.key, lease)
    else  -- Nothing is left; a million keys that end together would hold up the server when they do.
      redis.call('DEL', c.key)
    end
  end
end
return #KEYS - FIRST + 1
