-- Begin a generation: every counter is taken from the rows again before it is used.
-- One step, so that a store that was flushed a moment ago is not taken for one that has everything.
--
-- KEYS[1] warmth   ARGV[1] eight hexadecimal digits   ARGV[2] '1' if counters may have been lost that the rows do not have
-- Reply: the new warmth

local warmth, lost_at = redis.call('GET', KEYS[1]), ''
if ARGV[2] == '1' or not warmth then
  local time = redis.call('TIME')
  lost_at = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
else
  lost_at = warmth:match('^cold:%x%x%x%x%x%x%x%x(%d+)$') or ''
end
warmth = 'cold:' .. ARGV[1] .. lost_at
redis.call('SET', KEYS[1], warmth)
return warmth
