-- Append an event that touches no counter.
--
-- Keys and arguments: common.lua, without counters. ARGV[7]: how many such attempts there were by then, and a
-- '!' behind it if a full outbox takes the event all the same.
-- Reply: {nudge due}

return {append(tonumber(ARGV[7]:match('%d+')), {}, ARGV[7]:sub(-1) == '!')}
