-- The steps of a login. Each is one function, so that what is looked at and what is changed are one thing.
--
-- KEYS[1] key   KEYS[2] outbox   KEYS[3] nudged, a flag: a drain is on its way   KEYS[4] overflow, a number   KEYS[5…] counters
-- ARGV[1] generation that the caller knows   ARGV[2] time, '' for the server's   ARGV[3] token   ARGV[4] lease in ms
-- ARGV[5] event body, '' for none            ARGV[6] events that the outbox holds at most   ARGV[7] bytes that it does
-- ARGV[8] flags of the step                  ARGV[9…] the rule of each counter
--
-- Reply: "verdict|locked until|limit|newly locked|nudge due|repeats|failures of each counter|…", or, with nothing changed,
-- "incomplete", or "generation N" where the caller knows another one.

local FIRST_KEY, FIRST_RULE = 5, 9
local ALLOWED, LOCKED_OUT, BUSY = 0, 1, 2

local function answer(verdict, longest, limit, newly, nudge, repeats, all, number)
  local text
  if verdict + newly + nudge == 0 then text = '0|0|0|0|0|0'  -- As most are.
  else text = verdict .. '|' .. longest .. '|' .. limit .. '|' .. newly .. '|' .. nudge .. '|' .. repeats end
  for n = 1, number do text = text .. '|' .. all[n].f end
  return text
end

local function any_mine(all)
  for _, c in ipairs(all) do
    if c.mine then return true end
  end
  return false
end

-- Give the reservation back.
local function give_back(c)
  if c.mine then c.gone[#c.gone + 1] = c.mine end
end
