-- What every script shares. Prepended to each of them, so that one EVALSHA is one indivisible step.
--
-- KEYS[1]  outbox    stream of events: v1 = body (JSON), c = outcome ("repeats|counter|counter…")
-- KEYS[2]  nudged    string; while it is there, a drain is on its way and no nudge is due
-- KEYS[3]  overflow  string; events that the outbox had no room for
-- KEYS[4…] counters  one hash each: e epoch, f failures, g lifted, u expires at (0: never), b blocked attempts,
--                    t when a prolonged lockout was last told, r<token> = end of that reservation's lease.
--                    All times are epoch milliseconds.
-- ARGV[1]  now   ARGV[2] token   ARGV[3] lease in ms   ARGV[4] event body ("" for none)
-- ARGV[5]  events the outbox holds at most   ARGV[6] ms that a nudge is waited for   ARGV[7] a flag of the script
-- ARGV[8…] three for each counter: limit (0: never locks), window in ms (0: until a reset), bits of its parameters

local FIRST, OPTIONS = 4, 8
local now, token, lease = tonumber(ARGV[1]), 'r' .. ARGV[2], tonumber(ARGV[3])

-- Have the counter count nothing any more; its reservations stay.
local function start_over(c)
  for _, name in ipairs({'e', 'f', 'g', 'u', 'b', 't'}) do c[name] = 0; c.stale[#c.stale + 1] = name end
end

-- The counter at KEYS[i], with what has expired left out: {key, limit, window, bits, e, f, g, u, b, open, mine, stale}
local function load_counter(i)
  local at = OPTIONS + (i - FIRST) * 3
  local c = {key = KEYS[i], limit = tonumber(ARGV[at]), window = tonumber(ARGV[at + 1]), bits = ARGV[at + 2],
             e = 0, f = 0, g = 0, u = 0, b = 0, t = 0, open = 0, mine = false, stale = {}}
  local raw = redis.call('HGETALL', KEYS[i])
  for n = 1, #raw, 2 do
    local name, value = raw[n], tonumber(raw[n + 1])
    if name:byte() ~= 114 then c[name] = value
    elseif value <= now then c.stale[#c.stale + 1] = name
    elseif name == token then c.mine = true
    else c.open = c.open + 1 end
  end
  if c.f > 0 and c.u > 0 and c.u <= now then
    start_over(c)
  end
  return c
end

local function counters()
  local all = {}
  for i = FIRST, #KEYS do all[#all + 1] = load_counter(i) end
  return all
end

local function standing(c) return math.max(0, c.f - c.g) end
local function locked(c) return c.limit > 0 and standing(c) >= c.limit end

-- In portions, since unpack has a limit and a high limit may leave many stale reservations.
local function forget(c, names)
  for from = 1, #names, 1000 do
    redis.call('HDEL', c.key, unpack(names, from, math.min(from + 999, #names)))
  end
end

-- A key lives as long as its count or its last reservation, whichever is longer.
local function keep_alive(c, reserved)
  local ttl = reserved and lease or 0
  if c.f > 0 then
    if c.u == 0 then redis.call('PERSIST', c.key) return end
    ttl = math.max(ttl, c.u - now)
  end
  if ttl > 0 then redis.call('PEXPIRE', c.key, ttl) end
end

local function int(n) return string.format('%.0f', n) end

-- The wire form of a counter, as CounterState.parse reads it; a digest is the last 22 bytes of its key.
local function state(c, cleared)
  return table.concat({string.sub(c.key, -22), c.bits, int(c.e), int(c.f), int(c.g), int(c.u), int(c.limit),
                       cleared and '1' or '0'}, ':')
end

-- Append the event, if there is room or it must be taken; returns 1 if a nudge is due.
local function append(repeats, states, always)
  if ARGV[4] == '' then return 0 end
  if not always and redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[5]) then
    redis.call('INCR', KEYS[3])
    return 0
  end
  table.insert(states, 1, int(repeats))
  redis.call('XADD', KEYS[1], '*', 'v1', ARGV[4], 'c', table.concat(states, '|'))
  return redis.call('SET', KEYS[2], '1', 'NX', 'PX', ARGV[6]) and 1 or 0
end

-- When the longest lockout among the counters ends: -1 never, 0 none.
local function locked_until(all)
  local longest = 0
  for _, c in ipairs(all) do
    if locked(c) then
      if c.u == 0 then return -1 end
      longest = math.max(longest, c.u)
    end
  end
  return longest
end
