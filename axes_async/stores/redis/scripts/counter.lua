-- A counter: one hash. The same semantics as counters/state.py, which a property test holds them to.
--
-- n  the generation in which it began to count     f  active failures      s  since when
-- u  when it expires; 0: by a reset alone           l  when the lockout of a tier ends
-- w  when each failure expires, joined by commas, under a rolling window
-- b  attempts that the lockout has turned away      t  when a prolonged lockout was told last
-- d  the fields of the reservations that a sync has written, which are those of the database
-- r<token>  when the lease of that reservation ends
--
-- All times are epoch milliseconds. In a table of a counter, `gone` has the fields to delete, `open` is the number of
-- other reservations, `mine` the field of the caller's, `until_` the end of the last of them.

local FIELDS = {'n', 'f', 's', 'u', 'l', 'w', 'b', 't', 'd'}
local NUMBERS = {f = true, u = true, l = true, b = true, t = true}
local TEXTS = {n = true, s = true, w = true, d = true}

-- Count nothing any more. The reservations stay.
local function clear(c)
  for _, field in ipairs(FIELDS) do c.gone[#c.gone + 1] = field end
  c.cleared = true
  c.f, c.s, c.u, c.l, c.b, c.t, c.w = 0, '0', 0, 0, 0, 0, nil
end

-- Drop failures that have expired one by one.
local function roll(c, now)
  local left = {}
  if c.w then
    for time in c.w:gmatch('%d+') do
      time = tonumber(time)
      if time > now then left[#left + 1] = time end
    end
  else  -- The rule became a rolling one after these failures were counted.
    for n = 1, c.f do left[n] = c.u > 0 and c.u or now + c.rule.window end
  end
  c.w, c.f = left, #left
  if c.f == 0 then clear(c) end
end

-- Read a counter, without what has expired or is void.
local function read(name, rule, token, now, key)
  local c = {name = name, rule = rule, gone = {}, open = 0, until_ = 0, mine = nil, cleared = false,
             n = '0', f = 0, s = '0', u = 0, l = 0, b = 0, t = 0, w = nil}
  local raw = call('HGETALL', name)
  for i = 1, #raw, 2 do
    local field, value = raw[i], raw[i + 1]
    if NUMBERS[field] then c[field] = tonumber(value)
    elseif TEXTS[field] then c[field] = value
    elseif field == token then c.mine = field
    else
      value = tonumber(value)
      if value > now then
        c.open = c.open + 1
        if value > c.until_ then c.until_ = value end
      else c.gone[#c.gone + 1] = field end
    end
  end
  if c.f > 0 then
    if (c.u > 0 and c.u <= now) or (c.n ~= key.text and tonumber(c.n) <= key.void) then clear(c)
    elseif c.w or rule.rolling then roll(c, now) end
  end
  if rule.tiers and c.l == 0 and c.f >= rule.limit then
    -- The rule got its tiers after these failures were counted: they lock as if it had had them.
    c.l = math.max(tonumber(c.s), c.u - rule.window) + lockout(rule, limit_at(rule, c.f, true))
    c.taken_over = true
  end
  c.limit = rule.tiers and limit_at(rule, c.f, now < c.l) or rule.limit
  return c
end

local function read_all(keys, args, first_key, first_rule, now, key)
  local all, token = {}, 'r' .. args[3]
  for i = first_key, #keys do
    all[#all + 1] = read(keys[i], rule_of(args[first_rule + i - first_key]), token, now, key)
  end
  return all
end

local function locked(c) return c.limit > 0 and c.f >= c.limit end

-- Lock a counter with tiers. It starts over a cool-off after the lockout has ended.
local function lock(c, now)
  c.l = now + lockout(c.rule, c.limit)
  c.u = c.l + c.rule.window
end

-- Delete fields, in portions: unpack has a limit, and a flood may leave many reservations behind.
local function drop(name, fields)
  for from = 1, #fields, 1000 do
    call('HDEL', name, unpack(fields, from, math.min(from + 999, #fields)))
  end
end

-- The key lives as long as its failures or its last reservation, whichever ends later.
local function keep(c, now)
  if c.f > 0 and c.u == 0 then
    call('PERSIST', c.name)
  else
    local last = math.max(c.u, c.until_)
    if last > now then call('PEXPIRE', c.name, last - now) end
  end
end

-- Count a failure on a counter that is not locked; return whether that locked it.
local function count(c, now, generation)
  local name, rule, first, persisted = c.name, c.rule, c.s == '0', c.f > 0 and c.u == 0
  c.f = c.f + 1
  c.u = rule.window > 0 and now + rule.window or 0
  if rule.rolling then
    local w = c.w or {}
    local at = #w + 1
    while at > 1 and w[at - 1] > c.u do at = at - 1 end
    table.insert(w, at, c.u)
    c.w, c.u = w, w[#w]
  elseif c.w then
    c.w = nil
    c.gone[#c.gone + 1] = 'w'
  end
  local locks = locked(c)
  if locks then
    if rule.tiers then lock(c, now) end
    if c.b > 0 then c.gone[#c.gone + 1] = 'b' end
  end
  if c.cleared then drop(name, c.gone) end
  if first then
    call('HSET', name, 'n', generation, 'f', c.f, 's', now, 'u', c.u)
  else
    call('HSET', name, 'f', c.f, 'u', c.u)
  end
  if not c.cleared and #c.gone > 0 then drop(name, c.gone) end  -- Last, or the key may go with its last field.
  if rule.tiers and (locks or c.taken_over) then call('HSET', name, 'l', c.l) end
  if c.w then call('HSET', name, 'w', table.concat(c.w, ',')) end
  if c.u > 0 or not persisted then keep(c, now) end
  return locks
end

-- Start the cool-off of a locked counter anew; return whether it has one.
local function prolong(c, now)
  local rule = c.rule
  if rule.tiers then
    lock(c, now)
    call('HSET', c.name, 'l', c.l, 'u', c.u)
  elseif rule.window > 0 then
    c.u = now + rule.window
    call('HSET', c.name, 'u', c.u)
    if c.w then
      for n = 1, #c.w do c.w[n] = c.u end
      call('HSET', c.name, 'w', table.concat(c.w, ','))
    end
  else return false end
  keep(c, now)
  return true
end

-- The wire form of a change, as CounterChange.parse reads it. A digest is the last 22 characters of a key.
local COUNTED, CLEARED, LOCKED, PROLONGED = 1, 2, 4, 8

local function change(c, flags, ends)
  local text = '|' .. c.name:sub(-22) .. c.rule.changes[flags] .. c.limit .. ':' .. c.u
  if ends then return text .. ':' .. c.l .. ':' .. ends end
  if c.l > 0 then return text .. ':' .. c.l end
  return text
end

-- Return when the longest lockout ends (-1: by a reset alone, 0: there is none), and the lowest limit that was reached.
local function lockouts(all, number)
  local longest, lowest = 0, 0
  for n = 1, number do
    local c = all[n]
    if locked(c) then
      local ends = c.rule.tiers and c.l or c.w and c.w[#c.w - c.limit + 1] or c.u
      if ends == 0 or longest == -1 then longest = -1 else longest = math.max(longest, ends) end
      if lowest == 0 or c.limit < lowest then lowest = c.limit end
    end
  end
  return longest, lowest
end
