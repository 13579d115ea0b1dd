-- Look at the counters and change nothing.
--
-- Keys and arguments: common.lua.
-- Reply: {locked until, the wire form of each counter…}

local all = counters()
if not all then return COLD end
local reply = {int(locked_until(all))}
for _, c in ipairs(all) do reply[#reply + 1] = state(c) end
return reply
