-- Count one failure on each counter, give the attempt's reservations back, append the event.
-- One step, so that nothing is counted and not recorded, and no place is free between the reservation and the count.
--
-- Keys and arguments: common.lua. ARGV[7]: '1' if an attempt during a lockout starts its cool-off anew, else '0'; '1' if
-- this step may have been done already, which it was if no reservation is left; then how many counters at the end of KEYS
-- only give a reservation back.
-- Reply: locked until|whether this step locked a counter|nudge due|what is told of each counter that counts|…

local extend, again, only_release = ARGV[7]:sub(1, 1) == '1', ARGV[7]:sub(2, 2) == '1', tonumber(ARGV[7]:sub(3))
local all, states, newly = counters(), {}, 0
local counted, parts = {}, {}
if not all then return COLD end
if again and not any_mine(all) then
  for n = 1, #all - only_release do counted[n] = all[n] end
  return reply({int(locked_until(counted)), 0, 0})
end

for n, c in ipairs(all) do
  if c.mine then c.stale[#c.stale + 1] = token end
  forget(c, c.stale)
  if n <= #all - only_release then
    counted[#counted + 1] = c
    if not locked(c) then
      if c.e == 0 then c.e = now end
      c.f = c.f + 1
      c.u = c.window > 0 and now + c.window or 0
      if c.rolling then
        c.ends = c.ends or {}
        c.ends[#c.ends + 1] = c.u
        table.sort(c.ends)
        c.u = c.ends[#c.ends]
      elseif c.ends then
        c.ends = nil
        redis.call('HDEL', c.key, 'w')
        redis.call('HSET', c.key, 'g', int(c.g))
      end
      if locked(c) then
        newly = 1
        if c.tiers then
          c.l = now + lockout(c)
          c.u = c.l + c.window
        end
        if c.b > 0 then redis.call('HDEL', c.key, 'b') end
      end
      save(c)
    elseif extend and c.window > 0 then
      prolong(c)
    end
    keep_alive(c, c.open > 0)
    states[n] = state(c)
    parts[n + 3] = told(states[n], c.open)
  end
end
parts[1], parts[2], parts[3] = int(locked_until(counted)), newly, append(0, states)
return reply(parts)
