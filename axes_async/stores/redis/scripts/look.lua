-- The steps that count nothing. Keys and arguments: steps.lua.

-- peek: look at the counters. No writes. Reply: steps.lua.
register('peek', {'no-writes'}, function(keys, args)
  local key, refusal = enter(keys[1], args[1])
  if not key then return refusal end
  local all = read_all(keys, args, FIRST_KEY, FIRST_RULE, clock(args[2]), key)
  local longest, limit = lockouts(all, #all)
  return answer(longest == 0 and ALLOWED or LOCKED_OUT, longest, limit, 0, 0, 0, all, #all)
end)

-- look: see how the counters stand. No writes.
-- Reply: "failures:since:expires at:locked until:turned away:open reservations:ends|…".
register('look', {'no-writes'}, function(keys, args)
  local key, refusal = enter(keys[1], args[1])
  if not key then return refusal end
  local texts = {}
  for n, c in ipairs(read_all(keys, args, FIRST_KEY, FIRST_RULE, clock(args[2]), key)) do
    texts[n] = table.concat({c.f, c.s, c.u, c.l, c.b, c.open, table.concat(c.w or {}, ',')}, ':')
  end
  return table.concat(texts, '|')
end)

-- release: give the reservations back and count nothing. Reply: steps.lua, without failures.
register('release', {'allow-oom'}, function(keys, args)
  local key, refusal = enter(keys[1], args[1])
  if not key then return refusal end
  for i = FIRST_KEY, #keys do call('HDEL', keys[i], 'r' .. args[3]) end
  return answer(ALLOWED, 0, 0, 0, 0, 0, {}, 0)
end)

-- record: append an event that touches no counter. Reply: steps.lua, without failures. ARGV[8]: how many such attempts
-- there were by then.
register('record', {}, function(keys, args)
  local key, refusal = enter(keys[1], args[1])
  if not key then return refusal end
  local nudge = append(keys, args, key.id, clock(args[2]), args[8], '')
  return answer(ALLOWED, 0, 0, 0, nudge, 0, {}, 0)
end)
