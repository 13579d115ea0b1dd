-- Give the attempt's reservations back, start the counters that a login clears over, append the event.
-- One step, so that the rows and the counters agree on what the login cleared. A locked counter is never cleared.
--
-- Keys and arguments: common.lua. ARGV[7]: '1' or '0', whether to append the event even if nothing was cleared; '1' if
-- this step may have been done already, which it was if no reservation is left; then how many counters at the end of KEYS
-- are cleared.
-- Reply: {nudge due, the failures that stood on each counter…}, without the latter if there were none

local always, again, clearing = ARGV[7]:sub(1, 1) == '1', ARGV[7]:sub(2, 2) == '1', tonumber(ARGV[7]:sub(3))
local all, states = counters(), {}
if not all then return COLD end
if again and not any_mine(all) then return {0} end

local found, any = {}, false
for n, c in ipairs(all) do
  found[n] = standing(c)
  any = any or found[n] > 0
  if c.mine then c.stale[#c.stale + 1] = token end
  if n > #all - clearing and standing(c) > 0 and not locked(c) then
    states[#states + 1] = state(c, true)
    redis.call('HSET', c.key, 'x', int(c.e))
    redis.call('PEXPIRE', c.key, math.max(lease, ENDED_KNOWN))
    start_over(c)
  end
  forget(c, c.stale)
end
local nudge = (always or #states > 0) and append(0, states) or 0
return any and {nudge, unpack(found)} or {nudge}
