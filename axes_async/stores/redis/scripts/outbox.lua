-- The outbox: a stream beside the counters. Each entry has one field, e = "repeats|at|change|change… body", as
-- AttemptEvent.parse reads it. A position is "generation-number", so that a flushed store never gives one away again.

local NUDGE_LASTS = 5000  -- ms after which a nudge that brought no drain may be repeated.

local FEW = 1000  -- Events that are never too many bytes: each has about 1 kB at most.

local function has_room(stream, events, bytes)
  local length = call('XLEN', stream)
  if length < FEW then return length < events end
  return length < events and call('MEMORY', 'USAGE', stream, 'SAMPLES', 1) < bytes
end

-- Append an event, if there is room; return 1 if a nudge is due. `keys` are those of a step, `changes` begins with '|'.
local function append(keys, args, id, now, repeats, changes)
  local body = args[5]
  if body == '' then return 0 end
  if has_room(keys[2], tonumber(args[6]), tonumber(args[7])) then
    call('XADD', keys[2], id, 'e', repeats .. '|' .. now .. changes .. ' ' .. body)
  else
    call('INCR', keys[4])
  end
  return call('SET', keys[3], '1', 'NX', 'PX', NUDGE_LASTS) and 1 or 0
end

-- Whether a position comes before another one.
local function before(one, other)
  local generation, number = one:match('^(%d+)-(%d+)$')
  local generation_, number_ = other:match('^(%d+)-(%d+)$')
  generation, generation_ = tonumber(generation), tonumber(generation_)
  return generation < generation_ or (generation == generation_ and tonumber(number) < tonumber(number_))
end

-- The last position that a stream has given away.
local function last_of(stream)
  if call('EXISTS', stream) == 0 then return '0-0' end
  local info = call('XINFO', 'STREAM', stream)
  for n = 1, #info, 2 do
    if info[n] == 'last-generated-id' then return info[n + 1] end
  end
end

-- key: look at the key. No writes.
-- KEYS key, outbox   Reply: "status generation void run_id" or '', and the last position of the outbox
register('key', {'no-writes'}, function(keys, args)
  return {call('GET', keys[1]) or '', last_of(keys[2])}
end)

-- size: look at the outbox. No writes.
-- KEYS outbox, overflow, dead letters   Reply: events, the first of them or '', overflow, dead letters
register('size', {'no-writes'}, function(keys, args)
  local first = call('XRANGE', keys[1], '-', '+', 'COUNT', 1)[1]
  return {call('XLEN', keys[1]), first and first[2][2] or '', tonumber(call('GET', keys[2]) or 0), call('XLEN', keys[3])}
end)

-- rearm: let the next event ask for a drain, if none follows a position.
-- One step, so that no event comes between the look and the flag, and then waits for the next beat.
-- KEYS outbox, nudged   ARGV position, ms before it may ask   Reply: 1 if none followed, else 0
register('rearm', {'allow-oom'}, function(keys, args)
  if #call('XRANGE', keys[1], '(' .. args[1], '+', 'COUNT', 1) > 0 then return 0 end
  if args[2] == '0' then call('DEL', keys[2]) else call('SET', keys[2], '1', 'PX', args[2]) end
  return 1
end)

-- trim: drop the entries up to a position.
-- One step, so that a push that arrives late knows that there were entries behind its position.
-- KEYS outbox, trimmed   ARGV position, the first one to keep   Reply: how many were dropped
register('trim', {'allow-oom'}, function(keys, args)
  if before(call('GET', keys[2]) or '0-0', args[1]) then call('SET', keys[2], args[1]) end
  return call('XTRIM', keys[1], 'MINID', args[2])
end)

-- put_back: append an entry that was set aside to the outbox again, under the generation of the key.
-- One step, so that a crash neither doubles the entry nor loses it.
-- KEYS key, outbox, dead letters   ARGV its position there   Reply: 1, or 0 if it is not there; "incomplete"
register('put_back', {}, function(keys, args)
  local key = read_key(keys[1])
  if not key or key.status ~= 'ok' then return 'incomplete' end
  local letter = call('XRANGE', keys[3], args[1], args[1])[1]
  if not letter then return 0 end
  for n = 1, #letter[2], 2 do
    if letter[2][n] == 'entry' then call('XADD', keys[2], key.id, 'e', letter[2][n + 1]) end
  end
  return call('XDEL', keys[3], args[1])
end)
