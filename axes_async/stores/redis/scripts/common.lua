-- What every script shares. Prepended to each of them, so that one EVALSHA is one indivisible step.
--
-- KEYS[1]  outbox    stream of events: v1 = body (JSON), c = outcome ("repeats|counter|counter…")
-- KEYS[2]  nudged    string; while it is there, a drain is on its way and no nudge is due
-- KEYS[3]  overflow  string; events that the outbox had no room for
-- KEYS[4]  warmth    string; "warm:<database>" while the counters are complete, "cold:<generation>" while they are
--                    being rebuilt from that database's rows, absent in a store that was flushed or is new; a
--                    generation has eight hexadecimal digits, then when counters were lost, if they were
-- KEYS[5]  born      string; a name that this outbox was given with its first event, and loses when it is flushed
-- KEYS[6…] counters  one hash each: e epoch, f failures, g lifted, u expires at (0: never), b blocked attempts,
--                    l when a tier's lockout ends, w when each failure ends (in order, where each does so alone),
--                    t when a prolonged lockout was last told, k the generation in which it was taken from the rows,
--                    x epoch of the life that a login ended last, known for a day,
--                    r<token> = end of that reservation's lease. All times are epoch milliseconds.
-- ARGV[1]  now   ARGV[2] token   ARGV[3] lease in ms   ARGV[4] event body ("" for none)
-- ARGV[5]  events the outbox holds at most   ARGV[6] ms that a nudge is waited for   ARGV[7] a flag of the script
-- ARGV[8]  database that the counters are to be complete for ("": whatever is there is complete)
-- ARGV[9…] four for each counter: limit (0: never locks) or tiers ("failures/lockout in ms,…"), window in ms (0: until a
--          reset; below 0: each failure ends alone, so long after it was made), bits of its parameters, and what the rows
--          say of it: "" not asked for, "-" nothing, or "epoch:failures:lifted:expires at:locked until:ends"
--
-- In a cold store, a counter that is not of this generation and comes without what the rows say of it ends the script
-- with the error AXESCOLD, and with nothing changed: the caller asks the rows and comes again. Where counters were lost,
-- every script ends with "AXESLOST <generation> <ms left>" for a moment: what processes have heard, rows are to know first.

local FIRST, OPTIONS, EACH = 6, 9, 4
local SECONDS_KNOWN = 60
local ENDED_KNOWN = 86400000
local GRACE = 120  -- as in heard.py
local now, token, lease = tonumber(ARGV[1]), 'r' .. ARGV[2], tonumber(ARGV[3])

-- The generation of a cold store, nil in a warm one; then the milliseconds left in which nobody may use it, nil for none.
-- The first to find a store without warmth begins a generation.
local function generation()
  if ARGV[8] == '' then return nil end
  local warmth = redis.call('GET', KEYS[4])
  if warmth == 'warm:' .. ARGV[8] then return nil end
  local time = redis.call('TIME')
  time = time[1] * 1000 + math.floor(time[2] / 1000)
  if not warmth or warmth:sub(1, 5) ~= 'cold:' then
    local lost_at = warmth and '' or string.format('%.0f', time)
    warmth = 'cold:' .. redis.sha1hex(ARGV[1] .. ARGV[2] .. ARGV[4]):sub(1, 8) .. lost_at
    redis.call('SET', KEYS[4], warmth)
  end
  local left = (tonumber(warmth:sub(14)) or 0) + GRACE - time
  return warmth:sub(6), left > 0 and left <= GRACE and left or nil
end

