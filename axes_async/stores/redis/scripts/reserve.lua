-- reserve: take one reservation on each counter, or none. Locked anywhere wins over busy anywhere.
-- One step, since a limit that is looked at in one call and used in another is no limit.
--
-- Keys, arguments, reply: steps.lua. ARGV[8]: '1' if an attempt during a lockout starts its cool-off anew, else '0'.

-- Whether a blocked attempt gets a row: one to ten, then each doubling.
local function worth_a_row(repeats)
  while repeats > 10 do
    if repeats % 2 == 1 then return false end
    repeats = repeats / 2
    if repeats < 10 then return false end
  end
  return true
end

-- Record an attempt that is turned away. `first` is the first counter that is locked.
local function turn_away(keys, args, key, now, all, first)
  local changes = ''
  if args[8] == '1' then
    for _, c in ipairs(all) do
      -- A flood prolongs its lockout with every attempt; rows are told once a second.
      if locked(c) and prolong(c, now) and now - c.t >= 1000 then
        call('HSET', c.name, 't', now)
        changes = changes .. change(c, LOCKED + PROLONGED)
      end
    end
  end
  local repeats = call('HINCRBY', first.name, 'b', 1)
  local worth, nudge = worth_a_row(repeats), 0
  if worth or changes ~= '' then nudge = append(keys, args, key.id, now, repeats, changes) end
  local longest, limit = lockouts(all, #all)
  return answer(LOCKED_OUT, longest, limit, 0, nudge, worth and repeats or 0, all, #all)
end

register('reserve', {}, function(keys, args)
  local key, refusal = enter(keys[1], args[1])
  if not key then return refusal end
  local now, lease = clock(args[2]), tonumber(args[4])
  local all, first, busy = read_all(keys, args, FIRST_KEY, FIRST_RULE, now, key), nil, false
  for _, c in ipairs(all) do
    if c.limit > 0 then
      if c.f >= c.limit then first = first or c
      elseif c.f + c.open >= c.limit then busy = true end
    end
  end
  if first then return turn_away(keys, args, key, now, all, first) end
  if busy then return answer(BUSY, 0, 0, 0, 0, 0, all, #all) end
  if lease > 0 then
    local ends, field = now + lease, 'r' .. args[3]
    for _, c in ipairs(all) do
      call('HSET', c.name, field, ends)
      if #c.gone > 0 then drop(c.name, c.gone) end
      if ends > c.until_ then c.until_ = ends end
      -- With failures, the key lives until u at least.
      if c.f == 0 or (c.u > 0 and c.u < c.until_) then keep(c, now) end
    end
  end
  return answer(ALLOWED, 0, 0, 0, 0, 0, all, #all)
end)
