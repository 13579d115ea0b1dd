-- fail: count one failure on each counter, give the reservations back, append the event.
-- One step, so that nothing is counted and not recorded, and no place is free between the reservation and the count.
--
-- Keys, arguments, reply: steps.lua. ARGV[8]: '1' or '0', whether an attempt during a lockout starts its cool-off anew;
-- '1' or '0', whether this step may have been done already, which it was if no reservation is left; then how many counters
-- at the end of KEYS only give a reservation back.

register('fail', {}, function(keys, args)
  local key, refusal = enter(keys[1], args[1])
  if not key then return refusal end
  local now, flags = clock(args[2]), args[8]
  local extend, again = flags:sub(1, 1) == '1', flags:sub(2, 2) == '1'
  local all = read_all(keys, args, FIRST_KEY, FIRST_RULE, now, key)
  local counting, newly, nudge, changes = #all - tonumber(flags:sub(3)), 0, 0, ''
  if not again or any_mine(all) then
    for n, c in ipairs(all) do
      give_back(c)
      if n > counting then
        drop(c.name, c.gone)
      elseif locked(c) then
        drop(c.name, c.gone)
        local flag = LOCKED
        if extend and prolong(c, now) then flag = LOCKED + PROLONGED end
        changes = changes .. change(c, flag)
      else
        local flag = COUNTED
        if count(c, now, key.generation) then newly, flag = 1, COUNTED + LOCKED end
        changes = changes .. change(c, flag, c.rule.rolling and now + c.rule.window or nil)
      end
    end
    nudge = append(keys, args, key.id, now, 0, changes)
  end
  local longest, limit = lockouts(all, counting)
  return answer(longest == 0 and ALLOWED or LOCKED_OUT, longest, limit, newly, nudge, 0, all, counting)
end)