-- Have the counter count nothing any more; its reservations stay.
local function start_over(c)
  for _, name in ipairs({'e', 'f', 'g', 'u', 'l', 'b', 't'}) do c[name] = 0; c.stale[#c.stale + 1] = name end
  if c.ends then c.ends = nil; c.stale[#c.stale + 1] = 'w' end
end

local function int(n) return string.format('%.0f', n) end
local function standing(c) return math.max(0, c.f - c.g) end
local function locked(c) return c.limit > 0 and standing(c) >= c.limit end

-- The times in a text like "1,2,3".
local function times(text)
  local all = {}
  for time in text:gmatch('%d+') do all[#all + 1] = tonumber(time) end
  return all
end

-- The limit of tiers that is in force: in a lockout the one that was reached, else the next one. Beyond the last tier,
-- each failure reaches one.
local function limit_in_force(c)
  local count, reached = standing(c), 0
  for _, tier in ipairs(c.tiers) do
    if tier.failures > count then
      return (c.l > now and reached > 0) and reached or tier.failures
    end
    reached = tier.failures
  end
  return c.l > now and count or count + 1
end

-- How long reaching the limit in force locks.
local function lockout(c)
  local lasts = 0
  for _, tier in ipairs(c.tiers) do
    if tier.failures <= c.limit then lasts = tier.lasts end
  end
  return lasts
end

-- Leave out what has ended by now of a counter whose failures end alone or which has tiers; others have nothing to settle.
local function settle(c)
  if c.rolling and not c.ends and standing(c) > 0 then  -- It has been counted under another rule so far.
    c.ends = {}
    for n = 1, standing(c) do c.ends[n] = c.u > 0 and c.u or now + c.window end
  end
  if c.ends then
    local open = {}
    for _, time in ipairs(c.ends) do
      if time > now then open[#open + 1] = time end
    end
    c.ends, c.g = open, math.max(c.g, c.f - #open)
  end
  if c.tiers then c.limit = limit_in_force(c) end
end

-- The counter at KEYS[i], with what has expired left out: {key, limit, tiers, window, rolling, bits, seed, known to the
-- rows' generation k, e, f, g, u, l, ends, b, t, open, mine, stale}
local function load_counter(i)
  local at = OPTIONS + (i - FIRST) * EACH
  local c = {key = KEYS[i], limit = tonumber(ARGV[at]), window = tonumber(ARGV[at + 1]), bits = ARGV[at + 2],
             seed = ARGV[at + 3], e = 0, f = 0, g = 0, u = 0, l = 0, b = 0, t = 0, x = 0, open = 0, mine = false,
             stale = {}}
  if c.window < 0 then c.rolling, c.window = true, -c.window end
  if not c.limit then
    c.tiers = {}
    for failures, lasts in ARGV[at]:gmatch('(%d+)/(%d+)') do
      c.tiers[#c.tiers + 1] = {failures = tonumber(failures), lasts = tonumber(lasts)}
    end
  end
  local raw = redis.call('HGETALL', KEYS[i])
  for n = 1, #raw, 2 do
    local name, value = raw[n], raw[n + 1]
    if name == 'k' then c.k = value
    elseif name == 'w' then c.ends = times(value)
    elseif name:byte() ~= 114 then c[name] = tonumber(value)
    elseif tonumber(value) <= now then c.stale[#c.stale + 1] = name
    elseif name == token then c.mine = true
    else c.open = c.open + 1 end
  end
  if c.e > 0 and c.u > 0 and c.u <= now then start_over(c) end
  if c.tiers or c.rolling or c.ends then settle(c) end
  return c
end

-- Write what failures have made of the counter; where failures end alone, that lifts some, too.
local function save(c)
  redis.call('HSET', c.key, 'e', int(c.e), 'f', int(c.f), 'u', int(c.u))
  if c.l > now then redis.call('HSET', c.key, 'l', int(c.l)) end
  if c.ends then
    local texts = {}
    for n, time in ipairs(c.ends) do texts[n] = int(time) end
    redis.call('HSET', c.key, 'g', int(c.g), 'w', table.concat(texts, ','))
  end
end

-- Have the lockout of the counter begin anew.
local function prolong(c)
  c.u = now + c.window
  if c.tiers then
    c.l = now + lockout(c)
    c.u = c.l + c.window
  elseif c.ends then
    for n = 1, #c.ends do c.ends[n] = c.u end
  end
  save(c)
end

-- A key lives as long as its count or its last reservation, whichever is longer.
local function keep_alive(c, reserved)
  local ttl = reserved and lease or 0
  if c.e > 0 then
    if c.u == 0 then redis.call('PERSIST', c.key) return end
    ttl = math.max(ttl, c.u - now)
  end
  if ttl > 0 then redis.call('PEXPIRE', c.key, ttl) end
end

-- Join the counter with what the rows say of it. Of one life, the store knows the failures (the rows may be behind) and
-- the rows know what was taken back (or counted) elsewhere; of two lives, the younger one stands.
local function join(c, gen)
  local e, f, g, u, l, ends = c.seed:match('^(%d+):(%d+):(-?%d+):(%d+):(%d+):([%d,]*)$')
  if e then
    e, f, g, u, l = tonumber(e), tonumber(f), tonumber(g), tonumber(u), tonumber(l)
    ends = ends ~= '' and times(ends) or nil
    if e > 0 and e <= c.x then -- A login has ended that life, and the rows have not heard of it yet.
    elseif c.e == 0 or (e > c.e and e > 0) then
      c.e, c.f, c.g, c.u, c.l, c.ends = (e > 0 and e or now), f, g, u, l, ends
    elseif c.e == e or e == 0 then
      if ends then  -- Behind those that the rows know, the failures that only the store has seen yet.
        for n = math.max(1, #(c.ends or {}) - math.max(0, c.f - f) + 1), #(c.ends or {}) do ends[#ends + 1] = c.ends[n] end
        table.sort(ends)
        c.ends = ends
      end
      c.l = g > c.g and l or math.max(c.l, l)
      c.f, c.g = math.max(c.f, f), g
      c.u = (c.u == 0 or u == 0) and 0 or math.max(c.u, u)
    end
    if c.e > 0 then
      redis.call('HDEL', c.key, 'l', 'w')
      settle(c)
      redis.call('HSET', c.key, 'g', int(c.g))
      save(c)
      c.stale = {}
    end
  end
  redis.call('HSET', c.key, 'k', gen)
  if c.e > 0 then keep_alive(c, c.open > 0 or c.mine)
  else redis.call('PEXPIRE', c.key, math.max(lease, SECONDS_KNOWN * 1000)) end
  c.k = gen
end

local COLD = {err = 'AXESCOLD The rows have to be asked first.'}

-- Every counter; nil if the store is cold and the rows have to be asked first, or told.
local function counters()
  local all, gen, left = {}, generation()
  if left then
    COLD.err = 'AXESLOST ' .. gen .. ' ' .. int(left)
    return nil
  end
  for i = FIRST, #KEYS do
    local c = load_counter(i)
    if gen and c.k ~= gen and c.seed == '' then return nil end
    all[#all + 1] = c
  end
  if gen then
    for _, c in ipairs(all) do
      if c.k ~= gen then join(c, gen) end
    end
  end
  return all
end

local function any_mine(all)
  for _, c in ipairs(all) do
    if c.mine then return true end
  end
  return false
end

-- In portions, since unpack has a limit and a high limit may leave many stale reservations.
local function forget(c, names)
  for from = 1, #names, 1000 do
    redis.call('HDEL', c.key, unpack(names, from, math.min(from + 999, #names)))
  end
end

-- The wire form of a counter, as CounterState.parse reads it; a digest is the last 22 bytes of its key, and ends are told
-- by their distance from the epoch (0: never). Flags: 1 cleared, 2 each failure ends alone, 4 and all at the same time.
local function state(c, cleared)
  local lasts = c.u == 0 and 0 or c.u == c.e and 1 or c.u - c.e
  local flags, lock = cleared and 1 or 0, c.l > now and c.l - c.e or nil
  if c.ends and #c.ends > 0 then flags = flags + ((#c.ends > 1 and c.ends[1] == c.ends[#c.ends]) and 6 or 2) end
  local text = string.format('%s:%s:%.0f:%.0f:%.0f:%.0f:%.0f', c.key:sub(-22), c.bits, c.e, c.f, c.g, lasts, c.limit)
  if lock then return string.format('%s:%d:%.0f', text, flags, lock) end
  return flags > 0 and text .. ':' .. flags or text
end

-- What the caller is told of a counter, to know when the store is away: its wire form, and how many are looked at.
local function told(text, open) return text .. ':' .. open end

-- A reply in one text, which costs the caller less to read than a list.
local function reply(parts) return table.concat(parts, '|') end

-- Append the event, if there is room or it must be taken; returns 1 if a nudge is due.
local function append(repeats, states, always)
  if ARGV[4] == '' then return 0 end
  local waiting = redis.call('XLEN', KEYS[1])
  if waiting >= tonumber(ARGV[5]) and not always then
    redis.call('INCR', KEYS[3])
    return 0
  end
  if waiting == 0 then redis.call('SET', KEYS[5], redis.sha1hex(ARGV[4]), 'NX') end
  table.insert(states, 1, int(repeats))
  redis.call('XADD', KEYS[1], '*', 'v1', ARGV[4], 'c', table.concat(states, '|'))
  return redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[6]) and 1 or 0
end

-- When the longest lockout among the counters ends: -1 never, 0 none.
local function locked_until(all)
  local longest = 0
  for _, c in ipairs(all) do
    if locked(c) then
      local ends = c.tiers and c.l or c.ends and c.ends[#c.ends - c.limit + 1] or c.u
      if ends == 0 then return -1 end
      longest = math.max(longest, ends)
    end
  end
  return longest
end
