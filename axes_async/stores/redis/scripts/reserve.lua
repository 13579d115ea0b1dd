-- Take one reservation on each counter, or none: locked anywhere wins over busy anywhere.
-- One step, since a limit that is looked at in one call and used in another is no limit.
--
-- Keys and arguments: common.lua. ARGV[7]: '1' if an attempt during a lockout starts its cool-off anew.
-- Reply: verdict (0 allowed, 1 locked, 2 busy)|locked until|nudge due|how many attempts were turned away by now (0 where
-- that is not worth telling)|what is told of each counter|…

-- One to ten, then each doubling: the rows of a flood grow with its logarithm.
local function worth_a_row(repeats)
  if repeats <= 10 then return true end
  while repeats > 10 do
    if repeats % 2 == 1 then return false end
    repeats = repeats / 2
  end
  return repeats == 10
end

local all, blocking, busy = counters(), nil, false
if not all then return COLD end

local function answer(verdict, nudge, repeats)
  local parts, taken = {verdict, verdict == 1 and int(locked_until(all)) or 0, nudge, repeats or 0}, 0
  if verdict == 0 and lease > 0 then taken = 1 end
  for n, c in ipairs(all) do parts[n + 4] = told(state(c), c.open + taken) end
  return reply(parts)
end

for _, c in ipairs(all) do
  if locked(c) then blocking = blocking or c
  elseif c.limit > 0 and standing(c) + c.open >= c.limit then busy = true end
end

if blocking then
  local states = {}
  if ARGV[7] == '1' then
    for _, c in ipairs(all) do
      if locked(c) and c.window > 0 then
        prolong(c)
        keep_alive(c, false)
        -- A flood prolongs its lockout with every attempt; once a second is often enough to tell the rows.
        if now - c.t >= 1000 then
          redis.call('HSET', c.key, 't', int(now))
          states[#states + 1] = state(c)
        end
      end
    end
  end
  local repeats = redis.call('HINCRBY', blocking.key, 'b', 1)
  local worth = worth_a_row(repeats)
  local nudge = (worth or #states > 0) and append(repeats, states) or 0
  return answer(1, nudge, worth and repeats)
end

if busy then return answer(2, 0) end

for _, c in ipairs(all) do
  forget(c, c.stale)
  if lease > 0 then
    redis.call('HSET', c.key, token, int(now + lease))
    keep_alive(c, true)
  end
end
return answer(0, 0)
