-- Give the attempt's reservations back, start the counters that a login clears over, append the event.
-- One step, so that the rows and the counters agree on what the login cleared. A locked counter is never cleared.
--
-- Keys and arguments: common.lua. ARGV[7]: '1' or '0', whether to append the event even if nothing was cleared; then
-- how many counters at the end of KEYS are cleared.
-- Reply: {nudge due}

local always, clearing = ARGV[7]:sub(1, 1) == '1', tonumber(ARGV[7]:sub(2))
local all, states = counters(), {}
if not all then return COLD end

for n, c in ipairs(all) do
  if c.mine then c.stale[#c.stale + 1] = token end
  if n > #all - clearing and standing(c) > 0 and not locked(c) then
    states[#states + 1] = state(c, true)
    start_over(c)
    if c.open > 0 then redis.call('PEXPIRE', c.key, lease) end
  end
  forget(c, c.stale)
end
if not always and #states == 0 then return {0} end
return {append(0, states)}
