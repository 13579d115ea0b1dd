#!lua flags=allow-oom
-- The first command of every connection: a server that was restarted, restored or promoted may have lost counters.
-- It has another run_id than the one in the key then. Sent by its source, since such a server may know no function.
-- One step, so that it never undoes a sync that comes between the look and the write.
--
-- KEYS[1] key ("status generation void run_id", see key.lua)   Reply: 1 if the key was changed, else 0

local text = redis.call('GET', KEYS[1])
local generation, void, run_id = (text or ''):match('^%a+ (%d+) (%-?%d+) (%S+)$')
if not generation or run_id == '-' then return 0 end
if run_id == (redis.call('INFO', 'server'):match('run_id:(%w+)') or 'unknown') then return 0 end
redis.call('SET', KEYS[1], 'lost ' .. generation .. ' ' .. void .. ' -')
return 1
