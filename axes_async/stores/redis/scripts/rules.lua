-- Rules, as counters/rules.py has them.
--
-- Text: "limit:window:bits", then ":r" if each failure expires alone, or ":failures/lockout,failures/lockout…" for tiers.
-- The window and the lockouts are in ms; a window of 0 ends by a reset alone; a limit of 0 never locks.

local rules, rules_kept = {}, 0

local function rule_of(text)
  local rule = rules[text]
  if rule then return rule end
  local limit, window, bits, kind = text:match('^(%d+):(%d+):(%d+):?(.*)$')
  rule = {limit = tonumber(limit), window = tonumber(window), rolling = kind == 'r', changes = {}}
  for flags = 0, 15 do rule.changes[flags] = ':' .. bits .. ':' .. flags .. ':' end
  for failures, lasts in kind:gmatch('(%d+)/(%d+)') do
    rule.tiers = rule.tiers or {}
    table.insert(rule.tiers, {failures = tonumber(failures), lasts = tonumber(lasts)})
  end
  -- A site has a few rules. One whose limits are computed may have more, so the table is emptied at some size.
  if rules_kept >= 1000 then rules, rules_kept = {}, 0 end
  rules[text], rules_kept = rule, rules_kept + 1
  return rule
end

-- The limit in force: that of the tier whose lockout is on, else of the next tier. Beyond the last one each failure locks.
local function limit_at(rule, failures, in_lockout)
  if not rule.tiers then return rule.limit end
  local reached = 0
  for _, tier in ipairs(rule.tiers) do
    if tier.failures > failures then
      return in_lockout and reached > 0 and reached or tier.failures
    end
    reached = tier.failures
  end
  return in_lockout and failures or failures + 1
end

-- How long reaching a limit locks, where there are tiers.
local function lockout(rule, limit)
  local lasts = 0
  for _, tier in ipairs(rule.tiers) do
    if tier.failures <= limit then lasts = tier.lasts end
  end
  return lasts
end
