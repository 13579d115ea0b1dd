-- What a sync does: it takes the store out of use, writes counters into it, and puts it in use again. See docs/protocol.md.
--
-- A counter that is written is one text: "failures:since:expires at:locked until:ends:blocked:token=end token=end…".

local CONFLICTS = 1000  -- Events behind a position that are looked at; more of them are a conflict.

-- Write a counter over what is there. A load adds the reservations of the row to those that are there, and drops what an
-- earlier load has added and the row has no more: it was settled in the database. While the store is in use, it knows better.
local function save(name, text, generation, now, is_load)
  local f, s, u, l, w, b, reservations = text:match('^(%d+):(%d+):(%d+):(%d+):([%d,]*):(%d+):(.*)$')
  local c = {name = name, f = tonumber(f), u = tonumber(u), until_ = 0}
  if not is_load then reservations = '' end
  for field in (is_load and call('HGET', name, 'd') or ''):gmatch('%S+') do
    if not (' ' .. reservations):find(' ' .. field:sub(2) .. '=', 1, true) then call('HDEL', name, field) end
  end
  local raw, known = call('HGETALL', name), false
  for i = 1, #raw, 2 do
    if NUMBERS[raw[i]] or TEXTS[raw[i]] then known = true else c.until_ = math.max(c.until_, tonumber(raw[i + 1])) end
  end
  local fields = {}
  local function set(field, value) fields[#fields + 1] = field; fields[#fields + 1] = value end
  local written = {}
  for token, ends in reservations:gmatch('(%S+)=(%d+)') do
    set('r' .. token, ends)
    written[#written + 1] = 'r' .. token
    c.until_ = math.max(c.until_, tonumber(ends))
  end
  if #written > 0 then set('d', table.concat(written, ' ')) end
  if c.f > 0 then
    set('n', generation) set('f', f) set('s', s) set('u', u)
    if l ~= '0' then set('l', l) end
    if b ~= '0' then set('b', b) end
    if w ~= '' then set('w', w) end
  end
  if known then call('HDEL', name, unpack(FIELDS)) end
  for from = 1, #fields, 2000 do
    call('HSET', name, unpack(fields, from, math.min(from + 1999, #fields)))
  end
  keep(c, now)
end

-- Return the key if it is invalidated, of this generation, and set on this very server; else nil.
local function invalidated(name, generation)
  local key = read_key(name)
  if key and key.status ~= 'ok' and key.text == generation and key.run_id ~= '-' then return key end
end

-- invalidate: let no step be done before `complete`. Small, so that a full server takes it.
-- KEYS key, outbox   ARGV generation   Reply: as that of `key`
register('invalidate', {'allow-oom'}, function(keys, args)
  local key, generation = read_key(keys[1]), tonumber(args[1])
  if not key or key.generation < generation then
    local lost = not key or key.status == 'lost'
    write_key(keys[1], lost and 'lost' or 'stale', generation, key and key.void or -1, run_id())
  end
  return {call('GET', keys[1]), last_of(keys[2])}
end)

-- load: write counters into a store that is invalidated.
-- One that was not answered is sent again under a new number, so that the first one changes nothing if it comes late.
-- KEYS key, loaded, counters…   ARGV generation, time or '', number, the text of each counter…
-- Reply: 1, or 0 with nothing changed
register('load', {}, function(keys, args)
  local key = invalidated(keys[1], args[1])
  if not key then return 0 end
  local now, position = clock(args[2]), args[1] .. '-' .. args[3]
  if not before(call('GET', keys[2]) or '0-0', position) then return 0 end
  call('SET', keys[2], position)
  for i = 3, #keys do save(keys[i], args[i + 1], key.generation, now, true) end
  return 1
end)

-- complete: put the store in use. Where counters were lost, those that were not loaded in this generation are void.
-- KEYS key   ARGV generation, void generation   Reply: 1, or 0 with nothing changed
register('complete', {'allow-oom'}, function(keys, args)
  local key, id = invalidated(keys[1], args[1]), run_id()
  if not key or key.run_id ~= id then return 0 end
  local void = math.max(key.void, tonumber(args[2]), key.status == 'lost' and key.generation - 1 or -1)
  write_key(keys[1], 'ok', key.generation, void, id)
  return 1
end)

-- Whether an event behind a position tells of one of the counters, or may have: it may be drained and trimmed by now.
local function conflict(keys, position)
  if before(position, call('GET', keys[3]) or '0-0') then return true end
  local wanted = {}
  for i = 4, #keys do wanted[keys[i]:sub(-22)] = true end
  local entries = call('XRANGE', keys[2], '(' .. position, '+', 'COUNT', CONFLICTS + 1)
  if #entries > CONFLICTS then return true end
  for _, entry in ipairs(entries) do
    local outcome = entry[2][2]:match('^%S*')
    for digest in outcome:gmatch('|([^:|]+):') do
      if wanted[digest] then return true end
    end
  end
  return false
end

-- push: write counters into a store that is in use, between two events; the next generation begins.
-- One step, so that no event comes between the look at the outbox and the write.
-- KEYS key, outbox, trimmed, counters…   ARGV generation, time or '', position up to which rows have the events, void
-- generation, the text of each counter…   Reply: "ok"; "conflict" or "refused", with nothing changed
register('push', {}, function(keys, args)
  local key = enter(keys[1], args[1])
  if not key then return 'refused' end
  if #keys > 3 and conflict(keys, args[3]) then return 'conflict' end
  local now, generation = clock(args[2]), key.generation + 1
  for i = 4, #keys do save(keys[i], args[i + 1], generation, now, false) end
  write_key(keys[1], 'ok', generation, math.max(key.void, tonumber(args[4])), key.run_id)
  return 'ok'
end)
