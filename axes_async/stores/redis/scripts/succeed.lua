-- succeed: give the reservations back, clear the counters that a login clears, append the event.
-- One step, so that rows and counters agree on what the login cleared. A locked counter is never cleared.
--
-- Keys, arguments, reply: steps.lua; the failures are those before. ARGV[8]: '1' or '0', whether to append the event even if
-- nothing was cleared; '1' or '0', whether this step may have been done already, which it was if no reservation is left; then
-- '1' or '0' for each counter, whether to clear it.

register('succeed', {}, function(keys, args)
  local key, refusal = enter(keys[1], args[1])
  if not key then return refusal end
  local now, flags = clock(args[2]), args[8]
  local all = read_all(keys, args, FIRST_KEY, FIRST_RULE, now, key)
  local nudge, changes, before = 0, '', {}
  for n, c in ipairs(all) do before[n] = {f = c.f} end
  if flags:sub(2, 2) == '0' or any_mine(all) then
    for n, c in ipairs(all) do
      give_back(c)
      if flags:sub(n + 2, n + 2) == '1' and c.f > 0 and not locked(c) then
        clear(c)
        c.limit = limit_at(c.rule, 0, false)
        changes = changes .. change(c, CLEARED)
        if c.open > 0 then keep(c, now) end
      end
      drop(c.name, c.gone)
    end
    if flags:sub(1, 1) == '1' or changes ~= '' then nudge = append(keys, args, key.id, now, 0, changes) end
  end
  return answer(ALLOWED, 0, 0, 0, nudge, 0, before, #all)
end)
